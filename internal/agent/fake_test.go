package agent

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a local store, some caches and a queue, and the agents that work on them.
type world struct {
	t *testing.T
	q *queue.Queue

	mu      sync.Mutex // guards what follows
	gone    map[string]bool
	temp    map[string]int    // open connections that hold a path, by its name
	lasting map[string]bool   // links that the store was told of
	down    map[string]error  // by cache: what every push ends with
	refuse  map[string]error  // by name of a path: what becomes of it
	vanish  map[string]bool   // collected when a push begins
	have    map[string]string // by name of a path: its cache, or several with a space
	pushes  int
	largest int           // push, in paths
	took    time.Duration // each push takes
	dial    error

	collecting bool // the local store collects garbage
}

func newWorld(t *testing.T) *world {
	q, err := queue.Open(filepath.Join(t.TempDir(), "queue"))
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, q: q, gone: map[string]bool{}, temp: map[string]int{}, lasting: map[string]bool{}, down: map[string]error{},
		refuse: map[string]error{}, vanish: map[string]bool{}, have: map[string]string{},
	}
}

// set changes the world while agents run.
func (w *world) set(change func()) { w.mu.Lock(); defer w.mu.Unlock(); change() }

func (w *world) add(cache string, names ...string) queue.ID {
	w.t.Helper()
	e := queue.Entry{Target: queue.Target{Cache: cache}, Queued: time.Now()}
	for _, name := range names {
		e.Paths = append(e.Paths, nixtest.MkStorePath(w.t, name))
	}
	id, err := w.q.Add(e)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) options() Options {
	return Options{
		Queue: w.q,
		Dial: func(ref string) (Pusher, string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return &fakePusher{w}, ref, w.dial
		},
		OpenStore: func(context.Context) (Store, error) { return &fakeStore{w: w}, nil },
	}
}

// start runs an agent; stop ends it and returns what Run did.
func (w *world) start(o Options) (*Agent, func() error) {
	ctx, cancel := context.WithCancel(w.t.Context())
	a := New(o)
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return a, sync.OnceValue(func() error { cancel(); return <-done })
}

// wantHave compares which paths a cache has.
func (w *world) wantHave(cache string, names ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for name, caches := range w.have {
		if slices.Contains(filepath.SplitList(caches), cache) {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		w.t.Errorf("cache %s has %v, want %v", cache, got, names)
	}
}

// wantQueued compares how many entries are left.
func (w *world) wantQueued(n int) {
	w.t.Helper()
	ids, err := w.q.IDs()
	if err != nil || len(ids) != n {
		w.t.Errorf("%d entries in the queue, %v, want %d", len(ids), err, n)
	}
}

// count is how many pushes there were.
func (w *world) count() (n int) { w.set(func() { n = w.pushes }); return n }

// holders is how many connections keep a path from being collected.
func (w *world) holders(name string) (n int) { w.set(func() { n = w.temp[name] }); return n }

// told reports whether the store knows of a link.
func (w *world) told(link string) (told bool) { w.set(func() { told = w.lasting[link] }); return told }

// arrived are the names of the paths that are in some cache.
func (w *world) arrived() (names []string) {
	w.set(func() {
		for name := range w.have {
			names = append(names, name)
		}
	})
	return names
}

func (w *world) links() []string {
	links, err := w.q.Links()
	if err != nil {
		w.t.Error(err)
	}
	slices.Sort(links)
	return links
}

type fakeStore struct {
	client.Store // what is not asked for
	w            *world
	held         []string
}

func (s *fakeStore) AddTempRoot(ctx context.Context, paths ...nix.StorePath) error {
	s.w.mu.Lock()
	collecting := s.w.collecting
	s.w.mu.Unlock()
	if collecting { // the daemon answers when it has collected
		<-ctx.Done()
		return ctx.Err()
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, p := range paths {
		s.held = append(s.held, p.Name())
		s.w.temp[p.Name()]++
	}
	return nil
}

func (s *fakeStore) ValidPaths(_ context.Context, paths []nix.StorePath) ([]nix.StorePath, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(paths), func(p nix.StorePath) bool { return s.w.gone[p.Name()] }), nil
}

func (s *fakeStore) AddIndirectRoot(_ context.Context, link string) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.lasting[filepath.Base(link)] = true
	return nil
}

func (s *fakeStore) Close() error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, name := range s.held {
		s.w.temp[name]--
	}
	return nil
}

type fakePusher struct{ w *world }

func (p *fakePusher) Close() {}

func (p *fakePusher) Push(ctx context.Context, _ client.Store, o client.PushOptions, ev client.Events) (client.Result, error) {
	w := p.w
	w.mu.Lock()
	took := w.took
	w.mu.Unlock()
	if took > 0 {
		select {
		case <-time.After(took):
		case <-ctx.Done():
			return client.Result{}, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pushes++
	w.largest = max(w.largest, len(o.Paths))
	var r client.Result
	if err := w.down[o.Cache]; err != nil {
		return r, err
	}
	for _, text := range o.Paths {
		sp, err := nix.ParseStorePath(text)
		if err != nil {
			return r, err
		}
		name := sp.Name()
		if w.vanish[name] {
			w.gone[name] = true
			return r, client.ErrNotValid
		}
		if w.temp[name] == 0 {
			w.t.Errorf("%s is pushed and not protected", name)
		}
		if err := w.refuse[name]; err != nil {
			r.Failed++
			ev.Done(0, client.Outcome{Path: sp, Kind: client.Failed, Err: err})
			continue
		}
		r.Pushed++
		if !slices.Contains(filepath.SplitList(w.have[name]), o.Cache) {
			w.have[name] += o.Cache + string(filepath.ListSeparator)
		}
		ev.Done(0, client.Outcome{Path: sp, Kind: client.Pushed})
	}
	return r, nil
}

var errDown = errors.New("dial tcp: connection refused")

// agentTest runs test in a bubble with an agent, which it stops afterwards.
func agentTest(t *testing.T, prepare func(w *world, o *Options), test func(t *testing.T, w *world, a *Agent)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.options()
		if prepare != nil {
			prepare(w, &o)
		}
		a, stop := w.start(o)
		defer func() {
			if err := stop(); err != nil {
				t.Errorf("the agent ended with %v", err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			for name, n := range w.temp {
				if n != 0 {
					t.Errorf("%d connections hold %s after the end", n, name)
				}
			}
		}()
		synctest.Wait()
		test(t, w, a)
	})
}

// pass lets time of the bubble pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// statusOf asks a running agent.
func statusOf(t *testing.T, a *Agent) Status {
	t.Helper()
	var s Status
	if !a.ask(t.Context(), func() { s = a.status() }) {
		t.Fatal("the agent does not answer")
	}
	return s
}

// waitOn begins to wait.
func waitOn(t *testing.T, a *Agent) *waiter {
	t.Helper()
	var w *waiter
	if !a.ask(t.Context(), func() { a.look(t.Context(), true); w = a.wait() }) {
		t.Fatal("the agent does not answer")
	}
	return w
}
