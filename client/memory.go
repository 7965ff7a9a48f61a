package client

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// deltaMemory bounds the bytes of NARs, plain or compressed, that are in hand between
// being read and being acknowledged.
const deltaMemory = 64 << 20

// Memory is what pushes that run at the same time have in hand together, see [WithMemory].
// One of them has half of it at most, so that a slow server does not hold up the others.
type Memory struct{ all *semaphore.Weighted }

// NewMemory returns the memory of one program.
func NewMemory() *Memory { return &Memory{semaphore.NewWeighted(deltaMemory)} }

// room is the memory of one push: its own, and of what it shares with others. Who has got
// something of it never waits for more before that is given back, but for the server.
type room struct {
	own    *semaphore.Weighted
	shared *Memory // or nil
	held   *atomic.Int64
}

func newRoom(shared *Memory) room {
	most := int64(deltaMemory)
	if shared != nil {
		most /= 2
	}
	return room{semaphore.NewWeighted(most), shared, new(atomic.Int64)}
}

// Acquire waits for n bytes.
func (r room) Acquire(ctx context.Context, n int64) error {
	if err := r.own.Acquire(ctx, n); err != nil {
		return err
	}
	if r.shared != nil {
		if err := r.shared.all.Acquire(ctx, n); err != nil {
			r.own.Release(n)
			return err
		}
	}
	r.held.Add(n)
	return nil
}

// Release gives n bytes back.
func (r room) Release(n int64) {
	r.held.Add(-n)
	r.own.Release(n)
	if r.shared != nil {
		r.shared.all.Release(n)
	}
}

// close gives back what a push that was given up still has in hand. None of its goroutines
// is left.
func (r room) close() { r.Release(r.held.Load()) }
