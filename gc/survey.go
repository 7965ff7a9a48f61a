package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/celler/celler/internal/catalog"
)

// survey is what a round has to do, found out by looking at the edges of what there is,
// not at all of it.
type survey struct {
	caches []catalog.Cache        // all
	look   []catalog.Cache        // those from which paths may have to go
	quota  bool                   // the store may be over its quota
	nars   []catalog.Unreferenced // whose grace has ended
	epoch  uint32                 // upload epoch
	last   catalog.Round          // the last round that ended
	busy   bool                   // anything of the above, or objects to delete
	swept  uint32                 // upload epoch in which the bucket was listed last
}

func (r *round) survey(ctx context.Context, s *catalog.Snapshot) (v survey, err error) {
	if v.caches, err = s.Caches(); err != nil {
		return v, err
	}
	if v.epoch, err = s.UploadEpoch(); err != nil {
		return v, err
	}
	if v.last, _, err = s.LastRound(); err != nil {
		return v, err
	}
	v.swept = sweptIn(v.last)
	if !slices.ContainsFunc(v.caches, func(c catalog.Cache) bool { return r.chosen(&c) }) && r.mode.Cache != "" {
		return v, fmt.Errorf("cache %q: %w", string(r.mode.Cache), catalog.ErrNoCache)
	}
	for _, cache := range v.caches {
		if !r.chosen(&cache) {
			continue
		}
		old, err := r.hasOld(s, &cache)
		if err != nil {
			return v, err
		}
		if old {
			v.look = append(v.look, cache)
		}
	}
	if r.o.Quota > 0 {
		t, err := r.cat.Stats(ctx, "")
		if err != nil {
			return v, err
		}
		v.quota = t.StoredBytes > r.o.Quota
	}
	kept, err := r.keptSince(ctx)
	if err != nil {
		return v, err
	}
	for u, err := range s.Unreferenced() {
		if err != nil {
			return v, err
		}
		if r.narIsDue(&u, kept) {
			v.nars = append(v.nars, u)
		}
	}
	v.busy = len(v.look) > 0 || v.quota || len(v.nars) > 0
	if !v.busy && lastReport(v.last).Day != r.clock.Day { // once a day: all of them are read for it
		if v.busy, err = r.hasDeadSides(ctx, s, v.caches); err != nil {
			return v, err
		}
	}
	for b, err := range s.Buried() {
		if err != nil {
			return v, err
		}
		v.busy = v.busy || r.objectIsDue(&b)
	}
	return v, nil
}

// hasOld reports whether a cache has a path that was used longest ago for too long, or
// one of which nobody knows.
func (r *round) hasOld(s *catalog.Snapshot, cache *catalog.Cache) (bool, error) {
	keep := r.retention(cache)
	if keep == 0 {
		return false, nil
	}
	for u, err := range s.UsesByDay(cache.ID) {
		return err == nil && r.clock.Age(u.Day) >= keep, err
	}
	for _, err := range s.Paths(cache.ID) {
		return err == nil, err
	}
	return false, nil
}

// bookmarked is since when removed NARs are kept for bookmarks.
type bookmarked struct {
	since time.Time
	any   bool
}

func (c *Collector) keptSince(ctx context.Context) (k bookmarked, err error) {
	if c.o.KeptSince != nil && !c.o.Mutants.noBookmarks() {
		k.since, k.any, err = c.o.KeptSince(ctx)
	}
	return k, err
}

// narIsDue reports whether the NAR of removed paths can go.
func (r *round) narIsDue(u *catalog.Unreferenced, kept bookmarked) bool {
	if u.Now || r.o.Mutants.ignoreGrace() {
		return true
	}
	age := r.clock.Age(u.Day)
	if u.Day == r.clock.Day {
		return r.o.NarGrace == 0 && !kept.any
	}
	// It went before the bookmark was made if the day was over by then.
	before := !kept.any || r.clock.Now.Add(-age).Before(kept.since)
	return age >= r.o.NarGrace && (before || u.Purge)
}

// objectIsDue reports whether an object in which nothing lives can be deleted.
func (r *round) objectIsDue(b *catalog.Buried) bool {
	return r.o.Mutants.deleteBeforeGrace() || r.clock.Age(b.Day) >= r.o.ReaderGrace
}

// skip says that others do what this round would.
func (r *round) skip() bool {
	if r.mode.Every <= 0 || r.due.busy || r.due.last.Ended.IsZero() {
		return false
	}
	ago := r.clock.Now.Sub(r.due.last.Ended)
	return ago >= 0 && ago < r.mode.Every/2 // one that ended in the future had a wrong clock
}

// chosen reports whether paths of a cache may be removed in this round.
func (r *round) chosen(cache *catalog.Cache) bool {
	return r.mode.Cache == "" || cache.Name == r.mode.Cache
}

// lookAhead says in the report what waits, and until when.
func (r *round) lookAhead(ctx context.Context) error {
	s, err := r.cat.Snapshot(ctx)
	if err != nil {
		return err
	}
	w, err := r.waiting(s, r.clock, r.mode.Every == 0)
	if err := joinClose(err, s); err != nil {
		return err
	}
	r.rep.Waiting = w
	r.rep.Next = 0
	if at, ok := w.Next(); ok {
		r.rep.Next = max(0, at.Sub(r.clock.Now))
	} else if w.Nars+w.Objects > 0 {
		r.rep.Next = min(longestDay, max(r.o.ReaderGrace, shortestDay))
	}
	return nil
}

// waiting counts what is kept by a grace. How large the NARs are is counted for people
// only, because it takes looking at each; one whose recipe cannot be read counts nothing.
func (c *Collector) waiting(s *catalog.Snapshot, clock catalog.Clock, weigh bool) (w Waiting, err error) {
	ends := func(day uint32, grace time.Duration) (at time.Time) {
		if day < clock.Day && !clock.Now.IsZero() {
			at = clock.Now.Add(grace - clock.Age(day))
		}
		return at
	}
	first := func(to *time.Time, at time.Time) {
		if to.IsZero() || !at.IsZero() && at.Before(*to) {
			*to = at
		}
	}
	for u, err := range s.Unreferenced() {
		if err != nil {
			return w, err
		}
		w.Nars++
		first(&w.NextNar, ends(u.Day, c.o.NarGrace))
		if !weigh {
			continue
		}
		r, _, err := s.Recipe(u.NarHash)
		if _, bad := errors.AsType[*catalog.BadRecipeError](err); err != nil && !bad {
			return w, err
		}
		w.NarBytes += r.Size
	}
	for b, err := range s.Buried() {
		if err != nil {
			return w, err
		}
		w.Objects++
		w.ObjectBytes += b.Bytes
		first(&w.NextObject, ends(b.Day, c.o.ReaderGrace))
	}
	return w, nil
}
