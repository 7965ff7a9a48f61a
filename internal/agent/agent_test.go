package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

func TestPushesWhatIsQueued(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) { w.add("ci", "before") }, func(t *testing.T, w *world, a *Agent) {
		pass(time.Second)
		w.wantHave("ci", "before")
		w.set(func() { w.pushes = 0 })
		for i := range 10 {
			w.add("ci", fmt.Sprintf("out%d", i), fmt.Sprintf("doc%d", i))
			a.Wake()
		}
		pass(time.Second)
		w.wantQueued(0)
		if len(w.arrived()) != 21 || w.count() != 1 {
			t.Errorf("%d paths arrived in %d pushes, want 21 in 1", len(w.arrived()), w.count())
		}
		w.add("ci", "unannounced")
		pass(lookEvery + time.Second)
		w.wantHave("ci", append([]string{"before", "unannounced"}, numbered("out%d", 10, "doc%d")...)...)
		s := statusOf(t, a)
		if s.Pushed != 22 || s.Entries != 0 || s.Queued != 0 || s.Oldest != nil || s.LastError != "" {
			t.Errorf("status %+v", s)
		}
	})
}

func numbered(format string, n int, more ...string) []string {
	var names []string
	for i := range n {
		for _, f := range append(more, format) {
			names = append(names, fmt.Sprintf(f, i))
		}
	}
	return names
}

// A server that is down for two days costs patience and nothing else.
func TestServerDownForDays(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) { w.down["ci"] = errDown }, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "built")
		a.Wake()
		pass(48 * time.Hour)
		if w.count() < 24*60/2 || w.count() > 48*60 {
			t.Errorf("%d attempts in two days, want one every two minutes or so", w.count())
		}
		if links := w.links(); len(links) != 1 || !w.told(links[0]) {
			t.Errorf("links %v, of which the store was not told", links)
		}
		s := statusOf(t, a)
		if s.Entries != 1 || s.LastError != errDown.Error() || len(s.Caches) != 1 || s.Caches[0].Retry == nil || time.Since(*s.Oldest) < 47*time.Hour {
			t.Errorf("status %+v", s)
		}
		w.add("ci", "later")
		w.set(func() { delete(w.down, "ci") })
		pass(lastLanePause + lastLanePause/4)
		w.wantHave("ci", "built", "later")
		w.wantQueued(0)
		if links := w.links(); len(links) > 0 {
			t.Errorf("links %v are left", links)
		}
	})
}

// One cache that is down holds up no other.
func TestLanesDoNotWait(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) { w.down["a"] = errDown }, func(_ *testing.T, w *world, a *Agent) {
		w.add("a", "one")
		w.add("b", "one")
		a.Wake()
		pass(time.Second)
		w.wantHave("b", "one")
		w.wantQueued(1)
	})
}

// What is wrong with one path is that path's trouble: the others arrive, it is tried
// again, more and more seldom, and arrives when it is mended.
func TestPoison(t *testing.T) {
	for name, err := range map[string]error{
		"damaged":  &client.DamagedError{Err: errors.New("NAR hash expected")},
		"refused":  &client.StatusError{Status: 400, Message: "no"},
		"crashing": &client.StatusError{Status: 500, Message: "the server does not know why"},
	} {
		t.Run(name, func(t *testing.T) {
			agentTest(t, func(w *world, _ *Options) { w.refuse["bad"] = err }, func(t *testing.T, w *world, a *Agent) {
				for i := range 10 {
					w.add("ci", fmt.Sprintf("a%d", i))
				}
				w.add("ci", "bad", "with-bad")
				w.add("ci", "last")
				a.Wake()
				pass(time.Second)
				w.wantQueued(1)
				w.wantHave("ci", append(numbered("a%d", 10), "last", "with-bad")...)
				w.set(func() { w.pushes = 0 })
				pass(24 * time.Hour)
				if w.count() < 20 || w.count() > 60 {
					t.Errorf("the bad one was tried %d times in a day, want about once an hour", w.count())
				}
				s := statusOf(t, a)
				if len(s.Failing) != 1 || s.Failing[0].Attempts < 20 || s.LastError == "" {
					t.Errorf("status %+v", s)
				}
				w.add("ci", "new")
				a.Wake()
				pass(time.Second)
				w.wantQueued(1)
				w.set(func() { delete(w.refuse, "bad") })
				pass(lastEntryPause + lastEntryPause/4)
				w.wantQueued(0)
			})
		})
	}
}

