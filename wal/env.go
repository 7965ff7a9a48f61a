package wal

import (
	"context"
	"crypto/rand"
	"io"
	"time"
)

// Env is everything by which a Log depends on more than its bucket and its
// state. internal/sim owns all of it, so that a run is a function of a seed.
// The zero value of each field means the real thing.
type Env struct {
	// Now reads the clock. Time decides when to do things, never what is true (I10).
	Now func() time.Time
	// Rand yields store ids, writer ids, nonces and jitter. Only one goroutine
	// of a Log reads it.
	Rand io.Reader
	// Spawn runs fn in a goroutine of its own.
	Spawn func(fn func())
	// Sleep returns when d has passed, when wake yields, or when ctx is done. A
	// negative d never passes. The caller finds out which it was by looking at its
	// own state, so it does not matter which of several ready ones is taken.
	Sleep func(ctx context.Context, d time.Duration, wake <-chan struct{})
	// WithTimeout bounds one call of the bucket.
	WithTimeout func(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// WithDefaults returns e with the real thing in every field that is nil.
func (e Env) WithDefaults() Env { return e.withDefaults() }

func (e Env) withDefaults() Env {
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.Rand == nil {
		e.Rand = rand.Reader
	}
	if e.Spawn == nil {
		e.Spawn = func(fn func()) { go fn() }
	}
	if e.Sleep == nil {
		e.Sleep = sleep
	}
	if e.WithTimeout == nil {
		e.WithTimeout = context.WithTimeout
	}
	return e
}

func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	var passed <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		passed = timer.C
	}
	select {
	case <-ctx.Done():
	case <-wake:
	case <-passed:
	}
}
