package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/celler/celler/compact"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/wal"
)

// What the collectors of a [Collecting] are told.
const (
	simRetention   = 10 * 24 * time.Hour
	simNarGrace    = 3 * 24 * time.Hour
	simReaderGrace = 24 * time.Hour

	// simLastYear is when all must be over: what waits for longer than anything takes makes
	// the world's clock run away, and everything expire.
	simLastYear = 2035
)

const (
	simCache   = catalog.CacheName("a")
	simProfile = "fast2016-1k"
)

// Collecting is one run of all that looks after a bucket: pushers, readers and people who
// pin, delete, set bookmarks and restore, on nodes that crash, while any number of
// collectors and compactors, each of which may be stopped for days or killed anywhere,
// decide what is dead.
type Collecting struct {
	Seed       uint64
	Nodes      int
	Pushers    int // each performs Ops operations on nodes of its choice
	Ops        int
	Deletes    int // for ten other operations, beside the one that is
	Readers    int // each reads twice as many paths, slowly
	Collectors int // each performs Rounds rounds, or parts of them
	Rounds     int
	Compactors int
	Operators  int // each sets bookmarks and restores, half as often as pushers do things
	Checkers   int
	Deltas     int // clients of the delta protocol; each pushes Ops times
	Thieves    int // of another tenant, who know hashes
	Restarts   int
	Freezes    int // of nodes, collectors and compactors
	FaultRate  float64
	Wal        wal.Mutants
	Compact    compact.Mutants
	Catalog    catalog.Mutants
	GC         gc.Mutants
	HTTP       httpapi.Mutants
	Unsettled  bool // receipts are given before it is known what they name
	Trace      io.Writer
}

// CollectingResult is what a run came to.
type CollectingResult struct {
	Violation string
	Trail     uint64
	Steps     int64
	Pushed    int // acknowledged
	Refused   int // pushes that were told to upload again
	Read      int
	Bookmarks int
	Restored  int
	Expired   int // paths that collectors have removed
	Condemned int
	Moved     int
	Deleted   int // objects
	Truncated int // slots
	Checked   int
	Delta     DeltaResult
}

func (r *CollectingResult) add(o CollectingResult) {
	r.Steps += o.Steps
	r.Pushed += o.Pushed
	r.Refused += o.Refused
	r.Read += o.Read
	r.Bookmarks += o.Bookmarks
	r.Restored += o.Restored
	r.Expired += o.Expired
	r.Condemned += o.Condemned
	r.Moved += o.Moved
	r.Deleted += o.Deleted
	r.Truncated += o.Truncated
	r.Checked += o.Checked
	r.Delta.add(o.Delta)
}

// idle reports whether something of what a run is about never happened.
func (r *CollectingResult) idle() bool {
	for _, n := range []int{r.Pushed, r.Refused, r.Read, r.Bookmarks, r.Restored, r.Expired, r.Condemned, r.Moved, r.Deleted, r.Truncated, r.Checked} {
		if n == 0 {
			return true
		}
	}
	return false
}

// collecting is a run.
type collecting struct {
	Collecting
	run

	mu       sync.Mutex // guards what follows
	services map[*node]*service
	facts    *facts
	served   map[[32]byte][32]byte // recipe -> hash of its served form
	states   map[wal.Seq]string    // hashes of states that somebody has looked at
	marks    map[string]wal.Seq    // bookmarks that were acknowledged
	tardy    []string              // those of which the NARs may have gone before
	verifier *auth.Verifier        // of tokens
	tries    map[string]bool       // derivers in commits, and whether these were refused
	loot     []loot                // receipts in wrong hands
	res      CollectingResult
}