// An error that tells neither whether it is the server's nor the path's does not stop
// what is behind it for ever.
func TestPoisonThatLooksLikeTheServer(t *testing.T) {
	agentTest(t, nil, func(_ *testing.T, w *world, a *Agent) {
		// Push itself fails whenever the path is among those to be pushed.
		w.set(func() { w.vanish["odd"] = true })
		w.add("ci", "odd")
		w.add("ci", "fine")
		a.Wake()
		pass(time.Minute)
		w.wantHave("ci", "fine")
	})
	agentTest(t, func(w *world, o *Options) {
		dial := o.Dial
		o.Dial = func(ref string) (Pusher, string, error) {
			p, cache, err := dial(ref)
			return &oddPusher{p, "odd"}, cache, err
		}
	}, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "odd")
		for i := range 5 {
			w.add("ci", fmt.Sprintf("fine%d", i))
		}
		a.Wake()
		pass(time.Minute)
		w.wantHave("ci", numbered("fine%d", 5)...)
		w.wantQueued(1)
		w.set(func() { w.pushes = 0 })
		pass(24 * time.Hour)
		if w.count() > 60 {
			t.Errorf("%d pushes in a day for one path that fails", w.count())
		}
	})
}

// oddPusher fails as if the server was gone when a certain path is pushed.
type oddPusher struct {
	Pusher
	name string
}

func (p *oddPusher) Push(ctx context.Context, s client.Store, o client.PushOptions, ev client.Events) (client.Result, error) {
	if strings.Contains(strings.Join(o.Paths, " "), p.name) {
		return client.Result{}, errDown
	}
	return p.Pusher.Push(ctx, s, o, ev)
}

func TestPathsThatVanish(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) {
		w.gone["early"] = true    // before the agent sees it
		w.vanish["midway"] = true // while it is pushed
	}, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "early", "stays")
		w.add("ci", "midway")
		w.add("ci", "other")
		a.Wake()
		pass(time.Second)
		w.wantQueued(0)
		w.wantHave("ci", "other", "stays")
		if s := statusOf(t, a); s.Gone != 2 || s.Pushed != 2 {
			t.Errorf("gone %d, pushed %d, want 2 and 2", s.Gone, s.Pushed)
		}
	})
}

// That a path is gone needs no server to be found out.
func TestGoneWithoutServer(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) {
		w.gone["gone"] = true
		w.dial = errors.New("server is not configured")
	}, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "gone")
		a.Wake()
		pass(time.Second)
		w.wantQueued(0)
		w.add("ci", "there")
		a.Wake()
		pass(time.Minute)
		w.add("ci", "gone")
		a.Wake()
		pass(lastLanePause)
		w.wantQueued(1)
		if s := statusOf(t, a); s.Gone != 2 || s.LastError == "" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestEntriesWithoutCache(t *testing.T) {
	agentTest(t, func(_ *world, o *Options) { o.Caches = []string{"a", "b"} }, func(_ *testing.T, w *world, a *Agent) {
		w.add("", "one")
		w.add("c", "two")
		a.Wake()
		pass(time.Second)
		w.wantHave("a", "one")
		w.wantHave("b", "one")
		w.wantHave("c", "two")
		w.wantQueued(0)
	})
	agentTest(t, nil, func(t *testing.T, w *world, a *Agent) {
		w.add("", "one")
		a.Wake()
		pass(time.Hour)
		w.wantQueued(1)
		if s := statusOf(t, a); len(s.Caches) != 1 || s.Caches[0].LastError == "" {
			t.Errorf("status %+v does not say what is missing", s)
		}
		select {
		case r := <-waitOn(t, a).reply:
			if r.Undone != 1 || len(r.Failures) != 1 {
				t.Errorf("waited: %+v", r)
			}
		case <-time.After(time.Minute):
			t.Error("waits for a cache that nobody will name")
		}
	})
}

