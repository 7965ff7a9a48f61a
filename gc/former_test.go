package gc_test

import (
	"slices"
	"testing"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// Of a closure that was deleted before nobody knows what belonged to it: who wants it gone
// now is told what went at about the same time, and nothing but what was named is hurried.
func TestDeleteClosureThenNow(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 0)
	n.create("other", 0)
	for _, name := range []string{"dep", "old", "again", "shared", "app: dep again shared"} {
		n.push("main", name)
	}
	n.push("other", "shared")
	n.push("other", "stranger")
	c := n.collector(func(o *gc.Options) { o.NarGrace = 300 * day })
	del := func(cache string, now bool, paths ...nix.HashPart) gc.DeleteReport {
		t.Helper()
		rep, err := c.Delete(t.Context(), gc.DeleteRequest{Cache: catalog.CacheName(cache), Paths: paths, Closure: true, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	del("main", false, part("old"))
	n.live(3, c)
	if rep := del("main", false, part("app")); len(rep.Paths) != 4 || rep.ClosureUnknown != nil || rep.Waiting != nil {
		t.Errorf("the first time: %+v", rep)
	}
	del("other", false, part("stranger"))
	n.push("main", "again", "other content")

	rep := del("main", true, part("app"))
	if len(rep.Paths) != 0 || rep.Former != 1 || !slices.Equal(rep.ClosureUnknown, hashParts("app")) || !slices.Equal(rep.Waiting, hashParts("dep")) {
		t.Errorf("hurried: %+v; want dep, %v, alone to wait", rep, part("dep"))
	}
	n.live(5, c)
	if w.holds("app") || !w.holds("dep") {
		t.Errorf("the bucket holds app: %v, dep: %v; want dep alone", w.holds("app"), w.holds("dep"))
	}
	if rep = del("main", true, rep.Waiting...); rep.Former != 1 || rep.Waiting != nil {
		t.Errorf("the rest: %+v", rep)
	}
	n.live(5, c)
	if w.holds("dep") || !w.holds("old") || !w.holds("shared") || !w.holds("stranger") {
		t.Error("the bucket holds dep still, or something else no more")
	}
	n.wantPaths("main", "again")
}
