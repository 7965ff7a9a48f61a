package catalog

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/index/keyspace"
)

func (n *node) mustPutSide(up SideUpload) {
	n.t.Helper()
	if _, err := n.PutSide(n.t.Context(), up); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) sideNames(cache CacheID) (names []string) {
	n.t.Helper()
	for _, s := range state(n, func(s *Snapshot) ([]Side, error) { return collect(s.Sides(cache)) }) {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return names
}

// TestSideObjects keeps short and long texts, replaces them, and counts the long ones.
func TestSideObjects(t *testing.T) {
	bucket := mkBucket(t)
	n, other := mkNode(t, bucket), mkNode(t, bucket)
	ctx := t.Context()
	n.mustCreate("a")
	n.mustCreate("b")
	pub := mkPublication(t, "a", "x", mkPack(1, 1, 4))
	long := SideUpload{Cache: "a", Side: Side{Kind: keyspace.SideLog, Name: "x.drv", Stored: true}, Recipe: pub.Recipe, Packs: pub.Packs}
	n.mustPutSide(long)
	got, err := other.Side(ctx, "a", keyspace.SideLog, "x.drv")
	want := Side{Cache: 1, Kind: keyspace.SideLog, Name: "x.drv", Day: 1, Size: 4000, Stored: true, TextSum: pub.Recipe.NarHash, Served: 2000}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if got := n.unreferenced(); len(got) != 0 {
		t.Errorf("unreferenced %+v: the text of a side object would be collected", got)
	}
	for what, ask := range map[string]func() error{
		"another name":  func() error { _, err := other.Side(ctx, "a", keyspace.SideLog, "y.drv"); return err },
		"another kind":  func() error { _, err := other.Side(ctx, "a", keyspace.SideDebugInfo, "x.drv"); return err },
		"another cache": func() error { _, err := other.Side(ctx, "b", keyspace.SideLog, "x.drv"); return err },
	} {
		wantErr(t, what, ask(), ErrNoSide)
	}
	n.mustPutSide(long) // once more
	second := long
	second.Cache = "b"
	n.mustPutSide(second)
	short := SideUpload{Cache: "a", Side: Side{Kind: keyspace.SideLog, Name: "x.drv", Size: 9, Zstd: []byte("zstd")}}
	n.mustPutSide(short)
	if got := n.unreferenced(); len(got) != 0 {
		t.Errorf("unreferenced %+v: another cache has it, too", got)
	}
	if _, err := n.DestroyCache(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if got := n.unreferenced(); len(got) != 1 {
		t.Errorf("unreferenced %+v, want the text that nobody has any more", got)
	}
	if got := n.sideNames(2); len(got) != 0 {
		t.Errorf("side objects %v are left of a cache that is gone", got)
	}
	bad := short
	bad.Side.Name = "x\ny"
	_, err = n.PutSide(ctx, bad)
	wantErr(t, "a bad name", err, ErrInvalid)
	bad = short
	bad.Cache = "nobody"
	_, err = n.PutSide(ctx, bad)
	wantErr(t, "no cache", err, ErrNoCache)
	n.wantSound()
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}

// TestSidesLiveAsLongAsTheirPaths sweeps logs and the like.
func TestSidesLiveAsLongAsTheirPaths(t *testing.T) {
	b := mkTimed(t)
	n := mkNode(t, b)
	ctx := t.Context()
	n.mustCreate("a")
	mk := func(name string) Publication {
		p := mkPublication(t, "a", name, mkPack(1, uint64(len(n.t.Name())+len(name)), 1))
		p.Path.Deriver = name + ".drv"
		return p
	}
	kept, gone := mk("kept"), mk("gonex")
	put := func(kind keyspace.SideKind, name string, owner keyspace.OwnerKind, of [32]byte) {
		n.mustPutSide(SideUpload{Cache: "a", Side: Side{Kind: kind, Name: name, OwnerKind: owner, Owner: of}})
	}
	for _, p := range []Publication{kept, gone} {
		name := p.Path.StorePath.Name()
		up := mkUpload(p, name[0])
		n.mustUpload(up)
		p.First, p.Claim = true, &up.FileHash
		n.mustPublish(p)
		put(keyspace.SideLog, name+".drv", keyspace.OwnerNone, [32]byte{})
		put(keyspace.SideBuildTrace, name+"/trace", keyspace.OwnerPath, keyspace.PathOwner(p.Path.StorePath.HashPart()))
		put(keyspace.SideDebugInfo, name+"-debug", keyspace.OwnerUpload, up.FileHash)
	}
	if _, err := n.Withdraw(ctx, "a", gone.Path.StorePath.HashPart()); err != nil {
		t.Fatal(err)
	}
	all := []string{"gonex-debug", "gonex.drv", "gonex/trace", "kept-debug", "kept.drv", "kept/trace"}
	sweep := func(retention int, want []string) {
		t.Helper()
		m := n.mustMark()
		k, err := n.Clock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.SweepSides(ctx, 1, k, day*time.Duration(retention), m.Seen()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, n.sideNames(1)); diff != "" {
			t.Errorf("after a sweep with a retention of %d days:\n%s", retention, diff)
		}
	}
	sweep(5, all) // nothing is old
	n.mustTick(TickOptions{})
	b.pass(3 * day)
	n.mustTick(TickOptions{})
	m := n.mustMark()
	sweepEarly, err := n.Clock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n.mustPublish(gone) // since the mark
	if removed, err := m.SweepSides(ctx, 1, sweepEarly, day, m.Seen()); err != nil || removed != 0 {
		t.Errorf("removed %d, %v, of a path that came back while the collection was running", removed, err)
	}
	if _, err := n.Withdraw(ctx, "a", gone.Path.StorePath.HashPart()); err != nil {
		t.Fatal(err)
	}
	sweep(5, []string{"gonex.drv", "kept-debug", "kept.drv", "kept/trace"})
	sweep(0, []string{"gonex.drv", "kept-debug", "kept.drv", "kept/trace"}) // for ever
	b.pass(3 * day)
	n.mustTick(TickOptions{})
	sweep(5, []string{"kept-debug", "kept.drv", "kept/trace"})
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}

// TestBrokenSides removes what cannot be read any more.
func TestBrokenSides(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("a")
	for i, name := range []string{"whole", "broken"} {
		p := mkPublication(t, "a", name, mkPack(1, uint64(i+1), 4))
		n.mustPutSide(SideUpload{Cache: "a", Side: Side{Kind: keyspace.SideLog, Name: name, Stored: true}, Recipe: p.Recipe, Packs: p.Packs})
	}
	if _, err := n.MarkDamaged(ctx, []DeadChunks{{Pack: mkPack(1, 2, 1).Layout.ID, Chunks: []DeadChunk{{Index: 1}}}}); err != nil {
		t.Fatal(err)
	}
	gone, err := n.RemoveBrokenSides(ctx, 1)
	if err != nil || len(gone) != 1 || gone[0].Name != "broken" {
		t.Errorf("removed %+v, %v; want the broken one", gone, err)
	}
	if _, err := n.Side(ctx, "a", keyspace.SideLog, "broken"); !errors.Is(err, ErrNoSide) {
		t.Errorf("%v, want %v", err, ErrNoSide)
	}
	if _, err := n.RemoveBroken(ctx, [][32]byte{gone[0].TextSum}); err != nil {
		t.Fatal(err)
	}
	n.wantSound()
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}
