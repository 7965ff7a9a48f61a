package client

import (
	"math"
	"sync"
	"time"
)

// How many uploads run at once. Tiny paths are bound by round trips, so many; large
// ones by bandwidth and the disk, so few: an upload weighs as much as its NAR,
// between two bounds, and the weights in hand are limited.
const (
	maxJobs       = 32
	firstJobs     = 8
	maxWeight     = 64 << 20  // a path of this size or more takes a quarter
	minWeight     = 8 << 20   // so that 32 of the smallest fit
	weightInHand  = 256 << 20 // NAR bytes, by weight
	forgetsWithin = 500 * time.Millisecond
)

// limiter says how many uploads may be in hand. Without a fixed number it starts at
// firstJobs and doubles with each round of successes; when the server says that it is
// too much it halves, and from then on grows by one a round: the rule by which TCP
// shares a link.
type limiter struct {
	fixed int // the caller's -j; 0 = adapt

	mu      sync.Mutex
	allowed float64   // guarded by mu
	cut     time.Time // guarded by mu: when it was last halved
}

func newLimiter(jobs int) *limiter {
	l := &limiter{fixed: jobs, allowed: firstJobs}
	if jobs > 0 {
		l.allowed = float64(jobs)
	}
	return l
}

// workers is the most that there will ever be.
func (l *limiter) workers() int {
	if l.fixed > 0 {
		return l.fixed
	}
	return maxJobs
}

// admits reports whether another upload of weight may start beside running ones that
// weigh inHand together. One upload is always allowed.
func (l *limiter) admits(running int, inHand, weight int64) bool {
	if running == 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fixed > 0 {
		return running < min(l.fixed, int(math.Ceil(l.allowed)))
	}
	return running < int(l.allowed) && inHand+weight <= weightInHand
}

func (l *limiter) succeeded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	grow := 1.0
	if !l.cut.IsZero() {
		grow = 1 / l.allowed
	}
	l.allowed = min(l.allowed+grow, float64(l.workers()))
}

// overloaded halves the number; answers to requests sent before the last cut do not count again.
func (l *limiter) overloaded(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.cut) < forgetsWithin {
		return
	}
	l.allowed, l.cut = max(1, l.allowed/2), now
}

func weightOf(narSize int64) int64 { return min(max(narSize, minWeight), maxWeight) }
