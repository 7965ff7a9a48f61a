package catalog

import (
	"context"

	"github.com/celler/celler/blob/chunk"
)

// Move says that live frames of packs were copied into another object.
type Move struct {
	Object chunk.PackID
	Bytes  int64 // length of the object
	Packs  []MovedPack
}

// MovedPack is the layout that a pack had when it was copied, and the one it is to have.
type MovedPack struct{ Old, New chunk.Layout }

// MovePacks makes the object hold the packs, all or none. It fails with ErrStale if one of
// the packs has another layout by now or the new one lacks a chunk that is not condemned,
// and with ErrChunksMissing if the object was uploaded too long ago. Objects in which
// nothing lives any more are buried and returned.
func (c *Catalog) MovePacks(ctx context.Context, move Move) (buried []chunk.PackID, err error) {
	return nil, errNotBuilt
}

// PurgeDone forgets that packs were to be rewritten at any ratio, of those in which
// everything dead is a hole.
func (c *Catalog) PurgeDone(ctx context.Context, packs []chunk.PackID) error { return errNotBuilt }

// Forget removes the rows of buried objects, which are no longer in the bucket.
func (c *Catalog) Forget(ctx context.Context, objects []Buried) error { return errNotBuilt }

// ForgetCondemned removes the rows of what is dead in packs that are not known any more
// and were uploaded so long ago that nobody can commit them.
func (c *Catalog) ForgetCondemned(ctx context.Context, packs []chunk.PackID) (removed int, err error) {
	return 0, errNotBuilt
}

// SweepSessions makes the log forget writers that have been silent for a day and a
// million slots, and returns how many. now is the bucket's time, from Tick.
func (c *Catalog) SweepSessions(ctx context.Context, now Clock) (int, error) { return 0, errNotBuilt }
