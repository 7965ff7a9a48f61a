package client

import (
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	l := newLimiter(0)
	admitted := func(weight int64) int {
		n, inHand := 0, int64(0)
		for l.admits(n, inHand, weight) {
			n, inHand = n+1, inHand+weight
		}
		return n
	}
	if got := admitted(minWeight); got != firstJobs {
		t.Errorf("at first %d uploads, want %d", got, firstJobs)
	}
	if got := admitted(maxWeight); got != weightInHand/maxWeight {
		t.Errorf("%d large uploads at once, want %d", got, weightInHand/maxWeight)
	}
	for range maxJobs - firstJobs {
		l.succeeded()
	}
	if got := admitted(minWeight); got != maxJobs {
		t.Errorf("after many successes %d uploads, want %d", got, maxJobs)
	}
	now := time.Unix(1e9, 0)
	l.overloaded(now)
	l.overloaded(now.Add(time.Millisecond)) // the answer to a request of the same burst
	if got := admitted(minWeight); got != maxJobs/2 {
		t.Errorf("after one overload %d uploads, want %d", got, maxJobs/2)
	}
	for range maxJobs / 2 {
		l.succeeded()
	}
	if got := admitted(minWeight); got > maxJobs/2+2 {
		t.Errorf("a round of successes after an overload brought %d uploads back, want one more than %d", got, maxJobs/2)
	}
	for i := range 100 {
		l.overloaded(now.Add(time.Duration(i) * time.Second))
	}
	if got := admitted(minWeight); got != 1 {
		t.Errorf("after many overloads %d uploads, want 1", got)
	}
}

func TestLimiterFixed(t *testing.T) {
	l := newLimiter(3)
	if !l.admits(2, 1<<40, maxWeight) || l.admits(3, 0, 0) {
		t.Error("-j 3 must allow three, whatever they weigh")
	}
	l.overloaded(time.Unix(1e9, 0))
	if l.admits(2, 0, 0) {
		t.Error("-j 3 still runs three after the server asked for less")
	}
}
