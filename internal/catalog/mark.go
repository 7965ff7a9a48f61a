package catalog

import (
	"context"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// Touch is something that a running collection has to look at again.
type Touch = keyspace.Touch

// Mark is a collection that is under way: the state it looks at, and the right to
// remove what it finds dead. There is one at a time: a later one takes the right away.
//
// From the moment it begins, each operation that brings something to life which the
// collection may have overlooked leaves a touch. Operations that remove something are
// given how many touches the collector has taken into account; those after that they
// look at themselves, against the state they change, and spare what they concern. If
// there are too many, they fail with ErrTouched.
type Mark struct{}

// BeginMark begins a collection and ends any other. It fails with ErrUnreachable or an
// error of the log.
func (c *Catalog) BeginMark(ctx context.Context) (*Mark, error) { return nil, errNotBuilt }

// Snapshot returns the state that the collection looks at.
func (m *Mark) Snapshot() *Snapshot { return nil }

// Generation returns the number of the collection.
func (m *Mark) Generation() uint32 { return 0 }

// Touches returns the touches after the given serial, in order, and whether there are
// more. It reads the index only.
func (m *Mark) Touches(ctx context.Context, after uint32) (touches []Touch, more bool, err error) {
	return nil, false, errNotBuilt
}

// Current returns the state as the index has it now, to look at what touches concern. The
// caller closes it.
func (m *Mark) Current(ctx context.Context) (*Snapshot, error) { return nil, errNotBuilt }

// Expiry says which paths of a cache are to go.
type Expiry struct {
	Cache CacheID
	// Paths are the candidates, a path before what it refers to, with the day of their
	// last use as it was judged: one that was used since is spared.
	Paths []Use
	// Live, if set, reports paths that are known to live with all they refer to. It
	// is only asked of paths that touched ones lead to, in another goroutine, and must
	// not change meanwhile.
	Live func(nix.HashPart) bool
}

// Expired says what became of an Expiry.
type Expired struct {
	Removed  int
	NarBytes int64 // of the paths that were removed
	Spared   []nix.HashPart
}

// Expire removes paths that nothing keeps, in as many operations as it takes. Spared is
// what was used, touched or is referred to by what was touched after the first
// processed touches, and what is pinned. If it fails, what was done stays done.
func (m *Mark) Expire(ctx context.Context, processed uint32, e Expiry) (Expired, error) {
	return Expired{}, errNotBuilt
}

// RemoveRecipes removes the recipes of NARs that are still unreferenced, since the same
// day, with all their parts, and returns those that it removed. Packs of a NAR that is to
// be purged are marked for rewriting.
func (m *Mark) RemoveRecipes(ctx context.Context, nars []Unreferenced) (removed []Unreferenced, err error) {
	return nil, errNotBuilt
}

// RemoveParts removes parts of recipes whose head is not there.
func (m *Mark) RemoveParts(ctx context.Context, parts []RecipeParts) (removed int, err error) {
	return 0, errNotBuilt
}

// DeadChunks are chunks of one pack that no recipe names.
type DeadChunks struct {
	Pack   chunk.PackID
	Chunks []DeadChunk // in the order of the pack, each position once
}

// DeadChunk is one of them.
type DeadChunk struct {
	Index uint32
	ID    chunk.ID // of the chunk row at this place; zero if there is none
}

// Condemnation says what became of a Condemn.
type Condemnation struct {
	Chunks  int64          // that are dead now and were not before
	Bytes   int64          // their plain bytes
	Spared  int64          // chunks that recipes name which were written meanwhile
	Objects []chunk.PackID // that were buried
}

// Condemn makes chunks dead: nothing can refer to them from then on. It spares those
// that recipes written after the first processed touches name. All recipes that
// Snapshot has, and that RemoveRecipes did not remove, must have been looked at.
func (m *Mark) Condemn(ctx context.Context, processed uint32, dead []DeadChunks) (Condemnation, error) {
	return Condemnation{}, errNotBuilt
}

// End ends the collection and removes its touches. A collection that does not end is
// ended by the next, or by a million touches.
func (m *Mark) End(ctx context.Context) error { return errNotBuilt }

// Close lets go of the snapshot. It can be called after End, and without.
func (m *Mark) Close() error { return nil }
