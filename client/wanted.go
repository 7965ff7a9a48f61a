package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
)

// wanted returns the paths to be pushed, references first, and how many there are in the
// closure, as far as is known.
func (p *push) wanted(ctx context.Context, roots []nix.StorePath, cache *Cache, pins pinsOf) ([]path, int, error) {
	// A temporary root holds its closure too, so the roots are enough.
	if err := p.store.AddTempRoot(ctx, roots...); err != nil {
		return nil, 0, err
	}
	p.derivers = map[nix.StorePath]string{}
	if !p.each && !p.o.NoClosure && !p.o.Whole && (cache.Name == "" || cache.Closures) {
		wanted, n, err := p.survey(ctx, roots, cache, pins)
		if status, ok := errors.AsType[*StatusError](err); !ok || !status.Final() {
			return wanted, n, err
		}
		// The server answers no such questions. If something else is wrong we shall hear.
	}
	closure, err := p.closure(ctx, roots)
	if err != nil {
		return nil, 0, err
	}
	n := len(closure)
	if dir := nix.StoreDir(cache.StoreDir); dir != "" {
		for _, path := range closure {
			if path.storePath.Dir() != dir {
				return nil, 0, &StoreDirError{Cache: p.o.Cache, Path: path.storePath, Dir: dir}
			}
		}
	}
	closure = slices.DeleteFunc(closure, func(path path) bool {
		key := p.upstreamKey(&path, cache.UpstreamKeyNames, pins)
		if key != "" {
			p.outcome(-1, Outcome{Path: path.storePath, Kind: Upstream, NarSize: path.narSize, Key: key})
		}
		return key != ""
	})
	wanted, err := p.dropPresent(ctx, closure)
	return wanted, n, err
}

// StoreDirError reports a path of another store directory than the cache's: Nix would
// never ask for it there.
type StoreDirError struct {
	Cache string
	Path  nix.StorePath
	Dir   nix.StoreDir
}

func (e *StoreDirError) Error() string {
	return fmt.Sprintf("store path %s: cache %q holds paths of %s", e.Path, e.Cache, e.Dir)
}

// closure returns what is to be asked about one by one.
func (p *push) closure(ctx context.Context, roots []nix.StorePath) ([]path, error) {
	get := p.store.Closure
	if p.o.NoClosure {
		get = p.store.PathInfos
	}
	infos, err := get(ctx, roots)
	if err != nil {
		return nil, err
	}
	closure := make([]path, 0, len(infos))
	for i := range infos {
		closure = append(closure, newPathOf(&infos[i]))
		p.derivers[infos[i].StorePath] = infos[i].Deriver
	}
	return closure, nil
}

func (p *push) dropPresent(ctx context.Context, paths []path) ([]path, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	hashParts := make([]nix.HashPart, 0, len(paths))
	for _, path := range paths {
		hashParts = append(hashParts, path.storePath.HashPart())
	}
	missing, err := p.c.MissingPaths(ctx, p.o.Cache, hashParts)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(paths, func(path path) bool {
		if missing[path.storePath.HashPart()] {
			return false
		}
		p.outcome(-1, Outcome{Path: path.storePath, Kind: Present, NarSize: path.narSize})
		return true
	}), nil
}

// newPathOf takes from the store's answer what an upload needs.
func newPathOf(info *nixstore.PathInfo) path {
	p := path{
		storePath: info.StorePath, narHash: info.NarHash, narSize: info.NarSize,
		references: info.References, deriver: info.Deriver, ca: info.CA,
	}
	for _, sig := range info.Sigs {
		p.sigs = append(p.sigs, sig.String())
	}
	return p
}

// errWithdrawn means that a path which was said to be there was gone when a commit referred
// to it. Pushed again, each path is asked about.
var errWithdrawn = errors.New("a path that was in the cache is gone")

// withdrawn reports whether one of those references that a cache lacks, by base names, was
// there a while ago.
func (p *push) withdrawn(absent map[string]bool) bool {
	if p.looked == nil || len(absent) == 0 {
		return false
	}
	return slices.ContainsFunc(p.looked.order, func(n *surveyed) bool {
		return n.state == surveyPresent && absent[n.path.storePath.Base()]
	})
}

// upstreamKey returns the upstream key by which a path is signed, if it is left out for that.
// A path that is to be pinned stays, or the pin would wait for it for ever.
func (p *push) upstreamKey(path *path, keys []string, pins pinsOf) string {
	if p.o.IgnoreUpstream || pins[path.storePath] != nil {
		return ""
	}
	for _, sig := range path.sigs {
		if name, _, ok := strings.Cut(sig, ":"); ok && slices.Contains(keys, name) {
			return name
		}
	}
	return ""
}
