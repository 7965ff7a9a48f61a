package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

const (
	// recountPasses is how often Recount looks again: what others commit while it
	// counts may leave small differences where nothing was counted before.
	recountPasses = 5
	// recountNars is how many NARs are counted in memory at once.
	recountNars = 1 << 20
)

// Discrepancy is a count, or the row of a use, that is not what the paths, recipes and
// packs say.
type Discrepancy struct {
	Row         string // which row, for people
	Found, Want string
}

// CheckCounts compares all counts, and the rows of uses, with what they count. yield is told each
// discrepancy until it returns false. It reads all paths, some times over if there are many.
func (s *Snapshot) CheckCounts(ctx context.Context, yield func(Discrepancy) bool) error {
	err := (&audit{s: s, ctx: ctx, tell: func(f fix) error {
		if !yield(f.Discrepancy) {
			return errEnough
		}
		return nil
	}}).run()
	if err == errEnough { //nolint:errorlint // our own, never wrapped
		return nil
	}
	return err
}

// Recount puts right what CheckCounts finds, while others go on committing, and returns how much
// it was. It changes counts by what they are off, so that two at once would do so twice: one that
// begins fences those before it, which fail with ErrFenced.
func (c *Catalog) Recount(ctx context.Context) (fixed int, err error) {
	for range recountPasses {
		n, err := c.recount(ctx)
		fixed += n
		if err != nil || n == 0 {
			return fixed, err
		}
	}
	return fixed, nil
}

// allCounted is what keyspace.Counts says once EnsureCounted has been here.
const allCounted = 2

// EnsureCounted has an earlier celler refused, which counts nothing, and counts what it
// has committed; for those who are about to remove what nothing seems to need. It does so
// once in the life of a store, and goes on where it was broken off.
func (c *Catalog) EnsureCounted(ctx context.Context) error {
	if n, err := counter(c.db, keyspace.Counts); err != nil || n >= allCounted {
		return err
	}
	if err := c.wal.ExcludeEarlier(ctx); err != nil {
		return err
	}
	if _, err := c.Recount(ctx); err != nil {
		return err
	}
	_, err := c.wal.Commit(ctx, wal.Op{Name: "all is counted", Cost: 32, Build: func(wal.View) ([]wal.Entry, error) {
		return []wal.Entry{set(keyspace.AppendCounterKey(nil, keyspace.Counts), keyspace.AppendCount(nil, allCounted))}, nil
	}})
	return err
}

func (c *Catalog) recount(ctx context.Context) (fixed int, err error) {
	r, err := c.beginRecount(ctx)
	if err == nil {
		fixed, err = r.putRight(ctx)
		err = errors.Join(err, r.snapshot.Close())
	}
	if err != nil {
		return fixed, fmt.Errorf("recount: %w", err)
	}
	return fixed, nil
}

// recounting is one pass over a store: the state that is counted, in which all is put right
// that passes before this one have found, and will ever put right.
type recounting struct {
	catalog  *Catalog
	number   uint32
	snapshot *Snapshot
}

func (c *Catalog) beginRecount(ctx context.Context) (*recounting, error) {
	r := &recounting{catalog: c}
	_, err := c.wal.Commit(ctx, wal.Op{Name: "begin recount", Cost: 32, Build: func(v wal.View) ([]wal.Entry, error) {
		n, err := counter(v, keyspace.Recounts)
		r.number = n + 1
		return []wal.Entry{set(keyspace.AppendCounterKey(nil, keyspace.Recounts), keyspace.AppendCount(nil, r.number))}, err
	}})
	if err == nil {
		r.snapshot, err = c.Snapshot(ctx)
	}
	return r, err
}

