package gc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
)

// TestAnythingMayHappenMeanwhile does something from another node at each call of a round.
// Whatever that was, it must hold afterwards: what was pushed is there and can be read, and
// what is there is complete.
func TestAnythingMayHappenMeanwhile(t *testing.T) {
	scene := mkScene(t)
	for name, act := range map[string]func(n *node){
		"a push of a path that goes": func(n *node) { n.push("main", "c1: c0", "c1", "cx", "cy") },
		"a push of a NAR whose recipe goes": func(n *node) {
			n.push("main", "new: k0", "b1", "bx", "by")
		},
		"a push of chunks that are condemned": func(n *node) { n.push("main", "new: c2", "b1", "a1", "c1") },
		"a pin": func(n *node) {
			if _, err := n.cat.SetPin(n.t.Context(), catalog.PinChange{Cache: "main", Name: "p", StorePath: mkPath("c2")}); err != nil {
				n.t.Fatal(err)
			}
		},
		"a use": func(n *node) { n.use("main", "c1") },
		"another round": func(n *node) {
			if _, err := n.scene().Round(n.t.Context(), gc.Mode{}); err != nil {
				n.t.Fatal(err)
			}
		},
		"a withdrawal of what lives": func(n *node) {
			if _, err := n.cat.Withdraw(n.t.Context(), "main", part("k2")); err != nil {
				n.t.Fatal(err)
			}
		},
		"the end of the cache": func(n *node) {
			if _, err := n.cat.DestroyCache(n.t.Context(), "main"); err != nil {
				n.t.Fatal(err)
			}
			n.create("main", 10*day)
			n.push("main", "k0", "a1", "b1", "c1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			step := 3
			if testing.Short() {
				step = 11
			}
			for k := 1; ; k += step {
				reached := false
				t.Run(fmt.Sprint(k), func(t *testing.T) { reached = disturb(t, scene.copy(t), k, act) })
				if !reached {
					return
				}
			}
		})
	}
}

// disturb reports whether the round made a k-th call.
func disturb(t *testing.T, w *world, k int, act func(*node)) (reached bool) {
	other := w.mkNode(t)
	d := &door{b: w.bucket, n: -1, hook: func(string) bool { reached = true; act(other); return false }}
	n, err := w.openNode(t, d)
	if err != nil {
		t.Fatal(err)
	}
	d.n = d.calls + k
	_, err = n.scene().Round(t.Context(), gc.Mode{})
	if err != nil && !errors.Is(err, catalog.ErrFenced) {
		t.Errorf("round: %v", err)
	}
	fresh := w.mkNode(t)
	fresh.wantSound()
	fresh.wantClosed()
	before := fresh.names("main")
	if strings.Contains(before, "new") != strings.Contains(other.names("main"), "new") {
		t.Errorf("nodes disagree about %s", before)
	}
	// All that is there goes on being used, and stays.
	c := fresh.scene()
	for range 8 {
		w.pass(day + time.Minute)
		fresh.use("main", strings.Fields(before)...)
		fresh.mustRound(c)
	}
	fresh.wantPaths("main", before)
	fresh.wantSound()
	return reached
}

// wantClosed checks that paths have what they refer to, unless that never was there.
func (n *node) wantClosed() {
	n.t.Helper()
	for _, name := range strings.Fields(n.names("main")) {
		p, err := n.cat.Path(n.t.Context(), "main", part(name))
		if err != nil {
			n.t.Fatal(err)
		}
		for _, r := range p.References {
			_, err := n.cat.Path(n.t.Context(), "main", r.HashPart())
			if err != nil && name != "c1" && name != "new" { // pushed after what they refer to was removed
				n.t.Errorf("%s refers to %s: %v", name, r.Name(), err)
			}
		}
	}
}

// TestPushedIsThere pushes at each call and wants the path afterwards.
func TestPushedIsThere(t *testing.T) {
	scene := mkScene(t)
	step := 2
	if testing.Short() {
		step = 11
	}
	for k := 1; ; k += step {
		w, reached := scene.copy(t), false
		other := w.mkNode(t)
		d := &door{b: w.bucket, n: -1, hook: func(string) bool {
			reached = true
			other.push("main", "c2: c1 c0", "c2", "b1", "ay")
			return false
		}}
		n, err := w.openNode(t, d)
		if err != nil {
			t.Fatal(err)
		}
		d.n = d.calls + k
		if _, err := n.scene().Round(t.Context(), gc.Mode{}); err != nil {
			t.Fatalf("call %d: %v", k, err)
		}
		if !reached {
			return
		}
		if err := w.mkNode(t).readBack("main", "c2"); err != nil {
			t.Errorf("pushed at call %d: %v", k, err)
		}
		other.close()
		n.close()
	}
}

// keeper is a bucket that denies deletion.
type keeper struct {
	blob.Bucket
	deny bool
}

