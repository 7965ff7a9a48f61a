package wal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

// hooked is a bucket whose calls a test may replace.
type hooked struct {
	blob.Bucket

	mu     sync.Mutex // guards the hooks
	create func(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error)
	getIf  func(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error)
}

func (h *hooked) set(change func(*hooked)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

func (h *hooked) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	h.mu.Lock()
	create := h.create
	h.mu.Unlock()
	if create == nil {
		return h.Bucket.Create(ctx, key, body)
	}
	return create(ctx, key, body)
}

func (h *hooked) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	h.mu.Lock()
	getIf := h.getIf
	h.mu.Unlock()
	if getIf == nil {
		return h.Bucket.GetIf(ctx, key, old)
	}
	return getIf(ctx, key, old)
}

var errDenied = &blob.Error{Op: "create", Kind: blob.KindDenied, Err: errors.New("access denied")}

func denied(context.Context, blob.Key, []byte) (blob.Tag, error) { return "", errDenied }

func TestABucketThatRefusesWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		h := &hooked{Bucket: bucket, create: denied}
		l, st := mustOpen(t, h, wal.Options{GiveUp: 10 * time.Second})
		commit := func(value string) error {
			t.Helper()
			began := time.Now()
			_, err := l.Commit(t.Context(), set("x", value))
			if d := time.Since(began); d > 20*time.Second {
				t.Errorf("the answer took %v", d)
			}
			return err
		}

		// The session could not be opened: the operation itself was never sent.
		err := commit("1")
		wantErr(t, err, wal.ErrUnavailable)
		wantErr(t, err, errDenied)
		wantErr(t, l.Err(), wal.ErrUnknown)

		h.set(func(h *hooked) { h.create = nil })
		time.Sleep(10 * time.Second)
		if err := l.Err(); err != nil {
			t.Errorf("the bucket takes writes again, and Err is %v", err)
		}
		if err := commit("2"); err != nil {
			t.Fatal(err)
		}

		// Now it is the operation that is sent and not answered.
		h.set(func(h *hooked) { h.create = denied })
		err = commit("3")
		wantErr(t, err, wal.ErrUnknown)
		wantErr(t, err, errDenied)
		wantErr(t, commit("4"), wal.ErrUnavailable)
		doubt, ok := errors.AsType[*wal.InDoubtError](l.Err())
		if !ok || doubt.Seq != 3 || doubt.Batch != 3 || !errors.Is(doubt.Cause, errDenied) {
			t.Errorf("Err is %+v", doubt)
		}

		// Reading goes on meanwhile, and a foreign segment settles the slot.
		other, _ := mustOpen(t, bucket, wal.Options{})
		mustCommit(t, other, set("y", "1"))
		mustCatchUp(t, l)
		wantDump(t, st, "x=2\ny=1\n")
		if err := l.Err(); err != nil {
			t.Errorf("nothing is in doubt any more, and Err is %v", err)
		}
		h.set(func(h *hooked) { h.create = nil })
		if err := commit("5"); err != nil {
			t.Fatal(err)
		}
		wantDump(t, st, "x=5\ny=1\n")
	})
}

// politeState lets everybody else go on before it says what became of a batch.
type politeState struct {
	*waltest.State
	polite atomic.Bool
}

func (s *politeState) Session(w wal.WriterID) (uint64, bool, error) {
	if s.polite.Load() {
		synctest.Wait()
	}
	return s.State.Session(w)
}

// TestWhoHasCaughtUpFindsNoDoubt: nobody who has caught up beyond the slot in doubt finds it in
// doubt, however soon he asks.
func TestWhoHasCaughtUpFindsNoDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		h := &hooked{Bucket: bucket}
		st := &politeState{State: waltest.NewState(h)}
		l := mustOpenState(t, h, st, wal.Options{GiveUp: 10 * time.Second})
		mustCommit(t, l, set("x", "1"))
		h.set(func(h *hooked) { h.create = denied })
		_, err := l.Commit(t.Context(), set("x", "2"))
		wantErr(t, err, wal.ErrUnknown)
		wantErr(t, l.Err(), wal.ErrUnknown)

		other, _ := mustOpen(t, bucket, wal.Options{})
		mustCommit(t, other, set("y", "1"))
		st.polite.Store(true)
		mustCatchUp(t, l)
		if err := l.Err(); err != nil {
			t.Errorf("nothing is in doubt any more, and Err is %v", err)
		}
		st.polite.Store(false)
	})
}

