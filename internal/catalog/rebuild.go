package catalog

import (
	"context"
	"fmt"
	"math"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// Rebuild is a cache that is put together aside, under a number of its own, because it
// is too much for one operation. [Catalog.Restore] makes it visible. If that does not
// happen for some store days, or once it was abandoned, its rows are swept.
type Rebuild struct {
	ID   keyspace.CacheID
	Name CacheName
	row  Cache
	cat  *Catalog
}

// BeginRebuild begins to put the cache of an earlier state together.
func (c *Catalog) BeginRebuild(ctx context.Context, then Cache) (*Rebuild, error) {
	if err := checkCache(&then); err != nil {
		return nil, err
	}
	r := &Rebuild{Name: then.Name, row: then, cat: c}
	at := c.timestamp()
	_, err := c.wal.Commit(ctx, wal.Op{Name: "begin restore", About: string(then.Name), Cost: 256, Build: func(v wal.View) ([]wal.Entry, error) {
		id, err := counter(v, keyspace.NextCacheID)
		if err != nil {
			return nil, err
		}
		if id == math.MaxUint32 {
			return nil, fmt.Errorf("restore cache %q: all %d cache ids were given", string(then.Name), id)
		}
		day, err := counter(v, keyspace.OpenDay)
		if err != nil {
			return nil, err
		}
		r.ID = keyspace.CacheID(id)
		mark := keyspace.Destroyed{Name: then.Name, At: at, Building: day}
		return []wal.Entry{
			set(keyspace.AppendCounterKey(nil, keyspace.NextCacheID), keyspace.AppendCount(nil, id+1)),
			set(keyspace.AppendDestroyedKey(nil, r.ID), keyspace.AppendDestroyed(nil, &mark)),
			set(keyspace.AppendTotalsKey(nil, r.ID), keyspace.AppendTotals(nil, &Totals{})),
		}, nil
	}})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// AddPaths adds paths of an earlier state, in as many operations as it takes. To add one
// that is there already changes nothing.
func (r *Rebuild) AddPaths(ctx context.Context, paths []Path) (all Restored, err error) {
	for len(paths) > 0 {
		n, cost := 0, 0
		for n < len(paths) && n < opPaths && (n == 0 || cost < opBytes) {
			cost += PathRestoreCost(&paths[n])
			n++
		}
		var done Restored
		part := paths[:n]
		all.Seq, err = r.cat.wal.Commit(ctx, wal.Op{Name: "restore paths", About: string(r.Name), Cost: cost, Build: func(v wal.View) ([]wal.Entry, error) {
			done = Restored{}
			return r.addPaths(v, part, &done)
		}})
		if err != nil {
			return all, err
		}
		all.Paths += done.Paths
		all.Lost = append(all.Lost, done.Lost...)
		paths = paths[n:]
	}
	return all, nil
}

func (r *Rebuild) addPaths(v wal.View, paths []Path, done *Restored) ([]wal.Entry, error) {
	if err := r.alive(v); err != nil {
		return nil, err
	}
	b, err := newBooks(v)
	if err != nil {
		return nil, err
	}
	b.mutants = r.cat.mutants
	in := restoring{books: b, done: done}
	sum := Totals{Cache: r.ID}
	for i := range paths {
		row, ok, err := in.sound(r.Name, &paths[i])
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		done.Paths++
		if _, there, err := v.Get(keyspace.AppendPathKey(nil, r.ID, row.StorePath.HashPart())); err != nil {
			return nil, err
		} else if there {
			continue
		}
		if err := b.setAside(r.ID, &row, &sum); err != nil {
			return nil, err
		}
	}
	b.add(sum)
	return b.close()
}

// AddPins adds pins of an earlier state, with their revisions.
func (r *Rebuild) AddPins(ctx context.Context, pins []Pin) error {
	for i := range pins {
		_, err := r.cat.wal.Commit(ctx, wal.Op{Name: "restore pin", About: string(r.Name), Cost: 128 + 192*len(pins[i].Revisions), Build: func(v wal.View) ([]wal.Entry, error) {
			if err := r.alive(v); err != nil {
				return nil, err
			}
			b := &books{view: v}
			b.writePin(r.ID, &pins[i])
			return b.entries, nil
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// alive reports an error once the rebuild was given up.
func (r *Rebuild) alive(v wal.View) error {
	mark, ok, err := read(v, keyspace.AppendDestroyedKey(nil, r.ID), keyspace.DecodeDestroyed)
	if err == nil && (!ok || mark.Building == 0) && !r.cat.mutants.noRebuildFence() {
		err = fmt.Errorf("cache %q is being restored for too long, and what was restored of it was swept: %w", string(r.Name), ErrConflict)
	}
	return err
}

// Abandon gives up; what was put together is removed.
func (r *Rebuild) Abandon(ctx context.Context) error {
	key := keyspace.AppendDestroyedKey(nil, r.ID)
	_, err := r.cat.wal.Commit(ctx, wal.Op{Name: "give up restore", About: string(r.Name), Cost: 64, Build: func(v wal.View) ([]wal.Entry, error) {
		mark, ok, err := read(v, key, keyspace.DecodeDestroyed)
		if !ok || err != nil || mark.Building == 0 {
			return nil, err
		}
		mark.Building = 0
		return []wal.Entry{set(key, keyspace.AppendDestroyed(nil, &mark))}, nil
	}})
	if err != nil {
		return err
	}
	return r.cat.sweep(ctx, r.ID)
}

// show puts a cache that was built aside in the place of the one that has its name.
func (r *restoring) show(c *CacheRestore, key, value []byte, there bool) error {
	b := r.books
	if err := c.Aside.alive(b.view); err != nil {
		return err
	}
	if there {
		now, err := keyspace.DecodeCache(key, value)
		if err != nil {
			return err
		}
		if err := b.destroy(&now, r.at); err != nil {
			return err
		}
	}
	t, _, err := read(b.view, keyspace.AppendTotalsKey(nil, c.Aside.ID), keyspace.DecodeTotals)
	if err != nil {
		return err
	}
	row := c.Aside.row
	row.ID = c.Aside.ID
	b.put(key, keyspace.AppendCache(nil, &row))
	b.drop(keyspace.AppendDestroyedKey(nil, row.ID))
	t.Cache = row.ID
	r.appear(&t)
	return nil
}
