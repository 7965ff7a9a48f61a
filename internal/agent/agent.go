package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
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
}

func (e *UndoneError) Error() string {
	if len(e.Failed) == 0 {
		return fmt.Sprintf("%d entries are left in the queue", e.Left)
	}
	return fmt.Sprintf("%d entries are left in the queue, %s", e.Left, e.Failed[0])
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
	if a.o.Drain && len(a.items) > 0 {
		return &UndoneError{a.totals.Pushed, len(a.items), a.failures(nil)}
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

// look reads the queue if it has changed, or if it must be read, and reports whether
// there was something new.
func (a *Agent) look(ctx context.Context, must bool) bool {
	if !must && a.o.Now().Sub(a.read) < readEvery {
		changed, err := a.o.Queue.Changed()
		if err == nil && changed.Equal(a.changed) {
			return false
		}
	}
	if a.rootErr != "" {
		a.unguarded = true // once more
	}
	before := len(a.items)
	if err := a.intake(ctx); err != nil {
		a.o.Logger.ErrorContext(ctx, "the queue cannot be read", "err", err)
		return false
	}
	return len(a.items) > before
}

// intake reads the entries that are new.
func (a *Agent) intake(ctx context.Context) error {
	a.read = a.o.Now()
	changed, err := a.o.Queue.Changed() // before the names, so as not to miss one
	if err != nil {
		return err
	}
	ids, err := a.o.Queue.IDs()
	if err != nil {
		return err
	}
	a.changed = changed
	for _, id := range ids {
		if a.items[id] == nil {
			a.take(ctx, id)
		}
	}
	return nil
}

// take reads one entry.
func (a *Agent) take(ctx context.Context, id queue.ID) {
	e, err := a.o.Queue.Read(id)
	if errors.Is(err, queue.ErrGone) {
		return
	}
	if damaged, ok := errors.AsType[*queue.DamagedError](err); ok {
		a.totals.Damaged++
		where, err := a.o.Queue.SetAside(id)
		a.o.Logger.ErrorContext(ctx, "a queue entry cannot be read and is set aside", "object", where, "err", errors.Join(damaged, err))
		return
	}
	if err != nil {
		a.o.Logger.ErrorContext(ctx, "a queue entry cannot be read for now", "err", err)
		return
	}
	if e.Target.Cache == "" && len(a.o.Caches) > 0 && a.assign(ctx, id, e) {
		return
	}
	it := &item{id: id, entry: e, lane: a.lane(e.Target)}
	a.items[id] = it
	it.lane.add(it, a.o.Now().Add(a.o.Linger))
	for _, p := range e.Paths {
		a.paths[p]++
	}
	a.unguarded = true
}

// assign replaces an entry that names no cache by one for each of the agent's. If that
// is interrupted some paths are pushed twice.
func (a *Agent) assign(ctx context.Context, id queue.ID, e queue.Entry) bool {
	for _, cache := range a.o.Caches {
		e.Target.Cache = cache
		to, err := a.o.Queue.Add(e)
		if err != nil {
			a.o.Logger.ErrorContext(ctx, "a queue entry cannot be given its cache", "err", err)
			return false
		}
		a.take(ctx, to)
	}
	if err := a.o.Queue.Remove(id); err != nil {
		a.o.Logger.ErrorContext(ctx, "a queue entry cannot be removed", "err", err)
	}
	return true
}

// drop forgets an item that is done.
func (a *Agent) drop(ctx context.Context, it *item) {
	it.lane.remove(it)
	for _, p := range it.entry.Paths {
		if a.paths[p]--; a.paths[p] > 0 {
			continue
		}
		delete(a.paths, p)
		a.unlink(ctx, p) // another entry may have had it made
	}
	if err := a.o.Queue.Remove(it.id); err != nil {
		// It stays known, or it would be pushed again and again.
		a.o.Logger.ErrorContext(ctx, "an entry that was pushed cannot be removed", "err", err)
		it.done = true
		return
	}
	delete(a.items, it.id)
}

// unlink removes the link of a path, if there is one.
func (a *Agent) unlink(ctx context.Context, p nix.StorePath) {
	if err := a.o.Queue.Unlink(p.Base()); err != nil {
		a.o.Logger.WarnContext(ctx, "a root cannot be removed", "err", err)
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

// NewListener is an Options.Listen: it takes over a socket that a service manager opened, if
// there is one in passed, or opens the queue's own.
func NewListener(q *queue.Queue, passed []net.Listener) func(context.Context) (net.Listener, error) {
	return func(ctx context.Context) (net.Listener, error) {
		if len(passed) > 0 {
			return passed[0], nil
		}
		name := q.Socket()
		if len(name) > maxSocketName {
			return nil, &SocketNameError{name}
		}
		// The queue is locked, so no agent listens there; but a service manager may, to
		// start one. What it does not hear of, we find by looking.
		c, err := dial(ctx, name)
		if err == nil {
			return nil, c.Close()
		}
		if errors.Is(err, syscall.EAGAIN) {
			return nil, nil // somebody does, and has not got round to all who called
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("listen on %s: %w", name, err)
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "unix", name)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", name, err)
		}
		return l, nil
	}
}

// maxSocketName is what every Unix has room for.
const maxSocketName = 103

// SocketNameError reports a queue whose directory is too deep for a socket.
type SocketNameError struct{ Name string }

func (e *SocketNameError) Error() string {
	return fmt.Sprintf("listen on %s: the name has %d bytes, and a socket's can have %d", e.Name, len(e.Name), maxSocketName)
}