// Run performs the trial. It must be called inside a synctest bubble.
func (t Collecting) Run(ctx context.Context) CollectingResult {
	c := &collecting{
		Collecting: t, services: map[*node]*service{}, served: map[[32]byte][32]byte{},
		states: map[wal.Seq]string{}, marks: map[string]wal.Seq{}, verifier: mkVerifier(), tries: map[string]bool{},
	}
	c.run = run{Trial: Trial{Seed: t.Seed, Nodes: t.Nodes, Pebble: true, FaultRate: t.FaultRate}, w: NewWorld(t.Seed), acked: map[string]string{}}
	c.facts = newFacts(c.w)
	c.w.Trace, c.w.Breathe = t.Trace, 64
	if _, err := (wal.Founding{Env: c.w.Env("founder", t.Seed, 0)}).Found(ctx, founder{c.w}, wal.Format{Profile: simProfile}); err != nil {
		return CollectingResult{Violation: fmt.Sprintf("found the bucket: %v", err)}
	}
	rng := rand.New(rand.NewPCG(t.Seed, 1))
	first := c.mkNode("node0", 0, rng)
	c.nodes = append(c.nodes, first)
	for i := 1; i < t.Nodes; i++ {
		c.nodes = append(c.nodes, c.mkNode(fmt.Sprintf("node%d", i), uint64(i), rng))
	}
	go func() {
		c.boot(ctx, first)
		c.found(ctx, first)
		for _, n := range c.nodes[1:] {
			go c.boot(ctx, n)
		}
		c.begin(ctx)
	}()
	c.w.RunIdle()
	return c.finish(ctx)
}

func (c *collecting) mkNode(name string, i uint64, rng *rand.Rand) *node {
	return &node{
		name: name, w: c.w, seed: c.Collecting.Seed*100 + i, disk: c.newDisk(), mutants: c.Wal,
		drift:   time.Duration(rng.IntN(20*365)-10*365) * 24 * time.Hour, // clocks may be off by years
		started: c.serve, ending: c.unserve,
	}
}

// found creates the cache, before anything goes wrong.
func (c *collecting) found(ctx context.Context, n *node) {
	c.on(n, func(s *service) {
		if _, err := s.cat.CreateCache(ctx, catalog.Cache{Name: simCache}); err != nil {
			c.violate("create the cache: %v", err)
		}
		if c.Deltas > 0 {
			if _, err := s.cat.CreateCache(ctx, catalog.Cache{Name: otherCache}); err != nil {
				c.violate("create the other cache: %v", err)
			}
		}
	})
	c.w.FaultRate = c.Collecting.FaultRate
}

func (c *collecting) begin(ctx context.Context) {
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 7))
	var victims []string
	for _, n := range c.nodes {
		victims = append(victims, n.name)
	}
	for i := range c.Pushers {
		go c.pusher(ctx, i)
	}
	for i := range c.Readers {
		go c.reader(ctx, i)
	}
	for i := range c.Deltas {
		go c.deltaPusher(ctx, i)
	}
	for i := range c.Thieves {
		go c.thief(ctx, i)
	}
	for i := range c.Operators {
		go c.operator(ctx, i)
	}
	for i := range c.Checkers {
		go c.checker(ctx, i)
	}
	for i := range c.Collectors {
		n := c.mkNode(fmt.Sprintf("gc%d", i), 20+uint64(i), rng)
		victims = append(victims, n.name)
		go c.collector(ctx, n, i)
	}
	for i := range c.Collecting.Compactors {
		victims = append(victims, fmt.Sprintf("compact%d", i))
		go c.tables(ctx, i)
	}
	if c.Collecting.Restarts > 0 {
		c.run.Restarts = c.Collecting.Restarts
		go c.restarter(ctx)
	}
	if c.Freezes > 0 {
		go c.freezer(victims)
	}
}

// tables performs rounds of the real compactor.
func (c *collecting) tables(ctx context.Context, i int) {
	name := fmt.Sprintf("compact%d", i)
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 3000+uint64(i)))
	o := compact.Options{
		Env: c.w.Env(name, c.Collecting.Seed*100+60+uint64(i), 0), By: name, FlushSegments: 8, Ratio: 3, Parallel: 2, StealAfter: 1,
		KeepSegments: -1 + 17*rng.IntN(2), LogRetention: -1, KeepAll: -1, KeepHourly: -1, KeepDaily: -1, Mutants: c.Compact,
	}
	compactor := compact.New(c.w.Bucket(name), o)
	for range 6 {
		c.sleep(ctx, name, time.Duration(rng.IntN(48))*time.Hour)
		c.w.Pause(name, "round")
		rep, err := compactor.Round(ctx, compact.Mode{Steal: rng.IntN(2) == 0})
		c.mu.Lock()
		c.res.Truncated += rep.SlotsDeleted
		c.mu.Unlock()
		var sum *compact.SumError
		var corrupt *wal.CorruptError
		if errors.As(err, &sum) || errors.As(err, &corrupt) {
			c.violate("%s: %v", name, err)
		}
	}
}

