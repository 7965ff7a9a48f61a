package gc_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

const (
	hour = time.Hour
	day  = 24 * hour
)

// collector returns a Collector with the graces of the tests: NARs 10 days, readers 2.
func (n *node) collector(change ...func(*gc.Options)) *gc.Collector {
	o := gc.Options{NarGrace: 10 * day, ReaderGrace: 2 * day, By: "test"}
	for _, c := range change {
		c(&o)
	}
	return gc.New(n.cat, n.chunks, o)
}

// mustRound performs a round and returns its report.
func (n *node) mustRound(c *gc.Collector) gc.Report {
	n.t.Helper()
	rep, err := c.Round(n.t.Context(), gc.Mode{})
	if err != nil {
		n.t.Fatalf("round: %v", err)
	}
	return rep
}

// live lets days pass with a round at the end of each, and adds their reports up.
func (n *node) live(days int, c *gc.Collector) (sum gc.Report) {
	n.t.Helper()
	for range days {
		n.w.pass(day + time.Minute)
		r := n.mustRound(c)
		sum.Removed += r.Removed
		sum.Recipes += r.Recipes
		sum.Condemned += r.Condemned
		sum.Rewritten += r.Rewritten
		sum.Deleted += r.Deleted
		sum.Orphans += r.Orphans
		sum.Undeleted += r.Undeleted
		sum.DeletedBytes += r.DeletedBytes
	}
	return sum
}

func (n *node) use(cache string, names ...string) {
	n.t.Helper()
	var keys []catalog.PathKey
	for _, name := range names {
		keys = append(keys, catalog.PathKey{Cache: catalog.CacheName(cache), HashPart: part(name)})
	}
	if err := n.cat.RecordUses(n.t.Context(), keys); err != nil {
		n.t.Fatal(err)
	}
}

func TestLifeOfAPath(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	c := n.collector()
	n.create("main", 30*day)
	n.push("main", "old")
	n.push("main", "lib", "shared", "lib")
	n.push("main", "app: lib", "shared", "app")

	n.live(29, c)
	n.use("main", "app")
	n.wantPaths("main", "app lib old")

	sum := n.live(4, c)
	n.wantPaths("main", "app lib") // lib is older than old and needed by what was used
	if sum.Removed != 1 || sum.Recipes != 0 {
		t.Errorf("removed %d paths and %d NARs, want one path and no NAR", sum.Removed, sum.Recipes)
	}
	if !w.holds("old") {
		t.Error("the NAR of a path that just left is gone from the bucket")
	}
	sum = n.live(10, c)
	if sum.Recipes != 1 || sum.Condemned == 0 {
		t.Errorf("after the grace %d NARs and %d chunks went, want one and some", sum.Recipes, sum.Condemned)
	}
	sum = n.live(6, c)
	if w.holds("old") {
		t.Error("bytes of a path that left long ago are still in the bucket")
	}
	n.wantPaths("main", "app lib")

	// Everything goes, but nothing before its time.
	n.live(60, c)
	n.wantPaths("main", "")
	if left := w.objects("pack/"); len(left) > 0 {
		t.Errorf("an empty store has %d packs: %v", len(left), left)
	}
	if rep := n.mustRound(c); !rep.Idle() {
		t.Errorf("there is always something to do: %+v", rep)
	}
}

func TestPinsKeepTheirClosure(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	c := n.collector()
	n.create("main", 5*day)
	n.push("main", "lib")
	n.push("main", "app: lib")
	n.push("main", "other")
	if _, err := n.cat.SetPin(t.Context(), catalog.PinChange{Cache: "main", Name: "release", StorePath: mkPath("app")}); err != nil {
		t.Fatal(err)
	}
	n.live(40, c)
	n.wantPaths("main", "app lib")
	if _, err := n.cat.RemovePin(t.Context(), "main", "release"); err != nil {
		t.Fatal(err)
	}
	n.live(8, c)
	n.wantPaths("main", "")
}

func TestForeverMeansForEver(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("kept", 0)     // for ever, whatever the default
	n.create("default", -1) // the server's default
	n.push("kept", "a")
	n.push("default", "b")
	n.live(100, n.collector(func(o *gc.Options) { o.Retention = 20 * day }))
	n.wantPaths("kept", "a")
	n.wantPaths("default", "")
}

