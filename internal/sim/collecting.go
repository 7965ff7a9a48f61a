package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// What the collectors of a [Collecting] are told.
const (
	simRetention   = 10 * 24 * time.Hour
	simNarGrace    = 3 * 24 * time.Hour
	simReaderGrace = 24 * time.Hour
)

// Collecting is one run of the real catalog and the real collectors: pushers, readers
// and people who pin and delete, on nodes that crash, while any number of collectors, each
// of which may be stopped or killed anywhere, decide what is dead.
type Collecting struct {
	Seed       uint64
	Nodes      int
	Pushers    int // each performs Ops operations on nodes of its choice
	Ops        int
	Readers    int // each reads Ops paths, slowly
	Collectors int // each performs Rounds rounds, or parts of them
	Rounds     int
	Compactors int
	Restarts   int
	FaultRate  float64
	Catalog    catalog.Mutants
	GC         gc.Mutants
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
	Expired   int // paths that collectors have removed
	Condemned int
	Moved     int
	Deleted   int // objects
}

// collecting is a run.
type collecting struct {
	Collecting
	run

	mu    sync.Mutex // guards what follows
	known map[string]*fact
	pins  map[string]time.Time // path that a pin was acknowledged for, or may be
	res   CollectingResult
}

// fact is what clients know of a path.
type fact struct {
	used      time.Time // when it was acknowledged as pushed, or as present, last
	withdrawn bool      // somebody has tried to delete it
	pinned    bool      // a pin of it was acknowledged
	loose     bool      // what it refers to may have gone before it was there
	unpinned  bool      // somebody has tried to remove a pin of it
}

const simCache = catalog.CacheName("a")

// Run performs the trial. It must be called inside a synctest bubble.
func (t Collecting) Run(ctx context.Context) CollectingResult {
	c := &collecting{Collecting: t, known: map[string]*fact{}}
	c.run = run{Trial: Trial{Seed: t.Seed, Nodes: t.Nodes, Pebble: true, FaultRate: t.FaultRate}, w: NewWorld(t.Seed), acked: map[string]string{}}
	c.w.Trace = t.Trace
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
		name: name, w: c.w, seed: c.Collecting.Seed*100 + i, disk: c.newDisk(),
		drift: time.Duration(rng.IntN(20*365)-10*365) * 24 * time.Hour, // clocks may be off by years
	}
}

// found creates the cache, before anything goes wrong.
func (c *collecting) found(ctx context.Context, n *node) {
	cat, _ := c.catalog(n)
	if cat == nil {
		return
	}
	if _, err := cat.CreateCache(ctx, catalog.Cache{Name: simCache}); err != nil {
		c.violate("create the cache: %v", err)
	}
	c.w.FaultRate = c.Collecting.FaultRate
}

func (c *collecting) begin(ctx context.Context) {
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 7))
	for i := range c.Pushers {
		go c.pusher(ctx, i)
	}
	for i := range c.Readers {
		go c.reader(ctx, i)
	}
	for i := range c.Collectors {
		go c.collector(ctx, c.mkNode(fmt.Sprintf("gc%d", i), 20+uint64(i), rng), i)
	}
	for i := range c.Collecting.Compactors {
		go c.tables(ctx, i)
	}
	if c.Collecting.Restarts > 0 {
		c.run.Restarts = c.Collecting.Restarts
		go c.restarter(ctx)
	}
}

// tables performs rounds of the real compactor.
func (c *collecting) tables(ctx context.Context, i int) {
	name := fmt.Sprintf("compact%d", i)
	o := compact.Options{
		Env: c.w.Env(name, c.Collecting.Seed*100+60+uint64(i), 0), By: name, FlushSegments: 8, Ratio: 3, Parallel: 2, StealAfter: 1,
		KeepSegments: 16, LogRetention: -1, KeepAll: -1, KeepHourly: -1, KeepDaily: -1,
	}
	compactor := compact.New(c.w.Bucket(name), o)
	for range 6 {
		c.w.Pause(name, "round")
		_, err := compactor.Round(ctx, compact.Mode{})
		var sum *compact.SumError
		if errors.As(err, &sum) {
			c.violate("%s: %v", name, err)
		}
	}
}

