package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// TestRestoreIsWhatItWas: whatever happened in between, what is restored is as it was,
// but for what is said to be lost, and nothing else has changed.
func TestRestoreIsWhatItWas(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := mkRig(t, memblob.New())
		defer func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}()
		for range rapid.IntRange(10, 50).Draw(rt, "steps") {
			r.step(rt)
		}
		if len(r.states) == 0 {
			return
		}
		for range 4 {
			r.restoreSomething(rt)
		}
	})
}

// TestRestoreOfMuch: a cache that is too much for one operation comes back at once all
// the same, and what it replaces is swept.
func TestRestoreOfMuch(t *testing.T) {
	r := mkRig(t, memblob.New())
	ctx := t.Context()
	_, err := r.cat.CreateCache(ctx, catalog.Cache{Name: "big"})
	r.must(err)
	content := strings.Repeat("x", 1000)
	res, err := r.chunks.Write(ctx, strings.NewReader(content))
	r.must(err)
	const paths = 420
	sigs := make([]string, 8)
	for i := range sigs {
		sigs[i] = strings.Repeat(string(rune('a'+i)), 1000)
	}
	for i := range paths {
		_, err := r.cat.Publish(ctx, catalog.Publication{
			Path:   catalog.Path{Cache: "big", StorePath: storePath(fmt.Sprint("n", i)), NarHash: res.Recipe.NarHash, NarSize: res.Recipe.Size, Sigs: sigs},
			Recipe: res.Recipe, Packs: res.Packs,
		})
		r.must(err)
	}
	_, err = r.cat.SetPin(ctx, catalog.PinChange{Cache: "big", Name: "pin", StorePath: storePath("n1"), By: "me"})
	r.must(err)
	then := r.visible()
	at := RestoreRequest{At: When{seq: wal.Seq(r.Seq())}}
	stats, err := r.cat.Stats(ctx, "big")
	r.must(err)

	for _, how := range []string{"destroyed", "emptied"} {
		if how == "destroyed" {
			_, err = r.cat.DestroyCache(ctx, "big")
			r.must(err)
		} else {
			var all []nix.HashPart
			for i := range paths {
				all = append(all, storePath(fmt.Sprint("n", i)).HashPart())
			}
			_, err = r.cat.WithdrawPaths(ctx, catalog.Withdrawal{Cache: "big", HashParts: all, Pinned: true})
			r.must(err)
			_, err = r.publish("big", "new", "new")
			r.must(err)
		}
		rep, err := r.restore(ctx, at)
		r.must(err)
		if len(rep.Caches) != 1 || rep.Caches[0].Back != paths || len(rep.Lost) != 0 {
			t.Errorf("%s: %+v", how, rep.Caches)
		}
		if diff := cmp.Diff(then, r.visible()); diff != "" {
			t.Errorf("%s: %s", how, diff)
		}
		now, err := r.cat.Stats(ctx, "big")
		r.must(err)
		if !now.Counted || now.Paths != stats.Paths || now.NarBytes != stats.NarBytes || now.ServedBytes != stats.ServedBytes {
			t.Errorf("%s: totals %+v, were %+v", how, now.Totals, stats.Totals)
		}
		store, err := r.cat.Stats(ctx, "")
		r.must(err)
		if store.Paths != paths || store.Nars != 1 {
			t.Errorf("%s: totals of the store %+v", how, store.Totals)
		}
		s, err := r.cat.Snapshot(ctx)
		r.must(err)
		left, err := s.Destroyed()
		r.must(errors.Join(err, s.Close()))
		if len(left) != 0 {
			t.Errorf("%s: not swept: %+v", how, left)
		}
	}

	// Bit by bit, if nothing is to go.
	_, err = r.cat.WithdrawPaths(ctx, catalog.Withdrawal{Cache: "big", HashParts: func() (all []nix.HashPart) {
		for i := range paths {
			all = append(all, storePath(fmt.Sprint("n", i)).HashPart())
		}
		return all
	}(), Pinned: true})
	r.must(err)
	_, err = r.publish("big", "new", "new")
	r.must(err)
	at.KeepNew = true
	rep, err := r.restore(ctx, at)
	r.must(err)
	if len(rep.Caches) != 1 || rep.Caches[0].Back != paths {
		t.Errorf("%+v", rep)
	}
	got := r.visible()
	delete(got, "path big "+storePath("new").Base())
	if diff := cmp.Diff(then, got); diff != "" {
		t.Error(diff)
	}
}

