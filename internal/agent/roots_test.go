package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

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
