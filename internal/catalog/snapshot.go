package catalog

import (
	"context"
	"fmt"
	"iter"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
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
// holds on to disk space until it is closed. Its iterators end after the first error
// unless they say otherwise; what they yield may be kept. It may be used by many
// goroutines.
type Snapshot struct{ view *index.View }

// Snapshot returns the state as the index has it now.
func (c *Catalog) Snapshot(context.Context) (*Snapshot, error) { return SnapshotOf(c.db) }

// SnapshotOf returns the state that an index has: that of a node, or one of the past.
func SnapshotOf(db *index.DB) (*Snapshot, error) {
	v, err := db.View()
	if err != nil {
		return nil, err
	}
	return &Snapshot{view: v}, nil
}

// Close lets go of it. No iterator may be running.
func (s *Snapshot) Close() error { return s.view.Close() }

// Seq returns the slot after which this was the state.
func (s *Snapshot) Seq() Seq { return s.view.Seq() }

// Clock returns the store days. Now is when the last one ended.
func (s *Snapshot) Clock() (Clock, error) { return readClock(s.view) }

// UploadEpoch returns the upload epoch.
func (s *Snapshot) UploadEpoch() (uint32, error) { return counter(s.view, keyspace.UploadEpoch) }

// rowsOf decodes all rows whose keys start with prefix.
func rowsOf[T any](v scanner, what string, prefix []byte, decode func(key, value []byte) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for row, err := range v.Scan(prefix, nil) {
			var t T
			if err == nil {
				t, err = decode(row.Key, row.Value)
			}
			if err != nil {
				yield(t, fmt.Errorf("read the %s: %w", what, err))
				return
			}
			if !yield(t, nil) {
				return
			}
		}
	}
}

func collect[T any](rows iter.Seq2[T, error]) ([]T, error) {
	var all []T
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, nil
}

// Caches returns all caches in the order of their names.
func (s *Snapshot) Caches() ([]Cache, error) {
	return collect(rowsOf(s.view, "caches", []byte{keyspace.CachePrefix}, keyspace.DecodeCache))
}

// Cache returns the cache called name.
func (s *Snapshot) Cache(name CacheName) (cache Cache, ok bool, err error) {
	return read(s.view, keyspace.AppendCacheKey(nil, name), keyspace.DecodeCache)
}

// Destroyed returns the caches whose rows are still to be removed, and those that are
// being restored (Building is set).
func (s *Snapshot) Destroyed() ([]Destroyed, error) {
	return collect(rowsOf(s.view, "destroyed caches", []byte{keyspace.DestroyedPrefix}, keyspace.DecodeDestroyed))
}

// Paths yields the paths of a cache in the order of their hash parts. Cache is empty,
// and the signature may be one of an earlier key.
func (s *Snapshot) Paths(cache CacheID) iter.Seq2[Path, error] {
	return rowsOf(s.view, "paths", keyspace.AppendPathPrefix(nil, cache), keyspace.DecodePath)
}

// Path returns one path of a cache.
func (s *Snapshot) Path(cache CacheID, hashPart nix.HashPart) (p Path, ok bool, err error) {
	return read(s.view, keyspace.AppendPathKey(nil, cache, hashPart), keyspace.DecodePath)
}

// Uses yields the last uses of the paths of a cache in the order of their hash parts.
func (s *Snapshot) Uses(cache CacheID) iter.Seq2[Use, error] {
	return rowsOf(s.view, "uses", keyspace.AppendLastUsePrefix(nil, cache), keyspace.DecodeLastUse)
}

// UsesByDay yields them oldest day first.
func (s *Snapshot) UsesByDay(cache CacheID) iter.Seq2[Use, error] {
	return rowsOf(s.view, "uses", keyspace.AppendUseOrderPrefix(nil, cache), keyspace.DecodeUseOrder)
}

// LastUse returns the last use of a path; ok is false for one that was never counted.
func (s *Snapshot) LastUse(cache CacheID, hashPart nix.HashPart) (u Use, ok bool, err error) {
	return read(s.view, keyspace.AppendLastUseKey(nil, cache, hashPart), keyspace.DecodeLastUse)
}