func TestTheBatchOfACallerThatLeftIsSettledAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hooked{Bucket: mkBucket(t)}
		l, st := mustOpen(t, h, wal.Options{})
		mustCommit(t, l, set("x", "1"))

		h.set(func(h *hooked) { h.create = denied })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := l.Commit(ctx, set("x", "2"))
		wantErr(t, err, wal.ErrUnknown)
		wantErr(t, err, context.DeadlineExceeded)
		wantDump(t, st, "x=1\n")

		h.set(func(h *hooked) { h.create = nil })
		mustCommit(t, l, waltest.Append("x", "3"))
		wantDump(t, st, "x=2 3\n")
	})
}

func TestACallerThatLeavesTheQueueLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hooked{Bucket: mkBucket(t)}
		l, st := mustOpen(t, h, wal.Options{})
		mustCommit(t, l, set("x", "1"))
		h.set(func(h *hooked) { h.create = denied })
		var wg sync.WaitGroup
		wg.Go(func() { mustCommit(t, l, set("x", "2")) })
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := l.Commit(ctx, set("x", "3"))
		wantErr(t, err, wal.ErrConflict)
		wantErr(t, err, context.DeadlineExceeded)
		h.set(func(h *hooked) { h.create = nil })
		wg.Wait()
		mustCommit(t, l, waltest.Append("x", "4"))
		wantDump(t, st, "x=2 4\n")

		_, err = l.Commit(ctx, set("x", "5"))
		wantErr(t, err, wal.ErrConflict)
	})
}

func TestCloseLeavesNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hooked{Bucket: mkBucket(t)}
		l, err := wal.Open(t.Context(), h, waltest.NewState(nil), wal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		mustCommit(t, l, set("x", "1"))
		h.set(func(h *hooked) {
			h.create = func(ctx context.Context, _ blob.Key, _ []byte) (blob.Tag, error) {
				<-ctx.Done()
				return "", ctx.Err()
			}
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := l.Commit(t.Context(), set("x", "2"))
			wantErr(t, err, wal.ErrUnknown)
			wantErr(t, err, wal.ErrClosed)
		})
		synctest.Wait()
		wg.Go(func() {
			_, err := l.Commit(t.Context(), set("x", "3"))
			wantErr(t, err, wal.ErrClosed)
			if errors.Is(err, wal.ErrUnknown) {
				t.Error("an operation that was never sent is in doubt")
			}
		})
		wg.Go(func() { _, err := l.CatchUp(t.Context()); wantErr(t, err, wal.ErrClosed) })
		wg.Go(func() { wantErr(t, l.Wait(t.Context(), 99), wal.ErrClosed) })
		synctest.Wait()
		for range 2 {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		_, err = l.Commit(t.Context(), set("x", "4"))
		wantErr(t, err, wal.ErrClosed)
		if err := l.Run(t.Context()); err != nil {
			t.Errorf("Run on a closed log: %v", err)
		}
	})
}