func TestDamagedEntry(t *testing.T) {
	agentTest(t, nil, func(t *testing.T, w *world, a *Agent) {
		bad := w.add("ci", "bad")
		if err := os.Truncate(filepath.Join(w.q.Dir(), "entries", string(bad)), 40); err != nil {
			t.Fatal(err)
		}
		w.add("ci", "good")
		a.Wake()
		pass(time.Second)
		w.wantQueued(0)
		w.wantHave("ci", "good")
		if s := statusOf(t, a); s.Damaged != 1 {
			t.Errorf("status %+v", s)
		}
		if _, err := os.Stat(filepath.Join(w.q.Dir(), "damaged", string(bad))); err != nil {
			t.Error(err)
		}
	})
}

func TestWait(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) { w.took = 10 * time.Second }, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "one")
		w.add("ci", "two")
		waiting := waitOn(t, a)
		w.add("ci", "later")
		pass(5 * time.Second)
		select {
		case <-waiting.reply:
			t.Fatal("the wait is over before anything arrived")
		default:
		}
		r := <-waiting.reply
		w.wantHave("ci", "one", "two")
		if r.Entries != 2 || r.Undone != 0 {
			t.Errorf("waited: %+v", r)
		}
	})
}

// A failure ends the wait for it: at once if somebody must mend it, and only then.
func TestWaitForFailures(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) {
		w.refuse["bad"] = &client.DamagedError{Err: errors.New("NAR hash expected")}
	}, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "bad")
		w.add("ci", "good")
		r := <-waitOn(t, a).reply
		if r.Entries != 2 || r.Undone != 1 || len(r.Failures) != 1 || !strings.Contains(r.Failures[0].Path, "bad") {
			t.Errorf("waited: %+v", r)
		}
		w.set(func() { delete(w.refuse, "bad") })
		if r := <-waitOn(t, a).reply; r.Undone != 0 {
			t.Errorf("waited again: %+v; what failed is to be tried at once", r)
		}
	})
	agentTest(t, func(w *world, _ *Options) { w.down["ci"] = &client.StatusError{Status: 401} }, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "good")
		if r := <-waitOn(t, a).reply; r.Undone != 1 {
			t.Errorf("waited: %+v", r)
		}
		w.set(func() { w.down["ci"] = errDown })
		waiting := waitOn(t, a)
		pass(24 * time.Hour)
		select {
		case r := <-waiting.reply:
			t.Errorf("waited: %+v, though the server may come back", r)
		default:
		}
		w.set(func() { delete(w.down, "ci") })
		if r := <-waiting.reply; r.Undone != 0 {
			t.Errorf("waited: %+v", r)
		}
	})
}

func TestDrain(t *testing.T) {
	drain := func(t *testing.T, prepare func(w *world)) (*world, error) {
		var w *world
		var err error
		synctest.Test(t, func(t *testing.T) {
			w = newWorld(t)
			prepare(w)
			o := w.options()
			o.Drain = true
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			err = New(o).Run(ctx)
		})
		return w, err
	}
	w, err := drain(t, func(w *world) { w.add("ci", "one"); w.add("ci", "two") })
	if err != nil {
		t.Error(err)
	}
	w.wantHave("ci", "one", "two")

	w, err = drain(t, func(w *world) {
		w.refuse["bad"] = &client.StatusError{Status: 400}
		w.add("ci", "bad")
		w.add("ci", "good")
	})
	if undone, ok := errors.AsType[*UndoneError](err); !ok || undone.Left != 1 || undone.Pushed != 1 || len(undone.Failed) != 1 {
		t.Errorf("drained with %v", err)
	}
	w.wantHave("ci", "good")

	_, err = drain(t, func(w *world) { w.down["ci"] = errDown; w.add("ci", "good") })
	if undone, ok := errors.AsType[*UndoneError](err); !ok || undone.Left != 1 {
		t.Errorf("drained with %v after an hour without a server", err)
	}
	_, err = drain(t, func(w *world) { w.dial = errors.New("server is not configured"); w.add("ci", "good") })
	if undone, ok := errors.AsType[*UndoneError](err); !ok || !strings.Contains(undone.Error(), "not configured") {
		t.Errorf("drained with %v", err)
	}
}