func TestQuota(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 0)
	c := n.collector(func(o *gc.Options) { o.Quota = 130 << 10 }) // three NARs of 40 KiB
	for _, name := range []string{"a", "b", "c", "d"} {
		n.push("main", name)
		n.live(1, n.collector())
	}
	n.use("main", "a")
	n.live(1, c)
	n.wantPaths("main", "a c d") // b was used least recently
	if _, err := n.cat.SetPin(t.Context(), catalog.PinChange{Cache: "main", Name: "keep", StorePath: mkPath("c")}); err != nil {
		t.Fatal(err)
	}
	c = n.collector(func(o *gc.Options) { o.Quota = 30 << 10 })
	n.w.pass(day)
	rep := n.mustRound(c)
	n.wantPaths("main", "c")
	if o := rep.OverQuota; o == nil || len(o.Pins) != 1 || o.Pins[0].Pin != "keep" || o.Pins[0].Bytes < 40<<10 {
		t.Errorf("pins exceed the quota, and the report says %+v", rep.OverQuota)
	}
}

// TestQuotaWithinADay: the log notes uses by the day, and among what was used on one day a
// quota takes what was pushed first, whatever its hash.
func TestQuotaWithinADay(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 0)
	names := []string{"a", "b", "c", "d", "e"}
	slices.SortFunc(names, func(a, b string) int { x, y := part(a), part(b); return bytes.Compare(x[:], y[:]) })
	for _, name := range names { // paths are stored in this order, too
		n.push("main", name)
		w.pass(hour)
	}
	n.live(1, n.collector(func(o *gc.Options) { o.Quota = 90 << 10 })) // two NARs of 40 KiB
	kept := names[3:]
	slices.Sort(kept)
	n.wantPaths("main", strings.Join(kept, " "))
}

func TestDryRunSaysWhatWouldHappen(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 10*day)
	n.create("other", 0)
	n.push("main", "both", "both", "shared")
	n.push("main", "gone", "gone", "shared")
	n.push("main", "sub", "gone") // all of it is in gone, too
	n.push("other", "both", "both", "shared")
	n.live(8, n.collector())
	before := len(w.objects(""))
	w.pass(5 * day)
	c := n.collector(func(o *gc.Options) {
		o.Clock = func(context.Context) (time.Time, error) { return w.now(), nil }
	})
	freed := map[string]int64{}
	rep, err := c.Round(t.Context(), gc.Mode{DryRun: true, Each: func(g gc.Gone) error {
		_, name, _ := strings.Cut(g.StorePath, "-")
		freed[name] = g.Freed
		if g.Why != gc.Unused || g.Cache != "main" {
			t.Errorf("%+v", g)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if after := len(w.objects("")); after != before {
		t.Errorf("a dry run wrote %d objects", after-before)
	}
	if rep.Removed != 3 || len(freed) != 3 {
		t.Fatalf("%d paths would go (%v), want 3", rep.Removed, freed)
	}
	if freed["both"] != 0 {
		t.Errorf("both frees %d bytes, but another cache has its NAR", freed["both"])
	}
	if sum := freed["gone"] + freed["sub"]; sum < 40<<10 || sum > 42<<10 || rep.Freed != sum {
		t.Errorf("gone and sub free %d and %d bytes, %d in all; want 40 KiB once", freed["gone"], freed["sub"], rep.Freed)
	}
	n.wantPaths("main", "both gone sub")
}

func TestARoundWithNothingToDoIsCheap(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 30*day)
	n.push("main", "a")
	requests := map[string]int64{}
	c := n.collector(func(o *gc.Options) { o.Requests = n.requests })
	n.mustRound(c)
	rep := n.mustRound(c)
	sum := int64(0)
	for op, k := range rep.Requests {
		requests[op] += k
		sum += k
	}
	if sum == 0 || sum > 12 {
		t.Errorf("an idle round makes %d requests: %v", sum, requests)
	}
}

func TestTwoCollectors(t *testing.T) {
	w := mkWorld(t)
	n, other := w.mkNode(t), w.mkNode(t)
	n.create("main", 5*day)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		n.push("main", name)
	}
	n.live(4, n.collector())
	w.pass(3 * day)
	// The other one begins while this one is at work.
	stolen := false
	c := n.collector(func(o *gc.Options) {
		o.Batch = 2
		o.Progress = func(p gc.Progress) {
			if strings.HasPrefix(p.Phase, "remove paths") && p.Done > 0 && !stolen {
				stolen = true
				other.mustRound(other.collector())
			}
		}
	})
	_, err := c.Round(t.Context(), gc.Mode{})
	if !stolen || !errors.Is(err, catalog.ErrFenced) {
		t.Errorf("stolen: %v; got %v, want ErrFenced", stolen, err)
	}
	n.wantPaths("main", "")
}

func TestDelete(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 0)
	n.push("main", "dep", "dep")
	n.push("main", "common", "common")
	n.push("main", "secret: dep common", "public", "secret")
	n.push("main", "user: secret common", "public", "user")
	c := n.collector()
	n.live(3, c)

	rep, err := c.Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("secret"), Closure: true, Now: true})
	if err != nil {
		t.Fatal(err)
	}
	n.wantPaths("main", "common user")
	if len(rep.Paths) != 2 || len(rep.Referrers) != 1 || !strings.HasSuffix(rep.Referrers[0], "-user") || !rep.Weighed || rep.Freed < 80<<10 || rep.Freed > 90<<10 {
		t.Errorf("report %+v", rep)
	}
	n.mustRound(c)
	if !w.holds("secret") {
		t.Error("bytes are gone before readers had their grace")
	}
	for w.now().Before(rep.GoneBy) {
		n.live(1, c)
	}
	if w.holds("secret") || w.holds("dep") {
		t.Error("the bytes are there after the time that was promised")
	}
	if !w.holds("public") || !w.holds("user") {
		t.Error("bytes of others are gone")
	}
	n.wantPaths("main", "common user")

	if _, err := c.Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("secret")}); !errors.Is(err, catalog.ErrNoPath) {
		t.Errorf("deleting again: %v", err)
	}
}

