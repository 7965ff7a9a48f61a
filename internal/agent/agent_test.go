package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/queue"
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
		if s, err := StatusOf(w.q); err != nil || s.Damaged != 1 {
			t.Errorf("when the agent is gone: %+v, %v", s, err)
		}
	})
}

// What could not be read was not pushed, so a queue is not worked off by setting it aside.
func TestDrainOfDamagedEntry(t *testing.T) {
	w := newWorld(t)
	bad := w.add("ci", "bad")
	if err := os.Truncate(filepath.Join(w.q.Dir(), "entries", string(bad)), 40); err != nil {
		t.Fatal(err)
	}
	o := w.options()
	o.Drain = true
	undone, ok := errors.AsType[*UndoneError](New(o).Run(t.Context()))
	if !ok || undone.Left != 0 || !strings.HasSuffix(undone.Error(), filepath.Join(w.q.Dir(), "damaged")) {
		t.Errorf("the agent ended with %v", undone)
	}
	if err := New(o).Run(t.Context()); err != nil {
		t.Errorf("the next one, which found nothing, ended with %v", err)
	}
	if s := New(o).status(); s.Damaged != 1 {
		t.Errorf("an agent that found nothing counts %d entries set aside, want one", s.Damaged)
	}
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
