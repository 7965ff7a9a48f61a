package compact_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/index"
	"github.com/celler/celler/wal"
)

// wantPast wants the state of a slot, made of nothing but the bucket, to be what the
// replay had there.
func wantPast(t testing.TB, b blob.Bucket, seq wal.Seq, want [32]byte) {
	t.Helper()
	p, err := index.OpenPast(t.Context(), b, "past", seq, index.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20})
	if err != nil {
		t.Fatalf("the state of slot %d: %v", seq, err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got, err := p.Digest(); err != nil || got != want {
		t.Fatalf("the state of slot %d is not what it was (%v):\n%s", seq, err, dump(p.DB))
	}
}

func mustDigest(t testing.TB, db *index.DB) [32]byte {
	t.Helper()
	d, err := db.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustMark(t testing.TB, b blob.Bucket, name string, seq wal.Seq) {
	t.Helper()
	if _, err := (wal.RootChange{By: "test"}).SetBookmark(t.Context(), b, wal.Bookmark{Name: name, Seq: seq}); err != nil {
		t.Fatal(err)
	}
}

// What a bookmark needs outlives rounds that throw away everything they may.
func TestBookmarksOutliveTruncation(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			b := memblob.New()
			h := mkHistory(t, b, seed)
			h.ranges = seed%2 == 1
			states := map[wal.Seq][32]byte{}
			marked := map[string]wal.Seq{}
			for i := range 12 {
				for range 1 + h.rng.IntN(14) {
					h.grow(1)
					states[h.seq] = mustDigest(t, h.replay)
				}
				history, err := wal.ReadHistory(t.Context(), b)
				if err != nil {
					t.Fatal(err)
				}
				// The present, and a slot of the past that no round has passed yet, or not
				// yet truncated.
				seq := h.seq
				if i%2 == 1 {
					seq = max(1, history.Root.Floor, h.seq-wal.Seq(h.rng.IntN(6)))
				}
				name := fmt.Sprint("m", i)
				mustMark(t, b, name, seq)
				marked[name] = seq
				if i%3 == 2 {
					victim := fmt.Sprint("m", i-2)
					if err := (wal.RootChange{}).DropBookmark(t.Context(), b, victim); err != nil {
						t.Fatal(err)
					}
					delete(marked, victim)
				}
				h.grow(h.rng.IntN(4))
				rep := mustRound(t, compact.New(b, aggressive()), compact.Mode{})
				if rep.Floor != rep.Snapshot {
					t.Errorf("round %d: floor %v, snapshot %v: a bookmark holds the floor", i, rep.Floor, rep.Snapshot)
				}
				h.check(fmt.Sprint("round ", i))
				for _, seq := range marked {
					if _, ok := states[seq]; ok {
						wantPast(t, b, seq, states[seq])
					}
				}
				states[h.seq] = mustDigest(t, h.replay)
			}
			if got := len(objects(t, b, "snap/")); got < 2 || got > len(marked)+1 {
				t.Errorf("%d snapshots for %d bookmarks", got, len(marked))
			}
			for name := range marked {
				if err := (wal.RootChange{}).DropBookmark(t.Context(), b, name); err != nil {
					t.Fatal(err)
				}
			}
			h.grow(3)
			mustRound(t, compact.New(b, aggressive()), compact.Mode{})
			if left := objects(t, b, "snap/"); len(left) != 1 {
				t.Errorf("snapshots left after the bookmarks went: %v", left)
			}
			if left := objects(t, b, "bookmark/"); len(left) != 0 {
				t.Errorf("left of bookmarks: %v", left)
			}
		})
	}
}

