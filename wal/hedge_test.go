package wal_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

// road is the way of creates to a bucket: each is held up before and after it is
// performed, as its plan says.
type road struct {
	mu    sync.Mutex // guards the fields below
	plans []trip     // of the creates to come; none: no delay
	keys  []blob.Key
	sums  map[wal.Digest]int
}

type trip struct {
	there, back time.Duration
	err         error // the answer, if it is not that of the bucket
}

// hedged opens a log whose creates take the road, and each of which may be sent again
// after 100 ms.
func hedged(t *testing.T, bucket blob.Bucket, o wal.Options) (*wal.Log, *waltest.State, *road) {
	t.Helper()
	r := &road{sums: map[wal.Digest]int{}}
	h := &hooked{Bucket: bucket}
	h.create = func(_ context.Context, key blob.Key, body []byte) (blob.Tag, error) {
		r.mu.Lock()
		var p trip
		if len(r.plans) > 0 {
			p, r.plans = r.plans[0], r.plans[1:]
		}
		r.keys = append(r.keys, key)
		r.sums[wal.DigestOf(body)]++
		r.mu.Unlock()
		time.Sleep(p.there)
		tag, err := bucket.Create(context.WithoutCancel(t.Context()), key, body)
		time.Sleep(p.back)
		if p.err != nil {
			return "", p.err
		}
		return tag, err
	}
	if o.HedgeShare == 0 {
		o.HedgeShare = 1
	}
	l, st := mustOpen(t, h, o)
	for i := range 2 { // the session, and enough to know what is usual
		mustCommit(t, l, set("warm", fmt.Sprint(i)))
	}
	return l, st, r
}

func (r *road) plan(trips ...trip) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plans, r.keys, r.sums = trips, nil, map[wal.Digest]int{}
}

// want checks how many creates there were since the last plan, and that all were alike.
func (r *road) want(t *testing.T, creates int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.keys) != creates || len(r.sums) != 1 {
		t.Errorf("%d creates of %d contents: %v, want %d of one", len(r.keys), len(r.sums), r.keys, creates)
	}
}

// A create that has no answer is sent again as it is, and whichever is answered first
// counts. The other one changes nothing, whenever it arrives.
func TestALateCreateIsSentAgain(t *testing.T) {
	for _, c := range []struct {
		name          string
		first, second trip
		took          time.Duration
		answered      string
	}{
		{"the second overtakes the first", trip{there: time.Hour}, trip{there: 50 * time.Millisecond}, 150 * time.Millisecond, "second"},
		{"the first is answered first", trip{there: 120 * time.Millisecond}, trip{there: time.Second}, 120 * time.Millisecond, "first"},
		{"the second finds the object of the first", trip{back: time.Minute}, trip{back: 30 * time.Millisecond}, 130 * time.Millisecond, "second"},
		{"the first finds the object of the second", trip{there: 130 * time.Millisecond}, trip{back: time.Minute}, 130 * time.Millisecond, "first"},
		{"the second fails", trip{there: 300 * time.Millisecond}, trip{err: errDenied}, 300 * time.Millisecond, "first"},
		{"the first fails", trip{there: 200 * time.Millisecond, err: errDenied}, trip{there: 150 * time.Millisecond}, 250 * time.Millisecond, "second"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := mkBucket(t)
				var told []wal.Seq
				counts := metrics.NewSet()
				l, st, road := hedged(t, bucket, wal.Options{Metrics: counts, OnWon: func(seq wal.Seq) { told = append(told, seq) }})
				road.plan(c.first, c.second)
				told = nil
				began := time.Now()
				seq := mustCommit(t, l, waltest.Append("x", "1"))
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				road.want(t, 2)
				if n := counts.GetOrCreateCounter(`celler_wal_hedges_total{request="create",answered="` + c.answered + `"}`).Get(); n != 1 {
					t.Errorf("%d hedges are counted of which the %s was answered first, want one", n, c.answered)
				}
				if len(told) != 1 || told[0] != seq {
					t.Errorf("peers are told of %v, want of %v", told, seq)
				}
				mustCommit(t, l, waltest.Append("x", "2"))
				time.Sleep(2 * time.Hour) // whatever was under way arrives
				mustCommit(t, l, waltest.Append("x", "3"))
				wantDump(t, st, "warm=1\nx=1 2 3\n")
				_, fresh := mustOpen(t, bucket, wal.Options{})
				wantDump(t, fresh, st.Dump())
			})
		})
	}
}

