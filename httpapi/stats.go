package httpapi

import (
	"context"
	"errors"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
)

// growthDays is how many store days of growth are told of a cache, or of the store.
const growthDays = 30

// cacheStats answers GET /_api/v1/caches/{cache}/stats.
func (s *server) cacheStats(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Pull: true})
	if err != nil {
		return err
	}
	ctx := x.r.Context()
	st, err := s.cat.Stats(ctx, cache.Name)
	if err != nil {
		return err
	}
	out, err := s.statsOf(ctx, cache.Name, &st)
	if err != nil {
		return err
	}
	if out.Growth, err = s.growth(ctx, cache.Name, st.Clock); err != nil {
		return err
	}
	x.sendJSON(out)
	return nil
}

// stats answers GET /_api/v1/stats, with as much as the caller may know.
func (s *server) stats(x *exchange) error {
	ctx := x.r.Context()
	caches, err := s.cat.Caches(ctx)
	if err != nil {
		return err
	}
	var names []catalog.CacheName
	for i := range caches {
		if caches[i].Public || x.grant.Permission(string(caches[i].Name)).Pull {
			names = append(names, caches[i].Name)
		}
	}
	stats, err := s.cat.StatsOfAll(ctx, names)
	if err != nil {
		return err
	}
	out := wire.Stats{Caches: []wire.CacheStats{}}
	for _, name := range names {
		st, ok := stats[name]
		if !ok {
			continue // destroyed since
		}
		one, err := s.statsOf(ctx, name, &st)
		if err != nil {
			return err
		}
		out.Caches = append(out.Caches, one)
	}
	// The numbers of the whole store tell of every cache, whatever it is called.
	if x.grant.Covers("*", auth.Permission{Pull: true}) {
		all, err := s.cat.Stats(ctx, "")
		if err != nil {
			return err
		}
		out.Store = storeStats(&all.Totals)
		if out.Store.Growth, err = s.growth(ctx, "", all.Clock); err != nil {
			return err
		}
	}
	x.sendJSON(out)
	return nil
}

// growth returns what came to a cache, or to the store if it has no name, and went from it.
func (s *server) growth(ctx context.Context, cache catalog.CacheName, clock catalog.Clock) ([]wire.Growth, error) {
	days, err := s.cat.Growth(ctx, cache, growthDays)
	if err != nil {
		return nil, err
	}
	var out []wire.Growth
	for _, g := range days {
		day := wire.Growth{
			Day: g.Day, AddedPaths: g.AddedPaths, AddedBytes: g.AddedBytes, RemovedPaths: g.RemovedPaths, RemovedBytes: g.RemovedBytes,
		}
		if ended := clock.Ended(g.Day); !ended.IsZero() {
			day.Ended = &ended
		}
		out = append(out, day)
	}
	return out, nil
}

func (s *server) statsOf(ctx context.Context, name catalog.CacheName, st *catalog.Stats) (wire.CacheStats, error) {
	out := wire.CacheStats{
		Cache: string(name), Paths: st.Paths, NarBytes: st.NarBytes, FileBytes: st.ServedBytes,
		NewBytes: st.BroughtBytes, NewStoredBytes: st.BroughtStored, Uncounted: !st.Counted,
	}
	if o := st.Oldest; o != nil {
		p, err := s.cat.Path(ctx, name, o.HashPart)
		switch {
		case errors.Is(err, catalog.ErrNoPath): // gone since
		case err != nil:
			return wire.CacheStats{}, err
		default:
			out.OldestUse = &wire.OldestUse{StorePath: p.StorePath.String()}
			if ended := st.Clock.Ended(o.Day); !ended.IsZero() {
				out.OldestUse.Until = &ended
			}
		}
	}
	return out, nil
}

func storeStats(t *catalog.Totals) *wire.StoreStats {
	return &wire.StoreStats{
		Paths: t.Paths, NarBytes: t.NarBytes, FileBytes: t.ServedBytes,
		Nars: t.Nars, UniqueNars: t.NarsBytes, Chunks: t.Chunks, UniqueBytes: t.ChunkBytes,
		Packs: t.Packs, Objects: t.Objects, StoredBytes: t.StoredBytes,
		SavedByDedup: t.NarBytes - t.ChunkBytes, SavedByCompression: t.ChunkBytes - t.StoredBytes,
		Unreferenced: t.Unreferenced, DeadChunks: t.Dead, DeadBytes: t.DeadBytes, Buried: t.Buried, BuriedBytes: t.BuriedBytes,
	}
}