// catalog returns the catalog of a node, nil while it is down.
func (c *collecting) catalog(n *node) (*catalog.Catalog, *index.DB) {
	l, st := n.running()
	if l == nil {
		return nil, nil
	}
	db := st.(*crashingState).DB
	return catalog.New(l, db, catalog.Options{
		Now: func() time.Time { return c.w.now.Add(n.drift) }, Mutants: c.Catalog,
		Rand: c.w.Env(n.name, c.Collecting.Seed+77, 0).Rand,
	}), db
}

// anyCatalog waits for a node that is up.
func (c *collecting) anyCatalog(name string, rng *rand.Rand) *catalog.Catalog {
	for range 300 {
		if cat, _ := c.catalog(c.nodes[rng.IntN(len(c.nodes))]); cat != nil {
			return cat
		}
		c.w.Pause(name, "wait for a node")
	}
	return nil
}

// sleep lets time pass in the world.
func (c *collecting) sleep(ctx context.Context, name string, seed uint64, d time.Duration) {
	c.w.Env(name, seed, 0).Sleep(ctx, d, nil)
}

// collector performs rounds, some of which are killed or stopped on the way.
func (c *collecting) collector(ctx context.Context, n *node, i int) {
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 4000+uint64(i)))
	c.boot(ctx, n)
	defer func() { _ = n.stop() }()
	for round := range c.Rounds {
		c.sleep(ctx, n.name, c.Collecting.Seed, time.Duration(rng.IntN(60))*time.Hour)
		c.w.Pause(n.name, "round")
		steps := -1
		if rng.IntN(3) == 0 {
			steps = rng.IntN(60)
		}
		c.round(ctx, n, steps, round)
	}
}

// round performs one round, or as much of it as fits before it is killed.
func (c *collecting) round(ctx context.Context, n *node, steps, round int) {
	cat, _ := c.catalog(n)
	if cat == nil {
		return
	}
	chunks, err := chunkstore.New(c.w.Bucket(n.name), cat, chunkstore.Options{HedgeAfter: -1, RestoreBytes: -1, Now: c.w.clock, PackBytes: 4 << 10})
	if err != nil {
		c.violate("make a chunk store: %v", err)
		return
	}
	defer func() { _ = chunks.Close() }()
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	if steps >= 0 {
		go func() {
			for range steps {
				c.w.Pause(n.name+"'s killer", "waits")
				if ctx.Err() != nil {
					return
				}
			}
			kill()
		}()
	}
	g := gc.New(cat, chunks, gc.Options{
		Now: c.w.clock, Retention: simRetention, NarGrace: simNarGrace, ReaderGrace: simReaderGrace,
		RewriteAbove: 0.3, Batch: 3, Mutants: c.GC,
	})
	rep, err := g.Round(ctx, gc.Mode{Each: func(gone gc.Gone) error {
		c.note("%s removes %s: %+v", n.name, gone.StorePath, gone)
		return nil
	}})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.res.Expired += rep.Removed
	c.res.Condemned += rep.Condemned
	c.res.Moved += rep.Rewritten
	c.res.Deleted += rep.Deleted
	c.note("%s round %d: %d removed, %d condemned, %d moved, %d deleted, %d orphans, %v",
		n.name, round, rep.Removed, rep.Condemned, rep.Rewritten, rep.Deleted, rep.Orphans, err)
	if rep.Strays > 0 || rep.BadRecipes > 0 || rep.Unreadable > 0 {
		c.violations = append(c.violations, fmt.Sprintf("%s: %d strays, %d bad recipes, %d unreadable", n.name, rep.Strays, rep.BadRecipes, rep.Unreadable))
	}
}

