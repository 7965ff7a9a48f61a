package compact_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/wal"
)

// onDelete calls act ahead of the first deletion of a snapshot, which then happens, or not
// if act says so.
type onDelete struct {
	blob.Bucket
	act func() error
}

func (b *onDelete) Delete(ctx context.Context, keys ...blob.Key) error {
	if act := b.act; act != nil && strings.HasPrefix(string(keys[0]), "snap/") {
		b.act = nil
		if err := act(); err != nil {
			return err
		}
	}
	return b.Bucket.Delete(ctx, keys...)
}

// mkDoomed makes a log of 12 slots, with a snapshot of slot 7 that any round takes away. It
// returns the state of slot 7.
func mkDoomed(t testing.TB) (*memblob.Bucket, *history, [32]byte) {
	t.Helper()
	b := memblob.New()
	h := mkHistory(t, b, 5)
	o := aggressive()
	o.KeepSegments, o.KeepAll = 1000, time.Hour
	h.grow(7)
	state := mustDigest(t, h.replay)
	mustRound(t, compact.New(b, o), compact.Mode{})
	h.grow(5)
	return b, h, state
}

func mark(t testing.TB, b blob.Bucket, seq wal.Seq) error {
	t.Helper()
	_, err := (wal.RootChange{By: "test"}).SetBookmark(t.Context(), b, wal.Bookmark{Name: "then", Seq: seq})
	return err
}

// A compactor may sleep between its last look at the bookmarks and the deletion of a
// snapshot that none of them needs. A bookmark that is set meanwhile does not count on it.
func TestBookmarkOnWhatIsBeingDeleted(t *testing.T) {
	b, h, state := mkDoomed(t)
	var err error
	slow := &onDelete{Bucket: b}
	slow.act = func() error { err = mark(t, b, 7); return nil }
	rep := mustRound(t, compact.New(slow, aggressive()), compact.Mode{})
	if slow.act != nil || rep.SnapshotsDeleted == 0 {
		t.Fatalf("no snapshot was deleted: %+v", rep)
	}
	var gone *wal.UnreachableError
	if !errors.As(err, &gone) || slices.Contains(gone.Before, 7) {
		t.Errorf("a bookmark on slot 7: %v; want to hear that its state is not kept", err)
	}
	if err == nil {
		wantPast(t, b, 7, state)
	}
	h.check("afterwards")
}

// The same with a compactor that never wakes up, in the middle of others that go on: what
// it has left goes, and is not named for ever.
func TestDoomedAreForgotten(t *testing.T) {
	b, h, _ := mkDoomed(t)
	dead := errors.New("dead")
	ctx, kill := context.WithCancel(t.Context())
	slow := &onDelete{Bucket: b, act: func() error { kill(); return dead }}
	_, _ = compact.New(slow, aggressive()).Round(ctx, compact.Mode{})
	root, err := wal.ReadRoot(t.Context(), b)
	if err != nil || len(root.Doomed) == 0 {
		t.Fatalf("doomed %v, %v; want the snapshot that was not deleted", root.Doomed, err)
	}
	first := root.Doomed
	for _, key := range first {
		if _, _, err := b.Get(t.Context(), key); err != nil {
			t.Fatalf("%s was deleted: %v", key, err)
		}
	}
	if err := mark(t, b, 7); err == nil {
		t.Error("a bookmark counts on a snapshot that is being deleted")
	}
	another := compact.New(b, aggressive())
	for range 3 {
		h.grow(3)
		mustRound(t, another, compact.Mode{Steal: true})
	}
	if root, err = wal.ReadRoot(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for _, key := range first {
		if _, _, err := b.Get(t.Context(), key); !errors.Is(err, blob.ErrNotExist) || slices.Contains(root.Doomed, key) {
			t.Errorf("%s is still in the bucket (%v), or in ROOT: %v", key, err, root.Doomed)
		}
	}
	if left := objects(t, b, "snap/"); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
	h.check("afterwards")
}

// A bookmark that is set before the swap by which a snapshot is doomed keeps it.
func TestBookmarkBeforeTheDoom(t *testing.T) {
	b, h, state := mkDoomed(t)
	o := aggressive()
	o.KeepSegments = 1000 // the floor stays
	slow := &onDoom{Bucket: b, act: func() {
		if err := mark(t, b, 7); err != nil {
			t.Error(err)
		}
	}}
	rep := mustRound(t, compact.New(slow, o), compact.Mode{})
	if slow.act != nil || rep.SnapshotsDeleted != 0 {
		t.Errorf("%d snapshots were deleted", rep.SnapshotsDeleted)
	}
	mustRound(t, compact.New(b, aggressive()), compact.Mode{})
	wantPast(t, b, 7, state)
	h.check("afterwards")
}

// onDoom calls act ahead of the first swap that dooms something.
type onDoom struct {
	blob.Bucket
	act func()
}

func (b *onDoom) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	if root, err := wal.DecodeRoot(body); err == nil && len(root.Doomed) > 0 && b.act != nil {
		act := b.act
		b.act = nil
		act()
	}
	return b.Bucket.Swap(ctx, key, old, body)
}

// Only so many snapshots are named at once; the others, and their tables, wait.
func TestManyDoomed(t *testing.T) {
	b := memblob.New()
	h := mkHistory(t, b, 5)
	keep := aggressive()
	keep.KeepAll, keep.Ratio = time.Hour, 4
	many := compact.New(b, keep)
	for len(objects(t, b, "snap/")) < wal.MaxDoomed+10 {
		h.grow(1)
		mustRound(t, many, compact.Mode{})
	}
	all := len(objects(t, b, "snap/"))
	c := compact.New(b, aggressive())
	rep := mustRound(t, c, compact.Mode{})
	if rep.SnapshotsDeleted != wal.MaxDoomed {
		t.Errorf("%d of %d snapshots were deleted, want %d", rep.SnapshotsDeleted, all, wal.MaxDoomed)
	}
	for _, key := range objects(t, b, "snap/") {
		body, _, err := b.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		s, err := wal.DecodeSnapshot(body)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range s.Runs {
			for _, table := range r.Tables {
				if _, _, err := b.Get(t.Context(), table.Key); err != nil {
					t.Errorf("%s is left without %s: %v", key, table.Key, err)
				}
			}
		}
	}
	h.grow(1)
	mustRound(t, c, compact.Mode{})
	if left := objects(t, b, "snap/"); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
	h.check("afterwards")
}
