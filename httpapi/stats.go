package httpapi

import (
	"context"
	"errors"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
)

// growthDays is how many store days of growth are told of a cache.
const growthDays = 30

// cacheStats answers GET /_api/v1/caches/{cache}/stats.
func (s *server) cacheStats(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Pull: true})
	if err != nil {
		return err
	}
	ctx := x.r.Context()
	out, clock, err := s.statsOf(ctx, cache.Name)
	if err != nil {
		return err
	}
	growth, err := s.cat.Growth(ctx, cache.Name, growthDays)
	if err != nil {
		return err
	}
	for _, g := range growth {
		day := wire.Growth{
			Day: g.Day, AddedPaths: g.AddedPaths, AddedBytes: g.AddedBytes, RemovedPaths: g.RemovedPaths, RemovedBytes: g.RemovedBytes,
		}
		if ended := endOf(&clock, g.Day); !ended.IsZero() {
			day.Ended = &ended
		}
		out.Growth = append(out.Growth, day)
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
	out := wire.Stats{Caches: []wire.CacheStats{}}
	for i := range caches {
		if !caches[i].Public && !x.grant.Permission(string(caches[i].Name)).Pull {
			continue
		}
		one, _, err := s.statsOf(ctx, caches[i].Name)
		if errors.Is(err, catalog.ErrNoCache) {
			continue // destroyed since
		}
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
	}
	x.sendJSON(out)
	return nil
}

func (s *server) statsOf(ctx context.Context, name catalog.CacheName) (wire.CacheStats, catalog.Clock, error) {
	st, err := s.cat.Stats(ctx, name)
	if err != nil {
		return wire.CacheStats{}, catalog.Clock{}, err
	}
	out := wire.CacheStats{
		Cache: string(name), Paths: st.Paths, NarBytes: st.NarBytes, FileBytes: st.ServedBytes,
		NewBytes: st.BroughtBytes, NewStoredBytes: st.BroughtStored,
	}
	if o := st.Oldest; o != nil {
		p, err := s.cat.Path(ctx, name, o.HashPart)
		switch {
		case errors.Is(err, catalog.ErrNoPath): // gone since
		case err != nil:
			return wire.CacheStats{}, catalog.Clock{}, err
		default:
			out.OldestUse = &wire.OldestUse{StorePath: p.StorePath.String()}
			if ended := endOf(&st.Clock, o.Day); !ended.IsZero() {
				out.OldestUse.Until = &ended
			}
		}
	}
	return out, st.Clock, nil
}

// endOf is when a store day ended by the bucket's clock; zero if it has not, or if that
// is not known.
func endOf(k *catalog.Clock, day uint32) time.Time {
	age := k.Age(day)
	if age <= 0 || k.Now.IsZero() {
		return time.Time{}
	}
	return k.Now.Add(-age).UTC()
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
