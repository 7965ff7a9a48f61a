package catalog

import (
	"context"

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
	Oldest *OldestUse // the path that has been unused for longest; nil if there is none
	Clock  Clock      // what Oldest.Day and the days of Growth mean
}

// OldestUse is a path and the store day on which it was last used.
type OldestUse struct {
	HashPart nix.HashPart
	Day      uint32
}

// Stats returns the statistics of a cache, or ErrNoCache; those of the whole store if
// the name is empty (without Oldest). It reads counters, not paths.
func (c *Catalog) Stats(ctx context.Context, cache CacheName) (Stats, error) {
	return Stats{}, errNotBuilt
}

// Growth returns what came and went on the last store days, at most the given number
// of them, the open day first; of all caches if the name is empty. Days on which nothing
// happened are left out.
func (c *Catalog) Growth(ctx context.Context, cache CacheName, days int) ([]Growth, error) {
	return nil, errNotBuilt
}
