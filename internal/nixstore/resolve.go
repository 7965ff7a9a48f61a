package nixstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/celler/celler/nix"
)

// maxSymlinks is how many symlinks may be followed, as in Linux.
const maxSymlinks = 40

// Resolve finds the store path that a path given by a person means: a store
// path, a file inside one, a symlink to one such as ./result, or anything that
// leads there through symlinks on the way, such as /run/current-system/sw/bin.
// It does not ask whether the store path is valid.
func (s *Store) Resolve(path string) (nix.StorePath, error) {
	p, err := s.resolve(path)
	if err != nil {
		return nix.StorePath{}, fmt.Errorf("resolve %s: %w", path, err)
	}
	return p, nil
}

func (s *Store) resolve(path string) (nix.StorePath, error) {
	if path == "" {
		return nix.StorePath{}, errors.New("empty path")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nix.StorePath{}, err
	}
	// Walk down component by component. Cleaning the whole path first would
	// resolve ".." before the symlinks in front of it; only Abs does so, and only
	// for what was typed.
	at, rest := "/", strings.TrimPrefix(abs, "/")
	for links := 0; ; {
		if base, inside := s.inStore(at, rest); inside {
			return nix.ParseStorePathBase(s.o.StoreDir, base)
		}
		if rest == "" && at == string(s.o.StoreDir) {
			return nix.StorePath{}, errors.New("is the store dir itself, not a path in it")
		}
		if rest == "" {
			return nix.StorePath{}, fmt.Errorf("leads to %s, which is not in the store dir %s", at, s.o.StoreDir)
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if err != nil {
			return nix.StorePath{}, err
		}
		if info.Mode().Type() != os.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxSymlinks {
			return nix.StorePath{}, fmt.Errorf("more than %d symlinks", maxSymlinks)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return nix.StorePath{}, err
		}
		if strings.HasPrefix(target, "/") {
			at = "/"
		}
		rest = strings.TrimPrefix(target, "/") + "/" + rest
	}
}

// inStore reports whether at/rest lies in the store dir by its letters alone,
// and gives the base name of the store path. That needs no file to exist: a
// store path is known by its name.
func (s *Store) inStore(at, rest string) (base string, inside bool) {
	path := strings.TrimSuffix(at, "/") + "/" + rest
	for _, dir := range [...]string{string(s.o.StoreDir), s.o.RealStoreDir} {
		below, ok := strings.CutPrefix(path, dir+"/")
		if !ok {
			continue
		}
		base, _, _ = strings.Cut(below, "/")
		if base != "" && base != "." && base != ".." {
			return base, true
		}
	}
	return "", false
}