// note adds a line to the trace.
func (c *collecting) note(format string, args ...any) {
	if c.w.Trace != nil {
		fmt.Fprintf(c.w.Trace, "       %v %s\n", c.w.now.Format(time.DateTime), fmt.Sprintf(format, args...))
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
	c.res.Trail, c.res.Steps = c.w.Trail(), c.w.Step()
	c.res.Violation = strings.Join(c.violations, "\n")
	return c.res
}

func (c *collecting) settleAll(ctx context.Context) {
	for _, n := range c.nodes {
		_ = n.stop()
	}
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 8))
	n := c.mkNode("fresh", 99, rng)
	if err := n.start(ctx, true); err != nil {
		c.violate("a fresh node does not start: %v", err)
		return
	}
	defer func() {
		if err := n.stop(); err != nil {
			c.violate("stop the fresh node: %v", err)
		}
	}()
	c.audit(ctx, n, "at the end", false)
	for range 8 { // and a month later, when everything that nobody keeps must be gone
		c.sleep(ctx, n.name, 1, 5*24*time.Hour)
		c.round(ctx, n, -1, 99)
	}
	c.audit(ctx, n, "a month later", true)
}

// audit checks counts, that everything in the state reads back, that what clients were
// promised is there, and later that nothing else is.
func (c *collecting) audit(ctx context.Context, n *node, when string, later bool) {
	cat, _ := c.catalog(n)
	if _, err := cat.CatchUp(ctx); err != nil {
		c.violate("%s: %v", when, err)
		return
	}
	s, err := cat.Snapshot(ctx)
	if err != nil {
		c.violate("%s: %v", when, err)
		return
	}
	defer func() { _ = s.Close() }()
	if err := s.CheckCounts(ctx, func(d catalog.Discrepancy) bool {
		c.violate("%s: %s: found %s, want %s", when, d.Row, d.Found, d.Want)
		return true
	}); err != nil {
		c.violate("%s: %v", when, err)
	}
	there := map[nix.HashPart]bool{}
	for r, err := range s.Recipes() {
		if err == nil {
			err = c.readAll(ctx, cat, "fresh", &r)
		}
		if err != nil {
			c.violate("%s: recipe: %v", when, err)
		}
	}
	for p, err := range s.Paths(1) {
		if err != nil {
			c.violate("%s: %v", when, err)
			return
		}
		there[p.StorePath.HashPart()] = true
		if _, ok, err := s.Recipe(p.NarHash); !ok || err != nil {
			c.violate("%s: path %s has no recipe, %v", when, p.StorePath.Name(), err)
		}
	}
	for name := range simPaths {
		if c.promised(name, map[string]bool{}) && !there[simPath(name).HashPart()] {
			c.violate("%s: %s was promised and is not there: %+v", when, name, *c.known[name])
		}
	}
	if !later {
		return
	}
	wanted := c.maybePinned()
	for name := range simPaths {
		if there[simPath(name).HashPart()] && !wanted[name] {
			c.violate("%s: %s is still there, and nobody wants it", when, name)
		}
	}
	for info, err := range c.w.Bucket("fresh").List(ctx, "pack/", "") {
		if err != nil {
			continue
		}
		id, err := parsePack(info.Key)
		if err != nil {
			c.violate("%s: %v", when, err)
			continue
		}
		if ok, err := s.KnowsObject(id); !ok || err != nil {
			c.violate("%s: object %s is nobody's, %v", when, info.Key, err)
		}
	}
}

// promised reports whether a path must be there: somebody was told so within the
// retention, or something that must be there refers to it, and nobody has deleted it.
func (c *collecting) promised(name string, seen map[string]bool) bool {
	f := c.known[name]
	if f == nil || f.withdrawn {
		return false
	}
	if f.pinned && !f.unpinned || c.w.now.Sub(f.used) < simRetention-time.Hour {
		return true
	}
	seen[name] = true
	for other, refs := range simPaths {
		if c.known[other] != nil && c.known[other].loose {
			continue
		}
		if slices.Contains(refs, name) && !seen[other] && c.promised(other, seen) {
			return true
		}
	}
	return false
}

// maybePinned returns what pins may keep: what anybody has ever tried to pin, and what
// that leads to.
func (c *collecting) maybePinned() map[string]bool {
	all := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		if !all[name] {
			all[name] = true
			for _, r := range simPaths[name] {
				add(r)
			}
		}
	}
	for name := range c.pins {
		add(name)
	}
	return all
}
