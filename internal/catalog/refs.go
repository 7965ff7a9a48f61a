package catalog

import (
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// LookupRefs says where the chunks lie that refs stand for, and which of them are
// known here and to whoever made the reference. It never asks the bucket: what it
// overlooks is only sent again.
//
// Nobody may learn from it that there is a chunk who does not have the chunk: a wrong
// proof is found by comparing all of its bytes, and nothing else is looked at before.
func (c *Catalog) LookupRefs(_ context.Context, refs []chunk.Ref) ([]chunk.Location, []bool, error) {
	locations, found := make([]chunk.Location, len(refs)), make([]bool, len(refs))
	order := make([]int, len(refs))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare(refs[a].Name[:], refs[b].Name[:]) })
	name := func(dst []byte, i int) []byte { return keyspace.AppendChunkName(dst, refs[order[i]].Name) }
	err := c.db.Prefixed(len(order), name, func(i int, key, value []byte) error {
		row, err := keyspace.DecodeChunk(key, value)
		if err != nil {
			return err
		}
		at := order[i]
		if proved(row.Proof, refs[at].Proof) || c.mutants.noProofs() {
			locations[at], found[at] = row.Location, true
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("look up %d chunks: %w", len(refs), err)
	}
	var places placeMemo
	for i := range refs {
		if !found[i] {
			continue
		}
		if found[i], err = places.alive(c, locations[i]); err != nil {
			return nil, nil, fmt.Errorf("look up %d chunks: %w", len(refs), err)
		}
	}
	return locations, found, nil
}

// proved compares the proof of a row with one that somebody gave. That of a row without
// one is zero, and equal to nothing.
func proved(have, given chunk.Proof) bool {
	var none chunk.Proof
	return subtle.ConstantTimeCompare(have[:], given[:])&^subtle.ConstantTimeCompare(have[:], none[:]) == 1
}

// ProveChunks adds proofs to the rows of those chunks that have none: somebody had their
// bytes in hand. Chunks that are not known are left alone.
func (c *Catalog) ProveChunks(ctx context.Context, ids []chunk.ID, proofs []chunk.Proof) error {
	if len(ids) != len(proofs) {
		return invalid(fmt.Errorf("%d chunks have %d proofs", len(ids), len(proofs)))
	}
	var bare []int
	for i := range ids {
		row, ok, err := local(c, keyspace.AppendChunkKey(nil, ids[i]), keyspace.DecodeChunk)
		if err != nil {
			return fmt.Errorf("prove %d chunks: %w", len(ids), err)
		}
		if ok && row.Proof == (chunk.Proof{}) && proofs[i] != (chunk.Proof{}) {
			bare = append(bare, i)
		}
	}
	for part := range slices.Chunk(bare, opChunks) {
		_, err := c.wal.Commit(ctx, wal.Op{Name: "prove chunks", Cost: len(part) * chunkCost, Build: func(v wal.View) (entries []wal.Entry, err error) {
			for _, i := range part {
				key := keyspace.AppendChunkKey(nil, ids[i])
				row, ok, err := read(v, key, keyspace.DecodeChunk)
				if err != nil {
					return nil, err
				}
				if ok && row.Proof == (chunk.Proof{}) {
					entries = append(entries, set(key, keyspace.AppendChunk(nil, row.Location, proofs[i])))
				}
			}
			return entries, nil
		}})
		if err != nil {
			return fmt.Errorf("prove %d chunks: %w", len(part), err)
		}
	}
	return nil
}

// Gone reports whether some of the runs name chunks that are not there, as far as it is
// known here.
func (c *Catalog) Gone(runs []chunk.Run) (bool, error) {
	var places placeMemo
	for _, run := range runs {
		// One that is alive at its first chunk has its pack, and the rest is in the memo.
		alive, err := places.alive(c, chunk.Location{Pack: run.Pack, Index: run.First})
		if err != nil {
			return false, err
		}
		if s := places[run.Pack]; !alive || s.condemned.Overlaps(run.First, run.Count) {
			return true, nil
		}
	}
	return false, nil
}

// HasRecipe reports whether a NAR is known here. Its bytes have been looked into then.
func (c *Catalog) HasRecipe(narHash [32]byte) (bool, error) {
	return c.db.Lookup(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: narHash}), func([]byte) error { return nil })
}
