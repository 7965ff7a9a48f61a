package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/index"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// rig is a node without a server on a bucket in memory, and what was visible after each
// of its operations.
type rig struct {
	*Node
	t      testing.TB
	states map[uint64]map[string]string
	lost   map[[32]byte]bool // NARs whose recipe is gone
	serial int
}

func mkRig(t testing.TB, bucket blob.Bucket) *rig {
	t.Helper()
	o, err := Options{}.withDefaults(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{cfg: config.Config{CacheDir: t.TempDir()}, o: o, logBucket: bucket, dataBucket: bucket}
	if n.format, err = wal.Found(t.Context(), bucket, wal.Format{Profile: "fast2016-16k"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	n.scratchOptions = index.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20}
	if n.db, err = index.Open("index", n.format.Store, index.Options{FS: vfs.NewMem(), Bucket: bucket, CacheBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	n.onClose("index", n.db.Close)
	if n.log, err = wal.Open(context.WithoutCancel(t.Context()), bucket, n.db, wal.Options{}); err != nil {
		t.Fatal(err)
	}
	n.onClose("log", n.log.Close)
	n.cat = catalog.New(n.log, n.db, catalog.Options{})
	if err := n.openStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &rig{Node: n, t: t, states: map[uint64]map[string]string{}, lost: map[[32]byte]bool{}}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func storePath(name string) nix.StorePath {
	sum := sha256.Sum256([]byte(name))
	p, err := nix.ParseStorePathBase(nix.DefaultStoreDir, nix.HashPart(sum[:20]).String()+"-"+name)
	if err != nil {
		panic(err)
	}
	return p
}

// publish puts a path with the given content into a cache.
func (r *rig) publish(cache, name, content string, refs ...nix.StorePath) (uint64, error) {
	ctx := wal.As(r.t.Context(), "pusher")
	res, err := r.chunks.Write(ctx, strings.NewReader(content))
	if err != nil {
		return 0, err
	}
	seq, err := r.cat.Publish(ctx, catalog.Publication{
		Path: catalog.Path{
			Cache: catalog.CacheName(cache), StorePath: storePath(name), NarHash: res.Recipe.NarHash,
			NarSize: res.Recipe.Size, References: refs, By: "pusher",
		},
		Recipe: res.Recipe, Packs: res.Packs,
	})
	if err == nil {
		delete(r.lost, res.Recipe.NarHash)
	}
	return uint64(seq), err
}

// visible is what a reader can see, as text by name.
func (r *rig) visible() map[string]string {
	r.t.Helper()
	s, err := r.cat.Snapshot(r.t.Context())
	r.must(err)
	defer func() { r.must(s.Close()) }()
	out := map[string]string{}
	caches, err := s.Caches()
	r.must(err)
	for _, c := range caches {
		id := c.ID
		c.ID = 0
		out["cache "+string(c.Name)] = fmt.Sprintf("%+v", c)
		for p, err := range s.Paths(id) {
			r.must(err)
			p.FileSize = 0
			out["path "+string(c.Name)+" "+p.StorePath.Base()] = fmt.Sprintf("%x", keyspace.AppendPath(nil, &p))
		}
		pins, err := s.Pins(id)
		r.must(err)
		for _, p := range pins {
			text := fmt.Sprintf("%+v %d", p.Policy, p.Newest)
			for _, rev := range p.Revisions {
				text += fmt.Sprintf(" %d %v %v", rev.Number, rev.StorePath, rev.At)
			}
			out["pin "+string(c.Name)+" "+p.Name] = text
		}
	}
	return out
}

func (r *rig) note() { r.states[r.Seq()] = r.visible() }

// forget removes the recipe of a NAR that no path names, as a collector does.
func (r *rig) forget(narHash [32]byte) {
	r.t.Helper()
	_, err := r.log.Commit(r.t.Context(), wal.Op{Name: "forget", Build: func(wal.View) ([]wal.Entry, error) {
		return []wal.Entry{{Kind: wal.Delete, Key: keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: narHash})}}, nil
	}})
	r.must(err)
	r.lost[narHash] = true
}

// step performs one random operation; many of them are refused.
func (r *rig) step(rt *rapid.T) {
	ctx := r.t.Context()
	cache := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "cache")
	name := fmt.Sprint("p", rapid.IntRange(0, 5).Draw(rt, "path"))
	pin := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "pin")
	refused := func(err error) {
		for _, ok := range []error{catalog.ErrNoCache, catalog.ErrCacheExists, catalog.ErrNoPath, catalog.ErrNoPin, catalog.ErrPinned} {
			if errors.Is(err, ok) {
				return
			}
		}
		r.must(err)
	}
	switch rapid.SampledFrom([]string{"create", "destroy", "set", "publish", "publish", "publish", "publish", "withdraw", "withdraw", "pin", "unpin", "forget", "compact"}).Draw(rt, "op") {
	case "create":
		_, err := r.cat.CreateCache(ctx, catalog.Cache{Name: catalog.CacheName(cache)})
		refused(err)
	case "destroy":
		_, err := r.cat.DestroyCache(ctx, catalog.CacheName(cache))
		refused(err)
	case "set":
		_, err := r.cat.ConfigureCache(ctx, catalog.CacheName(cache), func(c *catalog.Cache) error {
			c.Priority++
			return nil
		})
		refused(err)
	case "publish":
		var refs []nix.StorePath
		for i := range rapid.SampledFrom([]int{0, 1, 2, 3}).Draw(rt, "refs") {
			refs = append(refs, storePath(fmt.Sprint("p", i)))
		}
		_, err := r.publish(cache, name, fmt.Sprint(name, " ", rapid.IntRange(0, 2).Draw(rt, "content")), refs...)
		refused(err)
	case "withdraw":
		_, err := r.cat.Withdraw(ctx, catalog.CacheName(cache), storePath(name).HashPart())
		refused(err)
	case "pin":
		_, err := r.cat.SetPin(ctx, catalog.PinChange{Cache: catalog.CacheName(cache), Name: pin, StorePath: storePath(name), By: "pinner"})
		refused(err)
	case "unpin":
		_, err := r.cat.RemovePin(ctx, catalog.CacheName(cache), pin)
		refused(err)
	case "forget":
		s, err := r.cat.Snapshot(ctx)
		r.must(err)
		var gone [][32]byte
		for u, err := range s.Unreferenced() {
			r.must(err)
			gone = append(gone, u.NarHash)
		}
		r.must(s.Close())
		for _, narHash := range gone {
			r.forget(narHash)
		}
	case "compact":
		r.serial++
		o := compact.Options{FlushSegments: 4, Ratio: 2, KeepSegments: 20, KeepAll: time.Hour, LogRetention: -1}
		_, err := compact.New(r.logBucket, o).Round(ctx, compact.Mode{})
		r.must(err)
		return
	}
	r.note()
}

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

func (r *rig) restoreSomething(rt *rapid.T) {
	seqs := slices.Sorted(maps.Keys(r.states))
	seq := rapid.SampledFrom(seqs).Draw(rt, "seq")
	then, before := r.states[seq], r.visible()
	req := RestoreRequest{At: When{seq: wal.Seq(seq)}, By: "restorer", KeepNew: rapid.Bool().Draw(rt, "keep new")}
	if names := slices.Sorted(maps.Keys(then)); len(names) > 0 && rapid.Bool().Draw(rt, "a part") {
		words := strings.Fields(rapid.SampledFrom(names).Draw(rt, "name"))
		req.Cache = words[1]
		switch words[0] {
		case "path":
			req.Path = words[2]
		case "pin":
			req.Pin = words[2]
		}
	}
	dry := req
	dry.DryRun = true
	planned, err := r.restore(r.t.Context(), dry)
	if _, refused := errors.AsType[*RestoreError](err); refused {
		return
	}
	if gone, ok := errors.AsType[*wal.UnreachableError](err); ok && gone.Seq < gone.Since {
		return
	}
	r.must(err)
	if diff := cmp.Diff(before, r.visible()); diff != "" {
		rt.Fatalf("a dry run changed something: %s", diff)
	}
	rep, err := r.restore(r.t.Context(), req)
	r.must(err)
	if !cmp.Equal(planned.Lost, rep.Lost) && len(rep.Lost)+len(planned.Lost) > 0 {
		rt.Fatalf("lost %v, planned %v", rep.Lost, planned.Lost)
	}
	want := r.expect(req, then, before, rep)
	if diff := cmp.Diff(want, r.visible()); diff != "" {
		rt.Fatalf("restore %+v of slot %d (-want +got): %s", req, seq, diff)
	}
	r.note()
	s, err := r.cat.Snapshot(r.t.Context())
	r.must(err)
	err = s.CheckCounts(r.t.Context(), func(d catalog.Discrepancy) bool {
		rt.Errorf("restore %+v of slot %d: row %v says %s, want %s", req, seq, d.Row, d.Found, d.Want)
		return true
	})
	r.must(errors.Join(err, s.Close()))
	again, err := r.restore(r.t.Context(), req)
	r.must(err)
	if len(again.Lost) != len(rep.Lost) {
		rt.Fatalf("again: lost %v, the first time %v", again.Lost, rep.Lost)
	}
	if diff := cmp.Diff(want, r.visible()); diff != "" {
		rt.Fatalf("a second time changed something: %s", diff)
	}
}

// expect is what must be visible after a restore.
func (r *rig) expect(req RestoreRequest, then, before map[string]string, rep RestoreReport) map[string]string {
	lost := map[string]bool{}
	for _, l := range rep.Lost {
		lost["path "+l.Cache+" "+filepath.Base(l.StorePath)] = true
	}
	want := maps.Clone(before)
	inScope := func(name string) bool {
		words := strings.Fields(name)
		return req.Cache == "" || words[1] == req.Cache
	}
	switch {
	case req.Path != "":
		r.closure(req, then, before, want, lost, []string{req.Path})
		key := "path " + req.Cache + " " + req.Path
		if _, there := before[key]; (!req.KeepNew || !there) && !lost[key] {
			want[key] = then[key]
		}
		return want
	case req.Pin != "":
		key := "pin " + req.Cache + " " + req.Pin
		if _, there := before[key]; !req.KeepNew || !there {
			want[key] = then[key]
		}
		// The newest revision is the one that is kept.
		root := filepath.Base(strings.Fields(then[key][strings.Index(then[key], "}"):])[3])
		r.closure(req, then, before, want, lost, []string{root})
		return want
	}
	for name := range want {
		if _, was := then[name]; inScope(name) && !was && !req.KeepNew {
			delete(want, name)
		}
	}
	for name, text := range then {
		_, there := want[name]
		if inScope(name) && (!there || !req.KeepNew) && !lost[name] {
			want[name] = text
		}
	}
	return want
}

// closure puts into want what the roots referred to then and what is not there.
func (r *rig) closure(req RestoreRequest, then, before, want map[string]string, lost map[string]bool, roots []string) {
	seen := map[string]bool{}
	for len(roots) > 0 {
		base := roots[0]
		roots = roots[1:]
		key := "path " + req.Cache + " " + base
		if _, was := then[key]; seen[base] || !was {
			continue
		}
		seen[base] = true
		if _, there := before[key]; !there && !lost[key] {
			want[key] = then[key]
		}
		for i := range 3 { // whatever it refers to is one of these
			ref := storePath(fmt.Sprint("p", i))
			hp := ref.HashPart()
			if strings.Contains(then[key], fmt.Sprintf("%x", hp[:])) {
				roots = append(roots, ref.Base())
			}
		}
	}
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

// TestRestoreRacesPushes: a restore is one moment in the log. What was acknowledged
// after it stays, what was there when it looked and had not been there goes, and all that was,
// is.
func TestRestoreRacesPushes(t *testing.T) {
	for _, much := range []bool{false, true} {
		t.Run(fmt.Sprint(much), func(t *testing.T) {
			r := mkRig(t, memblob.New())
			ctx := t.Context()
			_, err := r.cat.CreateCache(ctx, catalog.Cache{Name: "ci"})
			r.must(err)
			for i := range 20 {
				_, err := r.publish("ci", fmt.Sprint("old", i), fmt.Sprint("old", i))
				r.must(err)
			}
			then := r.visible()
			at := When{seq: wal.Seq(r.Seq())}
			if much {
				_, err = r.cat.DestroyCache(ctx, "ci")
				r.must(err)
			}
			for i := range 10 {
				_, err = r.cat.Withdraw(ctx, "ci", storePath(fmt.Sprint("old", i)).HashPart())
				if !much {
					r.must(err)
				}
			}
			stop := make(chan struct{})
			var mu sync.Mutex
			acked := map[string]uint64{}
			var wg sync.WaitGroup
			for w := range 3 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(w), 1))
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						name := fmt.Sprintf("new%d-%d", w, i)
						if rng.IntN(4) == 0 { // the same path as another, at about the same time
							name = fmt.Sprint("both", i/8)
						}
						seq, err := r.publishQuietly("ci", name)
						if err == nil {
							mu.Lock()
							acked[storePath(name).Base()] = max(acked[storePath(name).Base()], seq)
							mu.Unlock()
						}
					}
				})
			}
			var rep RestoreReport
			for range 5 {
				rep, err = r.restore(ctx, RestoreRequest{At: at, Cache: "ci"})
				r.must(err)
			}
			close(stop)
			wg.Wait()
			got := r.visible()
			for name, text := range then {
				if got[name] != text {
					t.Errorf("%s is not as it was", name)
				}
			}
			survivors := 0
			for base, seq := range acked {
				_, there := got["path ci "+base]
				switch {
				case seq > max(rep.Seq, rep.Before) && !there: // Seq is 0 if there was nothing to do
					t.Errorf("%s was pushed in slot %d, after the restore in %d, and is not there", base, seq, rep.Seq)
				case seq <= rep.Before && there:
					t.Errorf("%s was pushed in slot %d; the restore, which looked at %d, has left it", base, seq, rep.Before)
				case there:
					survivors++
				}
			}
			t.Logf("%d pushes, %d stay", len(acked), survivors)
		})
	}
}

func (r *rig) publishQuietly(cache, name string) (uint64, error) {
	res, err := r.chunks.Write(context.WithoutCancel(r.t.Context()), bytes.NewReader([]byte(name)))
	if err != nil {
		return 0, err
	}
	seq, err := r.cat.Publish(context.WithoutCancel(r.t.Context()), catalog.Publication{
		Path:   catalog.Path{Cache: catalog.CacheName(cache), StorePath: storePath(name), NarHash: res.Recipe.NarHash, NarSize: res.Recipe.Size},
		Recipe: res.Recipe, Packs: res.Packs,
	})
	return uint64(seq), err
}
