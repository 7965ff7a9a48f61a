package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// MarkDamaged makes chunks that cannot be read dead, whoever refers to them: the next
// push of them stores them again. ids should be given where a chunk row names the place;
// rows that are left over count for nothing.
func (c *Catalog) MarkDamaged(ctx context.Context, dead []DeadChunks) (Condemnation, error) {
	return c.condemn(ctx, "mark chunks as damaged", dead, func(wal.View) (map[chunk.PackID][]Range, error) { return nil, nil })
}

// WithdrawBroken removes those of the paths whose NAR cannot be put together any more, or
// only in another form than the path promises, and returns them. Others are left alone: somebody pushed them again.
func (c *Catalog) WithdrawBroken(ctx context.Context, cache CacheID, hashParts []nix.HashPart) (gone []Path, err error) {
	for part := range slices.Chunk(sortedHashParts(hashParts), opPaths) {
		var one []Path
		_, err := c.wal.Commit(ctx, wal.Op{Name: "withdraw broken paths", Cost: len(part) * pathCost, Build: func(v wal.View) (entries []wal.Entry, err error) {
			entries, one, err = withdrawBroken(v, cache, part)
			return entries, err
		}})
		if err != nil {
			return gone, fmt.Errorf("withdraw broken paths: %w", err)
		}
		gone = append(gone, one...)
		c.metrics.withdrawn.Add(len(one))
	}
	return gone, nil
}

func withdrawBroken(v wal.View, cache CacheID, hashParts []nix.HashPart) (entries []wal.Entry, gone []Path, err error) {
	if destroyed, err := isDestroyed(v, cache); destroyed || err != nil {
		return nil, nil, err
	}
	b, err := newBooks(v)
	if err != nil {
		return nil, nil, err
	}
	packs := newPackBuilder(b, 0)
	for _, hashPart := range hashParts {
		row, ok, err := read(v, keyspace.AppendPathKey(nil, cache, hashPart), keyspace.DecodePath)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			continue
		}
		served, bad, err := broken(v, packs, row.NarHash)
		if err != nil {
			return nil, nil, err
		}
		if !bad && (served == row.FileSize || served == 0) {
			continue
		}
		if err := b.removePath(cache, &row, purgeNot); err != nil {
			return nil, nil, err
		}
		gone = append(gone, row)
	}
	entries, err = b.close()
	return entries, gone, err
}

// isDestroyed reports whether the rows of a cache are being swept: what they counted
// for in the store's totals was taken out already.
func isDestroyed(v wal.View, cache CacheID) (bool, error) {
	_, marked, err := v.Get(keyspace.AppendDestroyedKey(nil, cache))
	return marked, err
}

// RemoveBroken removes those of the recipes that name chunks which are dead or not
// known, or that lack a part.
func (c *Catalog) RemoveBroken(ctx context.Context, narHashes [][32]byte) (removed int, err error) {
	for part := range slices.Chunk(narHashes, opPaths) {
		n := 0
		_, err := c.wal.Commit(ctx, wal.Op{Name: "remove broken recipes", Cost: len(part) * 96, Build: func(v wal.View) ([]wal.Entry, error) {
			n = 0
			b, err := newBooks(v)
			if err != nil {
				return nil, err
			}
			packs := newPackBuilder(b, 0)
			for _, narHash := range part {
				_, there, err := v.Get(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: narHash}))
				if err != nil {
					return nil, err
				}
				_, bad, err := broken(v, packs, narHash)
				if err != nil {
					return nil, err
				}
				if !there || !bad {
					continue
				}
				n++
				if err := b.dropRecipe(narHash); err != nil {
					return nil, err
				}
			}
			return b.close()
		}})
		if err != nil {
			return removed, fmt.Errorf("remove broken recipes: %w", err)
		}
		removed += n
	}
	return removed, nil
}

// RemoveChunks removes those of the chunk rows that name a place which is dead or not known.
func (c *Catalog) RemoveChunks(ctx context.Context, chunks []Chunk) (removed int, err error) {
	for part := range slices.Chunk(chunks, opChunks) {
		n := 0
		_, err := c.wal.Commit(ctx, wal.Op{Name: "remove stray chunks", Cost: len(part) * 48, Build: func(v wal.View) ([]wal.Entry, error) {
			n = 0
			b, err := newBooks(v)
			if err != nil {
				return nil, err
			}
			packs := newPackBuilder(b, 0)
			for _, row := range part {
				key := keyspace.AppendChunkKey(nil, row.ID)
				_, there, err := v.Get(key)
				if err != nil {
					return nil, err
				}
				alive, err := packs.alive(key)
				if err != nil {
					return nil, err
				}
				if there && !alive {
					b.drop(key)
					n++
				}
			}
			return b.close()
		}})
		if err != nil {
			return removed, fmt.Errorf("remove stray chunks: %w", err)
		}
		removed += n
	}
	return removed, nil
}
