package catalog

import (
	"context"
	"iter"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// The rows that a collector and a checker meet.
type (
	CacheID      = keyspace.CacheID
	Unreferenced = keyspace.Unreferenced
	Use          = keyspace.Use
	Chunk        = keyspace.Chunk
	Condemned    = keyspace.Condemned
	Range        = keyspace.Range
	Object       = keyspace.Object
	Buried       = keyspace.Buried
	Destroyed    = keyspace.Destroyed
	Nar          = keyspace.Nar
	RecipeTag    = keyspace.RecipeTag
)

// Snapshot is the whole state after one slot, for those who read much of it. It
// holds on to disk space until it is closed. Its iterators end after the first error;
// what they yield may be kept. It may be used by many goroutines.
type Snapshot struct{}

// Snapshot returns the state as the index has it now.
func (c *Catalog) Snapshot(ctx context.Context) (*Snapshot, error) { return nil, errNotBuilt }

// Close lets go of it. No iterator may be running.
func (s *Snapshot) Close() error { return nil }

// Seq returns the slot after which this was the state.
func (s *Snapshot) Seq() Seq { return 0 }

// Clock returns the store days. Now is when the last one ended.
func (s *Snapshot) Clock() (Clock, error) { return Clock{}, errNotBuilt }

// UploadEpoch returns the upload epoch.
func (s *Snapshot) UploadEpoch() (uint32, error) { return 0, errNotBuilt }

// Caches returns all caches in the order of their names.
func (s *Snapshot) Caches() ([]Cache, error) { return nil, errNotBuilt }

// Destroyed returns the caches whose rows are still to be removed, and those that are
// being restored (Building is set).
func (s *Snapshot) Destroyed() ([]Destroyed, error) { return nil, errNotBuilt }

// Paths yields the paths of a cache in the order of their hash parts. Cache is empty,
// and the signature may be one of an earlier key.
func (s *Snapshot) Paths(cache CacheID) iter.Seq2[Path, error] { return nil }

// Path returns one path of a cache.
func (s *Snapshot) Path(cache CacheID, hashPart nix.HashPart) (p Path, ok bool, err error) {
	return Path{}, false, errNotBuilt
}

// Uses yields the last uses of the paths of a cache in the order of their hash parts.
func (s *Snapshot) Uses(cache CacheID) iter.Seq2[Use, error] { return nil }

// UsesByDay yields them oldest day first.
func (s *Snapshot) UsesByDay(cache CacheID) iter.Seq2[Use, error] { return nil }

// Pins returns the pins of a cache in the order of their names.
func (s *Snapshot) Pins(cache CacheID) ([]Pin, error) { return nil, errNotBuilt }

// Nars yields how many paths name each NAR.
func (s *Snapshot) Nars() iter.Seq2[Nar, error] { return nil }

// Unreferenced yields the NARs that no path names and that have a recipe, or parts of one.
func (s *Snapshot) Unreferenced() iter.Seq2[Unreferenced, error] { return nil }

// Recipes yields all recipes. One that lacks a part, or does not decode, comes with an
// error that is a *BadRecipeError, and the iteration goes on.
func (s *Snapshot) Recipes() iter.Seq2[chunk.Recipe, error] { return nil }

// Recipe returns the recipe of a NAR.
func (s *Snapshot) Recipe(narHash [32]byte) (r chunk.Recipe, ok bool, err error) {
	return chunk.Recipe{}, false, errNotBuilt
}

// RecipeParts are parts of a recipe without the head that they belong to.
type RecipeParts struct {
	NarHash [32]byte
	Tag     RecipeTag
	Parts   int
}

// OrphanParts yields parts without their head: what a push left that broke off, or is
// about to finish.
func (s *Snapshot) OrphanParts() iter.Seq2[RecipeParts, error] { return nil }

// Chunks yields where chunks lie, in the order of their ids.
func (s *Snapshot) Chunks() iter.Seq2[Chunk, error] { return nil }

// PackState is what the state says of one pack.
type PackState struct {
	Layout    chunk.Layout
	Condemned Condemned // of the pack; no ranges: nothing is dead
}

// Packs yields all packs that are known.
func (s *Snapshot) Packs() iter.Seq2[PackState, error] { return nil }

// Pack returns one pack; ok is false if it is not known, and Condemned may be set all
// the same.
func (s *Snapshot) Pack(id chunk.PackID) (p PackState, ok bool, err error) {
	return PackState{}, false, errNotBuilt
}

// Condemned yields what is dead, also in packs that are not known any more.
func (s *Snapshot) Condemned() iter.Seq2[Condemned, error] { return nil }

// Objects yields the objects that packs were moved into.
func (s *Snapshot) Objects() iter.Seq2[Object, error] { return nil }

// Buried yields the objects that are to be deleted.
func (s *Snapshot) Buried() iter.Seq2[Buried, error] { return nil }

// KnowsObject reports whether the state has any use for an object: it holds a pack
// that is known, or is buried. Other objects are orphans if they are of an upload epoch
// that is over for two.
func (s *Snapshot) KnowsObject(id chunk.PackID) (bool, error) { return false, errNotBuilt }