// The first of two creates arrives when its slot was truncated: what it leaves is below
// the floor, and nobody takes notice.
func TestAStragglerBelowTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		behind, stBehind := mustOpen(t, bucket, wal.Options{})
		l, st, road := hedged(t, bucket, wal.Options{})
		road.plan(trip{there: time.Hour})
		seq := mustCommit(t, l, waltest.Append("x", "1"))
		mustCommit(t, l, waltest.Append("x", "2"))
		truncate(t.Context(), bucket, st.Clone(), wal.Env{})
		if _, _, err := bucket.Get(t.Context(), seq.Key()); !errors.Is(err, blob.ErrNotExist) {
			t.Fatalf("slot %v was not truncated: %v", seq, err)
		}
		time.Sleep(2 * time.Hour)
		if _, _, err := bucket.Get(t.Context(), seq.Key()); err != nil {
			t.Fatalf("the straggler has not arrived: %v", err)
		}
		mustCatchUp(t, behind)
		mustCommit(t, l, waltest.Append("x", "3"))
		mustCatchUp(t, behind)
		wantDump(t, st, "warm=1\nx=1 2 3\n")
		wantDump(t, stBehind, st.Dump())
	})
}

// The slot goes to somebody else while both creates are under way.
func TestBothCreatesLose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		other, _ := mustOpen(t, bucket, wal.Options{})
		mustCommit(t, other, set("y", "0"))
		l, st, road := hedged(t, bucket, wal.Options{})
		mustCatchUp(t, other)
		road.plan(trip{there: 400 * time.Millisecond}, trip{there: 200 * time.Millisecond})
		var wg sync.WaitGroup
		wg.Go(func() { mustCommit(t, l, waltest.Append("x", "1")) })
		synctest.Wait()
		mustCommit(t, other, waltest.Append("x", "0"))
		wg.Wait()
		wantDump(t, st, "warm=1\nx=0 1\ny=0\n")
	})
}

// What was answered by an error is sent again after a pause, and from then on only after pauses.
func TestWhatHasFailedIsNotHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, st, road := hedged(t, mkBucket(t), wal.Options{})
		road.plan(trip{err: errDenied, there: 10 * time.Millisecond}, trip{there: time.Second})
		mustCommit(t, l, waltest.Append("x", "1"))
		road.want(t, 2)
		wantDump(t, st, "warm=1\nx=1\n")
	})
}

// A bucket that answers nothing in time is not asked ever more.
func TestStragglersAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, road := hedged(t, mkBucket(t), wal.Options{})
		var trips []trip
		for range 6 {
			trips = append(trips, trip{there: time.Hour}, trip{there: time.Millisecond})
		}
		road.plan(trips[:9]...) // the fifth has no second, and waits for the first
		began := time.Now()
		for n := range 5 {
			mustCommit(t, l, set("x", fmt.Sprint(n)))
		}
		if took := time.Since(began); took < 30*time.Minute {
			t.Errorf("five commits took %v, want the fifth to wait", took)
		}
		time.Sleep(2 * time.Hour)
	})
}

// However long requests take, none is waited for in order to send it again that has ended
// by its time-out.
func TestNothingIsLateAfterItsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		longest := time.Duration(0)
		env := wal.Env{Sleep: func(ctx context.Context, d time.Duration, wake <-chan struct{}) {
			longest = max(longest, d)
			var fired <-chan time.Time
			if d >= 0 {
				fired = time.After(d)
			}
			select {
			case <-ctx.Done():
			case <-wake:
			case <-fired:
			}
		}}
		l, _, road := hedged(t, mkBucket(t), wal.Options{Env: env, HedgeShare: 0.05, CallTimeout: 2 * time.Second})
		for n := range 60 {
			road.plan(trip{there: time.Hour})
			mustCommit(t, l, set("x", fmt.Sprint(n)))
		}
		synctest.Wait() // the sequencer sleeps
		if longest > 2*time.Second {
			t.Errorf("a request of at most 2 s was to be sent again after %v", longest)
		}
	})
}

