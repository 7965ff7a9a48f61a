package catalog

import (
	"context"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// Restored says what became of paths that were to come back.
type Restored struct {
	Paths int
	Lost  []nix.HashPart // whose NAR is not there any more
	Same  int            // that are there as they were
}

// RestorePaths puts paths of an earlier state back into a cache, in place of what is
// there now, signed by the key that the cache has now. Those whose recipe is gone or
// names dead chunks are Lost. Created and By are kept.
func (c *Catalog) RestorePaths(ctx context.Context, cache CacheName, paths []Path) (Restored, error) {
	return Restored{}, errNotBuilt
}

// RestorePin puts a pin of an earlier state back in place of the one that is there now, if
// there is one, with its policy and revisions.
func (c *Catalog) RestorePin(ctx context.Context, cache CacheName, p Pin) (Seq, error) {
	return 0, errNotBuilt
}

// Rebuild is a cache that is put together aside, under a number of its own, until
// Show makes it visible. It expires if that takes more than some store days.
type Rebuild struct {
	ID keyspace.CacheID
}

// BeginRebuild begins to put the cache of an earlier state together. Its row, key
// and Created are kept.
func (c *Catalog) BeginRebuild(ctx context.Context, cache Cache) (*Rebuild, error) {
	return nil, errNotBuilt
}

// AddPaths adds paths of an earlier state.
func (r *Rebuild) AddPaths(ctx context.Context, paths []Path) (Restored, error) {
	return Restored{}, errNotBuilt
}

// AddPin adds a pin of an earlier state.
func (r *Rebuild) AddPin(ctx context.Context, p Pin) error { return errNotBuilt }

// Abandon gives up; what was put together is removed.
func (r *Rebuild) Abandon(ctx context.Context) error { return errNotBuilt }

// Show makes rebuilt caches visible, all in one operation, in place of those that have
// their names. With alone all other caches are destroyed by it. What was replaced is
// swept afterwards.
func (c *Catalog) Show(ctx context.Context, rebuilt []*Rebuild, alone bool) (Seq, error) {
	return 0, errNotBuilt
}
