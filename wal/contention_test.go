package wal_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

// contend measures in simulated time.
func contend(t *testing.T, c waltest.Contention) (rep waltest.ContentionReport) {
	t.Helper()
	stalls, stall := c.Put.Stalls, c.Put.Stall
	c = c.S3()
	c.Put.Stalls, c.Put.Stall = stalls, stall
	c.Rate, c.Bytes, c.For, c.WarmUp, c.Seed = 1000, 100, 20*time.Second, 3*time.Second, 1
	synctest.Test(t, func(t *testing.T) {
		var err error
		if rep, err = c.Run(t.Context(), mkBucket(t)); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%2d replicas  %v", c.Replicas, rep)
	return rep
}

// With replicas that commit for each other it does not matter how many there are: nobody
// starves, and nothing is lost to others but the first of two creates to the second.
func TestContention(t *testing.T) {
	for _, replicas := range []int{1, 3, 10} {
		rep := contend(t, waltest.Contention{Replicas: replicas, Hints: true, Forward: true})
		bound := 500 * time.Millisecond
		if replicas > 3 {
			bound = 700 * time.Millisecond
		}
		if rep.SlowestP99 > bound || rep.Lost > 0.05 {
			t.Errorf("%d replicas at 1000 pushes/s: the slowest has a p99 of %v and %.0f%% of the creates are lost, want at most %v and 5%%", replicas, rep.SlowestP99, 100*rep.Lost, bound)
		}
	}
}

// What an operation costs to build is spent while the bucket is asked about the batch
// before: a thousand of them a second keep a replica busy for a third of its time, and
// cost nobody a third of a second.
func TestBuildingIsNotWaitedFor(t *testing.T) {
	for _, replicas := range []int{1, 3} {
		rep := contend(t, waltest.Contention{Replicas: replicas, Hints: true, Forward: true, Work: 300 * time.Microsecond})
		if rep.SlowestP99 > 600*time.Millisecond || rep.Segments < 9.5 {
			t.Errorf("%d replicas: the slowest has a p99 of %v, and there are %.1f commits a second, want at most 600 ms and at least 9.5, as many as without work", replicas, rep.SlowestP99, rep.Segments)
		}
	}
}

// One create in a hundred takes a second and a half. Only whoever sends it again does
// not keep everybody waiting for it.
func TestStallsAreNotWaitedFor(t *testing.T) {
	slow := waltest.Delay{Stalls: 0.01, Stall: 1500 * time.Millisecond}
	for _, c := range []struct {
		after    time.Duration
		from, to time.Duration
	}{{0, 0, 700 * time.Millisecond}, {-1, time.Second, time.Minute}} {
		rep := contend(t, waltest.Contention{Replicas: 3, Hints: true, Forward: true, Put: slow, Options: wal.Options{HedgeAfter: c.after}})
		if rep.P99 < c.from || rep.P99 > c.to {
			t.Errorf("HedgeAfter %v: p99 %v, want %v to %v", c.after, rep.P99, c.from, c.to)
		}
		if rep.Hedged > 5 {
			t.Errorf("%.1f %% of the creates were sent twice, want at most 5", rep.Hedged)
		}
	}
}

// slowState takes its time to apply what others wrote, as one does whose processor is
// busy: it knows of every slot later than its writer.
type slowState struct {
	wal.State
	busy time.Duration
}

func (s slowState) Apply(seg *wal.Segment, digest wal.Digest) error {
	time.Sleep(s.busy)
	return s.State.Apply(seg, digest)
}

// Who has no session yet competes with a leader that knows each slot long before, and is
// left a turn.
func TestNewcomersGetATurn(t *testing.T) {
	rep := contend(t, waltest.Contention{Replicas: 10, Hints: true, Forward: true, State: func(int) (wal.State, error) {
		return slowState{waltest.NewState(nil), 60 * time.Millisecond}, nil
	}})
	if rep.SlowestP99 > 2*time.Second || rep.Max > 3*time.Second {
		t.Errorf("the slowest replica has a p99 of %v, and the longest push took %v: somebody was starved", rep.SlowestP99, rep.Max)
	}
}

// What cannot be forwarded is not starved either, by a replica that forwards all the rest.
func TestWhatCannotBeForwardedGetsATurn(t *testing.T) {
	const replicas = 3
	var logs [replicas]*wal.Log
	var mu sync.Mutex
	var took []time.Duration
	c := waltest.Contention{
		Replicas: replicas, Hints: true, Forward: true,
		State:  func(int) (wal.State, error) { return slowState{waltest.NewState(nil), 60 * time.Millisecond}, nil },
		Opened: func(i int, l *wal.Log) error { logs[i] = l; return nil },
		Revive: func(_ int, name string, intent []byte) (wal.Op, error) { return waltest.RevivePush(name, intent) },
		Do: func(ctx context.Context, i, n int) error {
			op := waltest.Push(fmt.Sprintf("%d.%d", i, n), 100)
			own := i == 0 && n%100 == 99 // three a second
			if own {
				op.Intent = nil
			}
			began := time.Now()
			_, err := logs[i].Commit(ctx, op)
			mu.Lock()
			defer mu.Unlock()
			if own {
				took = append(took, time.Since(began))
			}
			return err
		},
	}
	rep := contend(t, c)
	slices.Sort(took)
	if len(took) < 40 {
		t.Fatalf("%d operations could not be forwarded, too few to tell", len(took))
	}
	if p90, longest := took[len(took)*9/10], took[len(took)-1]; p90 > 2*time.Second || longest > 6*time.Second {
		t.Errorf("what cannot be forwarded took up to %v, nine of ten up to %v, the others %v", longest, p90, rep.P99)
	} else {
		t.Logf("what cannot be forwarded took up to %v, nine of ten up to %v", longest, p90)
	}
}

// Without, replicas still yield to each other.
func TestContentionOfStrangers(t *testing.T) {
	rep := contend(t, waltest.Contention{Replicas: 3})
	if rep.SlowestP99 > 2*time.Second {
		t.Errorf("3 replicas at 1000 pushes/s: the slowest has a p99 of %v, want at most 2 s", rep.SlowestP99)
	}
}

// A leader that goes deaf is replaced within seconds, and nothing is lost or done twice.
func TestDeafLeader(t *testing.T) {
	set := metrics.NewSet()
	rep := contend(t, waltest.Contention{
		Replicas: 3, Hints: true, Forward: true, Options: wal.Options{Metrics: set},
		Deaf: func(_ int, since time.Duration) bool { return since > 8*time.Second && since < 10*time.Second },
	})
	if n := set.GetOrCreateCounter(`celler_wal_forwards_total{result="overdue"}`).Get(); n == 0 {
		t.Error("no message was taken back: the test tests nothing")
	}
	if rep.P50 > 350*time.Millisecond || rep.Max > 10*time.Second {
		t.Errorf("median %v, longest %v: the replicas did not find back to each other", rep.P50, rep.Max)
	}
	if total := rep.Total; total != rep.Committed {
		t.Errorf("%d pushes were acknowledged and the log has %d", rep.Committed, total)
	}
}
