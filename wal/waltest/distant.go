package waltest

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/celler/celler/blob"
)

// Delay is a log-normal distribution of times, as those of requests to object stores
// are, by its median and its 99th percentile.
type Delay struct {
	P50, P99 time.Duration
	// Stalls is the share of requests that take Stall longer, as some do of which the
	// distribution knows nothing.
	Stalls float64
	Stall  time.Duration
}

func (d Delay) draw(rng *rand.Rand) time.Duration {
	if d.P50 <= 0 {
		return 0
	}
	sigma := math.Log(float64(d.P99)/float64(d.P50)) / 2.326
	took := time.Duration(float64(d.P50) * math.Exp(sigma*rng.NormFloat64()))
	if d.Stalls > 0 && rng.Float64() < d.Stalls {
		took += d.Stall
	}
	return took
}

// Distant is a bucket at a distance: requests take time on their way there, and answers
// on their way back. It counts them.
type Distant struct {
	blob.Bucket
	put, get Delay

	Creates, Lost, Reads atomic.Int64

	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

// NewDistant wraps b.
func NewDistant(b blob.Bucket, seed uint64, put, get Delay) *Distant {
	return &Distant{Bucket: b, put: put, get: get, rng: rand.New(rand.NewPCG(seed, 2))}
}

// travel draws a time, spends the given share of it, and returns what is left.
func (d *Distant) travel(ctx context.Context, delay Delay, there float64) func() {
	d.mu.Lock()
	total := delay.draw(d.rng)
	d.mu.Unlock()
	first := time.Duration(there * float64(total))
	pause(ctx, first)
	return func() { pause(ctx, total-first) }
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Get implements blob.Bucket.
func (d *Distant) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	d.Reads.Add(1)
	defer d.travel(ctx, d.get, 0.5)()
	return d.Bucket.Get(ctx, key)
}

// GetIf implements blob.Bucket.
func (d *Distant) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	d.Reads.Add(1)
	defer d.travel(ctx, d.get, 0.5)()
	return d.Bucket.GetIf(ctx, key, old)
}

// Create implements blob.Bucket. Most of its time is spent on the way there: the body
// has to arrive and to be made durable.
func (d *Distant) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	d.Creates.Add(1)
	defer d.travel(ctx, d.put, 0.7)()
	tag, err := d.Bucket.Create(ctx, key, body)
	if errors.Is(err, blob.ErrExist) {
		d.Lost.Add(1)
	}
	return tag, err
}
