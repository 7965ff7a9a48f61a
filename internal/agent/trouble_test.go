package agent

import (
	"context"
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
	agentTest(t, failOdd, func(t *testing.T, w *world, a *Agent) {
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
	agentTest(t, failOdd, func(t *testing.T, w *world, a *Agent) {
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

// failOdd makes every push fail that has the path called odd in it.
func failOdd(_ *world, o *Options) {
	dial := o.Dial
	o.Dial = func(ref string) (Pusher, string, error) {
		p, cache, err := dial(ref)
		return &oddPusher{p, "odd"}, cache, err
	}
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