func (k *keeper) Delete(ctx context.Context, keys ...blob.Key) error {
	if k.deny && strings.HasPrefix(string(keys[0]), "pack/") {
		return &blob.Error{Op: "delete", Key: keys[0], Kind: blob.KindDenied, Err: errors.New("object lock")}
	}
	return k.Bucket.Delete(ctx, keys...)
}

func TestBucketThatDeniesDelete(t *testing.T) {
	w := mkScene(t)
	k := &keeper{Bucket: w.bucket, deny: true}
	n, err := w.openNode(t, k)
	if err != nil {
		t.Fatal(err)
	}
	before := len(w.objects("pack/"))
	rep := n.mustRound(n.scene())
	if rep.Undeleted == 0 || rep.Deleted != 0 || rep.Refusal == "" || rep.Removed != 3 {
		t.Errorf("report %+v", rep)
	}
	if after := len(w.objects("pack/")); after < before {
		t.Errorf("%d of %d objects are left", after, before)
	}
	st, err := n.scene().Status(t.Context())
	if err != nil || st.Last == nil || st.Last.Report.Undeleted != rep.Undeleted || st.Waiting.Objects == 0 {
		t.Errorf("status %+v, %v", st, err)
	}
	k.deny = false
	n.finish(t)
}

func TestStatusAndExplanation(t *testing.T) {
	w := mkScene(t)
	n := w.mkNode(t)
	c := n.scene(func(o *gc.Options) {
		o.Clock = func(context.Context) (time.Time, error) { return w.now(), nil }
	})
	if _, err := n.cat.SetPin(t.Context(), catalog.PinChange{Cache: "main", Name: "p", StorePath: mkPath("c1")}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"k2": "it was used",
		"k0": "it was used",
		"c0": `pin "p" names a path that needs it`,
		"c1": `pin "p" names it`,
		"c2": "nothing keeps it",
		"b1": "it is not in the cache; it was removed",
		"a1": "it is not in the cache",
		"zz": "it is not in the cache",
	} {
		ex, err := c.Explain(t.Context(), "main", part(name))
		if err != nil || !strings.HasPrefix(ex.Verdict, want) {
			t.Errorf("%s: %q, %v; want %q", name, ex.Verdict, err, want)
		}
		if present := strings.ContainsAny(name, "ck"); ex.Present != present {
			t.Errorf("%s: present %v", name, ex.Present)
		}
	}
	if _, err := c.Explain(t.Context(), "nothing", part("k0")); !errors.Is(err, catalog.ErrNoCache) {
		t.Errorf("explain a cache that is not there: %v", err)
	}
	st, err := c.Status(t.Context())
	if err != nil || st.Last == nil || st.Last.Report.By != "test" || st.Waiting.Nars != 3 || st.Waiting.NarBytes == 0 || st.Waiting.Objects == 0 || len(st.Oldest) != 1 {
		t.Errorf("status %+v, %v", st, err)
	}
	if _, due := st.Waiting.Next(); !due {
		t.Error("nobody knows when something is due")
	}
}

// More is touched than the operations of the collector look at themselves: it has to take
// that into account and to try again, when it removes paths and when it condemns.
func TestManyTouches(t *testing.T) {
	const many = 4200
	w := mkWorld(t)
	n, other := w.mkNode(t), w.mkNode(t)
	n.create("main", 10*day)
	n.create("other", 10*day)
	n.push("main", "seed", "seed")
	r, err := n.cat.Path(t.Context(), "main", part("seed"))
	if err != nil {
		t.Fatal(err)
	}
	recipe, err := n.cat.Recipe(t.Context(), r.NarHash)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range many { // all of one NAR
		name := fmt.Sprintf("p%d", i)
		names = append(names, name)
		if _, err := n.cat.Publish(t.Context(), catalog.Publication{
			Path:   catalog.Path{Cache: "other", StorePath: mkPath(name), NarHash: r.NarHash, NarSize: r.NarSize},
			Recipe: recipe,
		}); err != nil {
			t.Fatal(err)
		}
	}
	n.push("main", "x: y", "x", "both")
	n.push("main", "y", "y", "both")
	n.push("main", "z", "z")
	n.tick()
	for range 9 {
		w.pass(day)
		n.tick()
	}
	w.pass(2 * day)
	done := map[string]bool{}
	c := n.scene(func(o *gc.Options) {
		o.NarGrace, o.Batch = -1, 4096
		o.Progress = func(p gc.Progress) {
			phase, _, _ := strings.Cut(p.Phase, " of ")
			if done[phase] {
				return
			}
			done[phase] = true
			if phase == "remove paths" {
				other.use("main", "x")
				other.use("other", names...)
			}
		}
	})
	rep := n.mustRound(c)
	if rep.Retries == 0 {
		t.Errorf("%d touches, and the round never looked at them: %+v", many, rep)
	}
	if got := n.names("main"); got != "x y" {
		t.Errorf("main has %q, want x and y", got)
	}
	n.wantSound()
}
