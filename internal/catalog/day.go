package catalog

import (
	"context"
	"time"
)

// Clock is the time of the bucket, in store days. It is a value: what is asked of it
// does not change.
type Clock struct {
	Now time.Time // by the bucket's clock, a little before the question; zero if unknown
	Day uint32    // the day that is open

	first uint32      // number of the oldest day in ended
	ended []time.Time // when days ended; zero: not known
}

// Age returns for how long, at least, the given day has been over. That of the open
// day is 0. Nothing that happened on a day is younger than that.
func (k *Clock) Age(day uint32) time.Duration { return 0 }

// TickOptions say when a store day is to end.
type TickOptions struct {
	Day   time.Duration // how long the open day must have lasted; 0: it ends now
	Epoch time.Duration // how long an upload epoch lasts at least. Default 24 h
}

// Tick asks the bucket for the time, by a commit, and ends the open store day if it
// has lasted long enough; the upload epoch ends with it if that has. A collection
// begins with it.
func (c *Catalog) Tick(ctx context.Context, o TickOptions) (Clock, error) {
	return Clock{}, errNotBuilt
}

// Clock returns the time of the bucket as the index knows it, without a request: Now
// is when the last day ended.
func (c *Catalog) Clock(ctx context.Context) (Clock, error) { return Clock{}, errNotBuilt }
