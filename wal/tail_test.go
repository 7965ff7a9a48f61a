package wal_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

func TestAReplicaFarBehindReadsAtFullWidth(t *testing.T) {
	const slots = 1000
	bucket := mkBucket(t)
	l, st := mustOpen(t, bucket, wal.Options{})
	for i := range slots {
		mustCommit(t, l, set("x", fmt.Sprint(i)))
	}
	counter := blobtest.Count(bucket)
	_, behind := mustOpen(t, counter, wal.Options{})
	if behind.Dump() != st.Dump() {
		t.Errorf("state is %q, want %q", behind.Dump(), st.Dump())
	}
	calls := counter.Calls()
	if got := calls["get"]; got > slots+1+1+2*64 {
		t.Errorf("%d reads for %d slots", got, slots)
	}
	if got := calls["get_if"]; got > 2+slots/64 {
		t.Errorf("ROOT was read %d times", got)
	}
}

// TestASlowLineGetsThere lets every read that finds four others under way time out.
func TestASlowLineGetsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		l, st := mustOpen(t, bucket, wal.Options{})
		for i := range 100 {
			mustCommit(t, l, set("x", fmt.Sprint(i)))
		}
		_, behind := mustOpen(t, &narrow{Bucket: bucket}, wal.Options{})
		if behind.Dump() != st.Dump() {
			t.Errorf("state is %q, want %q", behind.Dump(), st.Dump())
		}
	})
}

type narrow struct {
	blob.Bucket
	under atomic.Int32
}

func (n *narrow) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	defer n.under.Add(-1)
	if n.under.Add(1) > 4 {
		<-ctx.Done()
		return nil, "", ctx.Err()
	}
	time.Sleep(time.Second)
	return n.Bucket.Get(ctx, key)
}

func TestCatchUpsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counter := blobtest.Count(mkBucket(t))
		l, _ := mustOpen(t, waltest.NewLaggy(counter, 1, time.Second), wal.Options{})
		counter.Reset()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { mustCatchUp(t, l) })
		}
		wg.Wait()
		// One has begun when the others come; those share the next.
		if got := counter.Calls()["get"]; got > 2 {
			t.Errorf("100 catch-ups at once took %d reads", got)
		}
	})
}

func TestWaitReturnsWhenTheSlotIsApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		a, _ := mustOpen(t, bucket, wal.Options{})
		b, st := mustOpen(t, bucket, wal.Options{})
		seq := mustCommit(t, a, set("x", "1"))
		if err := b.Wait(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
		wantDump(t, st, "x=1\n")

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		polling, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := b.Run(polling); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := b.Wait(ctx, seq+1); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(5 * time.Second)
		mustCommit(t, a, set("x", "2"))
		wg.Go(func() {
			err := b.Wait(ctx, seq+100)
			wantErr(t, err, context.DeadlineExceeded)
			stop()
		})
		wg.Wait()
		if b.Seq() != seq+1 {
			t.Errorf("polling took the replica to %v, want %v", b.Seq(), seq+1)
		}
	})
}

// TestIdleCost is the budget of a replica that has nothing to do.
func TestIdleCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counter := blobtest.Count(mkBucket(t))
		l, _ := mustOpen(t, counter, wal.Options{})
		counter.Reset()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := l.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := counter.Total(); got < 100 || got > 130 {
			t.Errorf("an idle minute took %d requests, want about 120", got)
		}
	})
}

func TestStalenessIsThatOfTheLastProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{})
		l, _ := mustOpen(t, faulty, wal.Options{MaxStaleness: 10 * time.Second})
		want := func(what string, age time.Duration, fresh bool) {
			t.Helper()
			if got := l.Staleness(time.Now()); got != age || l.Fresh(time.Now()) != fresh {
				t.Errorf("%s: staleness is %v (fresh: %v), want %v (%v)", what, got, l.Fresh(time.Now()), age, fresh)
			}
		}
		want("after opening", 0, true)
		time.Sleep(11 * time.Second)
		want("after a while", 11*time.Second, false)
		mustCatchUp(t, l)
		want("after a catch-up", 0, true)
		time.Sleep(time.Second)
		mustCommit(t, l, set("x", "1"))
		want("after a commit", 0, true)
		faulty.Set(func(int, string, blob.Key) blobtest.Fault { return blobtest.LostRequest })
		time.Sleep(time.Second)
		if _, err := l.CatchUp(t.Context()); !errors.Is(err, blobtest.ErrInjected) {
			t.Errorf("error is %v", err)
		}
		if got := l.Staleness(time.Now()); got < time.Second {
			t.Errorf("a catch-up that failed made the replica fresh: %v", got)
		}
	})
}