// freezer stops processes for minutes, hours or days, as SIGSTOP does.
func (c *collecting) freezer(victims []string) {
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 5000))
	for range c.Freezes {
		for range rng.IntN(60) {
			c.w.Pause("freezer", "waits")
		}
		d := []time.Duration{10 * time.Minute, 5 * time.Hour, 30 * time.Hour, 4 * 24 * time.Hour}[rng.IntN(4)]
		victim := victims[rng.IntN(len(victims))]
		c.note("%s is stopped for %v", victim, d)
		c.w.Freeze(victim, d)
	}
}

// sleep lets time pass in the world.
func (c *collecting) sleep(ctx context.Context, name string, d time.Duration) {
	c.w.Env(name, 0, 0).Sleep(ctx, d, nil)
}

// collector performs rounds, some of which are killed on the way.
func (c *collecting) collector(ctx context.Context, n *node, i int) {
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 4000+uint64(i)))
	c.boot(ctx, n)
	defer func() { _ = n.stop() }()
	for round := range c.Rounds {
		c.sleep(ctx, n.name, time.Duration(rng.IntN(60))*time.Hour)
		c.w.Pause(n.name, "round")
		steps := -1
		if rng.IntN(3) == 0 {
			steps = rng.IntN(60)
		}
		c.on(n, func(s *service) { c.round(s, steps, round) })
		if steps >= 0 && rng.IntN(2) == 0 {
			_ = n.stop()
			c.boot(ctx, n)
		}
	}
}

// round performs one round, or as much of it as fits before it is killed.
func (c *collecting) round(s *service, steps, round int) {
	ctx, kill := context.WithCancel(s.ctx)
	defer kill()
	name := s.n.name
	if steps >= 0 {
		go func() {
			for range steps + 1 { // not at once: everything else must have come to where it waits
				c.w.Pause(name+"'s killer", "waits")
				if ctx.Err() != nil {
					return
				}
			}
			kill()
		}()
	}
	g := gc.New(s.cat, s.chunks, gc.Options{
		Now: c.w.time, Retention: simRetention, NarGrace: simNarGrace, ReaderGrace: simReaderGrace,
		RewriteAbove: 0.3, Batch: 3, Mutants: c.GC,
		KeptSince: func(ctx context.Context) (time.Time, bool, error) { return wal.KeptSince(ctx, c.w.Bucket(name)) },
	})
	began := c.w.time()
	rep, err := g.Round(ctx, gc.Mode{Each: func(gone gc.Gone) error {
		c.note("%s removes %s: %+v", name, gone.StorePath, gone)
		return nil
	}})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.res.Expired += rep.Removed
	c.res.Condemned += rep.Condemned
	c.res.Moved += rep.Rewritten
	c.res.Deleted += rep.Deleted
	c.note("%s round %d: %d removed, %d condemned, %d moved, %d deleted, %d orphans, %v",
		name, round, rep.Removed, rep.Condemned, rep.Rewritten, rep.Deleted, rep.Orphans, err)
	// What a collector was about to write again may be gone if it slept for long.
	late := c.w.time().Sub(began) >= simReaderGrace-time.Hour
	if rep.Strays > 0 || rep.BadRecipes > 0 || rep.Unreadable > 0 && !late {
		c.violate("%s: %d strays, %d bad recipes, %d unreadable", name, rep.Strays, rep.BadRecipes, rep.Unreadable)
	}
}

// note adds a line to the trace.
func (c *collecting) note(format string, args ...any) {
	if c.w.Trace != nil {
		fmt.Fprintf(c.w.Trace, "       %v %s\n", c.w.time().Format(time.DateTime), fmt.Sprintf(format, args...))
	}
}

// finish lets the dust settle and checks what must hold.
func (c *collecting) finish(ctx context.Context) CollectingResult {
	c.w.FaultRate, c.w.Lazy = 0, ""
	done := false
	go func() {
		c.settleAll(ctx)
		done = true
	}()
	c.w.RunIdle()
	if !done {
		c.violate("something hangs although the bucket answers")
	}
	if now := c.w.time(); now.Year() > simLastYear {
		c.violate("somebody has waited until %v", now)
	}
	c.res.Trail, c.res.Steps = c.w.Trail(), c.w.Step()
	c.res.Violation = strings.Join(c.violations, "\n")
	return c.res
}
