package catalog

import (
	"context"
	"fmt"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// sweepPaths is how many path rows of a destroyed cache one operation removes.
const sweepPaths = 4096

// DestroyCache removes a cache, or fails with ErrNoCache. When it returns nil the
// cache is gone and its name may be used again. Its path rows are removed before
// that, too, unless ctx ends or the log fails meanwhile; then Sweep does it.
func (c *Catalog) DestroyCache(ctx context.Context, name CacheName) (Seq, error) {
	if err := name.Valid(); err != nil {
		return 0, invalid(err)
	}
	key, at := keyspace.AppendCacheKey(nil, name), c.timestamp()
	seq, err := c.wal.Commit(ctx, wal.Op{Name: "destroy cache", Cost: 256, Build: func(v wal.View) ([]wal.Entry, error) {
		cache, ok, err := read(v, key, keyspace.DecodeCache)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, noCache(name)
		}
		mark := keyspace.Destroyed{ID: cache.ID, Name: name, At: at}
		return []wal.Entry{
			remove(key),
			set(keyspace.AppendDestroyedKey(nil, mark.ID), keyspace.AppendDestroyed(nil, &mark)),
		}, nil
	}})
	if err != nil {
		return 0, err
	}
	if err := c.Sweep(ctx); err != nil {
		// The cache is destroyed; that its rows still take up space is no failure
		// of what was asked for, and nobody could do anything about it.
		c.log.Info("paths of a destroyed cache are left for later", "cache", string(name), "err", err)
	}
	return seq, nil
}

// Sweep removes what destroyed caches left behind.
func (c *Catalog) Sweep(ctx context.Context) error {
	var ids []keyspace.CacheID
	for row, err := range c.db.Scan([]byte{keyspace.DestroyedPrefix}, nil) {
		var id keyspace.CacheID
		if err == nil {
			id, err = keyspace.DecodeDestroyedKey(row.Key)
		}
		if err != nil {
			return fmt.Errorf("sweep destroyed caches: %w", err)
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		if err := c.sweep(ctx, id); err != nil {
			return fmt.Errorf("sweep destroyed cache %d: %w", id, err)
		}
	}
	return nil
}

// sweep removes the paths of one destroyed cache, and its marker with the last of
// them. Nothing can add paths to it any more.
func (c *Catalog) sweep(ctx context.Context, id keyspace.CacheID) error {
	mark := keyspace.AppendDestroyedKey(nil, id)
	prefix := keyspace.AppendPathPrefix(nil, id)
	for {
		_, err := c.wal.Commit(ctx, wal.Op{Name: "sweep destroyed cache", Cost: sweepPaths * 32, Build: func(v wal.View) ([]wal.Entry, error) {
			if _, ok, err := v.Get(mark); !ok || err != nil {
				return nil, err // somebody else was faster
			}
			var entries []wal.Entry
			for row, err := range v.Scan(prefix, nil) {
				if err != nil {
					return nil, err
				}
				if entries = append(entries, remove(row.Key)); len(entries) == sweepPaths {
					return entries, nil
				}
			}
			return append(entries, remove(mark)), nil
		}})
		if err != nil {
			return err
		}
		if _, more, err := c.db.Get(mark); !more || err != nil {
			return err
		}
	}
}