// Pins returns the pins of a cache in the order of their names.
func (s *Snapshot) Pins(cache CacheID) ([]Pin, error) {
	return readPins(s.view, keyspace.AppendPinPrefix(nil, cache))
}

// Totals returns the totals of a cache, or of the whole store for 0. ok is false if the
// cache was never counted.
func (s *Snapshot) Totals(cache CacheID) (t Totals, ok bool, err error) {
	return read(s.view, keyspace.AppendTotalsKey(nil, cache), keyspace.DecodeTotals)
}

// Nars yields how many paths name each NAR.
func (s *Snapshot) Nars() iter.Seq2[Nar, error] {
	return rowsOf(s.view, "NARs", []byte{keyspace.NarPrefix}, keyspace.DecodeNar)
}

// Unreferenced yields the NARs that no path names any more, and that may have a recipe.
func (s *Snapshot) Unreferenced() iter.Seq2[Unreferenced, error] {
	return rowsOf(s.view, "unreferenced NARs", []byte{keyspace.UnreferencedPrefix}, keyspace.DecodeUnreferenced)
}

// Recipes yields all recipes. One that lacks a part, or does not decode, comes with an
// error that is a *BadRecipeError, and the iteration goes on.
func (s *Snapshot) Recipes() iter.Seq2[chunk.Recipe, error] {
	return func(yield func(chunk.Recipe, error) bool) {
		for head, err := range s.recipeRows() {
			if err == nil && head.key.Part > 0 {
				continue
			}
			var r chunk.Recipe
			if err == nil {
				r, err = s.decodeRecipe(head.key.NarHash, head.value)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func (s *Snapshot) decodeRecipe(narHash [32]byte, head []byte) (chunk.Recipe, error) {
	r, complete, err := readRecipe(s.view, narHash, head)
	if err == nil && !complete {
		err = errPartGone
	}
	if err != nil {
		return chunk.Recipe{}, &BadRecipeError{NarHash: narHash, Err: err}
	}
	return r, nil
}

// Recipe returns the recipe of a NAR. A bad one is a *BadRecipeError.
func (s *Snapshot) Recipe(narHash [32]byte) (r chunk.Recipe, ok bool, err error) {
	head, ok, err := s.view.Get(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: narHash}))
	if !ok || err != nil {
		return chunk.Recipe{}, false, err
	}
	r, err = s.decodeRecipe(narHash, head)
	return r, err == nil, err
}

type recipeRow struct {
	key   keyspace.RecipeKey
	value []byte
}

// recipeRows yields heads and parts, those of one NAR together and the head first.
func (s *Snapshot) recipeRows() iter.Seq2[recipeRow, error] {
	return rowsOf(s.view, "recipes", []byte{keyspace.RecipePrefix}, func(key, value []byte) (recipeRow, error) {
		k, err := keyspace.DecodeRecipeKey(key)
		return recipeRow{k, value}, err
	})
}

// RecipeParts are parts of a recipe without the head that they belong to.
type RecipeParts struct {
	NarHash [32]byte
	Tag     RecipeTag
	Parts   int
}

// OrphanParts yields parts without their head: what a push left that broke off, or is
// about to finish.
func (s *Snapshot) OrphanParts() iter.Seq2[RecipeParts, error] {
	return func(yield func(RecipeParts, error) bool) {
		var head struct {
			narHash [32]byte
			tag     RecipeTag
			parts   bool // there are some
			bad     bool // told by Recipes; which parts are its own cannot be told
		}
		var found RecipeParts
		for row, err := range s.recipeRows() {
			if err != nil {
				yield(RecipeParts{}, err)
				return
			}
			if row.key.Part == 0 {
				h, err := keyspace.DecodeRecipeHead(row.value)
				head.narHash, head.tag, head.parts, head.bad = row.key.NarHash, h.Tag, h.Parts > 1, err != nil
			}
			owned := row.key.Part == 0 || head.narHash == row.key.NarHash && (head.bad || head.parts && head.tag == row.key.Tag)
			same := !owned && found.Parts > 0 && found.NarHash == row.key.NarHash && found.Tag == row.key.Tag
			if found.Parts > 0 && !same {
				if !yield(found, nil) {
					return
				}
				found = RecipeParts{}
			}
			if !owned {
				found.NarHash, found.Tag = row.key.NarHash, row.key.Tag
				found.Parts++
			}
		}
		if found.Parts > 0 {
			yield(found, nil)
		}
	}
}

// Chunks yields where chunks lie, in the order of their ids.
func (s *Snapshot) Chunks() iter.Seq2[Chunk, error] {
	return rowsOf(s.view, "chunks", []byte{keyspace.ChunkPrefix}, keyspace.DecodeChunk)
}

// Chunk returns where a chunk lies.
func (s *Snapshot) Chunk(id chunk.ID) (row Chunk, ok bool, err error) {
	return read(s.view, keyspace.AppendChunkKey(nil, id), keyspace.DecodeChunk)
}

// PackState is what the state says of one pack.
type PackState struct {
	Layout    chunk.Layout
	Condemned Condemned // of the pack; no ranges: nothing is dead
}

// Packs yields all packs that are known.
func (s *Snapshot) Packs() iter.Seq2[PackState, error] {
	return func(yield func(PackState, error) bool) {
		for layout, err := range rowsOf(s.view, "packs", []byte{keyspace.PackPrefix}, keyspace.DecodePack) {
			p := PackState{Layout: layout}
			if err == nil {
				p.Condemned, err = readCondemned(s.view, layout.ID)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// Pack returns one pack; ok is false if it is not known, and Condemned may be set all
// the same.
func (s *Snapshot) Pack(id chunk.PackID) (p PackState, ok bool, err error) {
	return readPack(s.view, id)
}

func readPack(v getter, id chunk.PackID) (p PackState, ok bool, err error) {
	if p.Layout, ok, err = read(v, keyspace.AppendPackKey(nil, id), keyspace.DecodePack); err == nil {
		p.Condemned, err = readCondemned(v, id)
	}
	return p, ok, err
}

// readCondemned returns what is dead in a pack, without ranges if nothing is.
func readCondemned(v getter, id chunk.PackID) (Condemned, error) {
	x, _, err := read(v, keyspace.AppendCondemnedKey(nil, id), keyspace.DecodeCondemned)
	x.Pack = id
	return x, err
}

// Condemned yields what is dead, also in packs that are not known any more.
func (s *Snapshot) Condemned() iter.Seq2[Condemned, error] {
	return rowsOf(s.view, "condemned chunks", []byte{keyspace.CondemnedPrefix}, keyspace.DecodeCondemned)
}

// Objects yields the objects that packs were moved into.
func (s *Snapshot) Objects() iter.Seq2[Object, error] {
	return rowsOf(s.view, "objects", []byte{keyspace.ObjectPrefix}, keyspace.DecodeObject)
}

// Buried yields the objects that are to be deleted.
func (s *Snapshot) Buried() iter.Seq2[Buried, error] {
	return rowsOf(s.view, "buried objects", []byte{keyspace.BuriedPrefix}, keyspace.DecodeBuried)
}

// KnowsObject reports whether the state has any use for an object: it holds a pack
// that is known, or is buried. Other objects are orphans if they are of an upload epoch
// that is over for two.
func (s *Snapshot) KnowsObject(id chunk.PackID) (bool, error) { return knowsObject(s.view, id) }

func knowsObject(v wal.View, id chunk.PackID) (bool, error) {
	for _, key := range [][]byte{keyspace.AppendObjectKey(nil, id), keyspace.AppendBuriedKey(nil, id)} {
		if _, ok, err := v.Get(key); ok || err != nil {
			return ok, err
		}
	}
	l, ok, err := read(v, keyspace.AppendPackKey(nil, id), keyspace.DecodePack)
	return ok && l.Where() == id, err
}
