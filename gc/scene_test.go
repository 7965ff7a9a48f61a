package gc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
)

// mkScene makes a world in which the next round of scene's collector has something of
// everything to do: paths to remove, NARs whose grace has ended, chunks to condemn, objects
// to delete, packs to write again, and orphans.
//
//	a  pushed on day 0, removed on 12: NARs removed and chunks condemned on 18, objects due now
//	b  pushed on day 5, removed on 18: NARs due now
//	c  pushed on day 12: due now
//	k  used every day; its NARs share chunks with all the others
func mkScene(t testing.TB) *world {
	t.Helper()
	w := mkWorld(t)
	n := w.mkNode(t)
	c := n.scene()
	n.create("main", 10*day)
	step := func(days int) {
		for range days {
			w.pass(day + time.Minute)
			n.tick()
			if names := n.names("main"); strings.Contains(names, "k0") {
				n.use("main", slices.DeleteFunc(strings.Fields(names), func(s string) bool { return s[0] != 'k' })...)
			}
		}
	}
	generation := func(g string) {
		n.push("main", g+"0", g+"0", "shared-"+g)
		n.push("main", g+"1: "+g+"0", g+"1", g+"x", g+"y")
		n.push("main", g+"2: "+g+"1 "+g+"0", g+"2")
	}
	generation("a")
	n.push("main", "k0", "k0", "shared-a", "ax")
	step(5)
	generation("b")
	n.push("main", "k1: k0", "k1", "shared-b", "bx")
	step(7)
	n.mustRound(c) // day 12
	generation("c")
	n.push("main", "k2: k1 k0", "k2", "shared-c", "cx")
	step(6)
	n.mustRound(c) // day 18
	orphan(n)
	step(6) // day 24
	n.close()
	return w
}

