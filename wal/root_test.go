package wal_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/wal"
)

func mkRoot() wal.Root {
	r := wal.Root{
		Version: 1, Rev: 5, Nonce: "n5", Floor: 10, CompactEpoch: 2, MinReader: 1, MinWriter: 1, Features: []string{"zstd"},
		Snapshot: wal.SnapshotRef{Seq: 20, Key: "snap/x"}, Doomed: []blob.Key{"snap/a", "snap/b"}, At: time.Unix(0, 0).UTC(),
	}
	r.Store[0] = 1
	return r
}

func TestRootRoundTrip(t *testing.T) {
	r := mkRoot()
	body, err := wal.EncodeRoot(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wal.DecodeRoot(body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Error(diff)
	}
}

func TestRootThatCannotBe(t *testing.T) {
	bad := func(what string, change func(*wal.Root)) {
		t.Helper()
		r := mkRoot()
		change(&r)
		if _, err := wal.EncodeRoot(r); err == nil {
			t.Errorf("%s was encoded", what)
		}
	}
	bad("another version", func(r *wal.Root) { r.Version = 2 })
	bad("no store", func(r *wal.Root) { r.Store = wal.StoreID{} })
	bad("revision 0", func(r *wal.Root) { r.Rev = 0 })
	bad("no nonce", func(r *wal.Root) { r.Nonce = "" })
	bad("a floor above the slot after the snapshot", func(r *wal.Root) { r.Floor = 22 })
	bad("a snapshot without a key", func(r *wal.Root) { r.Snapshot.Key = "" })
	bad("the empty snapshot with a key", func(r *wal.Root) { r.Snapshot.Seq, r.Floor = 0, 0 })
	bad("no gate", func(r *wal.Root) { r.MinReader = 0 })
	bad("its snapshot about to be deleted", func(r *wal.Root) { r.Doomed = []blob.Key{"snap/a", "snap/x"} })
	bad("anything else about to be deleted", func(r *wal.Root) { r.Doomed = []blob.Key{"tab/a"} })
	bad("65 about to be deleted", func(r *wal.Root) { r.Doomed = slices.Repeat([]blob.Key{"snap/a"}, 65) })
	bad("17 KiB", func(r *wal.Root) { r.By = strings.Repeat("x", 17<<10) })
}

// TestTransitions is I9.
func TestTransitions(t *testing.T) {
	step := func(change func(*wal.Root)) error {
		next := mkRoot()
		next.Rev, next.Nonce = 6, "n6"
		change(&next)
		return wal.CheckTransition(mkRoot(), next)
	}
	ok := func(what string, change func(*wal.Root)) {
		t.Helper()
		if err := step(change); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	bad := func(field string, change func(*wal.Root)) {
		t.Helper()
		if e, ok := errors.AsType[*wal.TransitionError](step(change)); !ok || e.Field != field {
			t.Errorf("error is %v, want one about %s", e, field)
		}
	}
	ok("nothing but the revision", func(*wal.Root) {})
	ok("everything forward", func(r *wal.Root) {
		r.Snapshot, r.Floor, r.CompactEpoch = wal.SnapshotRef{Seq: 30, Key: "snap/y"}, 25, 9
		r.MinReader, r.MinWriter, r.Features = 2, 3, []string{"new", "zstd"}
	})
	bad("rev", func(r *wal.Root) { r.Rev = 7 })
	bad("rev", func(r *wal.Root) { r.Rev = 5 })
	bad("nonce", func(r *wal.Root) { r.Nonce = "n5" })
	bad("store", func(r *wal.Root) { r.Store[0] = 2 })
	bad("snapshot seq", func(r *wal.Root) { r.Snapshot.Seq = 19 })
	bad("snapshot digest", func(r *wal.Root) { r.Snapshot.Digest[0] = 1 })
	bad("floor", func(r *wal.Root) { r.Floor = 9 })
	bad("compact_epoch", func(r *wal.Root) { r.CompactEpoch = 1 })
	bad("min_reader", func(r *wal.Root) { r.MinReader = 0 })
	bad("min_writer", func(r *wal.Root) { r.MinWriter = 0 })
	bad("features", func(r *wal.Root) { r.Features = nil })
}

// TestSwapIsExactlyOnce breaks two swaps at each request in turn, and counts.
func TestSwapIsExactlyOnce(t *testing.T) {
	for _, fault := range faults {
		if fault == blobtest.Slow {
			continue // takes real time, and is no fault for something that waits
		}
		for k, more := 0, true; more; k++ {
			bucket := mkBucket(t)
			faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{Decide: blobtest.FailAt(k, fault)})
			change := wal.RootChange{Env: newClock().env(uint64(k))}
			raise := func(b blob.Bucket) error {
				_, err := change.Swap(t.Context(), b, func(r *wal.Root) error {
					r.CompactEpoch++ // a wish that is never fulfilled already
					return nil
				})
				return err
			}
			err := raise(faulty)
			for errors.Is(err, blobtest.ErrInjected) { // a failed read: nothing happened
				err = raise(faulty)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := raise(bucket); err != nil {
				t.Fatal(err)
			}
			faulty.Release(t.Context(), -1)
			more = faulty.Calls() > k
			root, err := wal.ReadRoot(t.Context(), bucket)
			if err != nil || root.Rev != 3 || root.CompactEpoch != 2 {
				t.Errorf("%v at call %d: root is %+v, %v; want two changes", fault, k, root, err)
			}
		}
	}
}

// late is a bucket whose first swap is performed just before the second.
type late struct {
	blob.Bucket
	first func()
	swaps int
}

func (b *late) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	if b.swaps++; b.swaps == 1 {
		b.first = func() { _, _ = b.Bucket.Swap(ctx, key, old, body) }
		return "", &blob.Error{Op: "swap", Key: key, Kind: blob.KindUnreachable, Err: errors.New("connection reset")}
	}
	if b.swaps == 2 {
		b.first()
	}
	return b.Bucket.Swap(ctx, key, old, body)
}

func TestASwapThatArrivesLateIsNotASecondOne(t *testing.T) {
	bucket := mkBucket(t)
	root, err := wal.RootChange{Env: newClock().env(1)}.Swap(t.Context(), &late{Bucket: bucket}, func(r *wal.Root) error {
		r.CompactEpoch++
		return nil
	})
	if err != nil || root.CompactEpoch != 1 || root.Rev != 2 {
		t.Errorf("root is %+v, %v; want one change", root, err)
	}
	if now, err := wal.ReadRoot(t.Context(), bucket); err != nil || now.Rev != 2 || now.Nonce != root.Nonce {
		t.Errorf("root is %+v, %v; want what Swap returned", now, err)
	}
}

func TestSwapsByManyAllCount(t *testing.T) {
	bucket := mkBucket(t)
	var wg sync.WaitGroup
	const swappers, each = 8, 10
	for i := range swappers {
		wg.Go(func() {
			change := wal.RootChange{Env: newClock().env(uint64(i))}
			for range each {
				_, err := change.Swap(t.Context(), bucket, func(r *wal.Root) error {
					r.CompactEpoch++
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if root, err := wal.ReadRoot(t.Context(), bucket); err != nil || root.CompactEpoch != swappers*each {
		t.Errorf("root is %+v, %v; want %d changes", root, err, swappers*each)
	}
}

func TestSwapWithoutAWishWritesNothing(t *testing.T) {
	counter := blobtest.Count(mkBucket(t))
	if _, err := (wal.RootChange{}).Swap(t.Context(), counter, func(*wal.Root) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if n := counter.Calls()["swap"]; n != 0 {
		t.Errorf("%d swaps", n)
	}
}

func TestSwapThatGetsNoAnswerIsUnknown(t *testing.T) {
	bucket := mkBucket(t)
	ctx, cancel := context.WithCancel(t.Context())
	faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{Decide: func(_ int, op string, _ blob.Key) blobtest.Fault {
		if op == "swap" {
			cancel()
			return blobtest.LostRequest
		}
		return blobtest.None
	}})
	_, err := wal.RootChange{}.Swap(ctx, faulty, func(r *wal.Root) error { r.CompactEpoch = 1; return nil })
	wantErr(t, err, wal.ErrUnknown)
}

// A swap that is refused is not repeated for ever: whoever waits for it has to give the
// right first. One that got no answer before is, since that one may have landed.
func TestSwapThatIsRefusedEnds(t *testing.T) {
	raise := func(r *wal.Root) error { r.CompactEpoch++; return nil }
	for _, kind := range []blob.Kind{blob.KindDenied, blob.KindReadOnly, blob.KindNoBucket} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			refusing := &refusingSwaps{Bucket: mkBucket(t), kind: kind, from: 1, to: 1 << 20}
			_, err := wal.RootChange{}.Swap(ctx, refusing, raise)
			if blob.KindOf(err) != kind || refusing.n != 1 {
				t.Errorf("%v: got %v after %d swaps, want the refusal after one", kind, err, refusing.n)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		unanswered := blobtest.NewFaulty(mkBucket(t), blobtest.FaultyOptions{Decide: func(n int, op string, _ blob.Key) blobtest.Fault {
			if op == "swap" && n < 4 {
				return blobtest.LostRequest
			}
			return blobtest.None
		}})
		refusing := &refusingSwaps{Bucket: unanswered, kind: blob.KindDenied, from: 2, to: 3}
		root, err := wal.RootChange{}.Swap(t.Context(), refusing, raise)
		if err != nil || root.CompactEpoch != 1 || refusing.n < 4 {
			t.Errorf("got epoch %d and %v after %d swaps, want 1 after the refusals", root.CompactEpoch, err, refusing.n)
		}
	})
}

// refusingSwaps refuses the swaps with numbers from to to.
type refusingSwaps struct {
	blob.Bucket
	kind        blob.Kind
	n, from, to int
}

func (b *refusingSwaps) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	if b.n++; b.from <= b.n && b.n <= b.to {
		return "", &blob.Error{Op: "swap", Key: key, Kind: b.kind, Err: errors.New("refused")}
	}
	return b.Bucket.Swap(ctx, key, old, body)
}

func FuzzDecodeRoot(f *testing.F) {
	body, err := wal.EncodeRoot(mkRoot())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, src []byte) {
		r, err := wal.DecodeRoot(src)
		if err != nil {
			if !isCorrupt(err) && !errors.Is(err, wal.ErrTooOld) {
				t.Fatal(err)
			}
			return
		}
		next := r
		next.Rev, next.Nonce = r.Rev+1, r.Nonce[:len(r.Nonce)-1]+"+"
		if err := wal.CheckTransition(r, next); err != nil && next.Nonce != r.Nonce && next.Rev != 0 {
			t.Fatalf("a root that only counts on was refused: %v", err)
		}
	})
}
