package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/client"
)

var errOverload = &client.StatusError{Status: 503, Message: "come back later"}

// A server that takes requests and fails every path of them is the server's trouble: it is not
// asked about each of a thousand paths, nor do they pay for it when it is well again.
func TestEveryPathFails(t *testing.T) {
	agentTest(t, nil, func(t *testing.T, w *world, a *Agent) {
		w.set(func() {
			for i := range 100 {
				w.refuse[fmt.Sprintf("p%d", i)] = errOverload
			}
		})
		for i := range 100 {
			w.add("ci", fmt.Sprintf("p%d", i))
		}
		a.Wake()
		pass(3 * time.Hour)
		w.wantQueued(100)
		if attempts := 3 * 60; w.count() > attempts*(blow+1) {
			t.Errorf("%d pushes in three hours of trouble", w.count())
		}
		if s := statusOf(t, a); len(s.Caches) != 1 || s.Caches[0].LastError == "" {
			t.Errorf("status %+v does not say that the cache is in trouble", s)
		}
		w.set(func() { clear(w.refuse) })
		pass(lastLanePause + lastLanePause/4)
		w.wantQueued(0)
	})
}

// A path that failed while others did not, and may have failed because of the server, is tried
// soon after the server was found to be ill and is well again, not when its own pause ends.
func TestForgiven(t *testing.T) {
	agentTest(t, nil, func(t *testing.T, w *world, a *Agent) {
		w.set(func() { w.refuse["unlucky"] = errOverload })
		w.add("ci", "unlucky")
		w.add("ci", "lucky")
		a.Wake()
		pass(24 * time.Hour) // its pause is an hour by now
		w.wantHave("ci", "lucky")
		w.set(func() { w.down["ci"] = errDown })
		w.add("ci", "later")
		a.Wake()
		pass(5 * time.Second)
		w.set(func() { delete(w.down, "ci"); delete(w.refuse, "unlucky") })
		pass(20 * time.Second)
		w.wantHave("ci", "later", "lucky", "unlucky")
	})
}

// A path that is known to fail does not make its cache one in trouble, whatever the error
// looks like: what is built meanwhile is pushed at once.
func TestKnownPoisonDelaysNothing(t *testing.T) {
	agentTest(t, func(_ *world, o *Options) {
		dial := o.Dial
		o.Dial = func(ref string) (Pusher, string, error) {
			p, cache, err := dial(ref)
			return &oddPusher{p, "odd"}, cache, err
		}
	}, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "odd")
		w.add("ci", "even")
		a.Wake()
		pass(time.Minute)
		w.wantHave("ci", "even")
		for range 200 { // over more than an hour, so through several attempts at the odd one
			pass(30 * time.Second)
			if s := statusOf(t, a); s.Caches[0].LastError != "" {
				t.Fatalf("the cache is in trouble: %s", s.Caches[0].LastError)
			}
		}
	})
}

// Who waits does not wait for a pause to end, be it an entry's or a cache's.
func TestWaitTriesAtOnce(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) {
		w.refuse["bad"] = &client.DamagedError{Err: errors.New("NAR hash expected")}
		w.down["ill"] = errDown
	}, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "bad")
		w.add("ill", "good")
		a.Wake()
		pass(24 * time.Hour)
		w.set(func() { clear(w.refuse); clear(w.down) })
		began := time.Now()
		if r := <-waitOn(t, a).reply; r.Entries != 2 || r.Undone != 0 {
			t.Errorf("waited: %+v", r)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("waited %v for what takes no time", took)
		}
	})
}

// A path that is collected while it is pushed by itself is no failure, also for who waits.
func TestVanishesAlone(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) { w.vanish["short-lived"] = true }, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "short-lived")
		if r := <-waitOn(t, a).reply; r.Undone != 0 {
			t.Errorf("waited: %+v", r)
		}
		if s := statusOf(t, a); s.Gone != 1 || s.Failures != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// One line says how many there are, and what is wrong.
func TestStatusLine(t *testing.T) {
	agentTest(t, func(w *world, _ *Options) { w.down["ci"] = errDown }, func(t *testing.T, w *world, a *Agent) {
		w.add("ci", "one")
		a.Wake()
		pass(time.Minute)
		var line string
		a.ask(t.Context(), func() { line = a.statusLine() })
		if !strings.HasPrefix(line, "STATUS=1 paths queued, 0 pushed; ci: ") || strings.Contains(line, "\n") {
			t.Errorf("status line %q", line)
		}
	})
}
