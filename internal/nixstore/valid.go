package nixstore

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/celler/celler/nix"
)

const (
	opAddIndirectRoot    = 12
	opQueryAllValidPaths = 23
)

// AllValidPaths returns every path that the store has, sorted.
func (s *Store) AllValidPaths(ctx context.Context) ([]nix.StorePath, error) {
	var valid []nix.StorePath
	err := s.c.pipeline(ctx, 1, func(_ int, dst []byte) []byte {
		return appendUint64(dst, opQueryAllValidPaths)
	}, func(_ int, d *decoder) error {
		n := d.count("valid paths")
		valid = make([]nix.StorePath, 0, min(n, preallocate))
		for range n {
			p := s.decodePath(d, "valid path", d.string("a valid path", maxPathString))
			if d.err != nil {
				return d.err
			}
			valid = append(valid, p)
		}
		return d.err
	})
	if err != nil {
		return nil, fmt.Errorf("query all valid paths: %w", err)
	}
	sortPaths(valid)
	return valid, nil
}

// AddIndirectRoot keeps the store path that the symlink link leads to from being
// collected as garbage for as long as the symlink is there.
func (s *Store) AddIndirectRoot(ctx context.Context, link string) error {
	if !filepath.IsAbs(link) {
		return fmt.Errorf("add indirect root %s: expected an absolute path", link)
	}
	err := s.c.pipeline(ctx, 1, func(_ int, dst []byte) []byte {
		return appendString(appendUint64(dst, opAddIndirectRoot), link)
	}, func(_ int, d *decoder) error {
		d.uint64() // always 1
		return d.err
	})
	if err != nil {
		return fmt.Errorf("add indirect root %s: %w", link, err)
	}
	return nil
}

// RealStoreDir is where the files of the store are, which need not be the directory
// that its paths name.
func (s *Store) RealStoreDir() string { return s.o.RealStoreDir }
