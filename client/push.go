package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
)

// Store is what a push needs of the local Nix store. *nixstore.Store implements it.
type Store interface {
	// Resolve finds the store path that a file name leads to, through symlinks.
	Resolve(name string) (nix.StorePath, error)
	// Closure returns what is known of roots and all they refer to, references first.
	Closure(ctx context.Context, roots []nix.StorePath) ([]nixstore.PathInfo, error)
	// PathInfos returns what is known of paths, in their order.
	PathInfos(ctx context.Context, paths []nix.StorePath) ([]nixstore.PathInfo, error)
	// AddTempRoot keeps the local garbage collector off paths while the store is open.
	AddTempRoot(ctx context.Context, paths ...nix.StorePath) error
	// Dump writes the NAR of a path.
	Dump(ctx context.Context, w io.Writer, p nix.StorePath) error
}

// PushOptions says what to push where.
type PushOptions struct {
	Cache          string
	Paths          []string // store paths, or symlinks to them such as ./result
	NoClosure      bool     // push these paths only, not what they refer to
	IgnoreUpstream bool     // push paths signed by upstream keys as well
	Jobs           int      // uploads at once; 0 = as many as the server takes well
	DryRun         bool     // plan, and upload nothing
	Whole          bool     // upload whole NARs, as to a server that takes no chunks
	NoLogs         bool     // leave the logs of builds where they are
	Each           bool     // ask about every path, so that each has its outcome

	// Pins are set to the paths of the same places in Paths: there are none, or as many
	// as paths. Each is set in the very commit that brings its path, which is the last of
	// its closure; or, if the cache has the path already, when all uploads have succeeded.
	Pins      []string
	PinPolicy *PinPolicy // of all of them; nil = as before
}

// Push uploads store paths and all they refer to, as far as the cache lacks them. The
// error is nil if everything was decided and tried; what failed is then in Result.
// With an error Result still says what was done before.
func (c *Client) Push(ctx context.Context, store Store, o PushOptions, ev Events) (Result, error) {
	began := c.now()
	p := &push{c: c, store: store, o: o, ev: &ev, limiter: newLimiter(o.Jobs), each: o.Each}
	err := p.run(ctx)
	if errors.Is(err, errVanished) || errors.Is(err, errWithdrawn) || otherProofKey(err) {
		// What the server called present went before it could be pinned, or referred to: it
		// is pushed now. Or the server has another proof key: it is asked for that.
		p.again()
		err = p.run(ctx)
	}
	if err != nil {
		p.logsLate(ctx)
	}
	p.result.Took = c.now().Sub(began)
	return p.result, err
}

// push is one run of Push.
type push struct {
	c       *Client
	store   Store
	o       PushOptions
	ev      *Events
	limiter *limiter
	budget  budget
	result  Result // this and the others only touched by the goroutine of Push

	derivers   map[nix.StorePath]string // base names
	arrivedNow []nix.StorePath
	named      map[nix.StorePath]bool // by PushOptions.Paths
	namedThere []nix.StorePath        // of these, those that the cache had
	log        logSender              // of run, and of the commit that is under way
	each       bool                   // every path is asked about
	looked     *survey                // or nil if every path was
	earlier    map[nix.StorePath]bool // by an earlier run
}

// again prepares for another run. What the first one has pushed counts.
func (p *push) again() {
	r := &p.result
	p.result = Result{Pushed: r.Pushed, Bytes: r.Bytes, Counted: r.Counted, New: r.New, Deduplicated: r.Deduplicated, Compressed: r.Compressed, Sent: r.Sent} // pins are set again
	p.each, p.looked = true, nil
	p.earlier = make(map[nix.StorePath]bool)
	for _, path := range p.arrivedNow {
		p.earlier[path] = true
	}
}

// path is what a push knows of a store path.
type path struct {
	storePath  nix.StorePath
	narHash    nix.Hash
	narSize    int64
	references []nix.StorePath
	deriver    string // base name, or ""
	sigs       []string
	ca         string
	pin        string // to be set by the upload, or ""
}

func (p *push) run(ctx context.Context) error {
	roots, pins, err := p.roots()
	if err != nil {
		return err
	}
	cache, err := p.cache(ctx)
	if err != nil {
		return err
	}
	if len(pins) > 0 {
		if err := p.mayPin(&cache); err != nil {
			return err
		}
	}
	wanted, paths, err := p.wanted(ctx, roots, &cache, pins)
	if err != nil {
		return err
	}
	later := pins.load(wanted)
	plan := Plan{Paths: paths, Push: len(wanted), Workers: p.limiter.workers()}
	for _, path := range wanted {
		plan.Bytes += path.narSize
	}
	info, delta, err := p.deltaInfo(ctx, &cache, len(wanted))
	if err != nil {
		return err
	}
	p.takeLogs(&cache, delta)
	p.ev.plan(plan)
	if p.o.DryRun && !delta {
		for _, path := range wanted {
			p.outcome(-1, Outcome{Path: path.storePath, Kind: Planned, NarSize: path.narSize})
		}
		return nil
	}
	if delta {
		err = p.uploadDelta(ctx, info, wanted)
	} else {
		err = p.upload(ctx, wanted)
	}
	if err != nil {
		p.result.Unpinned = len(p.o.Pins) - p.result.Pinned
		return err
	}
	if p.o.DryRun {
		return nil
	}
	if err := p.pin(ctx, later); err != nil {
		return err
	}
	return p.logs(ctx)
}

