package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// DestroyCache removes a cache, or fails with ErrNoCache. When it returns nil the
// cache is gone and its name may be used again. Its path rows are removed before
// that, too, unless ctx ends or the log fails meanwhile; then Sweep does it.
func (c *Catalog) DestroyCache(ctx context.Context, name CacheName) (Seq, error) {
	if err := name.Valid(); err != nil {
		return 0, invalid(err)
	}
	key, at := keyspace.AppendCacheKey(nil, name), c.timestamp()
	seq, err := c.wal.Commit(ctx, wal.Op{Name: "destroy cache", About: string(name), Cost: 256, Build: func(v wal.View) ([]wal.Entry, error) {
		cache, ok, err := read(v, key, keyspace.DecodeCache)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, noCache(name)
		}
		b, err := newBooks(v)
		if err != nil {
			return nil, err
		}
		if err := b.destroy(&cache, at); err != nil {
			return nil, err
		}
		return b.close()
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

// destroy makes a cache unreachable and takes what it had out of the totals of the
// store. What paths its NARs have left is counted as its rows are swept.
func (b *books) destroy(cache *Cache, at time.Time) error {
	b.drop(keyspace.AppendCacheKey(nil, cache.Name))
	b.put(keyspace.AppendDestroyedKey(nil, cache.ID), keyspace.AppendDestroyed(nil, &keyspace.Destroyed{Name: cache.Name, At: at}))
	key := keyspace.AppendTotalsKey(nil, cache.ID)
	t, counted, err := read(b.view, key, keyspace.DecodeTotals)
	if err != nil || !counted {
		return err
	}
	b.drop(key)
	b.add(Totals{Paths: -t.Paths, NarBytes: -t.NarBytes, ServedBytes: -t.ServedBytes})
	b.grow(Growth{Day: b.day, Cache: cache.ID, RemovedPaths: t.Paths, RemovedBytes: t.NarBytes})
	return nil
}

// buildingDays is for how long a cache may be put together aside before it is taken
// for forgotten.
const buildingDays = 3

// Sweep removes what destroyed caches left behind.
func (c *Catalog) Sweep(ctx context.Context) error {
	day, err := counter(c.db, keyspace.OpenDay)
	if err != nil {
		return err
	}
	var ids []keyspace.CacheID
	for row, err := range c.db.Scan([]byte{keyspace.DestroyedPrefix}, nil) {
		var mark keyspace.Destroyed
		if err == nil {
			mark, err = keyspace.DecodeDestroyed(row.Key, row.Value)
		}
		if err != nil {
			return fmt.Errorf("sweep destroyed caches: %w", err)
		}
		if mark.Building == 0 || day > mark.Building+buildingDays {
			ids = append(ids, mark.ID)
		}
	}
	for _, id := range ids {
		if err := c.sweep(ctx, id); err != nil {
			return fmt.Errorf("sweep destroyed cache %d: %w", id, err)
		}
	}
	return nil
}

// sweep removes the rows of one destroyed cache, and its marker with the last of
// them. Nothing can add paths to it any more; a cache that is being restored is marked
// as destroyed first.
func (c *Catalog) sweep(ctx context.Context, id keyspace.CacheID) error {
	mark := keyspace.AppendDestroyedKey(nil, id)
	for {
		_, err := c.wal.Commit(ctx, wal.Op{Name: "sweep destroyed cache", Cost: opPaths * pathCost, Build: func(v wal.View) ([]wal.Entry, error) {
			row, ok, err := read(v, mark, keyspace.DecodeDestroyed)
			if !ok || err != nil {
				return nil, err // somebody else was faster
			}
			return sweepSome(v, row)
		}})
		if err != nil {
			return err
		}
		if _, more, err := c.db.Get(mark); !more || err != nil {
			return err
		}
	}
}

func sweepSome(v wal.View, mark keyspace.Destroyed) ([]wal.Entry, error) {
	b, err := newBooks(v)
	if err != nil {
		return nil, err
	}
	if mark.Building != 0 {
		mark.Building = 0
		b.put(keyspace.AppendDestroyedKey(nil, mark.ID), keyspace.AppendDestroyed(nil, &mark))
	}
	n := 0
	for row, err := range v.Scan(keyspace.AppendPathPrefix(nil, mark.ID), nil) {
		if err != nil {
			return nil, err
		}
		p, err := keyspace.DecodePath(row.Key, row.Value)
		if err != nil {
			return nil, err
		}
		b.drop(row.Key)
		if err := b.unname(&p, purgeNot); err != nil {
			return nil, err
		}
		if n++; n == opPaths {
			return b.close()
		}
	}
	more, err := b.dropSides(mark.ID, opPaths-n)
	if err != nil {
		return nil, err
	}
	if more {
		return b.close()
	}
	b.dropAll(keyspace.AppendUploadPrefix(nil, mark.ID))
	b.drop(keyspace.AppendDestroyedKey(nil, mark.ID))
	b.drop(keyspace.AppendTotalsKey(nil, mark.ID))
	b.dropAll(keyspace.AppendLastUsePrefix(nil, mark.ID))
	b.dropAll(keyspace.AppendUseOrderPrefix(nil, mark.ID))
	b.dropAll(keyspace.AppendPinPrefix(nil, mark.ID))
	return b.close()
}
