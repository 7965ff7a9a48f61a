package wal

import (
	"context"
	"encoding/binary"
	"io"
	"time"
)

// Bounds of the pause between two attempts at the same thing. The first is about
// one round trip; the last keeps an outage from becoming a storm and still notices
// its end within seconds.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// backoff doubles its pause from minBackoff to maxBackoff, each between half and
// the whole of it.
type backoff struct {
	env  Env
	next time.Duration
}

func newBackoff(env Env) *backoff { return &backoff{env: env, next: minBackoff} }

func (b *backoff) reset() { b.next = minBackoff }

// pause returns how long to wait this time.
func (b *backoff) pause() time.Duration {
	d := b.next
	b.next = min(2*d, maxBackoff)
	return jitter(b.env.Rand, d/2, d)
}

func (b *backoff) sleep(ctx context.Context) { b.env.Sleep(ctx, b.pause(), nil) }

// jitter returns a duration in [low, high). Without randomness it is low.
func jitter(rand io.Reader, low, high time.Duration) time.Duration {
	var r [8]byte
	if _, err := io.ReadFull(rand, r[:]); err != nil || high <= low {
		return low
	}
	return low + time.Duration(binary.BigEndian.Uint64(r[:])%uint64(high-low))
}
