package catalog

import (
	"context"
	"fmt"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// The rows of statistics.
type (
	Totals = keyspace.Totals
	Growth = keyspace.Growth
)

// Stats says what there is in a cache, or in the whole store.
type Stats struct {
	Totals
	Counted bool       // the totals are right; if not, a recount is needed
	Oldest  *OldestUse // the path that has been unused for longest; nil if there is none
	Clock   Clock      // what Oldest.Day and the days of Growth mean
}

// OldestUse is a path and the store day on which it was last used.
type OldestUse struct {
	HashPart nix.HashPart
	Day      uint32
}

// Stats returns the statistics of a cache, or ErrNoCache; those of the whole store if
// the name is empty (without Oldest). It reads counters, not paths.
func (c *Catalog) Stats(ctx context.Context, cache CacheName) (Stats, error) {
	const doing = "look up statistics"
	id, err := c.cacheNumber(ctx, doing, cache)
	if err != nil {
		return Stats{}, err
	}
	return c.statsOf(doing, id)
}

// StatsOfAll returns the statistics of several caches, leaving out those that are not
// there, with one look at the log.
func (c *Catalog) StatsOfAll(ctx context.Context, caches []CacheName) (map[CacheName]Stats, error) {
	const doing = "look up statistics"
	if err := c.catchUp(ctx, doing); err != nil {
		return nil, err
	}
	all := make(map[CacheName]Stats, len(caches))
	for _, name := range caches {
		t, err := c.localTenant(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		if t == nil {
			continue
		}
		if all[name], err = c.statsOf(doing, t.cache.ID); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// statsOf reads the statistics of a cache, or of the store (0), from the index.
func (c *Catalog) statsOf(doing string, id keyspace.CacheID) (s Stats, err error) {
	// One row holds all numbers, so they are of one moment.
	s.Totals, s.Counted, err = local(c, keyspace.AppendTotalsKey(nil, id), keyspace.DecodeTotals)
	if err != nil {
		return Stats{}, fmt.Errorf("%s: %w", doing, err)
	}
	if id == 0 {
		s.Counted = true
	}
	if s.Clock, err = readClock(c.db); err != nil || id == 0 {
		return s, err
	}
	for row, err := range c.db.Scan(keyspace.AppendUseOrderPrefix(nil, id), nil) {
		if err != nil {
			return Stats{}, fmt.Errorf("%s: %w", doing, err)
		}
		u, err := keyspace.DecodeUseOrder(row.Key, row.Value)
		if err != nil {
			return Stats{}, fmt.Errorf("%s: %w", doing, err)
		}
		s.Oldest = &OldestUse{HashPart: u.HashPart, Day: u.Day}
		break
	}
	return s, nil
}

// cacheNumber returns the number of a cache as of now; 0 for no name.
func (c *Catalog) cacheNumber(ctx context.Context, doing string, cache CacheName) (keyspace.CacheID, error) {
	if err := c.catchUp(ctx, doing); err != nil || cache == "" {
		return 0, err
	}
	t, err := c.localTenant(cache)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	if t == nil {
		return 0, noCache(cache)
	}
	return t.cache.ID, nil
}

// Growth returns what came and went on the last store days, at most the given number
// of them, the open day first; of all caches if the name is empty. Days on which nothing
// happened are left out.
func (c *Catalog) Growth(ctx context.Context, cache CacheName, days int) ([]Growth, error) {
	const doing = "look up growth"
	id, err := c.cacheNumber(ctx, doing, cache)
	if err != nil {
		return nil, err
	}
	day, err := counter(c.db, keyspace.OpenDay)
	if err != nil {
		return nil, err
	}
	var all []Growth
	for ; day > 0 && days > 0; day, days = day-1, days-1 {
		prefix := keyspace.AppendGrowthPrefix(nil, day)
		if id != 0 {
			prefix = keyspace.AppendGrowthKey(nil, day, id)
		}
		sum := Growth{Day: day, Cache: id}
		for row, err := range c.db.Scan(prefix, nil) {
			if err != nil {
				return nil, fmt.Errorf("%s: %w", doing, err)
			}
			g, err := keyspace.DecodeGrowth(row.Key, row.Value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", doing, err)
			}
			sum.Add(&g)
		}
		if sum != (Growth{Day: day, Cache: id}) {
			all = append(all, sum)
		}
	}
	return all, nil
}
