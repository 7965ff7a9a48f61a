package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// RemoveRecipes removes the recipes of NARs that are still unreferenced, since the same
// day, with all their parts, and returns those that it removed. Packs of a NAR that is to
// be purged are marked for rewriting.
func (m *Mark) RemoveRecipes(ctx context.Context, nars []Unreferenced) (removed []Unreferenced, err error) {
	for part := range slices.Chunk(nars, opPaths) {
		var one []Unreferenced
		_, err := m.catalog.wal.Commit(ctx, wal.Op{Name: "remove recipes", Cost: len(part) * 96, Build: func(v wal.View) ([]wal.Entry, error) {
			one = nil
			if _, err := m.row(v); err != nil {
				return nil, err
			}
			g, err := newGraves(v)
			if err != nil {
				return nil, err
			}
			g.mutants = m.catalog.mutants
			for _, u := range part {
				done, err := g.removeRecipe(u)
				if err != nil {
					return nil, err
				}
				if done && !slices.Contains(one, u) {
					one = append(one, u)
				}
			}
			if _, err := g.bury(); err != nil { // writes the rows that say what is to be purged
				return nil, err
			}
			return g.close()
		}})
		if err != nil {
			return removed, fmt.Errorf("remove recipes: %w", err)
		}
		removed = append(removed, one...)
	}
	return removed, nil
}

func (g *graves) removeRecipe(u Unreferenced) (bool, error) {
	n, err := g.nar(u.NarHash)
	if err != nil || !g.mutants.noRecipeCheck() && (n.now.Paths > 0 || n.orphan == nil || *n.orphan != u) {
		return false, err
	}
	n.orphan = nil
	if u.Purge {
		if err := g.purge(u.NarHash); err != nil {
			return false, err
		}
	}
	former, err := formerGone(g.view, u.NarHash, 0)
	if err != nil {
		return false, err
	}
	g.entries = append(g.entries, former...)
	g.drop(keyspace.AppendUnreferencedKey(nil, u.NarHash))
	g.add(Totals{Unreferenced: -1})
	return true, g.dropRecipe(u.NarHash)
}

// dropRecipe removes all rows of recipes of a NAR, and its listing.
func (b *books) dropRecipe(narHash [32]byte) error {
	if err := b.dropListing(narHash); err != nil {
		return err
	}
	for row, err := range b.view.Scan(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: narHash}), nil) {
		if err != nil {
			return err
		}
		b.drop(row.Key)
	}
	return nil
}

// purge marks the packs of a recipe for rewriting.
func (g *graves) purge(narHash [32]byte) error {
	head, ok, err := g.view.Get(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: narHash}))
	if !ok || err != nil {
		return err
	}
	r, _, err := readRecipe(g.view, narHash, head)
	if err != nil {
		return err
	}
	for _, id := range r.Packs() {
		if err := g.purgePack(id); err != nil {
			return err
		}
	}
	return nil
}

// RemoveParts removes parts of recipes whose head is not there.
func (m *Mark) RemoveParts(ctx context.Context, parts []RecipeParts) (removed int, err error) {
	for some := range slices.Chunk(parts, opPaths) {
		n := 0
		_, err := m.catalog.wal.Commit(ctx, wal.Op{Name: "remove parts of recipes", Cost: len(some) * 64, Build: func(v wal.View) ([]wal.Entry, error) {
			n = 0
			if _, err := m.row(v); err != nil {
				return nil, err
			}
			b, err := newBooks(v)
			if err != nil {
				return nil, err
			}
			for _, p := range some {
				k, err := b.dropParts(p)
				if err != nil {
					return nil, err
				}
				n += k
			}
			return b.close()
		}})
		if err != nil {
			return removed, fmt.Errorf("remove parts of recipes: %w", err)
		}
		removed += n
	}
	return removed, nil
}

func (b *books) dropParts(p RecipeParts) (removed int, err error) {
	key := keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: p.NarHash})
	value, ok, err := b.view.Get(key)
	if err != nil {
		return 0, err
	}
	if ok {
		h, err := keyspace.DecodeRecipeHead(value)
		if err != nil || h.Parts > 1 && h.Tag == p.Tag {
			return 0, err
		}
	}
	for row, err := range b.view.Scan(append(key, p.Tag[:]...), nil) {
		if err != nil {
			return removed, err
		}
		b.drop(row.Key)
		removed++
	}
	return removed, nil
}
