package storewatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore is a store, and the events of its directory.
type fakeStore struct {
	mu     sync.Mutex // guards what follows
	valid  map[nix.StorePath]time.Time
	err    error // of every question
	opened int
	asked  [][]nix.StorePath

	events chan heard
	broken error // of follow
}

func newFakeStore() *fakeStore {
	return &fakeStore{valid: map[nix.StorePath]time.Time{}, events: make(chan heard, 16)}
}

func (s *fakeStore) set(err error) { s.mu.Lock(); s.err = err; s.mu.Unlock() }

func (s *fakeStore) register(p nix.StorePath, at time.Time) {
	s.mu.Lock()
	s.valid[p] = at
	s.mu.Unlock()
}

func (s *fakeStore) forget(p nix.StorePath) {
	s.mu.Lock()
	delete(s.valid, p)
	s.mu.Unlock()
}

func (s *fakeStore) unlock(p nix.StorePath) { s.events <- heard{names: []string{p.Base() + ".lock"}} }

func (s *fakeStore) open(context.Context) (Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	return s, s.err
}

func (s *fakeStore) ValidPaths(_ context.Context, paths []nix.StorePath) ([]nix.StorePath, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, paths)
	return slices.DeleteFunc(slices.Clone(paths), func(p nix.StorePath) bool { return s.valid[p].IsZero() }), s.err
}

func (s *fakeStore) AllValidPaths(context.Context) ([]nix.StorePath, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []nix.StorePath
	for p := range s.valid {
		all = append(all, p)
	}
	return all, s.err
}

func (s *fakeStore) PathInfo(_ context.Context, p nix.StorePath) (nixstore.PathInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.valid[p].IsZero() || p.Name() == "ghost" { // collected after it was listed
		return nixstore.PathInfo{}, fmt.Errorf("%v: %w", p, nixstore.ErrNotValid)
	}
	return nixstore.PathInfo{StorePath: p, RegistrationTime: s.valid[p]}, s.err
}

func (s *fakeStore) Close() error { return nil }

func (s *fakeStore) follow(string) (*follower, error) {
	stopped := make(chan struct{})
	return &follower{
		next: func() ([]string, bool, error) {
			select {
			case h := <-s.events:
				return h.names, h.lost, h.err
			case <-stopped:
				return nil, false, errors.New("stopped")
			}
		},
		stop: func() { close(stopped) },
	}, s.broken
}

// watching runs a watcher in a bubble and collects what it tells.
type watching struct {
	*fakeStore
	mu     sync.Mutex // guards what follows
	told   []nix.StorePath
	refuse error
	seen   time.Time
}

func (w *watching) found(paths []nix.StorePath) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse == nil {
		w.told = append(w.told, paths...)
	}
	return w.refuse
}

// take returns what was told since the last time.
func (w *watching) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, p := range w.told {
		names = append(names, p.Name())
	}
	w.told = nil
	slices.Sort(names)
	return names
}

func (w *watching) want(t *testing.T, after time.Duration, names ...string) {
	t.Helper()
	time.Sleep(after) // of the bubble
	synctest.Wait()
	if got := w.take(); !slices.Equal(got, names) {
		t.Errorf("told %v, want %v", got, names)
	}
}

func watchTest(t *testing.T, o Options, test func(t *testing.T, w *watching)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &watching{fakeStore: newFakeStore()}
		w.register(nixtest.MkStorePath(t, "old"), time.Now().Add(-time.Hour))
		o.OpenStore, o.StoreDir, o.RealDir = w.open, nix.DefaultStoreDir, "/nonexistent"
		if o.follow == nil {
			o.follow = w.follow
		}
		o.Seen = func(at time.Time) { w.mu.Lock(); w.seen = at; w.mu.Unlock() }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- Run(ctx, o, w.found) }()
		synctest.Wait()
		test(t, w)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestEvents(t *testing.T) {
	watchTest(t, Options{}, func(t *testing.T, w *watching) {
		mk := func(name string) nix.StorePath { return nixtest.MkStorePath(t, name) }
		w.want(t, time.Minute)
		for _, name := range []string{"one", "two", "three.drv", "src-source", "source"} {
			w.register(mk(name), time.Now())
			w.unlock(mk(name))
		}
		w.unlock(mk("failed")) // a build that came to nothing
		w.events <- heard{names: []string{"not-a-path.lock", mk("collected").Base(), ".links", "x.lock.lock"}}
		w.want(t, quiet, "one", "two")
		if len(w.asked) != 1 {
			t.Errorf("%d questions for one batch of events", len(w.asked))
		}
		w.want(t, time.Hour) // the scans find nothing that was not told
		w.unlock(mk("one"))  // built anew
		w.want(t, quiet, "one")
	})
}