// TestABigBucketOutage lets everything fail for a while and then come back.
func TestABigBucketOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := blobtest.NewFaulty(mkBucket(t), blobtest.FaultyOptions{})
		l, st := mustOpen(t, faulty, wal.Options{})
		mustCommit(t, l, set("x", "1"))
		polling, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = l.Run(polling) })
		faulty.Set(func(int, string, blob.Key) blobtest.Fault { return blobtest.Unavailable })
		began := time.Now()
		_, err := l.Commit(t.Context(), set("x", "2"))
		wantErr(t, err, wal.ErrUnknown)
		if d := time.Since(began); d > 30*time.Second {
			t.Errorf("the answer took %v", d)
		}
		time.Sleep(time.Hour)
		if calls := faulty.Calls(); calls > 3*3600*3 {
			t.Errorf("%d requests in an hour of outage", calls)
		}
		faulty.Set(nil)
		time.Sleep(time.Minute)
		wantDump(t, st, "x=2\n")
		mustCommit(t, l, set("x", "3"))
		stop()
		wg.Wait()
	})
}

func TestMetricsSayWhatHappened(t *testing.T) {
	set1 := metrics.NewSet()
	l, _ := mustOpen(t, mkBucket(t), wal.Options{Metrics: set1})
	mustCommit(t, l, set("x", "1"))
	_, _ = l.Commit(t.Context(), create("x", "2"))
	want := map[string]uint64{
		`celler_wal_commits_total{result="committed"}`: 1,
		`celler_wal_commits_total{result="rejected"}`:  1,
		`celler_wal_commits_total{result="unknown"}`:   0,
		`celler_wal_catch_ups_total{result="ok"}`:      2,
		`celler_wal_applied_segments_total`:            2,
	}
	for name, n := range want {
		if got := set1.GetOrCreateCounter(name).Get(); got != n {
			t.Errorf("%s is %d, want %d", name, got, n)
		}
	}
	if got := set1.GetOrCreateGauge("celler_wal_seq", nil).Get(); got != 2 {
		t.Errorf("celler_wal_seq is %v, want 2", got)
	}
}

func TestOnApplySeesEverySegment(t *testing.T) {
	bucket := mkBucket(t)
	var seen []wal.Seq
	l, err := wal.Open(t.Context(), bucket, waltest.NewState(nil), wal.Options{OnApply: func(s *wal.Segment) { seen = append(seen, s.Seq) }})
	if err != nil {
		t.Fatal(err)
	}
	other, _ := mustOpen(t, bucket, wal.Options{})
	mustCommit(t, l, set("x", "1"))
	mustCommit(t, other, set("x", "2"))
	mustCatchUp(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(seen) != fmt.Sprint([]wal.Seq{1, 2, 3, 4}) {
		t.Errorf("saw %v", seen)
	}
}

// TestACallerThatLeavesWhileTheBatchIsBuiltLeavesNothing is about the moment between
// building and sending: the caller is told that nothing happened, so nothing may.
func TestACallerThatLeavesWhileTheBatchIsBuiltLeavesNothing(t *testing.T) {
	l, st := mustOpen(t, mkBucket(t), wal.Options{})
	mustCommit(t, l, set("x", "1"))
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	op := set("x", "2")
	build := op.Build
	op.Build = func(v wal.View) ([]wal.Entry, error) {
		cancel()
		<-left
		return build(v)
	}
	_, err := l.Commit(ctx, op)
	wantErr(t, err, wal.ErrConflict)
	wantErr(t, err, context.Canceled)
	close(left)
	mustCommit(t, l, waltest.Append("x", "3"))
	wantDump(t, st, "x=1 3\n")
}
