package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// Cache returns the cache called name, or ErrNoCache.
func (c *Catalog) Cache(ctx context.Context, name CacheName) (Cache, error) {
	doing := "look up the cache"
	t, err := c.localTenant(name)
	if t == nil && err == nil {
		if err := c.catchUp(ctx, doing); err != nil {
			return Cache{}, err
		}
		t, err = c.localTenant(name)
	}
	if err != nil {
		return Cache{}, fmt.Errorf("%s: %w", doing, err)
	}
	if t == nil {
		return Cache{}, noCache(name)
	}
	cache := t.cache // what it points to is shared with other callers
	cache.UpstreamKeyNames = slices.Clone(cache.UpstreamKeyNames)
	if r := cache.Retention; r != nil {
		cache.Retention = new(*r)
	}
	return cache, nil
}

// Caches returns all caches in the order of their names.
func (c *Catalog) Caches(ctx context.Context) ([]Cache, error) {
	if err := c.catchUp(ctx, "list caches"); err != nil {
		return nil, err
	}
	var caches []Cache
	for row, err := range c.db.Scan([]byte{keyspace.CachePrefix}, nil) {
		if err != nil {
			return nil, fmt.Errorf("list caches: %w", err)
		}
		cache, err := keyspace.DecodeCache(row.Key, row.Value)
		if err != nil {
			return nil, fmt.Errorf("list caches: %w", err)
		}
		caches = append(caches, cache)
	}
	return caches, nil
}

// HadCache reports whether a cache has ever been created, as far as the log was followed.
func (c *Catalog) HadCache() (bool, error) {
	next, err := counter(c.db, keyspace.NextCacheID)
	return next > keyspace.FirstCount, err
}

// CreateCache creates a cache, or fails with ErrCacheExists. ID and Created are
// filled in; without a SecretKey it gets a new one named after the cache.
func (c *Catalog) CreateCache(ctx context.Context, cache Cache) (Seq, error) {
	if err := cache.Name.Valid(); err != nil {
		return 0, invalid(err)
	}
	if cache.SecretKey == "" {
		key, err := nix.GenerateSecretKey(string(cache.Name), c.rand)
		if err != nil {
			return 0, fmt.Errorf("create cache %q: %w", string(cache.Name), err)
		}
		cache.SecretKey = key.Secret()
	}
	if cache.StoreDir == "" {
		cache.StoreDir = nix.DefaultStoreDir
	}
	cache.ID, cache.Created = keyspace.FirstCount, c.timestamp()
	if err := checkCache(&cache); err != nil {
		return 0, err
	}
	key := keyspace.AppendCacheKey(nil, cache.Name)
	return c.wal.Commit(ctx, wal.Op{Name: "create cache", About: string(cache.Name), Cost: 1 << 10, Build: func(v wal.View) ([]wal.Entry, error) {
		if _, exists, err := v.Get(key); exists || err != nil {
			return nil, errors.Join(err, cacheExists(exists, cache.Name))
		}
		id, err := counter(v, keyspace.NextCacheID)
		if err != nil {
			return nil, err
		}
		if id == math.MaxUint32 {
			return nil, fmt.Errorf("create cache %q: all %d cache ids were given", string(cache.Name), id)
		}
		row := cache
		row.ID = keyspace.CacheID(id)
		return []wal.Entry{
			set(key, keyspace.AppendCache(nil, &row)),
			set(keyspace.AppendCounterKey(nil, keyspace.NextCacheID), keyspace.AppendCount(nil, id+1)),
			set(keyspace.AppendTotalsKey(nil, row.ID), keyspace.AppendTotals(nil, &Totals{})),
		}, nil
	}})
}

func cacheExists(exists bool, name CacheName) error {
	if !exists {
		return nil
	}
	return fmt.Errorf("cache %q: %w", string(name), ErrCacheExists)
}

// ConfigureCache replaces the row of a cache by what change makes of it, or fails
// with ErrNoCache or the error of change. change may be called several times and
// must depend on its argument alone; it cannot change ID, Name and Created.
func (c *Catalog) ConfigureCache(ctx context.Context, name CacheName, change func(*Cache) error) (Seq, error) {
	if err := name.Valid(); err != nil {
		return 0, invalid(err)
	}
	key := keyspace.AppendCacheKey(nil, name)
	return c.wal.Commit(ctx, wal.Op{Name: "configure cache", About: string(name), Cost: 1 << 10, Build: func(v wal.View) ([]wal.Entry, error) {
		value, ok, err := v.Get(key)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, noCache(name)
		}
		old, err := keyspace.DecodeCache(key, value)
		if err != nil {
			return nil, err
		}
		row := old
		row.UpstreamKeyNames = slices.Clone(old.UpstreamKeyNames)
		if err := change(&row); err != nil {
			return nil, err
		}
		row.ID, row.Name, row.Created = old.ID, old.Name, old.Created
		if err := checkCache(&row); err != nil {
			return nil, err
		}
		changed := keyspace.AppendCache(nil, &row)
		if bytes.Equal(changed, value) {
			return nil, nil
		}
		return []wal.Entry{set(key, changed)}, nil
	}})
}

// checkCache refuses what no other node could read or sign with.
func checkCache(cache *Cache) error {
	if err := cache.Valid(); err != nil {
		return invalid(err)
	}
	if _, err := nix.ParseSecretKey(cache.SecretKey); err != nil {
		return invalid(err)
	}
	return nil
}
