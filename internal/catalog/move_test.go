package catalog

import (
	"errors"
	"slices"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
)

func TestMovePacksRefuses(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.setCounter(keyspace.UploadEpoch, 5)
	a, b := mkPack(5, 1, 2), mkPack(5, 2, 2)
	if err := n.CommitPacks(ctx, []chunk.NewPack{a, b}); err != nil {
		t.Fatal(err)
	}
	move := func(object chunk.PackID, packs ...chunk.NewPack) Move {
		m := Move{Object: object, Bytes: 900}
		for _, p := range packs {
			l := p.Layout
			l.Object, l.Bytes, l.Footer, l.Frames = object, 900, 800, mkFrames(l.Sizes)
			m.Packs = append(m.Packs, MovedPack{Old: p.Layout, New: l})
		}
		return m
	}
	old := move(chunk.PackID{Epoch: 3, Rand: 9}, a)
	_, err := n.MovePacks(ctx, old)
	wantErr(t, "into an object of three epochs ago", err, ErrChunksMissing)
	_, err = n.MovePacks(ctx, move(a.Layout.ID, b))
	wantErr(t, "into an object in use", err, ErrStale)
	_, err = n.MovePacks(ctx, move(chunk.PackID{Epoch: 5, Rand: 9}))
	wantErr(t, "nothing", err, ErrInvalid)
	bad := move(chunk.PackID{Epoch: 5, Rand: 9}, a)
	bad.Packs[0].New.Sizes = []uint32{1000, 999}
	_, err = n.MovePacks(ctx, bad)
	wantErr(t, "a chunk of another size", err, ErrInvalid)

	good := move(chunk.PackID{Epoch: 5, Rand: 10}, a, b)
	buried, err := n.MovePacks(ctx, good)
	if err != nil || !slices.Equal(buried, []chunk.PackID{a.Layout.ID, b.Layout.ID}) {
		t.Fatalf("buried %v, %v; want the two packs' own objects", buried, err)
	}
	again := move(chunk.PackID{Epoch: 5, Rand: 11}, a)
	_, err = n.MovePacks(ctx, again)
	wantErr(t, "a pack that was moved meanwhile", err, ErrStale)

	// Both die in their new object, which is buried with the second.
	condemned, err := n.MarkDamaged(ctx, []DeadChunks{{Pack: a.Layout.ID, Chunks: []DeadChunk{{Index: 0}, {Index: 1}}}})
	if err != nil || len(condemned.Objects) != 0 {
		t.Errorf("%+v, %v; want nothing to be buried yet", condemned, err)
	}
	condemned, err = n.MarkDamaged(ctx, []DeadChunks{{Pack: b.Layout.ID, Chunks: []DeadChunk{{Index: 0}, {Index: 1}}}})
	if err != nil || !slices.Equal(condemned.Objects, []chunk.PackID{good.Object}) {
		t.Errorf("%+v, %v; want object %v to be buried", condemned, err, good.Object)
	}
	s, err := n.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := collect(s.Buried())
	if err := errors.Join(err, s.Close()); err != nil || len(dead) != 3 {
		t.Fatalf("%d buried, %v; want 3", len(dead), err)
	}
	if err := n.Forget(ctx, dead); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []byte{keyspace.PackPrefix, keyspace.ObjectPrefix, keyspace.BuriedPrefix} {
		if rows := n.countRows(prefix); rows != 0 {
			t.Errorf("%d rows %c are left", rows, prefix)
		}
	}
	packs := []chunk.PackID{a.Layout.ID, b.Layout.ID}
	if removed, err := n.ForgetCondemned(ctx, packs); err != nil || removed != 0 {
		t.Errorf("forgot what is dead in %d packs of this upload epoch, %v", removed, err)
	}
	n.setCounter(keyspace.UploadEpoch, 7)
	if removed, err := n.ForgetCondemned(ctx, packs); err != nil || removed != 2 {
		t.Errorf("forgot what is dead in %d packs, %v; want 2", removed, err)
	}
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}
