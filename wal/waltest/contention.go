package waltest

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// Contention lets replicas compete for the slots of one log: pushes arrive at each of
// them at random times, and what is measured is how long each waits for its slot. It
// works in real time, and within testing/synctest.
type Contention struct {
	Replicas int
	Rate     float64 // pushes a second, at all replicas together
	For      time.Duration
	WarmUp   time.Duration // pushes in this time are not counted
	Seed     uint64
	Put, Get Delay         // of the bucket
	Hop      time.Duration // from one replica to another, one way
	Hints    bool          // replicas tell each other what they commit
	Forward  bool          // and commit for each other
	Bytes    int           // entries of a push
	// Work is how long the replica that builds a push is busy with it, for simulated time,
	// in which computing takes none.
	Work time.Duration
	// Deaf, if set, says when a replica does not hear what others send it.
	Deaf    func(replica int, since time.Duration) bool
	Options wal.Options // of all replicas
	// State makes the state of a replica. Default: a State of this package.
	State func(replica int) (wal.State, error)
	// Opened, if set, gets the log of a replica before anything is pushed.
	Opened func(replica int, l *wal.Log) error
	// Do performs the n-th push of a replica, and Revive makes an operation of what it
	// forwards. Default: a Push.
	Do     func(ctx context.Context, replica, n int) error
	Revive func(replica int, name string, intent []byte) (wal.Op, error)
}

// S3 sets the delays of a well-known object store: writes of 62 ms, reads of 20 ms, and
// tails of 180 and 80 ms.
func (c Contention) S3() Contention {
	c.Put, c.Get = Delay{P50: 62 * time.Millisecond, P99: 180 * time.Millisecond}, Delay{P50: 20 * time.Millisecond, P99: 80 * time.Millisecond}
	c.Hop = 500 * time.Microsecond
	return c
}

// ContentionReport is what came of it.
type ContentionReport struct {
	Pushes        int
	P50, P99, Max time.Duration
	SlowestP99    time.Duration // of the replica that waited longest
	Segments      float64       // a second
	Creates       float64       // a second
	Lost          float64       // share of the creates
	Hedged        float64       // creates that were sent twice, in a hundred, from the beginning on
	Reads         float64       // a second
	Committed     int           // pushes acknowledged, those of the warm-up included
	Total         int           // pushes that the state counts
}

func (r ContentionReport) String() string {
	return fmt.Sprintf("%6d pushes  p50 %4d ms  p99 %4d ms  max %4d ms  slowest replica's p99 %4d ms  segments/s %5.1f  creates/s %5.1f  lost %2.0f%%  twice %.1f%%  reads/s %6.1f",
		r.Pushes, r.P50.Milliseconds(), r.P99.Milliseconds(), r.Max.Milliseconds(), r.SlowestP99.Milliseconds(), r.Segments, r.Creates, 100*r.Lost, r.Hedged, r.Reads)
}

// contender is one replica.
type contender struct {
	bucket *Distant
	log    *wal.Log
	state  wal.State

	mu    sync.Mutex      // guards the fields below
	took  []time.Duration // of the pushes, as they finish
	acked int
}

// Run competes on a founded bucket.
func (c Contention) Run(ctx context.Context, bucket blob.Bucket) (ContentionReport, error) {
	if c.Options.Metrics == nil {
		c.Options.Metrics = metrics.NewSet()
	}
	all := make([]*contender, c.Replicas)
	began := time.Now()
	errs := make(chan error, c.Replicas)
	forward := func(ctx context.Context, address string, message []byte) (wal.Seq, error) {
		var to int
		if _, err := fmt.Sscanf(address, "replica %d", &to); err != nil {
			return 0, fmt.Errorf("forward to %q: %w", address, err)
		}
		pause(ctx, c.Hop)
		if c.Deaf != nil && c.Deaf(to, time.Since(began)) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		defer pause(ctx, c.Hop)
		revive := func(name string, intent []byte) (wal.Op, error) {
			op, err := RevivePush(name, intent)
			return c.busy(op), err
		}
		if c.Revive != nil {
			revive = func(name string, intent []byte) (wal.Op, error) { return c.Revive(to, name, intent) }
		}
		return all[to].log.Accept(ctx, message, revive)
	}
	var wg sync.WaitGroup
	defer func() {
		for _, r := range all {
			if r != nil {
				_ = r.log.Close()
			}
		}
		wg.Wait()
	}()
	for i := range all {
		o := c.Options
		if c.Forward {
			o.Address, o.Forward = fmt.Sprintf("replica %d", i), forward
		}
		o.OnWon = func(seq wal.Seq) {
			if !c.Hints {
				return
			}
			wg.Go(func() {
				time.Sleep(c.Hop)
				for j, other := range all {
					if j != i && other != nil {
						other.log.Hint(seq)
					}
				}
			})
		}
		r, err := c.open(ctx, bucket, i, o)
		if err != nil {
			return ContentionReport{}, err
		}
		all[i] = r
		if c.Opened != nil {
			if err := c.Opened(i, r.log); err != nil {
				return ContentionReport{}, err
			}
		}
	}
	polling, stop := context.WithCancel(ctx)
	var pushes sync.WaitGroup
	var seq0 wal.Seq
	for i, r := range all {
		wg.Go(func() { _ = r.log.Run(polling) })
		pushes.Go(func() {
			if err := c.push(ctx, r, i); err != nil {
				errs <- err
			}
		})
	}
	time.Sleep(c.WarmUp)
	seq0 = all[0].log.Seq()
	var before [3]int64
	for _, r := range all {
		before[0] += r.bucket.Creates.Load()
		before[1] += r.bucket.Lost.Load()
		before[2] += r.bucket.Reads.Load()
	}
	counting := time.Now()
	pushes.Wait()
	span := time.Since(counting).Seconds()
	stop()
	select {
	case err := <-errs:
		return ContentionReport{}, err
	default:
	}
	rep := report(all, seq0, before, span)
	rep.Hedged = hedged(c.Options.Metrics, all)
	if _, err := all[0].log.CatchUp(ctx); err != nil {
		return rep, err
	}
	total, _, err := all[0].state.Get([]byte("total"))
	if len(total) == 8 {
		rep.Total = int(binary.BigEndian.Uint64(total))
	}
	return rep, err
}

