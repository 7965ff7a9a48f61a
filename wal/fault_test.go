package wal_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

// faults are those that a bucket with strong consistency may show.
var faults = []blobtest.Fault{
	blobtest.LostRequest, blobtest.LostResponse, blobtest.DelayedApply, blobtest.Throttled, blobtest.Slow, blobtest.ShortBody,
}

// TestThreeLogsUnderFaults lets three logs work through a bucket that fails often
// and delivers writes late, while slots are truncated under them.
func TestThreeLogsUnderFaults(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, what := range runUnderFaults(t, uint64(seed), memblob.New(), wal.Options{}) {
					t.Error(what)
				}
			})
		})
	}
}

// runUnderFaults returns what was wrong in the end.
func runUnderFaults(t *testing.T, seed uint64, bucket blob.Bucket, o wal.Options) []string {
	mustFound(t, bucket)
	laggy := waltest.NewLaggy(bucket, seed, 300*time.Millisecond)
	faulty := blobtest.NewFaulty(laggy, blobtest.FaultyOptions{Delay: 3 * time.Second})
	var w waltest.Workload
	for i := range 3 {
		o.PollInterval = 300 * time.Millisecond
		o.Env.Rand = mkRand(seed<<8 + uint64(i))
		l, st := mustOpen(t, faulty, o)
		w.Logs, w.States = append(w.Logs, l), append(w.States, st)
	}
	faulty.Set(blobtest.Seeded(seed, 0.25, faults...))
	w.Meanwhile = func(ctx context.Context, i int) {
		rand := mkRand(seed<<16 + uint64(i))
		for range 4 {
			time.Sleep(time.Duration(rand.Uint64() % uint64(2*time.Second)))
			faulty.Release(ctx, int(rand.Uint64()%3))
			truncate(ctx, laggy, w.States[i].Clone(), wal.Env{Rand: rand})
		}
	}
	polling, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, l := range w.Logs {
		wg.Go(func() { _ = l.Run(polling) })
	}
	return w.Run(t, bucket, func() {
		stop()
		wg.Wait()
		faulty.Set(nil)
		faulty.Release(t.Context(), -1)
	})
}

// truncate makes a state the newest snapshot and removes the log before it. A
// failure is as good as a compactor that crashed.
func truncate(ctx context.Context, bucket blob.Bucket, st *waltest.State, env wal.Env) {
	if seq, _, _ := st.Position(); seq == 0 {
		return
	}
	if ref, err := st.Snapshot(ctx, bucket); err == nil {
		_ = waltest.Truncate(ctx, bucket, wal.RootChange{Env: env}, ref)
	}
}

// TestEveryCallMayFail breaks a scenario at each of its requests in turn.
func TestEveryCallMayFail(t *testing.T) {
	for _, fault := range faults {
		t.Run(fault.String(), func(t *testing.T) {
			for k, more := 0, true; more; k++ {
				synctest.Test(t, func(t *testing.T) { more = runWithFault(t, k, fault) })
			}
		})
	}
}

func runWithFault(t *testing.T, k int, fault blobtest.Fault) (more bool) {
	bucket := memblob.New()
	mustFound(t, bucket)
	faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{Delay: 10 * time.Second})
	other, _ := mustOpen(t, bucket, wal.Options{Env: wal.Env{Rand: mkRand(2)}})
	l, st := mustOpen(t, faulty, wal.Options{Env: wal.Env{Rand: mkRand(1)}})

	faulty.Set(blobtest.FailAt(k, fault))
	mustCommit(t, l, waltest.Append("list", "a"))
	mustCommit(t, other, waltest.Append("list", "b"))
	mustCommit(t, l, waltest.Append("list", "c"))
	faulty.Release(t.Context(), -1)
	mustCommit(t, other, waltest.Append("list", "d"))
	mustCatchUp(t, l)
	wantDump(t, st, "list=a b c d\n")
	if t.Failed() {
		t.Fatalf("after %v at call %d", fault, k)
	}
	return faulty.Calls() > k
}
