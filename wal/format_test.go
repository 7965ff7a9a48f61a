package wal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/wal"
)

func TestFoundWritesOnce(t *testing.T) {
	b := memblob.New()
	if _, err := wal.ReadFormat(t.Context(), b); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("reading the format of an empty bucket: %v, want ErrNotExist", err)
	}
	first := mustFound(t, b)
	again, err := wal.Found(t.Context(), b, wal.Format{Profile: "fast2016-64k"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("founding again returns another format: %s", diff)
	}
	if first.Store == (wal.StoreID{}) || first.Profile != "fast2016-16k" || first.Created.IsZero() {
		t.Errorf("incomplete format: %+v", first)
	}
	root, err := wal.ReadRoot(t.Context(), b)
	if err != nil || root.Store != first.Store || root.Rev != 1 {
		t.Errorf("root is %+v, %v", root, err)
	}
}

func TestManyFoundersAgree(t *testing.T) {
	b := memblob.New()
	var wg sync.WaitGroup
	formats := make([]wal.Format, 16)
	for i := range formats {
		wg.Go(func() {
			profile := fmt.Sprintf("profile-%d", i)
			f, err := wal.Found(t.Context(), b, wal.Format{Profile: profile})
			if err != nil {
				t.Error(err)
			}
			formats[i] = f
		})
	}
	wg.Wait()
	for _, f := range formats[1:] {
		if f != formats[0] {
			t.Errorf("founders disagree: %+v and %+v", formats[0], f)
		}
	}
}

// TestFoundingMayStopAnywhere breaks it at each request; founding again must
// complete what was begun.
func TestFoundingMayStopAnywhere(t *testing.T) {
	for _, fault := range []blobtest.Fault{blobtest.LostRequest, blobtest.LostResponse, blobtest.DelayedApply} {
		for k, more := 0, true; more; k++ {
			bucket := memblob.New()
			faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{Decide: blobtest.FailAt(k, fault)})
			first, firstErr := wal.Found(t.Context(), faulty, wal.Format{Profile: "p"})
			more = faulty.Calls() > k
			faulty.Set(nil)
			second, err := wal.Found(t.Context(), faulty, wal.Format{Profile: "p"})
			if err != nil {
				t.Fatalf("%v at call %d: founding again: %v", fault, k, err)
			}
			if firstErr == nil && first != second {
				t.Errorf("%v at call %d: formats %+v and %+v", fault, k, first, second)
			}
			faulty.Release(t.Context(), -1)
			if third, err := wal.ReadFormat(t.Context(), bucket); err != nil || third != second {
				t.Errorf("%v at call %d: a late request changed the format to %+v, %v", fault, k, third, err)
			}
		}
	}
}

func TestFoundRefusesABucketThatLostItsFormat(t *testing.T) {
	b := mkBucket(t)
	l, _ := mustOpen(t, b, wal.Options{})
	mustCommit(t, l, set("x", "1"))
	if err := b.Delete(t.Context(), wal.FormatKey); err != nil {
		t.Fatal(err)
	}
	if _, err := wal.Found(t.Context(), b, wal.Format{Profile: "other"}); !isCorrupt(err) {
		t.Errorf("error is %v, want a CorruptError: the log has begun", err)
	}
}

func TestOpenRefusesABucketThatLostItsRoot(t *testing.T) {
	b := mkBucket(t)
	if err := b.Delete(t.Context(), wal.RootKey); err != nil {
		t.Fatal(err)
	}
	if _, err := wal.Found(t.Context(), b, wal.Format{Profile: "p"}); err != nil {
		t.Errorf("a bucket with a FORMAT is founded: %v", err)
	}
	_, err := wal.Open(t.Context(), b, nopState{}, wal.Options{})
	wantErr(t, err, blob.ErrNotExist)
}

type nopState struct{ wal.State }

func (nopState) Position() (wal.Seq, wal.Digest, error) { return 0, wal.Digest{}, nil }

func TestDecodeFormatRefuses(t *testing.T) {
	const store = `"store":"000102030405060708090a0b0c0d0e0f"`
	bad := func(what, src string, ok func(error) bool) {
		t.Helper()
		if f, err := wal.DecodeFormat([]byte(src)); !ok(err) {
			t.Errorf("%s: got %+v and error %v", what, f, err)
		}
	}
	tooOld := func(err error) bool { return errors.Is(err, wal.ErrTooOld) }
	if _, err := wal.DecodeFormat([]byte(`{"v":1,` + store + `,"profile":"p","later":true}`)); err != nil {
		t.Errorf("a field that came later: %v", err)
	}
	bad("nothing", "", isCorrupt)
	bad("something else", "<html>", isCorrupt)
	bad("no version", `{`+store+`,"profile":"p"}`, isCorrupt)
	bad("a later version", `{"v":2,"whatever":[]}`, tooOld)
	bad("no store", `{"v":1,"profile":"p"}`, isCorrupt)
	bad("a short store id", `{"v":1,"store":"00","profile":"p"}`, isCorrupt)
	bad("no profile", `{"v":1,`+store+`}`, isCorrupt)
	bad("a strange profile", `{"v":1,`+store+`,"profile":"../p"}`, isCorrupt)
	bad("64 KiB", `{"v":1,`+store+`,"profile":"p"}`+strings.Repeat(" ", 64<<10), isCorrupt)
}

func TestGoldenFormatAndRoot(t *testing.T) {
	env := newClock().env(7)
	b := memblob.New()
	f, err := wal.Founding{Env: env, By: "celler-1/golden"}.Found(t.Context(), b, wal.Format{Profile: "fast2016-16k"})
	if err != nil {
		t.Fatal(err)
	}
	want := func(key blob.Key, file string) []byte {
		t.Helper()
		got, _, err := b.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(golden), string(got)); diff != "" {
			t.Errorf("%s: %s", key, diff)
		}
		return golden
	}
	if got, err := wal.DecodeFormat(want(wal.FormatKey, "testdata/format-v1.json")); err != nil || got != f {
		t.Errorf("FORMAT decodes to %+v, %v", got, err)
	}
	if got, err := wal.DecodeRoot(want(wal.RootKey, "testdata/root-v1.json")); err != nil || got.By != "celler-1/golden" {
		t.Errorf("ROOT decodes to %+v, %v", got, err)
	}
}

func mkRoot() wal.Root {
	r := wal.Root{
		Version: 1, Rev: 5, Nonce: "n5", Floor: 10, CompactEpoch: 2, MinReader: 1, MinWriter: 1, Features: []string{"zstd"},
		Snapshot: wal.SnapshotRef{Seq: 20, Key: "snap/x"}, At: time.Unix(0, 0).UTC(),
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
	bad("a floor above the snapshot", func(r *wal.Root) { r.Floor = 21 })
	bad("a snapshot without a key", func(r *wal.Root) { r.Snapshot.Key = "" })
	bad("the empty snapshot with a key", func(r *wal.Root) { r.Snapshot.Seq, r.Floor = 0, 0 })
	bad("no gate", func(r *wal.Root) { r.MinReader = 0 })
	bad("5 KiB", func(r *wal.Root) { r.By = strings.Repeat("x", 5<<10) })
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
		return "", errDenied
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

func FuzzDecodeFormat(f *testing.F) {
	f.Add([]byte(`{"v":1,"store":"000102030405060708090a0b0c0d0e0f","profile":"p"}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		if _, err := wal.DecodeFormat(src); err != nil && !isCorrupt(err) && !errors.Is(err, wal.ErrTooOld) {
			t.Fatal(err)
		}
	})
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