func (r *recounting) putRight(ctx context.Context) (fixed int, err error) {
	var fixes []fix
	flush := func() error {
		_, err := r.catalog.wal.Commit(ctx, wal.Op{Name: "recount", Cost: len(fixes) * pathCost, Build: func(v wal.View) ([]wal.Entry, error) {
			if n, err := counter(v, keyspace.Recounts); err != nil || n != r.number && !r.catalog.mutants.noRecountFence() {
				return nil, errors.Join(err, ErrFenced)
			}
			g, err := newGraves(v)
			if err != nil {
				return nil, err
			}
			for i := range fixes {
				if err := fixes[i].apply(g); err != nil {
					return nil, err
				}
			}
			if _, err := g.bury(); err != nil {
				return nil, err
			}
			return g.close()
		}})
		if err == nil {
			fixed += len(fixes)
		}
		fixes = nil
		return err
	}
	err = (&audit{s: r.snapshot, ctx: ctx, tell: func(f fix) error {
		if fixes = append(fixes, f); len(fixes) < opPaths {
			return nil
		}
		return flush()
	}}).run()
	if err == nil && len(fixes) > 0 {
		err = flush()
	}
	return fixed, err
}

// fix is a discrepancy and what puts it right in the state an operation is built
// against, in which others may have changed what is counted, and the count with it.
type fix struct {
	Discrepancy
	apply func(*graves) error
}

// audit counts a snapshot and compares.
type audit struct {
	s     *Snapshot
	ctx   context.Context //nolint:containedctx // lives for one call
	tell  func(fix) error
	paths int64  // rows in all
	store Totals // what the row of the whole store should say
}

func (a *audit) run() error {
	caches, err := a.s.Caches()
	if err != nil {
		return err
	}
	destroyed, err := a.s.Destroyed()
	if err != nil {
		return err
	}
	var ids []CacheID
	var totals []Totals
	for i := range caches {
		t, err := a.cache(caches[i].ID)
		if err != nil {
			return err
		}
		ids, totals = append(ids, t.Cache), append(totals, t)
		a.store.Shift(&t)
	}
	for i := range destroyed {
		t, err := a.cache(destroyed[i].ID)
		if err != nil {
			return err
		}
		ids = append(ids, destroyed[i].ID)
		if destroyed[i].Building != 0 {
			totals = append(totals, t)
		}
	}
	a.store.Cache = 0
	for _, step := range []func() error{func() error { return a.nars(ids) }, a.unreferenced, a.packs, a.objects} {
		if err := step(); err != nil {
			return err
		}
	}
	for i := range totals { // after the NARs: a cache with totals counts as counted
		if err := a.totals(totals[i]); err != nil {
			return err
		}
	}
	return a.totals(a.store)
}

// totals compares the row of a cache, or of the store. What pushes have brought cannot
// be counted afterwards and is left as it is.
func (a *audit) totals(want Totals) error {
	found, counted, err := a.s.Totals(want.Cache)
	if err != nil {
		return err
	}
	want.BroughtBytes, want.BroughtStored = found.BroughtBytes, found.BroughtStored
	if found == want && (counted || want.Cache == 0) {
		return nil
	}
	name := "totals of the store"
	if want.Cache != 0 {
		name = fmt.Sprintf("totals of cache %d", want.Cache)
	}
	difference := found
	difference.Negate()
	difference.Shift(&want)
	return a.tell(fix{
		Discrepancy{Row: name, Found: fmt.Sprintf("%+v", found), Want: fmt.Sprintf("%+v", want)},
		func(g *graves) error {
			if want.Cache != 0 {
				if gone, err := hasNone(g.view, want.Cache); gone || err != nil {
					return err
				}
				if _, counted, err := g.view.Get(keyspace.AppendTotalsKey(nil, want.Cache)); err != nil {
					return err
				} else if !counted {
					row := want
					g.put(keyspace.AppendTotalsKey(nil, want.Cache), keyspace.AppendTotals(nil, &row))
					return nil
				}
			}
			g.add(difference)
			return nil
		},
	})
}

// hasNone reports whether a cache was destroyed, so that it has no totals.
func hasNone(v wal.View, id CacheID) (bool, error) {
	mark, ok, err := read(v, keyspace.AppendDestroyedKey(nil, id), keyspace.DecodeDestroyed)
	return ok && mark.Building == 0, err
}
