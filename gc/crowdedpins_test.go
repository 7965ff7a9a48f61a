package gc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
)

// A pin that waited for a path gets more to keep, in the middle of a round, than an operation
// walks through: the round looks for itself, once, and goes on.
func TestPinThatGetsMuchToKeep(t *testing.T) {
	const mids, leaves = 105, 200
	w := mkWorld(t)
	n, other := w.mkNode(t), w.mkNode(t)
	n.create("main", 10*day)
	n.push("main", "mid0", "seed")
	p, err := n.cat.Path(t.Context(), "main", part("mid0"))
	if err != nil {
		t.Fatal(err)
	}
	recipe, err := n.cat.Recipe(t.Context(), p.NarHash)
	if err != nil {
		t.Fatal(err)
	}
	n.push("main", "y")
	n.push("main", "z: y")
	if _, err := n.cat.SetPin(t.Context(), catalog.PinChange{Cache: "main", Name: "p", StorePath: mkPath("root")}); err != nil {
		t.Fatal(err)
	}
	n.tick()
	for range 12 {
		w.pass(day)
		n.tick()
	}
	publish := func(name string, refs []string) {
		path := catalog.Path{Cache: "main", StorePath: mkPath(name), NarHash: p.NarHash, NarSize: p.NarSize}
		for _, r := range refs {
			path.References = append(path.References, mkPath(r))
		}
		if _, err := other.cat.Publish(t.Context(), catalog.Publication{Path: path, Recipe: recipe}); err != nil {
			t.Error(err)
		}
	}
	pushed := false
	c := n.scene(func(o *gc.Options) {
		o.Progress = func(p gc.Progress) {
			if pushed || !strings.HasPrefix(p.Phase, "remove paths") {
				return
			}
			pushed = true
			var roots []string
			for m := range mids {
				var refs []string
				for l := range leaves {
					refs = append(refs, fmt.Sprintf("leaf%d-%d", m, l)) // not there yet
				}
				roots = append(roots, fmt.Sprint("mid", m))
				publish(roots[m], refs)
			}
			publish("root", roots)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rep, err := c.Round(ctx, gc.Mode{})
	if err != nil || rep.Removed != 2 || rep.Retries != 1 {
		t.Errorf("removed %d paths and looked again %d times, %v; want 2 and once", rep.Removed, rep.Retries, err)
	}
}