// A deletion that waits can be hurried.
func TestDeleteThenNow(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 0)
	n.push("main", "secret", "public", "secret")
	n.push("main", "user", "public", "user")
	c := n.collector(func(o *gc.Options) { o.NarGrace = 300 * day })
	n.live(3, c)
	for _, now := range []bool{false, true} {
		if _, err := c.Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("secret"), Now: now}); err != nil {
			t.Fatal(err)
		}
		n.live(5, c)
		if w.holds("secret") == now {
			t.Errorf("now %v, and the bucket holds the bytes: %v", now, !now)
		}
	}
	n.wantPaths("main", "user")
}

func TestDeleteRefusesPinned(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 0)
	n.push("main", "lib")
	n.push("main", "app: lib")
	if _, err := n.cat.SetPin(t.Context(), catalog.PinChange{Cache: "main", Name: "release", StorePath: mkPath("app")}); err != nil {
		t.Fatal(err)
	}
	_, err := n.collector().Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("lib")})
	if pinned, ok := errors.AsType[*gc.PinnedError](err); !ok || pinned.Pin != "release" || !strings.HasSuffix(pinned.Root, "-app") || !errors.Is(err, catalog.ErrPinned) {
		t.Errorf("got %v", err)
	}
	n.wantPaths("main", "app lib")
}

func hashParts(names ...string) (out []nix.HashPart) {
	for _, name := range names {
		out = append(out, part(name))
	}
	return out
}

// What can still be fetched is weighed for who asks, and not whenever a server looks round.
func TestWhatWaitsIsWeighed(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	c := n.collector()
	n.create("main", 5*day)
	n.push("main", "a", "a", "shared")
	n.push("main", "b", "b", "shared")
	n.live(8, c)
	n.wantPaths("main", "")
	want := int64(len(mkNar("a", "shared")) + len(mkNar("b", "shared")))
	for _, mode := range []gc.Mode{{}, {DryRun: true}, {Every: time.Nanosecond}} {
		rep, err := c.Round(t.Context(), mode)
		if mode.Every > 0 {
			want = 0
		}
		if err != nil || rep.Waiting.Nars != 2 || rep.Waiting.NarBytes != want {
			t.Errorf("%+v: %+v, %v; want 2 NARs of %d bytes", mode, rep.Waiting, err, want)
		}
	}
}

// A round for a cache that is not there does not even note the time.
func TestRoundOfNoCache(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 5*day)
	before := n.log.Seq()
	_, err := n.collector().Round(t.Context(), gc.Mode{Cache: "nothing"})
	if !errors.Is(err, catalog.ErrNoCache) || n.log.Seq() != before {
		t.Errorf("%v, and %d was committed after %d; want ErrNoCache and nothing", err, n.log.Seq(), before)
	}
	if _, err := w.mkNode(t).collector().Round(t.Context(), gc.Mode{Cache: "main"}); err != nil {
		t.Errorf("a node that has not seen the cache yet: %v", err)
	}
}