// An agent that is stopped in the middle of a push leaves everything to the next one,
// protected meanwhile.
func TestStoppedInMidPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.took = time.Minute
		w.add("ci", "one")
		_, stop := w.start(w.options())
		pass(10 * time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		w.wantQueued(1)
		if links := w.links(); len(links) != 1 {
			t.Errorf("links %v, want one", links)
		}
		if err := os.Symlink("/nix/store/x", filepath.Join(w.q.Dir(), "roots", "of-another-time")); err != nil {
			t.Fatal(err)
		}
		_, stop = w.start(w.options())
		pass(2 * time.Minute)
		w.wantHave("ci", "one")
		w.wantQueued(0)
		if links := w.links(); len(links) != 0 {
			t.Errorf("links %v are left", links)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// An agent that is stopped before it could protect anything does so at the end.
func TestStoppedBeforeProtection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.collecting = true
		w.add("", "homeless")
		_, stop := w.start(w.options())
		pass(10 * time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if links := w.links(); len(links) != 1 || !w.told(links[0]) {
			t.Errorf("links %v, of which the store was not told", links)
		}
	})
}

func TestOneAgentOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, stop := w.start(w.options())
		pass(0)
		if _, ok := errors.AsType[*queue.LockedError](New(w.options()).Run(t.Context())); !ok {
			t.Error("two agents work off one queue")
		}
		o := w.options()
		o.Standby = true
		_, stopSecond := w.start(o)
		pass(time.Minute)
		if err := stop(); err != nil {
			t.Error(err)
		}
		w.add("ci", "one")
		pass(retakeEvery + time.Second)
		w.wantHave("ci", "one")
		if err := stopSecond(); err != nil {
			t.Error(err)
		}
	})
}

// Temporary roots are held while something is queued, and not long after.
func TestRootsAreLetGo(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) { w.took = time.Minute }, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "first")
		a.Wake()
		pass(time.Second)
		w.add("ci", "second") // while the first is pushed
		a.Wake()
		pass(time.Second)
		if w.holders("first") == 0 || w.holders("second") == 0 {
			t.Errorf("something is not held")
		}
		pass(5 * time.Minute)
		if w.holders("first")+w.holders("second") != 0 {
			t.Errorf("something is held when nothing is queued")
		}
	})
}

func pathsOf(t *testing.T, names ...string) map[nix.StorePath]struct{} {
	set := map[nix.StorePath]struct{}{}
	for _, name := range names {
		set[nixtest.MkStorePath(t, name)] = struct{}{}
	}
	return set
}