// A bucket that has no time for a second writer of one key is not asked again soon.
func TestABusyBucketIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, road := hedged(t, mkBucket(t), wal.Options{HedgeShare: 0.05})
		for n := range 60 {
			road.plan(trip{there: time.Millisecond})
			mustCommit(t, l, set("x", fmt.Sprint(n)))
		}
		for range 2 {
			for _, creates := range []int{2, 1} {
				road.plan(trip{there: time.Second}, trip{err: errDenied})
				mustCommit(t, l, set("x", "late"))
				road.want(t, creates)
			}
			time.Sleep(time.Minute)
			for n := range 40 {
				road.plan(trip{there: time.Millisecond})
				mustCommit(t, l, set("x", fmt.Sprint(n)))
			}
		}
	})
}

// What is late is told from what others took.
func TestLate(t *testing.T) {
	const ms = time.Millisecond
	answers := func(n int, longest ...time.Duration) (took []time.Duration) {
		for i := range n - len(longest) {
			took = append(took, time.Duration(50+i%10)*ms)
		}
		return append(took, longest...)
	}
	for _, c := range []struct {
		name  string
		share float64
		took  []time.Duration
		want  time.Duration
	}{
		{"too few", 0.05, answers(7), -1},
		{"few: longer than all", 0.05, answers(8, 200*ms), 300 * ms},
		{"not quite enough", 0.05, answers(19, 200*ms), 300 * ms},
		{"enough: longer than 19 of 20", 0.05, answers(40, 200*ms, 200*ms), 300 * ms},
		{"enough, and one is out of line", 0.05, answers(40, 200*ms), 88500 * time.Microsecond},
		{"hardly any", 0.001, answers(64, 200*ms), 300 * ms},
		{"any", 1, answers(2), 0},
		{"any, and nothing is known", 1, answers(1), -1},
	} {
		if got := wal.LateAfter(c.share, c.took...); got != c.want {
			t.Errorf("%s: late after %v, want %v", c.name, got, c.want)
		}
	}
}

// Few are sent again, and none that are not late.
func TestHedgesAreFew(t *testing.T) {
	for _, c := range []struct {
		name     string
		o        wal.Options
		slow     func(n int) time.Duration
		from, to uint64
	}{
		{"nothing is late that is fast", wal.Options{}, func(n int) time.Duration { return time.Duration(n%10) * 9 * time.Millisecond }, 0, 0},
		{"nothing is late that is usual", wal.Options{}, func(int) time.Duration { return 700 * time.Millisecond }, 0, 0},
		{"what is late is", wal.Options{}, func(n int) time.Duration { return time.Duration(1+n%50/49*99) * 30 * time.Millisecond }, 3, 4},
		{"what is late as often as that is usual, once it is seen to be", wal.Options{}, func(n int) time.Duration { return time.Duration(1+n%10/9*99) * 30 * time.Millisecond }, 0, 4},
		{"never", wal.Options{HedgeAfter: -1}, func(n int) time.Duration { return time.Duration(1+n%50/49*99) * 30 * time.Millisecond }, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				counts := metrics.NewSet()
				c.o.Metrics, c.o.HedgeShare = counts, 0.05
				l, _, road := hedged(t, mkBucket(t), c.o)
				for n := range 200 {
					road.plan(trip{there: c.slow(n)})
					mustCommit(t, l, set("x", fmt.Sprint(n)))
				}
				var hedges uint64
				for _, which := range []string{"first", "second"} {
					hedges += counts.GetOrCreateCounter(`celler_wal_hedges_total{request="create",answered="` + which + `"}`).Get()
				}
				if hedges < c.from || hedges > c.to {
					t.Errorf("%d of 200 creates were sent again, want %d to %d", hedges, c.from, c.to)
				}
				time.Sleep(time.Minute)
			})
		})
	}
}
