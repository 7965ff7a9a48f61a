package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/nix"
)

// Store is what the agent needs of the local Nix store. *nixstore.Store implements it.
type Store interface {
	client.Store
	ValidPaths(ctx context.Context, paths []nix.StorePath) ([]nix.StorePath, error)
	AddIndirectRoot(ctx context.Context, link string) error
	Close() error
}

// Pusher pushes to the server of one cache. *client.Client implements it.
type Pusher interface {
	Push(ctx context.Context, store client.Store, o client.PushOptions, ev client.Events) (client.Result, error)
	Close()
}

// Options say how to work off a queue.
type Options struct {
	Queue *queue.Queue
	// Dial makes a Pusher for a cache reference, and returns the cache's name at it. It
	// is called again after failures, since a token may have been replaced.
	Dial func(reference string) (p Pusher, cache string, err error)
	// OpenStore connects to the local store.
	OpenStore func(context.Context) (Store, error)
	// Caches is where entries go that name no cache.
	Caches []string
	// Jobs is the number of uploads at once; 0 = as many as the server takes well.
	Jobs int

	// Drain: stop when everything was pushed, or has failed in a way that waiting does
	// not mend.
	Drain bool
	// Standby: if the queue has another agent, wait until that is gone.
	Standby bool
	// Listen opens the agent's socket, once the queue is ours; nil, or a nil listener: none.
	Listen func(context.Context) (net.Listener, error)
	// Notify tells a service manager of the agent's state, in sd_notify's words; nil: nobody.
	Notify func(state string)
	// Watchdog is how often Notify must say that the agent is alive; 0: never.
	Watchdog time.Duration
	// Linger is how long to wait for more entries before a batch is begun; default 200 ms.
	Linger time.Duration

	Logger *slog.Logger
	Now    func() time.Time // default time.Now
}

const (
	// maxBatch is how many paths are pushed at once.
	maxBatch = 512
	// lookEvery is how often the queue is looked at when nobody wakes the agent, and
	// readEvery how often it is read even if it seems unchanged.
	lookEvery = 2 * time.Second
	readEvery = time.Minute
	// A lane pauses from firstLanePause to lastLanePause, an entry likewise.
	firstLanePause  = time.Second
	lastLanePause   = 2 * time.Minute
	firstEntryPause = 5 * time.Second
	lastEntryPause  = time.Hour
	// retakeEvery is how often a standby looks whether the queue's agent is gone.
	retakeEvery = 3 * time.Second
	// protectWithin bounds what is done about roots when the agent stops.
	protectWithin = 3 * time.Second
)

// Agent works off one queue.
type Agent struct {
	o       Options
	began   time.Time
	wake    chan struct{}  // closed by nobody; holds one
	asks    chan func()    // run by Run's goroutine; closed by nobody
	results chan outcome   // one for each running batch
	held    chan error     // of the running protect
	stopped chan struct{}  // closed when asks are not answered any more
	workers sync.WaitGroup // batches, protect and the socket

	lanes      map[queue.Target]*lane
	order      []*lane // in order of appearance
	items      map[queue.ID]*item
	paths      map[nix.StorePath]int // entries that name it
	waiters    map[*waiter]struct{}
	keeper     keeper
	protecting bool
	linking    []nix.StorePath // by the running protect
	unguarded  bool            // something is to be protected
	rootErr    string
	changed    time.Time // as the queue told when it was last read
	read       time.Time // when that was
	running    int
	totals     Totals
	cancel     context.CancelFunc
}

// item is an entry that is in the queue.
type item struct {
	id       queue.ID
	entry    queue.Entry
	lane     *lane
	pushing  bool
	done     bool // but its file could not be removed
	attempts int  // that ended in a failure of this very entry
	blunt    bool // the failure may have been the cache's
	next     time.Time
	err      error
	rooted   bool
}

// New returns an agent that does nothing before Run.
func New(o Options) *Agent {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	if o.Linger == 0 {
		o.Linger = 200 * time.Millisecond
	}
	return &Agent{
		o: o, wake: make(chan struct{}, 1), asks: make(chan func()), results: make(chan outcome), held: make(chan error, 1),
		stopped: make(chan struct{}), lanes: map[queue.Target]*lane{}, items: map[queue.ID]*item{},
		paths: map[nix.StorePath]int{}, waiters: map[*waiter]struct{}{}, keeper: keeper{open: o.OpenStore},
	}
}