func TestKeeperRenews(t *testing.T) {
	w := newWorld(t)
	k := keeper{open: w.options().OpenStore}
	want := pathsOf(t, numbered("p%d", heldForNothing+10)...)
	if err := k.hold(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	few := pathsOf(t, "p3", "new")
	if err := k.hold(t.Context(), few); err != nil {
		t.Fatal(err)
	}
	if w.holders("p3") != 1 || w.holders("new") != 1 || w.holders("p4") != 0 {
		t.Errorf("p3 held by %d, new by %d, p4 by %d", w.holders("p3"), w.holders("new"), w.holders("p4"))
	}
	k.close()
}

func TestNotify(t *testing.T) {
	var mu sync.Mutex
	var states []string
	agentTest(t, func(_ *world, o *Options) {
		o.Watchdog = 10 * time.Second
		o.Notify = func(s string) { mu.Lock(); states = append(states, s); mu.Unlock() }
	}, func(*testing.T, *world, *Agent) { pass(time.Minute) })
	all := strings.Join(states, "\n")
	if !strings.HasPrefix(all, "READY=1\nSTATUS=") || !strings.HasSuffix(all, "STOPPING=1\nSTATUS=stopping") {
		t.Errorf("the service manager was told %q", all)
	}
	if n := strings.Count(all, "WATCHDOG=1"); n < 11 || n > 13 {
		t.Errorf("%d signs of life in a minute, want 12", n)
	}
}

// The real socket, and a hook that does not wait.
func TestSocket(t *testing.T) {
	w := newWorld(t)
	if _, ok := errors.AsType[*NotRunningError](WakeAt(t.Context(), w.q.Socket())); !ok {
		t.Error("an agent that does not run was woken")
	}
	w.refuse["bad"] = &client.DamagedError{Err: errors.New("NAR hash expected")}
	if err := os.WriteFile(w.q.Socket(), nil, 0o600); err != nil { // of an agent that was killed
		t.Fatal(err)
	}
	o := w.options()
	o.Listen = NewListener(w.q, nil)
	ready := make(chan struct{})
	once := sync.OnceFunc(func() { close(ready) })
	o.Notify = func(string) { once() }
	_, stop := w.start(o)
	<-ready
	w.add("ci", "good")
	w.add("ci", "bad")
	if err := WakeAt(t.Context(), w.q.Socket()); err != nil {
		t.Fatal(err)
	}
	r, err := WaitAt(t.Context(), w.q.Socket())
	if err != nil || r.Entries == 0 || r.Undone != 1 || !strings.Contains(r.Failures[0].Err, "NAR hash") {
		t.Errorf("waited: %+v %v", r, err)
	}
	s, err := StatusAt(t.Context(), w.q.Socket())
	if err != nil || !s.Running || s.Entries != 1 || s.Pushed != 1 {
		t.Errorf("status %+v %v", s, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, ok := errors.AsType[*NotRunningError](WakeAt(t.Context(), w.q.Socket())); !ok {
		t.Error("the socket is open after the end")
	}
}

// A socket on which somebody listens is left alone, and one that is passed is used.
func TestSocketOfOthers(t *testing.T) {
	w := newWorld(t)
	l, err := NewListener(w.q, nil)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if second, err := NewListener(w.q, nil)(t.Context()); second != nil || err != nil {
		t.Errorf("listens a second time: %v %v", second, err)
	}
	if passed, err := NewListener(w.q, []net.Listener{l})(t.Context()); passed != l || err != nil {
		t.Errorf("took %v %v, want what was passed", passed, err)
	}
	o := w.options()
	o.Listen = NewListener(w.q, nil)
	_, stop := w.start(o)
	if err := stop(); err != nil {
		t.Errorf("an agent without a socket ended with %v", err)
	}
}

func TestSocketName(t *testing.T) {
	q, err := queue.Open(filepath.Join(t.TempDir(), strings.Repeat("deep/", 30)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewListener(q, nil)(t.Context())
	if _, ok := errors.AsType[*SocketNameError](err); !ok {
		t.Errorf("a name of %d bytes gave %v", len(q.Socket()), err)
	}
}

// Two entries name a path, of which one failed and the other did not: the root goes with
// the last of them, whichever had it made.
func TestRootOfTwoEntries(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) { w.down["ci"] = errDown; w.add("ci", "both") }, func(_ *testing.T, w *world, _ *Agent) {
		pass(10 * time.Second)
		if links := w.links(); len(links) != 1 {
			w.t.Fatalf("links %v of a path that could not be pushed, want one", links)
		}
		w.set(func() { w.down["ci"], w.took = nil, 5*time.Minute })
		pass(4 * time.Minute)
		w.wantQueued(1)
		w.add("other", "both")
		pass(3 * time.Minute)
		w.wantQueued(1)
		if links := w.links(); len(links) != 1 {
			w.t.Errorf("links %v while an entry names the path, want one", links)
		}
		pass(10 * time.Minute)
		w.wantQueued(0)
		if links := w.links(); len(links) != 0 {
			w.t.Errorf("links %v, and nothing is queued", links)
		}
	})
}

// A path that arrives while its link is in the making leaves none.
func TestRootOfWhatArrivedMeanwhile(t *testing.T) {
	w := newWorld(t)
	a := New(w.options())
	p := nixtest.MkStorePath(t, "late")
	a.linking = []nix.StorePath{p} // of an entry that has been dropped
	if _, err := w.q.Link(p); err != nil {
		t.Fatal(err)
	}
	a.protected(t.Context(), nil)
	if links := w.links(); len(links) != 0 {
		t.Errorf("links %v, and nothing is queued", links)
	}
}

// A socket of somebody who is slow to answer is not taken away.
func TestListenerIsBusy(t *testing.T) {
	dir, err := os.MkdirTemp("", "busy") // a name that is short enough
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	q, err := queue.Open(filepath.Join(dir, "queue"))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: q.Socket()}), syscall.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	for busy := false; !busy; {
		c, err := dial(t.Context(), q.Socket())
		if err == nil {
			defer c.Close()
		}
		busy = err != nil
	}
	l, err := NewListener(q, nil)(t.Context())
	if l != nil || err != nil {
		t.Errorf("listener %v, %v, want none and no error", l, err)
	}
	if _, err := os.Lstat(q.Socket()); err != nil {
		t.Errorf("the socket is gone: %v", err)
	}
	if l != nil {
		_ = l.Close()
	}
}