func TestSources(t *testing.T) {
	watchTest(t, Options{Sources: true}, func(t *testing.T, w *watching) {
		p := nixtest.MkStorePath(t, "a-source")
		w.register(p, time.Now())
		w.unlock(p)
		w.want(t, quiet, "a-source")
	})
}

// What no event told of is found by the next scan, and at once after a loss.
func TestLostEvents(t *testing.T) {
	watchTest(t, Options{}, func(t *testing.T, w *watching) {
		w.register(nixtest.MkStorePath(t, "silent"), time.Now())
		w.want(t, rescanWithEvents-time.Second)
		began := time.Now()
		w.want(t, time.Second, "silent")
		if w.seen.Before(began) {
			t.Errorf("seen up to %v, want the scan's beginning, after %v", w.seen, began)
		}
		w.register(nixtest.MkStorePath(t, "overflow"), time.Now())
		w.register(nixtest.MkStorePath(t, "silent.drv"), time.Now())
		w.events <- heard{lost: true}
		w.want(t, time.Millisecond, "overflow")

		// Collected and made again, both in silence.
		w.mu.Lock()
		w.seen = time.Time{}
		w.mu.Unlock()
		w.forget(nixtest.MkStorePath(t, "silent"))
		w.want(t, rescanWithEvents)
		w.register(nixtest.MkStorePath(t, "silent"), time.Now())
		w.want(t, rescanWithEvents, "silent")
	})
}

// When the store directory goes away and comes back, listening begins anew.
func TestFollowerEnds(t *testing.T) {
	watchTest(t, Options{}, func(t *testing.T, w *watching) {
		w.register(nixtest.MkStorePath(t, "meanwhile"), time.Now())
		w.events <- heard{err: errors.New("unmounted")}
		w.want(t, firstPause, "meanwhile")
		p := nixtest.MkStorePath(t, "heard")
		w.register(p, time.Now())
		w.unlock(p)
		w.want(t, quiet, "heard")
	})
}

func TestNoEvents(t *testing.T) {
	none := func(string) (*follower, error) { return nil, errNoEvents }
	watchTest(t, Options{follow: none}, func(t *testing.T, w *watching) {
		w.register(nixtest.MkStorePath(t, "polled"), time.Now())
		w.want(t, rescanWithoutEvents, "polled")
	})
}

// A daemon that restarts, and a queue that cannot be written, cost time and no path.
func TestTrouble(t *testing.T) {
	watchTest(t, Options{}, func(t *testing.T, w *watching) {
		p := nixtest.MkStorePath(t, "built")
		w.register(p, time.Now())
		w.set(errors.New("the daemon hung up"))
		w.unlock(p)
		w.want(t, 10*time.Second)
		w.set(nil)
		w.mu.Lock()
		w.refuse = errors.New("no space left on device")
		w.mu.Unlock()
		w.want(t, time.Hour)
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		w.want(t, lastPause, "built")
		if w.opened < 3 {
			t.Errorf("connected %d times: a broken connection was kept", w.opened)
		}
	})
}

// What became valid while nobody watched is told first.
func TestSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := &watching{fakeStore: newFakeStore()}
		for name, age := range map[string]time.Duration{"before": 3 * time.Hour, "while-away": time.Minute, "recipe.drv": time.Minute, "ghost": time.Minute} {
			p := nixtest.MkStorePath(t, name)
			w.register(p, time.Now().Add(-age))
			if err := os.WriteFile(filepath.Join(dir, p.Base()), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- Run(ctx, Options{
				OpenStore: w.open, StoreDir: nix.DefaultStoreDir, RealDir: dir, Since: time.Now().Add(-time.Hour), follow: w.follow,
			}, w.found)
		}()
		synctest.Wait()
		w.want(t, 0, "while-away")
		w.want(t, time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestStoreThatCannotBeAsked(t *testing.T) {
	s := newFakeStore()
	s.set(errors.New("no daemon"))
	if err := Run(t.Context(), Options{OpenStore: s.open, follow: s.follow}, nil); err == nil {
		t.Error("no error although there is no store")
	}
}
