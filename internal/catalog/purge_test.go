package catalog

import (
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/nix"
)

// A collection that has cleaned a pack and is slow to say so does not undo what the next
// one has found to be purged from it.
func TestPurgeDoneIsFenced(t *testing.T) {
	bucket := mkBucket(t)
	n, other := mkNode(t, bucket), mkNode(t, bucket)
	ctx := t.Context()
	n.mustCreate("a")
	pack := mkPack(1, 1, 6)
	n.mustPublish(mkPublication(t, "a", "first", pack))
	n.mustPublish(mkPublication(t, "a", "second", pack))
	purge := func(m *Mark, name string) {
		t.Helper()
		if _, err := n.WithdrawPaths(ctx, Withdrawal{Cache: "a", HashParts: []nix.HashPart{mkStorePath(t, name).HashPart()}, Purge: true}); err != nil {
			t.Fatal(err)
		}
		s, err := n.Catalog.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		nars, err := collect(s.Unreferenced())
		if err != nil || len(nars) != 1 || s.Close() != nil {
			t.Fatalf("%d NARs without a path, %v; want 1", len(nars), err)
		}
		if removed, err := m.RemoveRecipes(ctx, nars); err != nil || len(removed) != 1 {
			t.Fatalf("removed %d recipes, %v; want 1", len(removed), err)
		}
	}
	marked := func() bool {
		t.Helper()
		p, known, err := readPack(other.db, pack.Layout.ID)
		if err != nil || !known {
			t.Fatalf("pack known %v, %v", known, err)
		}
		return p.Condemned.Purge
	}
	packs := []chunk.PackID{pack.Layout.ID}

	slow := n.mustMark()
	purge(slow, "first")
	if err := slow.End(ctx); err != nil {
		t.Fatal(err)
	}
	next := other.mustMark()
	purge(next, "second")
	wantErr(t, "PurgeDone", slow.PurgeDone(ctx, packs), ErrFenced)
	if p, _, err := readPack(n.db, pack.Layout.ID); err != nil || !p.Condemned.Purge {
		t.Errorf("the pack is not to be purged any more, and what is to be purged was not even condemned; %v", err)
	}
	if err := next.End(ctx); err != nil {
		t.Fatal(err)
	}
	if err := next.PurgeDone(ctx, packs); err != nil {
		t.Fatal(err)
	}
	if marked() {
		t.Error("the pack is still to be purged")
	}
}
