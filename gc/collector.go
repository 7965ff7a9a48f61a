package gc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/catalog"
)

// Collector performs rounds of collection on one store.
type Collector struct {
	cat    *catalog.Catalog
	chunks *chunkstore.Store
	o      Options // with defaults
	m      *metricSet

	mu     sync.Mutex // guards marked
	marked uint32     // upload epoch of the last round that looked at every chunk; 0: none of this Collector
}

// New returns a Collector. Nothing is read or written before the first Round.
func New(cat *catalog.Catalog, chunks *chunkstore.Store, o Options) *Collector {
	o = o.withDefaults()
	return &Collector{cat: cat, chunks: chunks, o: o, m: newMetricSet(o.Metrics)}
}

// Mode says what a round may do.
type Mode struct {
	DryRun bool              // change nothing, and weigh what would be freed
	Cache  catalog.CacheName // remove paths of this cache only; "": of all
	// Every, if set, leaves a round out that comes less than that after another
	// one, of whatever Collector, unless something is due.
	Every time.Duration
	// Each, if set, is called with every path that is removed, or would be.
	Each func(Gone) error
}

// Round removes what is due, whatever it is. Rounds of any number of Collectors may run
// at once: of two that overlap one goes on and the other is fenced, with an error that is
// a catalog.ErrFenced.
//
// A round that is broken off at any point leaves the store sound, and the next one goes on.
// The report says how far it came, also with an error.
func (c *Collector) Round(ctx context.Context, mode Mode) (Report, error) {
	r := &round{Collector: c, mode: mode, rep: Report{DryRun: mode.DryRun, By: c.o.By}}
	if r.mode.Each == nil {
		r.mode.Each = func(Gone) error { return nil }
	}
	ctx = catalog.As(ctx, c.o.By)
	before, began := c.o.Requests(), c.o.Now()
	err := r.run(ctx)
	took := c.o.Now().Sub(began)
	r.rep.Seconds = took.Seconds()
	r.rep.Requests = lessOf(c.o.Requests(), before)
	if err == nil && !mode.DryRun && !r.rep.Skipped {
		err = r.save(ctx)
	}
	c.m.done(&r.rep, err, took)
	return r.rep, err
}

// lessOf returns what was counted in between.
func lessOf(after, before map[string]int64) map[string]int64 {
	for op, n := range before {
		if after[op] -= n; after[op] == 0 {
			delete(after, op)
		}
	}
	return after
}

// save keeps the report where every node can read it.
func (r *round) save(ctx context.Context) error {
	text, err := json.Marshal(&r.rep)
	if err != nil {
		return fmt.Errorf("encode the report of a round: %w", err)
	}
	return r.cat.SaveRound(ctx, catalog.Round{Ended: r.clock.Now, Summary: text})
}

// round is one call of Round.
type round struct {
	*Collector
	mode Mode
	rep  Report

	clock  catalog.Clock
	due    survey
	mark   *catalog.Mark // nil until there is something to remove, and in a dry run
	view   *catalog.Snapshot
	seen   uint32                // touches that were taken into account
	live   *marks                // chunks that recipes name
	hot    *marks                // chunks that recipes named which this round has removed
	gone   map[[32]byte]bool     // recipes that this round has removed
	copies map[chunk.PackID]bool // packs with copies of what they named
	looked *catalog.Mark         // the collection that looked at all chunks; nil: none yet
	purge  bool                  // recipes were removed whose bytes somebody wants to be gone
	purged bool                  // something was buried that somebody wants to be gone
}

func (r *round) run(ctx context.Context) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	if r.rep.Skipped {
		return nil
	}
	if r.mode.DryRun {
		return r.rehearse(ctx)
	}
	if err := r.cat.Sweep(ctx); err != nil { // what destroyed caches left
		return err
	}
	if err := r.remove(ctx); err != nil {
		return err
	}
	if err := r.bury(ctx); err != nil {
		return err
	}
	if err := r.rewrite(ctx); err != nil {
		return err
	}
	if err := r.sweep(ctx); err != nil {
		return err
	}
	if r.purged {
		// Readers' grace is counted from the end of a day. Do not wait for it.
		if _, err := r.cat.Tick(ctx, catalog.TickOptions{}); err != nil {
			return err
		}
	}
	return r.lookAhead(ctx)
}

// begin learns the time and what is due.
func (r *round) begin(ctx context.Context) error {
	if r.mode.Cache != "" { // before anything is committed
		if _, err := r.cat.Cache(ctx, r.mode.Cache); err != nil {
			return err
		}
	}
	s, err := r.cat.Snapshot(ctx)
	if err != nil {
		return err
	}
	day, err := r.dayLength(s)
	clock, clockErr := s.Clock()
	if err := errors.Join(err, clockErr, s.Close()); err != nil {
		return err
	}
	r.rep.First = clock.Begins()
	if r.mode.DryRun {
		if r.clock, err = r.cat.Clock(ctx); err == nil {
			err = r.setNow(ctx, &r.clock)
		}
	} else {
		r.clock, err = r.cat.Tick(ctx, catalog.TickOptions{Day: day})
	}
	if err != nil {
		return fmt.Errorf("ask the bucket for the time: %w", err)
	}
	r.rep.Began, r.rep.Day = r.clock.Now, r.clock.Day
	defer r.closeView()
	if r.view, err = r.cat.Snapshot(ctx); err != nil {
		return err
	}
	if r.due, err = r.survey(ctx, r.view); err != nil {
		return err
	}
	r.rep.Skipped = r.skip()
	if r.rep.First && !r.mode.DryRun {
		r.rep.FirstDue = r.firstDue()
	}
	return nil
}

// firstDue returns when a path of the day that has just ended, the first, can be too old.
func (r *round) firstDue() (at Due) {
	for i := range r.due.caches {
		cache := &r.due.caches[i]
		keep := r.retention(cache)
		if due := r.clock.Now.Add(keep); keep > 0 && r.chosen(cache) && (at.IsZero() || due.Before(at)) {
			at = due
		}
	}
	return at
}

func (r *round) closeView() {
	if r.view != nil {
		_ = r.view.Close() // nothing was written
		r.view = nil
	}
}

const (
	longestDay  = 24 * time.Hour
	shortestDay = time.Minute
)

// dayLength says how long a store day is to last: short enough for the shortest
// retention, and no longer than a day.
func (r *round) dayLength(s *catalog.Snapshot) (time.Duration, error) {
	caches, err := s.Caches()
	day := longestDay
	for i := range caches {
		if keep := r.retention(&caches[i]); keep > 0 {
			day = min(day, keep/8)
		}
	}
	for _, grace := range []time.Duration{r.o.NarGrace, r.o.ReaderGrace} {
		day = min(day, grace)
	}
	return max(day, shortestDay), err
}
