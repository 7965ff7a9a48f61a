package compact

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/celler/celler/blob"
)

const (
	// attempts is how often a call of the bucket is tried that may be tried again.
	attempts = 5
	// firstPause doubles with every attempt.
	firstPause = 200 * time.Millisecond
)

// retry calls fn until it succeeds, or fails in a way that trying again does not change.
func (c *Compactor) retry(ctx context.Context, fn func(context.Context) error) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := func() error {
			ctx, cancel := c.env.WithTimeout(ctx, c.o.CallTimeout)
			defer cancel()
			return fn(ctx)
		}()
		if err == nil || attempt == attempts || ctx.Err() != nil || !passing(err) {
			return err
		}
		c.env.Sleep(ctx, pause, nil)
		pause *= 2
	}
}

// passing reports whether an error may be gone the next time.
func passing(err error) bool {
	var e *blob.Error
	if !errors.As(err, &e) {
		return errors.Is(err, context.DeadlineExceeded)
	}
	switch e.Kind {
	case blob.KindThrottled, blob.KindUnreachable, blob.KindOther:
		return true
	case blob.KindDenied, blob.KindNoBucket, blob.KindFull, blob.KindReadOnly, blob.KindUnsupported, blob.KindCorrupt:
	}
	return false
}

// each calls fn for 0 to n-1, several at once, and returns the first error by number.
func (c *Compactor) each(n int, fn func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for begin := 0; begin < n; begin += c.o.Parallel {
		for i := begin; i < min(n, begin+c.o.Parallel); i++ {
			wg.Add(1)
			c.env.Spawn(func() {
				defer wg.Done()
				errs[i] = fn(i)
			})
		}
		wg.Wait()
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
