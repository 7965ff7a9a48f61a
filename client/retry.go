package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Retry bounds how long a request is repeated. The zero value of each field means its
// default; a negative Attempts means never to retry.
type Retry struct {
	Attempts int           // per request or path, the first included; default 10, about two minutes of trying
	First    time.Duration // wait before the second attempt; default 500 ms, doubling
	Max      time.Duration // longest wait between attempts; default 30 s. A server may ask for more, see After
	After    time.Duration // longest Retry-After of a server that is heeded, so that a wrong clock cannot stop a build for an hour; default 5 min
	Dial     time.Duration // a connection that is not made for so long has failed; default 15 s
	Failing  time.Duration // give up a push when nothing has succeeded for so long; default 5 min
	Idle     time.Duration // an attempt in which nothing moves for so long has failed; default 2 min
}

// Impatient bounds retries for somebody who waits at the keyboard: what a server that
// restarts, or a connection that broke, makes one wait for, and a few seconds at most.
func Impatient() Retry {
	return Retry{Attempts: 4, First: 300 * time.Millisecond, Max: time.Second, After: 2 * time.Second, Dial: 3 * time.Second, Failing: 4 * time.Second}
}

func (r Retry) withDefaults() Retry {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	if r.Attempts == 0 {
		r.Attempts = 10
	}
	r.Attempts = max(r.Attempts, 1)
	set(&r.First, 500*time.Millisecond)
	set(&r.Max, 30*time.Second)
	set(&r.After, 5*time.Minute)
	set(&r.Dial, 15*time.Second)
	set(&r.Failing, 5*time.Minute)
	set(&r.Idle, 2*time.Minute)
	return r
}

// budget is what all requests of one operation share: how long there has been
// nothing but failure. A push of a thousand paths to a server that is down must not
// spend a thousand times the patience for one.
type budget struct {
	mu      sync.Mutex
	failing time.Time // guarded by mu: when the current row of failures began; zero after a success
}

func (b *budget) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failing = time.Time{}
}

// failed notes a failure that a repetition may mend.
func (b *budget) failed(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failing.IsZero() {
		b.failing = now
	}
}

// patient reports whether the current row of failures is still shorter than limit.
func (b *budget) patient(now time.Time, limit time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failing.IsZero() || now.Sub(b.failing) < limit
}

// retryFunc is told that attempt failed with err and will be repeated after wait.
type retryFunc func(attempt int, wait time.Duration, err error)

// retrying runs attempt, numbered from 1, until it succeeds, fails for good, or the
// bounds of c.retry are reached.
func (c *Client) retrying(ctx context.Context, b *budget, notify retryFunc, attempt func(ctx context.Context, n int) error) error {
	p := &pauses{retry: c.retry, budget: b, now: c.now, grow: &backoff.ExponentialBackOff{
		InitialInterval: c.retry.First, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: c.retry.Max,
	}}
	n := 0
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		n++
		err := attempt(ctx, n)
		switch {
		case err == nil:
			b.succeeded()
		case isFinal(ctx, err):
			err = final(unmark(err))
		case n >= fullAttempts && isFull(err):
			b.failed(c.now())
			err = final(err)
		default:
			b.failed(c.now())
			p.last = err
		}
		return struct{}{}, err
	}, backoff.WithBackOff(p), backoff.WithMaxTries(uint(c.retry.Attempts)), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, wait time.Duration) {
			c.logger.DebugContext(ctx, "retry request", "attempt", n, "dur", wait, "err", err)
			if notify != nil {
				notify(n, wait, err)
			}
		}))
	return err
}

// fullAttempts is how often a server is asked whose storage is full. Somebody has to make
// room there, which takes longer than anybody waits.
const fullAttempts = 3

func isFull(err error) bool {
	status, ok := errors.AsType[*StatusError](err)
	return ok && status.Status == http.StatusInsufficientStorage
}

// pauses decides how long to wait after a failure: exponentially longer, never less
// than the server asked for, never two clients in step.
type pauses struct {
	retry  Retry
	budget *budget
	now    func() time.Time
	grow   *backoff.ExponentialBackOff
	last   error
}

// NextBackOff implements backoff.BackOff.
func (p *pauses) NextBackOff() time.Duration {
	if !p.budget.patient(p.now(), p.retry.Failing) {
		return backoff.Stop
	}
	wait := p.grow.NextBackOff()
	var status *StatusError
	if errors.As(p.last, &status) && status.RetryAfter > 0 {
		asked := min(status.RetryAfter, p.retry.After)
		wait = max(wait, asked+rand.N(asked/4+1))
	}
	return wait
}

// Reset implements backoff.BackOff.
func (p *pauses) Reset() { p.grow.Reset() }
