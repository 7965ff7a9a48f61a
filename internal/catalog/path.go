package catalog

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// MaxPathsPage bounds what Paths returns at once.
const MaxPathsPage = 1000

// Path returns a path of a cache, signed by the key the cache has now, or
// ErrNoCache or ErrNoPath.
func (c *Catalog) Path(ctx context.Context, cache CacheName, hashPart nix.HashPart) (Path, error) {
	p, t, ok, err := c.localPath(cache, hashPart)
	if !ok && err == nil {
		if err = c.catchUp(ctx, "look up the path"); err == nil {
			p, t, ok, err = c.localPath(cache, hashPart)
		}
	}
	switch {
	case err != nil:
		return Path{}, err
	case t == nil:
		return Path{}, noCache(cache)
	case !ok:
		return Path{}, noPath(cache, hashPart)
	}
	return p, nil
}

func noPath(cache CacheName, hashPart nix.HashPart) error {
	return fmt.Errorf("path %v in cache %q: %w", hashPart, string(cache), ErrNoPath)
}

// localPath looks in the index only. t is nil if there is no such cache.
func (c *Catalog) localPath(cache CacheName, hashPart nix.HashPart) (p Path, t *tenant, ok bool, err error) {
	if t, err = c.localTenant(cache); t == nil || err != nil {
		return Path{}, nil, false, err
	}
	var buf [1 + 4 + len(hashPart)]byte
	key := keyspace.AppendPathKey(buf[:0], t.cache.ID, hashPart)
	ok, err = c.db.Lookup(key, func(value []byte) error {
		p, err = keyspace.DecodePath(key, value)
		return err
	})
	if !ok || err != nil {
		return Path{}, t, false, err
	}
	return p, t, true, c.finish(t, &p)
}

// finish fills in what is not in the row, and renews the signature if need be.
func (c *Catalog) finish(t *tenant, p *Path) error {
	p.Cache = t.cache.Name
	if p.SigKey == t.keyID {
		return nil
	}
	return c.resign(t, p)
}

// Paths returns the paths of a cache in the order of their hash parts, from the
// first one after after on (nil: from the beginning), at most limit of them and
// never more than MaxPathsPage.
func (c *Catalog) Paths(ctx context.Context, cache CacheName, after *nix.HashPart, limit int) ([]Path, error) {
	// Each page is as fresh as anything acknowledged before, not the first alone:
	// another node, which is further, may have answered that.
	if err := c.catchUp(ctx, "list paths"); err != nil {
		return nil, err
	}
	t, err := c.localTenant(cache)
	if err != nil {
		return nil, fmt.Errorf("list paths: %w", err)
	}
	if t == nil {
		return nil, noCache(cache)
	}
	limit = min(limit, MaxPathsPage)
	var paths []Path
	var from []byte
	if after != nil {
		from = keyspace.AppendPathKey(nil, t.cache.ID, *after)
	}
	for row, err := range c.db.Scan(keyspace.AppendPathPrefix(nil, t.cache.ID), from) {
		if len(paths) >= limit {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list paths: %w", err)
		}
		p, err := keyspace.DecodePath(row.Key, row.Value)
		if err == nil {
			err = c.finish(t, &p)
		}
		if err != nil {
			return nil, fmt.Errorf("list paths: %w", err)
		}
		paths = append(paths, p)
	}
	return paths, nil
}

// currentTenant catches up and returns a cache as it is then, or ErrNoCache.
func (c *Catalog) currentTenant(ctx context.Context, doing string, cache CacheName) (*tenant, error) {
	if err := c.catchUp(ctx, doing); err != nil {
		return nil, err
	}
	t, err := c.localTenant(cache)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if t == nil {
		return nil, noCache(cache)
	}
	return t, nil
}

// MissingPaths returns those of hashParts that the cache has no path for, sorted
// and each once, or ErrNoCache. It answers a million of them.
//
// Unlike a narinfo, a hit is not taken from the index as it is: who hears that
// nothing is missing pushes nothing, and the path may just have been withdrawn.
func (c *Catalog) MissingPaths(ctx context.Context, cache CacheName, hashParts []nix.HashPart) ([]nix.HashPart, error) {
	const doing = "look for missing paths"
	ask := slices.Clone(hashParts)
	slices.SortFunc(ask, func(a, b nix.HashPart) int { return bytes.Compare(a[:], b[:]) })
	ask = slices.Compact(ask)
	t, err := c.currentTenant(ctx, doing, cache)
	if err != nil {
		return nil, err
	}
	missing := ask[:0] // in place: a million hash parts are 20 MB
	key := func(dst []byte, i int) []byte { return keyspace.AppendPathKey(dst, t.cache.ID, ask[i]) }
	for i, err := range c.db.Absent(keyspace.AppendPathPrefix(nil, t.cache.ID), len(ask), key) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		missing = append(missing, ask[i])
	}
	return missing, nil
}