// TestRestoreDoesNotCountWhatIsLost: a path that cannot come back is lost, and not back.
func TestRestoreDoesNotCountWhatIsLost(t *testing.T) {
	r := mkRig(t, memblob.New())
	ctx := t.Context()
	_, err := r.cat.CreateCache(ctx, catalog.Cache{Name: "main"})
	r.must(err)
	for _, name := range []string{"here", "gone", "other"} {
		_, err = r.publish("main", name, name)
		r.must(err)
	}
	at := RestoreRequest{At: When{seq: wal.Seq(r.Seq())}}
	withdraw := func(names ...string) {
		t.Helper()
		var all []nix.HashPart
		for _, name := range names {
			all = append(all, storePath(name).HashPart())
		}
		_, err := r.cat.WithdrawPaths(ctx, catalog.Withdrawal{Cache: "main", HashParts: all})
		r.must(err)
	}
	withdraw("here", "gone", "other")
	_, err = r.publish("main", "other", "something else")
	r.must(err)
	r.forget(sha256.Sum256([]byte("gone")))
	r.forget(sha256.Sum256([]byte("other")))

	check := func(how string, req RestoreRequest, want RestoredCache, lost int) {
		t.Helper()
		for _, req.DryRun = range []bool{true, false} {
			rep, err := r.restore(ctx, req)
			r.must(err)
			if len(rep.Lost) != lost {
				t.Errorf("%s, dry run %v: lost %v, want %d", how, req.DryRun, rep.Lost, lost)
			}
			if diff := cmp.Diff([]RestoredCache{want}, rep.Caches); diff != "" {
				t.Errorf("%s, dry run %v (-want +got): %s", how, req.DryRun, diff)
			}
		}
	}
	check("some are lost", at, RestoredCache{Name: "main", What: "changed", Back: 1}, 2)
	rest := RestoredCache{Name: "main", What: "changed"}
	check("the rest is lost", at, rest, 2)
	at.KeepNew = true
	check("with --keep-new", at, rest, 1)
	at.Cache, at.Path = "main", storePath("gone").String()
	check("one path", at, rest, 1)
	if !rest.Untouched() {
		t.Error("nothing is back, and it counts as touched")
	}
	for _, c := range []RestoredCache{
		{What: "back"},
		{What: "removed"},
		{What: "changed", Config: true},
		{What: "changed", Back: 1},
		{What: "changed", Changed: 1},
		{What: "changed", Removed: 1},
		{What: "changed", Pins: 1},
	} {
		if c.Untouched() {
			t.Errorf("%+v counts as untouched", c)
		}
	}
}

// TestRestoreOfMuchCountsOnce: what is brought back bit by bit, or aside, is counted once, and
// what is lost of it never, although the restore has to begin again.
func TestRestoreOfMuchCountsOnce(t *testing.T) {
	bucket := memblob.New()
	b := &intruded{Bucket: bucket}
	r, other := mkRig(t, b), mkRig(t, bucket)
	ctx := t.Context()
	_, err := r.cat.CreateCache(ctx, catalog.Cache{Name: "big"})
	r.must(err)
	const paths = 420
	all := make([]nix.StorePath, paths)
	for i := range all {
		all[i] = storePath(fmt.Sprint("n", i))
	}
	slices.SortFunc(all, func(a, b nix.StorePath) int { return strings.Compare(a.Base(), b.Base()) })
	var hashParts []nix.HashPart
	sigs := slices.Repeat([]string{strings.Repeat("s", 1000)}, 8)
	for i, path := range all {
		content := "content"
		if i == 0 { // it is in the first part
			content = "gone"
		}
		res, err := r.chunks.Write(ctx, strings.NewReader(content))
		r.must(err)
		_, err = r.cat.Publish(ctx, catalog.Publication{
			Path:   catalog.Path{Cache: "big", StorePath: path, NarHash: res.Recipe.NarHash, NarSize: res.Recipe.Size, Sigs: sigs},
			Recipe: res.Recipe, Packs: res.Packs,
		})
		r.must(err)
		hashParts = append(hashParts, path.HashPart())
	}
	at := RestoreRequest{At: When{seq: wal.Seq(r.Seq())}}
	check := func(how string, back int, meanwhile func()) {
		t.Helper()
		_, err := r.cat.WithdrawPaths(ctx, catalog.Withdrawal{Cache: "big", HashParts: hashParts})
		r.must(err)
		r.forget(sha256.Sum256([]byte("gone")))
		b.act = meanwhile
		rep, err := r.restore(ctx, at)
		r.must(err)
		if diff := cmp.Diff([]RestoredCache{{Name: "big", What: "changed", Back: back}}, rep.Caches); diff != "" || len(rep.Lost) != 1 {
			t.Errorf("%s: %d lost, want one; %s", how, len(rep.Lost), diff)
		}
	}
	check("aside", paths-1, nil)
	at.KeepNew = true
	check("bit by bit", paths-1, nil)
	check("bit by bit, again", paths-2, func() { // after the first part, a path comes that is in the second
		b.act = func() {
			_, err := other.cat.CatchUp(ctx)
			r.must(err)
			_, err = other.publish("big", all[paths-1].Name(), "content")
			r.must(err)
		}
	})
}
