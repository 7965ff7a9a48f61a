package gc_test

import (
	"testing"

	"github.com/celler/celler/gc"
)

// The first round says that nothing has an age yet, and when something will be too old.
func TestFirstRoundSaysSo(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("kept", 0)
	n.create("main", 5*day)
	n.create("slow", 9*day)
	n.push("main", "a")
	w.pass(100 * day)
	c := n.collector()
	if rep, err := c.Round(t.Context(), gc.Mode{DryRun: true}); err != nil || !rep.First || !rep.FirstDue.IsZero() || !rep.Idle() {
		t.Errorf("rehearsed: %+v, %v", rep, err)
	}
	rep := n.mustRound(c)
	if !rep.First || !rep.FirstDue.Equal(rep.Began.Add(5*day)) || !rep.Idle() {
		t.Errorf("first: %+v", rep)
	}
	if again := n.mustRound(c); again.First || !again.FirstDue.IsZero() {
		t.Errorf("second: %+v", again)
	}
	for w.now().Before(rep.FirstDue) {
		n.wantPaths("main", "a")
		w.pass(day)
	}
	if rep = n.mustRound(c); rep.Removed != 1 {
		t.Errorf("when the first path is due: %+v", rep)
	}
}
