package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/celler/celler/blob"
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
	if n.log, err = wal.Open(context.WithoutCancel(t.Context()), bucket, n.db, wal.Options{HedgeAfter: -1}); err != nil {
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
		_, newest, _ := strings.Cut(then[key], "}")
		root := filepath.Base(strings.Fields(newest)[2])
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