// A bookmark on the past is given a snapshot of its own, aside of the one ROOT names,
// and holds the floor until it has.
func TestBookmarkOnThePast(t *testing.T) {
	b := memblob.New()
	h := mkHistory(t, b, 3)
	var states [31][32]byte
	for seq := 1; seq <= 30; seq++ {
		h.grow(1)
		states[seq] = mustDigest(t, h.replay)
	}
	o := aggressive()
	o.KeepSegments = 1000
	mustRound(t, compact.New(b, o), compact.Mode{})
	mustMark(t, b, "then", 13)
	if err := (wal.RootChange{}).DropBookmark(t.Context(), b, "never"); err == nil {
		t.Error("a bookmark that is not there was removed")
	}

	// While somebody else has the epoch, nothing can be written: the floor waits.
	_, err := wal.RootChange{By: "another"}.Swap(t.Context(), b, func(r *wal.Root) error { r.CompactEpoch++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	rep := mustRound(t, compact.New(b, aggressive()), compact.Mode{})
	if rep.Busy == nil || rep.Floor > 14 {
		t.Errorf("a busy round left the floor at %v: %+v", rep.Floor, rep)
	}
	wantPast(t, b, 13, states[13])

	rep = mustRound(t, compact.New(b, aggressive()), compact.Mode{Steal: true})
	if rep.Bookmarked != 1 || rep.Floor != 30 {
		t.Errorf("%+v, want a snapshot for the bookmark and the floor at 30", rep)
	}
	wantPast(t, b, 13, states[13])
	h.check("afterwards")
	err = func() error {
		p, err := index.OpenPast(t.Context(), b, "past", 12, index.Options{FS: vfs.NewMem()})
		if err == nil {
			return p.Close()
		}
		return err
	}()
	var gone *wal.UnreachableError
	if !errors.As(err, &gone) || gone.Since != 30 || len(gone.Before) != 1 || gone.Before[0] != 13 {
		t.Errorf("the state of slot 12: %v, want none, and to hear of 30 and 13", err)
	}
	_, err = (wal.RootChange{}).SetBookmark(t.Context(), b, wal.Bookmark{Name: "lost", Seq: 12})
	if !errors.As(err, &gone) {
		t.Errorf("a bookmark on what is gone: %v", err)
	}
	rep = mustRound(t, compact.New(b, aggressive()), compact.Mode{})
	if !rep.Idle() {
		t.Errorf("a round with nothing to do: %+v", rep)
	}
}

// onSwap calls raise ahead of the first swap that would raise the floor.
type onSwap struct {
	blob.Bucket
	raise func()
}

func (b *onSwap) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	if root, err := wal.DecodeRoot(body); err == nil && root.Floor > 1 && b.raise != nil {
		raise := b.raise
		b.raise = nil
		raise()
	}
	return b.Bucket.Swap(ctx, key, old, body)
}

// A bookmark that is set while a compactor is about to raise the floor holds.
func TestBookmarkBeforeTheFloorRises(t *testing.T) {
	b := memblob.New()
	h := mkHistory(t, b, 5)
	h.grow(7)
	state := mustDigest(t, h.replay)
	h.grow(5)
	slow := &onSwap{Bucket: b, raise: func() { mustMark(t, b, "seven", 7) }}
	rep := mustRound(t, compact.New(slow, aggressive()), compact.Mode{})
	if slow.raise != nil || rep.SlotsDeleted != 0 || rep.Floor > 1 {
		t.Errorf("the floor rose to %v, %d slots were deleted", rep.Floor, rep.SlotsDeleted)
	}
	wantPast(t, b, 7, state)
	rep = mustRound(t, compact.New(b, aggressive()), compact.Mode{})
	if rep.Floor != 12 {
		t.Errorf("floor %v after the next round, want 12", rep.Floor)
	}
	wantPast(t, b, 7, state)
}

// A round that has begun ends when a later celler says that it may not change anything.
func TestFloorThatIsNotOurs(t *testing.T) {
	b := memblob.New()
	h := mkHistory(t, b, 5)
	h.grow(12)
	slow := &onSwap{Bucket: b, raise: func() {
		if _, err := (wal.RootChange{}).Swap(t.Context(), b, func(r *wal.Root) error { r.MinWriter = 99; return nil }); err != nil {
			t.Error(err)
		}
	}}
	rep, err := compact.New(slow, aggressive()).Round(t.Context(), compact.Mode{})
	root, rerr := wal.ReadRoot(t.Context(), b)
	if !errors.Is(err, wal.ErrTooOld) || rerr != nil || root.Floor > 1 || rep.SlotsDeleted != 0 {
		t.Errorf("%v, the floor is at %v and %d slots were deleted; want that this celler is too old", err, root.Floor, rep.SlotsDeleted)
	}
}

// A snapshot of which tables are gone was swept in part, by a compactor that died: the
// bookmark goes by the one before it.
func TestBookmarkOnABrokenSnapshot(t *testing.T) {
	b := memblob.New()
	h := mkHistory(t, b, 5)
	o := aggressive()
	o.KeepSegments, o.KeepAll, o.Ratio = 1000, time.Hour, 100
	h.grow(4)
	mustRound(t, compact.New(b, o), compact.Mode{})
	first := objects(t, b, "tab/")
	h.grow(4)
	mustRound(t, compact.New(b, o), compact.Mode{})
	state := mustDigest(t, h.replay)
	mustMark(t, b, "eight", 8)
	second := objects(t, b, "snap/")[1]
	old := map[blob.Key]bool{}
	for _, key := range first {
		old[key] = true
	}
	// As a zombie may leave it: a snapshot of the same slot whose table is not there.
	body, _, err := b.Get(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	s, err := wal.DecodeSnapshot(body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Runs {
		for j := range s.Runs[i].Tables {
			if !old[s.Runs[i].Tables[j].Key] {
				s.Runs[i].Tables[j].Key = wal.TableKey(s.Epoch, 12345)
			}
		}
	}
	if body, err = wal.AppendSnapshot(nil, s); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), wal.SnapshotKey(8, 7), body); err != nil {
		t.Fatal(err)
	}
	wantPast(t, b, 8, state)
	h.grow(5)
	for range 3 {
		mustRound(t, compact.New(b, aggressive()), compact.Mode{})
		wantPast(t, b, 8, state)
		h.grow(2)
	}
}

// TestKilledWithBookmarks kills a round at many of its calls: what bookmarks need is
// there afterwards, also while it is being made, and the next round finishes the work.
func TestKilledWithBookmarks(t *testing.T) {
	step := 5 // odd, so that it is killed before some calls and after others
	if testing.Short() {
		step = 35
	}
	for fatal := 1; ; fatal += step {
		b := memblob.New()
		h := mkHistory(t, b, 3)
		states := map[wal.Seq][32]byte{}
		grow := func(n int) {
			for range n {
				h.grow(1)
				states[h.seq] = mustDigest(t, h.replay)
			}
		}
		keep := aggressive()
		keep.KeepSegments = 1000
		for range 2 {
			grow(4)
			mustRound(t, compact.New(b, keep), compact.Mode{})
		}
		grow(6)
		mustMark(t, b, "past", 6)
		mustMark(t, b, "soon", 12)
		ctx, cancel := context.WithCancel(t.Context())
		m := &mortal{b: b, after: fatal%2 == 0, kill: cancel, fatal: (fatal + 1) / 2}
		rep, err := compact.New(m, aggressive()).Round(ctx, compact.Mode{})
		cancel()
		if m.killed == "" && (err != nil || rep.Bookmarked != 1) {
			t.Fatalf("%+v, %v", rep, err)
		}
		what := fmt.Sprintf("killed at call %d, %s", m.fatal, m.killed)
		wantPast(t, b, 6, states[6])
		wantPast(t, b, 12, states[12])
		h.check(what)
		grow(1)
		rep = mustRound(t, compact.New(b, aggressive()), compact.Mode{Steal: true})
		if rep.Floor != 15 {
			t.Errorf("%s: the floor stays at %d", what, rep.Floor)
		}
		wantPast(t, b, 6, states[6])
		wantPast(t, b, 12, states[12])
		if n := len(objects(t, b, "snap/")); n != 3 {
			t.Errorf("%s: %d snapshots, want ROOT's and one for each bookmark", what, n)
		}
		if m.killed == "" {
			if fatal < 60 {
				t.Errorf("only %d calls", fatal/2)
			}
			return
		}
	}
}
