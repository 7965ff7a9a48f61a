package wal_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

// built is an Append that counts how often it was built.
func built(list, id string, n *int) wal.Op {
	op := waltest.Append(list, id)
	build := op.Build
	op.Build = func(v wal.View) ([]wal.Entry, error) {
		*n++
		return build(v)
	}
	return op
}

// inFlight opens a log that holds its next create until let go.
func inFlight(t *testing.T, bucket blob.Bucket, o wal.Options) (l *wal.Log, st *waltest.State, h *hooked, hold func() (release func())) {
	t.Helper()
	h = &hooked{Bucket: bucket}
	l, st = mustOpen(t, h, o)
	mustCommit(t, l, set("w", "1"))
	return l, st, h, func() func() {
		gate := make(chan struct{})
		h.set(func(h *hooked) {
			h.create = func(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
				select {
				case <-gate:
				case <-ctx.Done():
					return "", ctx.Err()
				}
				return bucket.Create(ctx, key, body)
			}
		})
		return func() { h.set(func(h *hooked) { h.create = nil }); close(gate) }
	}
}

// What comes while a create is under way is built before it is answered, once, and goes
// together into the next slot.
func TestTheNextBatchIsBuiltAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, st, _, hold := inFlight(t, mkBucket(t), wal.Options{})
		release := hold()
		var wg sync.WaitGroup
		var n [40]int
		for i := range n {
			wg.Go(func() { mustCommit(t, l, built("x", fmt.Sprint(i), &n[i])) })
			synctest.Wait()
		}
		for i := range n {
			if n[i] != 1 {
				t.Fatalf("operation %d was built %d times while the create was under way, want once", i, n[i])
			}
		}
		before := l.Seq()
		release()
		wg.Wait()
		for i := range n {
			if n[i] != 1 {
				t.Errorf("operation %d was built %d times, want once", i, n[i])
			}
		}
		if l.Seq() != before+2 {
			t.Errorf("the log went from %v to %v, want two slots more", before, l.Seq())
		}
		if v, _, _ := st.Get([]byte("x")); len(v) != 10+30*2+39 {
			t.Errorf("x is %s", v)
		}
	})
}

// If the slot goes to somebody else, what was built ahead is built again, behind the
// operations of the batch that lost.
func TestADraftIsBuiltAgainAfterALostSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		other, _ := mustOpen(t, bucket, wal.Options{})
		mustCommit(t, other, set("v", "1"))
		l, st, _, hold := inFlight(t, bucket, wal.Options{})
		mustCatchUp(t, other)
		release := hold()
		var wg sync.WaitGroup
		var n [3]int
		for i := range n {
			wg.Go(func() { mustCommit(t, l, built("x", fmt.Sprint(i), &n[i])) })
			synctest.Wait()
		}
		mustCommit(t, other, waltest.Append("x", "other"))
		release()
		wg.Wait()
		if n != [3]int{2, 2, 2} {
			t.Errorf("built %v times, want each twice", n)
		}
		wantDump(t, st, "v=1\nw=1\nx=other 0 1 2\n")
	})
}

// The same if somebody else takes the slot after that, which is left to others for a while.
func TestADraftIsBuiltAgainOnAnotherState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		other, _ := mustOpen(t, bucket, wal.Options{})
		mustCommit(t, other, set("v", "1"))
		l, st, _, hold := inFlight(t, bucket, wal.Options{})
		mustCommit(t, other, set("v", "2"))
		mustCatchUp(t, l)
		release := hold()
		var wg sync.WaitGroup
		var n [2]int
		for i := range n {
			wg.Go(func() { mustCommit(t, l, built("x", fmt.Sprint(i), &n[i])) })
			synctest.Wait()
		}
		time.Sleep(time.Second) // that is how long a commit takes, so others are left some time
		release()
		synctest.Wait()
		l.Hint(mustCommit(t, other, waltest.Append("x", "other")))
		wg.Wait()
		if n != [2]int{1, 2} {
			t.Errorf("built %v times, want the second twice", n)
		}
		wantDump(t, st, "v=2\nw=1\nx=0 other 1\n")
	})
}

// Nothing is sent before ROOT was read for the slot before (I3).
func TestADraftWaitsForRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		l, _, h, hold := inFlight(t, bucket, wal.Options{})
		release := hold()
		gate := make(chan struct{})
		h.set(func(h *hooked) {
			h.getIf = func(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
				<-gate
				return bucket.GetIf(ctx, key, old)
			}
		})
		var wg sync.WaitGroup
		n := 0
		for _, id := range []string{"1", "2"} {
			wg.Go(func() { mustCommit(t, l, built("x", id, &n)) })
			synctest.Wait()
		}
		before := l.Seq()
		release()
		time.Sleep(time.Second)
		if _, _, err := bucket.Get(t.Context(), (before + 1).Key()); err != nil || n != 2 {
			t.Errorf("slot %v: %v; %d builds, want 2", before+1, err, n)
		}
		if _, _, err := bucket.Get(t.Context(), (before + 2).Key()); err == nil || l.Seq() != before {
			t.Errorf("slot %v was claimed, or slot %v applied, before ROOT was read", before+2, before+1)
		}
		close(gate)
		wg.Wait()
	})
}

// Whoever leaves a draft leaves nothing, and whoever stays is not kept waiting for ever.
func TestCallersOfADraft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, st, h, hold := inFlight(t, mkBucket(t), wal.Options{GiveUp: 5 * time.Second})
		release := hold()
		var wg sync.WaitGroup
		wg.Go(func() { mustCommit(t, l, waltest.Append("x", "1")) })
		synctest.Wait()
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := l.Commit(ctx, waltest.Append("x", "2"))
			wantErr(t, err, wal.ErrConflict)
		})
		synctest.Wait()
		wg.Go(func() { mustCommit(t, l, waltest.Append("x", "3")) })
		time.Sleep(2 * time.Second)
		release()
		wg.Wait()
		wantDump(t, st, "w=1\nx=1 3\n")

		h.set(func(h *hooked) { h.create = denied })
		wg.Go(func() { _, err := l.Commit(t.Context(), waltest.Append("x", "4")); wantErr(t, err, wal.ErrUnknown) })
		synctest.Wait()
		wg.Go(func() { _, err := l.Commit(t.Context(), waltest.Append("x", "5")); wantErr(t, err, wal.ErrUnavailable) })
		wg.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
