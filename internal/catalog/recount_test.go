package catalog

import (
	"fmt"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// TestRecount loses, spoils and invents rows that count, one kind after the other, and
// wants each to be noticed and put right.
func TestRecount(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	ctx := t.Context()
	n.mustCreate("a")
	n.mustCreate("b")
	for i := range 5 {
		n.mustPublish(mkPublication(t, "a", fmt.Sprint("x", i), mkPack(1, uint64(i), 3)))
	}
	n.mustPublish(mkPublication(t, "b", "x0", mkPack(1, 9, 3)))
	if _, err := n.Withdraw(ctx, "a", mkStorePath(t, "x4").HashPart()); err != nil {
		t.Fatal(err)
	}
	moved := mkPack(1, 3, 3).Layout
	object := chunk.PackID{Epoch: 1, Rand: 77}
	l := moved
	l.Object, l.Bytes, l.Footer, l.Frames = object, 900, 800, mkFrames(l.Sizes)
	if _, err := n.MovePacks(ctx, Move{Object: object, Bytes: 900, Packs: []MovedPack{{Old: moved, New: l}}}); err != nil {
		t.Fatal(err)
	}
	if err := n.wantCounted(); err != nil {
		t.Fatal(err)
	}
	hp := mkStorePath(t, "x1").HashPart()
	nar, gone := mkPublication(t, "a", "x0", mkPack(1, 0, 1)).Path.NarHash, mkPublication(t, "a", "x4", mkPack(1, 4, 1)).Path.NarHash
	pack := chunk.PackID{Epoch: 1, Rand: 1}
	for what, spoil := range map[string][]wal.Entry{
		"no last use":        {remove(keyspace.AppendLastUseKey(nil, 1, hp))},
		"no use by day":      {remove(keyspace.AppendUseOrderKey(nil, Use{Cache: 1, HashPart: hp, Day: 1}))},
		"a use by day more":  {set(keyspace.AppendUseOrderKey(nil, Use{Cache: 1, HashPart: hp, Day: 9}), keyspace.AppendUseOrder(nil))},
		"use of nothing":     {set(keyspace.AppendLastUseKey(nil, 1, [20]byte{1}), keyspace.AppendLastUse(nil, 1))},
		"no NAR":             {remove(keyspace.AppendNarKey(nil, nar))},
		"wrong NAR":          {set(keyspace.AppendNarKey(nil, nar), keyspace.AppendNar(nil, &Nar{Paths: 7, NarSize: 3000, ServedSize: 1500}))},
		"NAR of nothing":     {set(keyspace.AppendNarKey(nil, [32]byte{1}), keyspace.AppendNar(nil, &Nar{Paths: 7}))},
		"no unreferenced":    {remove(keyspace.AppendUnreferencedKey(nil, gone))},
		"unreferenced NAR":   {set(keyspace.AppendUnreferencedKey(nil, nar), keyspace.AppendUnreferenced(nil, &Unreferenced{Day: 1}))},
		"no totals":          {remove(keyspace.AppendTotalsKey(nil, 1))},
		"wrong totals":       {set(keyspace.AppendTotalsKey(nil, 1), keyspace.AppendTotals(nil, &Totals{Paths: 99}))},
		"no totals of store": {remove(keyspace.AppendTotalsKey(nil, 0))},
		"buried alive":       {set(keyspace.AppendBuriedKey(nil, pack), keyspace.AppendBuried(nil, &Buried{Day: 1, Bytes: 1600}))},
		"moved in unlisted":  {set(keyspace.AppendObjectKey(nil, object), keyspace.AppendObject(nil, &Object{Bytes: 900}))},
		"object without row": {remove(keyspace.AppendObjectKey(nil, object))},
		"everything": {
			remove(keyspace.AppendTotalsKey(nil, 0)), remove(keyspace.AppendTotalsKey(nil, 1)), remove(keyspace.AppendTotalsKey(nil, 2)),
			{Kind: wal.DeleteRange, Key: []byte{keyspace.LastUsePrefix}, Value: []byte{keyspace.LastUsePrefix + 1}},
			{Kind: wal.DeleteRange, Key: []byte{keyspace.NarPrefix}, Value: []byte{keyspace.NarPrefix + 2}},
			{Kind: wal.DeleteRange, Key: []byte{keyspace.UnreferencedPrefix}, Value: []byte{keyspace.UnreferencedPrefix + 1}},
		},
	} {
		n.commit(spoil...)
		if err := n.wantCounted(); err == nil {
			t.Errorf("%s: not noticed", what)
		}
		fixed, err := n.Recount(ctx)
		if err != nil || fixed == 0 {
			t.Errorf("%s: fixed %d, %v", what, fixed, err)
		}
		if err := n.wantCounted(); err != nil {
			t.Errorf("%s: after a recount: %v", what, err)
		}
		if fixed, err := n.Recount(ctx); err != nil || fixed != 0 {
			t.Errorf("%s: a second recount fixed %d, %v", what, fixed, err)
		}
	}
	n.wantSound()
}

// TestUncounted uses a store that an earlier celler has left: nothing in it is counted,
// and nothing may be collected from it until it is.
func TestUncounted(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	ctx := t.Context()
	n.mustCreate("a")
	first := mkPublication(t, "a", "x", mkPack(1, 1, 3))
	n.mustPublish(first)
	n.mustCreate("b")
	n.mustPublish(mkPublication(t, "b", "x", mkPack(1, 2, 3))) // the same NAR
	for _, p := range []byte{keyspace.TotalsPrefix, keyspace.NarPrefix, keyspace.LastUsePrefix, keyspace.UseOrderPrefix, keyspace.GrowthPrefix} {
		n.commit(wal.Entry{Kind: wal.DeleteRange, Key: []byte{p}, Value: []byte{p + 1}})
	}
	_, err := n.BeginMark(ctx)
	wantErr(t, "BeginMark", err, ErrUncounted)
	n.mustCreate("c")
	n.mustPublish(mkPublication(t, "c", "y", mkPack(1, 3, 3)))
	n.mustPublish(first) // over what was not counted
	if _, err := n.Withdraw(ctx, "a", first.Path.StorePath.HashPart()); err != nil {
		t.Fatal(err)
	}
	if rows := n.countRows(keyspace.UnreferencedPrefix); rows != 0 {
		t.Errorf("%d NARs seem unreferenced that another path names", rows)
	}
	_, err = n.BeginMark(ctx)
	wantErr(t, "BeginMark", err, ErrUncounted)
	n.mustPublish(mkPublication(t, "b", "z", mkPack(1, 4, 3)))
	for _, cache := range []CacheName{"a", "b"} {
		s, err := n.Stats(ctx, cache)
		if err != nil || s.Counted || s.Paths != 0 {
			t.Errorf("statistics of %s %+v, %v; want them to say that they are not counted", cache, s, err)
		}
	}
	if _, err := n.Recount(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
	n.mustMark()
	n.wantSound()
}

// TestStats follows the numbers of a few paths.
func TestStats(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	ctx := t.Context()
	n.mustCreate("a")
	n.mustCreate("b")
	want := func(what string, cache CacheName, want Totals) {
		t.Helper()
		s, err := n.Stats(ctx, cache)
		want.Cache = s.Cache
		if err != nil || s.Totals != want || !s.Counted {
			t.Errorf("%s: totals of %q\n%+v, %v; want\n%+v", what, string(cache), s.Totals, err, want)
		}
	}
	want("empty", "", Totals{})
	want("empty", "a", Totals{})
	n.mustPublish(mkPublication(t, "a", "x", mkPack(1, 1, 4)))
	same := mkPublication(t, "b", "x", mkPack(1, 1, 4))
	n.mustPublish(same)
	n.mustPublish(same)
	want("shared", "a", Totals{Paths: 1, NarBytes: 4000, ServedBytes: 2000, BroughtBytes: 4000, BroughtStored: 2100})
	want("shared", "b", Totals{Paths: 1, NarBytes: 4000, ServedBytes: 2000})
	store := Totals{
		Paths: 2, NarBytes: 8000, ServedBytes: 4000, BroughtBytes: 4000, BroughtStored: 2100,
		Nars: 1, NarsBytes: 4000, NarsServed: 2000, Chunks: 4, ChunkBytes: 4000, Packs: 1, Objects: 1, StoredBytes: 2100,
	}
	want("shared", "", store)
	n.mustTick(TickOptions{})
	if _, err := n.DestroyCache(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	store.Paths, store.NarBytes, store.ServedBytes = 1, 4000, 2000
	want("one destroyed", "", store)
	_, err := n.Stats(ctx, "a")
	wantErr(t, "statistics of a destroyed cache", err, ErrNoCache)
	if _, err := n.Withdraw(ctx, "b", same.Path.StorePath.HashPart()); err != nil {
		t.Fatal(err)
	}
	store.Paths, store.NarBytes, store.ServedBytes, store.Nars, store.NarsBytes, store.NarsServed, store.Unreferenced = 0, 0, 0, 0, 0, 0, 1
	want("withdrawn", "", store)
	if _, err := n.MarkDamaged(ctx, []DeadChunks{{Pack: chunk.PackID{Epoch: 1, Rand: 1}, Chunks: []DeadChunk{{Index: 2}}}}); err != nil {
		t.Fatal(err)
	}
	store.Chunks, store.ChunkBytes, store.Dead, store.DeadBytes = 3, 3000, 1, 1000
	want("damaged", "", store)

	g, err := n.Growth(ctx, "", 10)
	if fmt.Sprint(g) != "[{2 0 0 0 2 8000} {1 0 2 8000 0 0}]" || err != nil {
		t.Errorf("growth %v, %v", g, err)
	}
	if g, err = n.Growth(ctx, "b", 1); fmt.Sprint(g) != "[{2 2 0 0 1 4000}]" || err != nil {
		t.Errorf("growth of b today %v, %v", g, err)
	}
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}