// orphan leaves an object that is never committed.
func orphan(n *node) {
	n.t.Helper()
	if _, err := n.chunks.Write(n.t.Context(), strings.NewReader(strings.Repeat("never committed", 4000))); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) tick() {
	n.t.Helper()
	if _, err := n.cat.Tick(n.t.Context(), catalog.TickOptions{Day: day}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) scene(change ...func(*gc.Options)) *gc.Collector {
	return n.collector(append([]func(*gc.Options){func(o *gc.Options) {
		o.NarGrace, o.ReaderGrace, o.Batch, o.RewriteAbove = 5*day, 2*day, 4, 0.3
	}}, change...)...)
}

// copy makes a second world of the same objects and the same time.
func (w *world) copy(t testing.TB) *world {
	t.Helper()
	c := &world{t: t, clock: w.now(), nars: maps.Clone(w.nars)}
	c.bucket = memblob.NewAt(c.now)
	for info, err := range w.bucket.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := w.bucket.Get(t.Context(), info.Key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.bucket.Put(t.Context(), info.Key, body); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// wantSound checks that all there is can be read, and that all counts are right.
func (n *node) wantSound() {
	n.t.Helper()
	for _, name := range strings.Fields(n.names("main")) {
		if err := n.readBack("main", name); err != nil {
			n.t.Errorf("%s: %v", name, err)
		}
	}
	s, err := n.cat.Snapshot(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	err = s.CheckCounts(n.t.Context(), func(d catalog.Discrepancy) bool {
		n.t.Errorf("%s is %s, want %s", d.Row, d.Found, d.Want)
		return true
	})
	if err := errors.Join(err, s.Close()); err != nil {
		n.t.Error(err)
	}
}

func TestScene(t *testing.T) {
	w := mkScene(t)
	n := w.mkNode(t)
	n.wantPaths("main", "c0 c1 c2 k0 k1 k2")
	rep := n.mustRound(n.scene())
	if rep.Removed != 3 || rep.Recipes != 3 || rep.Condemned == 0 || rep.Deleted == 0 || rep.Rewritten == 0 || rep.Orphans != 1 {
		t.Errorf("the scene has not something of everything: %+v", rep)
	}
	n.wantPaths("main", "k0 k1 k2")
	n.wantSound()
	w.mkNode(t).wantSound()
}

var errKilled = errors.New("killed")

// door is a bucket as one process sees it. At its n-th call hook is run: before the call
// or, with after, when it was performed. If hook says so the process is dead from then on.
type door struct {
	b     blob.Bucket
	n     int
	after bool
	hook  func(call string) (dead bool)

	mu    sync.Mutex // guards calls and dead
	calls int
	dead  bool
}

func (d *door) call(op string, key blob.Key, perform func() error) error {
	d.mu.Lock()
	d.calls++
	mine, dead := d.calls == d.n, d.dead
	d.mu.Unlock()
	if dead {
		return errKilled
	}
	name := fmt.Sprint(op, " ", strings.SplitAfter(string(key), "/")[0])
	die := func() bool {
		if !d.hook(name) {
			return false
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.dead = true
		return true
	}
	if mine && !d.after && die() {
		return errKilled
	}
	err := perform()
	if mine && d.after && die() {
		return errKilled
	}
	return err
}

func (d *door) Get(ctx context.Context, key blob.Key) (body []byte, tag blob.Tag, err error) {
	err = d.call("get", key, func() (err error) { body, tag, err = d.b.Get(ctx, key); return err })
	return body, tag, err
}

func (d *door) GetIf(ctx context.Context, key blob.Key, old blob.Tag) (body []byte, tag blob.Tag, err error) {
	err = d.call("get", key, func() (err error) { body, tag, err = d.b.GetIf(ctx, key, old); return err })
	return body, tag, err
}

func (d *door) GetRange(ctx context.Context, key blob.Key, off, n int64) (r io.ReadCloser, err error) {
	err = d.call("get", key, func() (err error) { r, err = d.b.GetRange(ctx, key, off, n); return err })
	return r, err
}

func (d *door) Create(ctx context.Context, key blob.Key, body []byte) (tag blob.Tag, err error) {
	err = d.call("create", key, func() (err error) { tag, err = d.b.Create(ctx, key, body); return err })
	return tag, err
}

func (d *door) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (tag blob.Tag, err error) {
	err = d.call("swap", key, func() (err error) { tag, err = d.b.Swap(ctx, key, old, body); return err })
	return tag, err
}

func (d *door) Put(ctx context.Context, key blob.Key, body []byte) (tag blob.Tag, err error) {
	err = d.call("put", key, func() (err error) { tag, err = d.b.Put(ctx, key, body); return err })
	return tag, err
}

// Delete may be broken off between any two objects.
func (d *door) Delete(ctx context.Context, keys ...blob.Key) error {
	for _, key := range keys {
		if err := d.call("delete", key, func() error { return d.b.Delete(ctx, key) }); err != nil {
			return err
		}
	}
	return nil
}

func (d *door) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		if err := d.call("list", prefix, func() error { return nil }); err != nil {
			yield(blob.Info{}, err)
			return
		}
		for info, err := range d.b.List(ctx, prefix, after) {
			if !yield(info, err) {
				return
			}
		}
	}
}

// eachCall plays the scene once for each call that its round makes. play is given a fresh
// copy and the number of the call, and returns the name of the call, or "" when the round
// ended before.
func eachCall(t *testing.T, scene *world, play func(t *testing.T, w *world, n int) string) {
	t.Helper()
	seen := map[string]int{}
	step := 1
	if testing.Short() {
		step = 7
	}
	for n := 1; ; n += step {
		name := ""
		t.Run(fmt.Sprint(n), func(t *testing.T) { name = play(t, scene.copy(t), n) })
		if name == "" {
			t.Logf("%d calls: %v", n-1, seen)
			break
		}
		seen[name]++
	}
	for _, want := range []string{"create log/", "delete pack/", "put pack/", "list pack/", "get pack/"} {
		if seen[want] == 0 && step == 1 {
			t.Errorf("no call was a %q: %v", want, seen)
		}
	}
}

// TestKilledAnywhere kills a round before or after each of its calls. What lives must be
// there for a server that begins with nothing, and later rounds finish the work.
func TestKilledAnywhere(t *testing.T) {
	scene := mkScene(t)
	for _, after := range []bool{false, true} {
		t.Run(map[bool]string{false: "before", true: "after"}[after], func(t *testing.T) {
			eachCall(t, scene, func(t *testing.T, w *world, n int) (name string) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				d := &door{b: w.bucket, n: -1, after: after, hook: func(call string) bool { name = call; cancel(); return true }}
				victim, err := w.openNode(t, d)
				if err != nil {
					t.Fatal(err)
				}
				d.mu.Lock()
				d.n = d.calls + n
				d.mu.Unlock()
				if _, err := victim.scene().Round(ctx, gc.Mode{}); err == nil && name != "" && !after {
					t.Errorf("killed at %q, and the round says that it ended", name)
				}
				fresh := w.mkNode(t)
				fresh.wantSound()
				if names := fresh.names("main"); !strings.HasSuffix(names, "k0 k1 k2") {
					t.Errorf("paths that live are gone: %s", names)
				}
				fresh.finish(t)
				return name
			})
		})
	}
}

// finish lets later rounds end the work, and checks that they did.
func (n *node) finish(t *testing.T) {
	t.Helper()
	c := n.scene()
	for range 10 {
		n.w.pass(day + time.Minute)
		n.use("main", "k0", "k1", "k2")
		n.mustRound(c)
	}
	n.wantPaths("main", "k0 k1 k2")
	n.wantSound()
	for _, part := range []string{"a1", "b1", "c1", "ay", "by", "cy"} {
		if n.w.holds(part) {
			t.Errorf("%s is still in the bucket", part)
		}
	}
	// What lives: three NARs of their own and three shared ones, and what they lie in.
	known := 0
	for _, key := range n.w.objects("pack/") {
		body, _, err := n.w.bucket.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		known += len(body)
	}
	if known > 800<<10 {
		t.Errorf("%d bytes are left for 9 parts of 40 KiB", known)
	}
}