// TestNoIsLinearizable asks a log that is behind for what its own state would refuse,
// or have nothing to do for.
func TestNoIsLinearizable(t *testing.T) {
	bucket := mkBucket(t)
	a, _ := mustOpen(t, bucket, wal.Options{})
	b, st := mustOpen(t, bucket, wal.Options{})
	mustCommit(t, a, set("x", "1"))
	mustCommit(t, b, wal.Op{Build: func(v wal.View) ([]wal.Entry, error) {
		if _, ok, err := v.Get([]byte("x")); err != nil || !ok {
			return nil, errors.Join(err, errors.New("there is no x"))
		}
		return []wal.Entry{{Kind: wal.Set, Key: []byte("y"), Value: []byte("1")}}, nil
	}})
	wantDump(t, st, "x=1\ny=1\n")

	del := wal.Op{Build: func(v wal.View) ([]wal.Entry, error) {
		if _, ok, err := v.Get([]byte("z")); err != nil || !ok {
			return nil, err
		}
		return []wal.Entry{{Kind: wal.Delete, Key: []byte("z")}}, nil
	}}
	mustCommit(t, a, set("z", "1"))
	mustCommit(t, b, del)
	wantDump(t, st, "x=1\ny=1\n")

	// And when there really is nothing to do, nothing is written.
	before := b.Seq()
	if got := mustCommit(t, b, del); got != before || mustCatchUp(t, a) != before {
		t.Errorf("deleting what is gone took slot %v, want none after %v", got, before)
	}
	_, err := b.Commit(t.Context(), create("x", "2"))
	wantErr(t, err, errTaken)
	if got := mustCatchUp(t, a); got != before {
		t.Errorf("a rejected operation took slot %v", got)
	}
}

func TestLaterOperationsOfABatchSeeTheEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hooked{Bucket: mkBucket(t)}
		l, st := mustOpen(t, h, wal.Options{})
		mustCommit(t, l, set("x", "1"))
		h.set(func(h *hooked) { h.create = denied })
		var wg sync.WaitGroup
		wg.Go(func() { mustCommit(t, l, set("y", "1")) })
		synctest.Wait()
		// These two get into one batch, once the slot before is settled.
		var errs [2]error
		for i := range errs {
			wg.Go(func() { _, errs[i] = l.Commit(t.Context(), create("z", fmt.Sprint(i))) })
			synctest.Wait()
		}
		h.set(func(h *hooked) { h.create = nil })
		wg.Wait()
		if errs[0] != nil {
			t.Error(errs[0])
		}
		wantErr(t, errs[1], errTaken)
		wantDump(t, st, "x=1\ny=1\nz=0\n")
		if seq := l.Seq(); seq != 4 {
			t.Errorf("the log ends at %v, want 4: the two operations share a segment", seq)
		}
	})
}

func TestAWriterWithoutSessionIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		h := &hooked{Bucket: bucket}
		l, st := mustOpen(t, h, wal.Options{})
		other, stOther := mustOpen(t, bucket, wal.Options{})
		forget := func(session []byte) {
			mustCommit(t, other, wal.Op{Build: func(wal.View) ([]wal.Entry, error) {
				return []wal.Entry{{Kind: wal.Delete, Key: session}}, nil
			}})
		}
		// With nothing in doubt it is hardly noticed.
		mustCommit(t, l, waltest.Append("x", "1"))
		first := sessionKey(t, bucket)
		forget(first)
		mustCommit(t, l, waltest.Append("x", "2"))
		second := sessionKey(t, bucket)
		if bytes.Equal(first, second) {
			t.Error("the writer goes on under the id that was forgotten")
		}

		// While a batch is in doubt, the session is dropped, but the slot can still
		// be read: it has another object, so the batch was certainly not applied.
		inDoubt := func(op wal.Op, meanwhile func()) (err error) {
			h.set(func(h *hooked) { h.create = denied })
			var wg sync.WaitGroup
			wg.Go(func() { _, err = l.Commit(t.Context(), op) })
			synctest.Wait()
			meanwhile()
			h.set(func(h *hooked) { h.create = nil })
			mustCatchUp(t, l)
			wg.Wait()
			return err
		}
		if err := inDoubt(waltest.Append("x", "3"), func() { forget(second) }); err != nil {
			t.Error(err)
		}

		// The slot was truncated as well.
		err := inDoubt(waltest.Append("x", "4"), func() {
			mustCatchUp(t, other)
			forget(sessionKey(t, bucket))
			mustCommit(t, other, set("y", "1"))
			truncate(t.Context(), bucket, stOther, wal.Env{})
		})
		wantErr(t, err, wal.ErrFenced)
		wantErr(t, err, wal.ErrUnknown)
		mustCommit(t, l, waltest.Append("x", "5"))
		wantDump(t, st, "x=1 2 3 5\ny=1\n")
	})
}