// Wake makes a running agent look for new entries now.
func (a *Agent) Wake() {
	select {
	case a.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// UndoneError reports what is left of a queue that was to be worked off.
type UndoneError struct {
	Pushed int       // paths
	Left   int       // entries
	Failed []Failure // of those left, the first ones
	Aside  string    // where entries are that could not be read, if there were some
}

func (e *UndoneError) Error() string {
	aside := ""
	if e.Aside != "" {
		if aside = "entries of the queue could not be read, and were moved to " + e.Aside; e.Left == 0 {
			return aside
		}
		aside += "; "
	}
	return aside + e.left()
}

func (e *UndoneError) left() string {
	left := fmt.Sprintf("%d entries are left in the queue", e.Left)
	if e.Left == 1 {
		left = "an entry is left in the queue"
	}
	if len(e.Failed) == 0 {
		return left
	}
	return fmt.Sprintf("%s, %s", left, e.Failed[0])
}

// Run works the queue off until ctx ends, and then returns nil; with Options.Drain until
// there is nothing left to do. It fails if the queue cannot be used, or has another agent.
func (a *Agent) Run(ctx context.Context) (err error) {
	unlock, err := a.lock(ctx)
	if err != nil || unlock == nil {
		return err
	}
	defer unlock()
	a.began = a.o.Now()
	defer close(a.stopped)
	work, cancel := context.WithCancel(ctx)
	a.cancel = cancel
	defer a.workers.Wait()
	defer cancel()

	if err := a.o.Queue.Tidy(a.began); err != nil {
		return err
	}
	if err := a.intake(work); err != nil {
		return err
	}
	a.dropLinks(work)
	stop, err := a.serve(work)
	if err != nil {
		return err
	}
	defer stop()
	a.o.Notify("READY=1\n" + a.statusLine())
	a.loop(work)
	a.o.Notify("STOPPING=1\nSTATUS=stopping")
	a.halt(work)
	if a.o.Drain && len(a.items)+a.totals.Damaged > 0 {
		undone := &UndoneError{a.totals.Pushed, len(a.items), a.failures(nil), ""}
		if a.totals.Damaged > 0 {
			undone.Aside = filepath.Join(a.o.Queue.Dir(), "damaged")
		}
		return undone
	}
	return nil
}

// lock makes this the queue's agent. unlock is nil if ctx ended before.
func (a *Agent) lock(ctx context.Context) (unlock func(), err error) {
	for told := false; ; told = true {
		unlock, err := a.o.Queue.Lock()
		locked, busy := errors.AsType[*queue.LockedError](err)
		if !busy || !a.o.Standby {
			return unlock, err
		}
		if !told {
			a.o.Logger.InfoContext(ctx, "another agent works off the queue, stand by", "err", locked)
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(retakeEvery):
		}
	}
}

// loop is Run once everything is set up.
func (a *Agent) loop(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var alive <-chan time.Time
	if a.o.Watchdog > 0 {
		ticker := time.NewTicker(a.o.Watchdog / 2)
		defer ticker.Stop()
		alive = ticker.C
	}
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		a.start(ctx)
		a.protect(ctx)
		a.answer()
		if a.o.Drain && a.drained() {
			if !a.look(ctx, true) {
				return
			}
			continue
		}
		due.Reset(a.due())
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
			a.look(ctx, true)
		case <-look.C:
			a.look(ctx, false)
		case <-due.C:
		case <-alive:
			a.o.Notify("WATCHDOG=1")
		case f := <-a.asks:
			f()
		case r := <-a.results:
			a.finish(ctx, r)
			a.o.Notify(a.statusLine())
		case err := <-a.held:
			a.protected(ctx, err)
		}
	}
}

// halt cuts what is in hand, waits for it, and protects what is left.
func (a *Agent) halt(ctx context.Context) {
	a.cancel()
	for a.running > 0 {
		a.finish(ctx, <-a.results)
	}
	if a.protecting {
		a.protected(ctx, <-a.held)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), protectWithin)
	defer cancel()
	for _, it := range a.items {
		if links := a.linksOf(it); len(links) > 0 {
			if err := a.keeper.lasting(last, a.o.Queue, links); err != nil {
				a.o.Logger.WarnContext(ctx, "what is queued is not protected from collection", "err", err)
				break
			}
		}
	}
	a.keeper.close()
	for _, l := range a.order {
		l.hangUp()
	}
}

// due is how long there is nothing to do, if nobody asks for something.
func (a *Agent) due() time.Duration {
	now := a.o.Now()
	wait := time.Hour
	for _, l := range a.order {
		if at, ok := l.due(); ok {
			wait = min(wait, max(at.Sub(now), time.Millisecond))
		}
	}
	return wait
}

// pause is how long to wait after the nth failure in a row.
func pause(n int, first, last time.Duration) time.Duration {
	d := last
	if n < 30 {
		d = min(first<<(n-1), last)
	}
	return d - d/8 + rand.N(d/4+1) // no two in step
}
