package waltest

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/celler/celler/blob"
)

// Laggy is a bucket that takes its time: each call waits before the bucket is
// asked and again before the answer is given, so that calls overlap in ways that
// depend on the seed. It is for tests within testing/synctest, where waiting is free.
type Laggy struct {
	blob.Bucket
	most time.Duration

	mu   sync.Mutex // guards rand
	rand *rand.Rand
}

// NewLaggy wraps b; each wait is random and shorter than most.
func NewLaggy(b blob.Bucket, seed uint64, most time.Duration) *Laggy {
	return &Laggy{Bucket: b, most: most, rand: rand.New(rand.NewPCG(seed, 1))}
}

// wait ends early if ctx does: the call goes on, as a request does that is on its way.
func (l *Laggy) wait(ctx context.Context) {
	l.mu.Lock()
	d := time.Duration(l.rand.Int64N(int64(l.most)))
	l.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Get implements blob.Bucket.
func (l *Laggy) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	l.wait(ctx)
	defer l.wait(ctx)
	return l.Bucket.Get(ctx, key)
}

// GetIf implements blob.Bucket.
func (l *Laggy) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	l.wait(ctx)
	defer l.wait(ctx)
	return l.Bucket.GetIf(ctx, key, old)
}

// Create implements blob.Bucket.
func (l *Laggy) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	l.wait(ctx)
	defer l.wait(ctx)
	return l.Bucket.Create(ctx, key, body)
}

// Swap implements blob.Bucket.
func (l *Laggy) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	l.wait(ctx)
	defer l.wait(ctx)
	return l.Bucket.Swap(ctx, key, old, body)
}

// Delete implements blob.Bucket.
func (l *Laggy) Delete(ctx context.Context, keys ...blob.Key) error {
	l.wait(ctx)
	defer l.wait(ctx)
	return l.Bucket.Delete(ctx, keys...)
}