// sessionKey returns the session of the writer of the last segment.
func sessionKey(t *testing.T, bucket blob.Bucket) []byte {
	t.Helper()
	var last *wal.Segment
	for s, err := range wal.ReadSegments(t.Context(), bucket, 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		last = s
	}
	return wal.SessionKey(last.Writer)
}

// TestACopyOfTheWriterIsNoticed runs two logs with the same randomness, as two
// copies of one virtual machine would have it.
func TestACopyOfTheWriterIsNoticed(t *testing.T) {
	bucket := mkBucket(t)
	a, _ := mustOpen(t, bucket, wal.Options{Env: wal.Env{Rand: mkRand(1)}})
	mustCommit(t, a, waltest.Append("x", "1"))
	b, st := mustOpen(t, bucket, wal.Options{Env: wal.Env{Rand: mkRand(1)}})
	mustCommit(t, b, waltest.Append("x", "2")) // its session is at batch 2 already
	mustCommit(t, a, waltest.Append("x", "3"))
	mustCommit(t, b, waltest.Append("x", "4"))
	mustCatchUp(t, a)
	mustCatchUp(t, b)
	wantDump(t, st, "x=1 2 3 4\n")
	writers := map[wal.WriterID]bool{}
	for s, err := range wal.ReadSegments(t.Context(), bucket, 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		writers[s.Writer] = true
	}
	if len(writers) < 2 {
		t.Error("both go on under one writer id")
	}
}

func TestOperationsThatCannotBe(t *testing.T) {
	l, st := mustOpen(t, mkBucket(t), wal.Options{MaxOpBytes: 1000})
	bad := func(what string, e wal.Entry) {
		t.Helper()
		_, err := l.Commit(t.Context(), wal.Op{Name: what, Build: func(wal.View) ([]wal.Entry, error) {
			return []wal.Entry{{Kind: wal.Set, Key: []byte("ok")}, e}, nil
		}})
		if e, ok := errors.AsType[*wal.EntryError](err); !ok || e.Op != what {
			t.Errorf("%s: error is %v, want an EntryError", what, err)
		}
	}
	bad("no key", wal.Entry{Kind: wal.Set})
	bad("no kind", wal.Entry{Key: []byte("k")})
	bad("a bookkeeping key", wal.Entry{Kind: wal.Set, Key: []byte(wal.SeqKey)})
	bad("deleting bookkeeping", wal.Entry{Kind: wal.Delete, Key: []byte(wal.SeqKey)})
	bad("a range over bookkeeping", wal.Entry{Kind: wal.DeleteRange, Key: []byte(" "), Value: []byte("z")})
	bad("a range of sessions", wal.Entry{Kind: wal.DeleteRange, Key: []byte("!a"), Value: []byte("!b")})

	_, err := l.Commit(t.Context(), set("big", string(make([]byte, 1001))))
	if e, ok := errors.AsType[*wal.TooLargeError](err); !ok || e.Max != 1000 || e.Op != "set big" {
		t.Errorf("error is %v, want a TooLargeError", err)
	}
	wantDump(t, st, "")
	mustCommit(t, l, set("x", "1"))
	wantDump(t, st, "x=1\n")
}

func TestBatchesAreCutBySizeAndNumber(t *testing.T) {
	for _, o := range []wal.Options{{MaxSegmentBytes: 100}, {MaxBatch: 1}} {
		bucket := mkBucket(t)
		l, _ := mustOpen(t, bucket, o)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() { mustCommit(t, l, set(fmt.Sprint("k", i), string(make([]byte, 60)))) })
		}
		wg.Wait()
		if seq := l.Seq(); seq != 21 {
			t.Errorf("%+v: 20 operations took %v slots", o, uint64(seq))
		}
	}
}
