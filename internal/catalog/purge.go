package catalog

import (
	"context"
	"maps"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/wal"
)

// Purge has packs that are known rewritten at any ratio, as RemoveRecipes does with those
// of a NAR that is to be purged.
func (m *Mark) Purge(ctx context.Context, packs map[chunk.PackID]bool) error {
	ids := slices.SortedFunc(maps.Keys(packs), chunk.PackID.Compare)
	for part := range slices.Chunk(ids, opPaths) {
		_, err := m.catalog.wal.Commit(ctx, wal.Op{Name: "purge packs", Cost: len(part) * 64, Build: func(v wal.View) ([]wal.Entry, error) {
			if _, err := m.row(v); err != nil {
				return nil, err
			}
			g, err := newGraves(v)
			if err != nil {
				return nil, err
			}
			for _, id := range part {
				if err := g.purgePack(id); err != nil {
					return nil, err
				}
			}
			if _, err := g.bury(); err != nil {
				return nil, err
			}
			return g.close()
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// purgePack marks a pack for rewriting.
func (g *graves) purgePack(id chunk.PackID) error {
	p, err := g.pack(id)
	if err == nil && p.known && !p.Condemned.Purge {
		p.Condemned.Purge = true
		g.change(p)
	}
	return err
}