func (c Contention) open(ctx context.Context, bucket blob.Bucket, i int, o wal.Options) (*contender, error) {
	r := &contender{bucket: NewDistant(bucket, c.Seed*100+uint64(i), c.Put, c.Get)}
	var st wal.State = NewState(bucket)
	if c.State != nil {
		var err error
		if st, err = c.State(i); err != nil {
			return nil, err
		}
	}
	r.state = st
	var err error
	r.log, err = wal.Open(ctx, r.bucket, st, o)
	return r, err
}

// push lets pushes arrive at one replica.
func (c Contention) push(ctx context.Context, r *contender, i int) error {
	rng := rand.New(rand.NewPCG(c.Seed, 100+uint64(i)))
	began := time.Now()
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	at := began
	for n := 0; ; n++ {
		// Pushes arrive when they do, whether anybody keeps up with them or not.
		at = at.Add(time.Duration(rng.ExpFloat64() / c.Rate * float64(c.Replicas) * float64(time.Second)))
		time.Sleep(time.Until(at))
		since, at := at.Sub(began), at
		if since > c.For+c.WarmUp || ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			if err := c.do(ctx, r, i, n); err != nil {
				failed.Store(&err)
				return
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.acked++
			if since >= c.WarmUp {
				r.took = append(r.took, time.Since(at))
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (c Contention) do(ctx context.Context, r *contender, i, n int) error {
	if c.Do != nil {
		return c.Do(ctx, i, n)
	}
	_, err := r.log.Commit(ctx, c.busy(Push(fmt.Sprintf("%d.%d", i, n), c.Bytes)))
	return err
}

// busy returns op with a Build that takes as long as Work says.
func (c Contention) busy(op wal.Op) wal.Op {
	if build := op.Build; c.Work > 0 {
		op.Build = func(v wal.View) ([]wal.Entry, error) {
			time.Sleep(c.Work)
			return build(v)
		}
	}
	return op
}

// Push is an operation that resembles the publication of a path: rows of its own of so
// many bytes, and a counter that all pushes share.
func Push(id string, size int) wal.Op {
	intent := func() ([]byte, error) { return fmt.Appendf(nil, "%s %d", id, size), nil }
	return wal.Op{Name: "push", Cost: size, Intent: intent, Build: func(v wal.View) ([]wal.Entry, error) {
		total := []byte("total")
		old, ok, err := v.Get(total)
		if err != nil {
			return nil, err
		}
		var n uint64
		if ok {
			n = binary.BigEndian.Uint64(old)
		}
		return []wal.Entry{
			{Kind: wal.Set, Key: []byte("p/" + id), Value: noise(id, size)},
			{Kind: wal.Set, Key: total, Value: binary.BigEndian.AppendUint64(nil, n+1)},
		}, nil
	}}
}

// RevivePush makes a Push of its intent.
func RevivePush(_ string, intent []byte) (op wal.Op, err error) {
	var id string
	var size int
	if _, err := fmt.Sscanf(string(intent), "%s %d", &id, &size); err != nil {
		return op, fmt.Errorf("read the intent of a push: %w", err)
	}
	return Push(id, size), nil
}

// noise is bytes that do not compress, and depend on id alone.
func noise(id string, size int) []byte {
	var seed [32]byte
	copy(seed[:], id)
	out := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(out) // cannot fail
	return out
}

func report(all []*contender, from wal.Seq, before [3]int64, span float64) ContentionReport {
	var rep ContentionReport
	var took []time.Duration
	var n [3]int64
	for _, r := range all {
		took = append(took, r.took...)
		rep.Committed += r.acked
		n[0] += r.bucket.Creates.Load()
		n[1] += r.bucket.Lost.Load()
		n[2] += r.bucket.Reads.Load()
		slices.Sort(r.took)
		rep.SlowestP99 = max(rep.SlowestP99, percentile(r.took, 0.99))
	}
	slices.Sort(took)
	rep.Pushes = len(took)
	rep.P50, rep.P99, rep.Max = percentile(took, 0.5), percentile(took, 0.99), percentile(took, 1)
	rep.Segments = float64(all[0].log.Seq()-from) / span
	creates := n[0] - before[0]
	rep.Creates, rep.Lost, rep.Reads = float64(creates)/span, float64(n[1]-before[1])/max(1, float64(creates)), float64(n[2]-before[2])/span
	return rep
}

// hedged returns how many of a hundred creates were sent twice.
func hedged(set *metrics.Set, all []*contender) float64 {
	var hedges uint64
	var creates int64
	for _, answered := range []string{"first", "second"} {
		hedges += set.GetOrCreateCounter(`celler_wal_hedges_total{request="create",answered="` + answered + `"}`).Get()
	}
	for _, r := range all {
		creates += r.bucket.Creates.Load()
	}
	return 100 * float64(hedges) / max(1, float64(creates))
}

func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(p*float64(len(sorted)-1))]
}