func (p *push) roots() ([]nix.StorePath, pinsOf, error) {
	if n := len(p.o.Pins); n > 0 && n != len(p.o.Paths) {
		return nil, nil, fmt.Errorf("%d pins for %d paths: expected one for each, or none", n, len(p.o.Paths))
	}
	var roots []nix.StorePath
	known := map[nix.StorePath]bool{}
	pins := pinsOf{}
	for i, name := range p.o.Paths {
		root, err := p.store.Resolve(name)
		if err != nil {
			return nil, nil, err
		}
		if !known[root] {
			known[root] = true
			roots = append(roots, root)
		}
		p.named = known
		if len(p.o.Pins) > 0 {
			pins[root] = append(pins[root], p.o.Pins[i])
		}
	}
	return roots, pins, nil
}

// cache reads the cache's configuration. A token that may push but not pull is not
// shown it; then nothing is taken for granted.
func (p *push) cache(ctx context.Context) (Cache, error) {
	cache, err := p.c.Cache(ctx, p.o.Cache)
	if status, ok := errors.AsType[*StatusError](err); ok && status.Status == http.StatusForbidden {
		p.ev.note("the token may not read the cache's configuration: paths of upstream caches are pushed too")
		return Cache{}, nil
	}
	return cache, err
}

// outcome counts and reports; only the goroutine of Push calls it.
func (p *push) outcome(worker int, o Outcome) {
	if o.Kind == Present && p.earlier[o.Path] {
		return // its outcome was that it was pushed
	}
	if o.Kind == Pushed || o.Kind == Deduplicated {
		p.arrivedNow = append(p.arrivedNow, o.Path)
	}
	if o.Kind == Present && p.named[o.Path] {
		p.namedThere = append(p.namedThere, o.Path)
	}
	p.result.count(o)
	p.ev.done(worker, o)
	if o.Pin != nil {
		p.ev.pinned(*o.Pin)
	}
}

// finished is an upload that has ended, one way or the other.
type finished struct {
	item    *item
	worker  int
	outcome Outcome
}

// upload runs the schedule. All decisions are made here, in one goroutine; each upload
// has one of its own, and none is left when upload returns.
func (p *push) upload(ctx context.Context, paths []path) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := newSchedule(paths)
	results := make(chan finished) // never closed: each running upload sends once
	var wg sync.WaitGroup
	defer wg.Wait()

	var idle []int // workers, the lowest on top
	for w := p.limiter.workers() - 1; w >= 0; w-- {
		idle = append(idle, w)
	}
	var stop error // why nothing more is started
	running, inHand := 0, int64(0)
	for s.left > 0 {
		for it := s.peek(); it != nil && len(idle) > 0 && p.limiter.admits(running, inHand, weightOf(it.path.narSize)); it = s.peek() {
			s.start()
			worker := idle[len(idle)-1]
			idle = idle[:len(idle)-1]
			running, inHand = running+1, inHand+weightOf(it.path.narSize)
			p.ev.start(worker, it.path.storePath, it.path.narSize)
			wg.Go(func() { results <- finished{it, worker, p.uploadOne(ctx, worker, &it.path)} })
		}
		if running == 0 {
			stop = errors.New("order the closure: its references go round in a circle")
			p.skip(s.abandon(), stop)
			break
		}
		r := <-results
		idle = append(idle, r.worker)
		running, inHand = running-1, inHand-weightOf(r.item.path.narSize)
		if r.outcome.Kind != Failed {
			s.done(r.item)
			p.outcome(r.worker, r.outcome)
			if stop == nil && ctx.Err() != nil {
				stop = context.Cause(ctx)
				p.skip(s.abandon(), errGivenUp)
			}
			continue
		}
		if cut := context.Cause(ctx); cut != nil && (errors.Is(r.outcome.Err, cut) || errors.Is(r.outcome.Err, context.Canceled)) {
			r.outcome.Kind, r.outcome.Err = Skipped, errGivenUp // nothing of its own went wrong
		}
		if stop == nil {
			if stop = p.mustStop(ctx, r.outcome.Err); stop != nil {
				cancel(stop)
			}
		}
		skipped := s.failed(r.item)
		p.outcome(r.worker, r.outcome)
		for _, it := range skipped {
			p.outcome(-1, Outcome{
				Path: it.path.storePath, Kind: Skipped, NarSize: it.path.narSize,
				Err: fmt.Errorf("its reference %s was not pushed", r.item.path.storePath.Base()),
			})
		}
		if stop != nil {
			p.skip(s.abandon(), errGivenUp)
		}
	}
	return stop
}

// errGivenUp is why a path was not tried after an error that concerns all of them.
var errGivenUp = errors.New("the push was given up")

func (p *push) skip(items []*item, why error) {
	for _, it := range items {
		p.outcome(-1, Outcome{Path: it.path.storePath, Kind: Skipped, NarSize: it.path.narSize, Err: why})
	}
}

// mustStop returns the error that ends the whole push, if err is one that every other
// path would meet as well: the caller gave up, the credentials are bad, the server
// has not answered for too long.
func (p *push) mustStop(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errWithdrawn) {
		return err
	}
	if status, ok := errors.AsType[*StatusError](err); ok && (status.hopeless() || otherProofKey(err)) {
		return err
	}
	if !p.budget.patient(p.c.now(), p.c.retry.Failing) {
		return fmt.Errorf("nothing has succeeded for %v: %w", p.c.retry.Failing, err)
	}
	return nil
}
