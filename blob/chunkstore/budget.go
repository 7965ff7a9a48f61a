package chunkstore

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// readBudget bounds the bytes that all readers together hold in memory. What a
// reader would fetch ahead it gets only while there is plenty. For what it needs
// next it waits, but not for ever: all memory may be held by readers whose clients
// have stopped reading. So after overcommitAfter it gets its next unit, usually
// some 100 KiB, beyond the budget: with n readers open, n units are the most that
// can be added, and whoever limits the connections limits that.
type readBudget struct {
	total int64
	sem   *semaphore.Weighted

	mu   sync.Mutex // guards used
	used int64
}

func newReadBudget(total int64) *readBudget {
	return &readBudget{total: total, sem: semaphore.NewWeighted(total)}
}

// overcommitAfter is how long a reader waits for memory.
const overcommitAfter = time.Second

// need waits for n bytes, or for all there are if n is more. It returns what the
// caller has to free: n, or 0 if it waited in vain and may go on nevertheless.
func (b *readBudget) need(ctx context.Context, n int64) (int64, error) {
	n = min(n, b.total)
	patient, cancel := context.WithTimeout(ctx, overcommitAfter)
	defer cancel()
	if err := b.sem.Acquire(patient, n); err != nil {
		return 0, ctx.Err()
	}
	b.count(n)
	return n, nil
}

// ahead takes n bytes if at least a quarter of the budget stays free.
func (b *readBudget) ahead(n int64) bool {
	b.mu.Lock()
	scarce := b.used+n > b.total/4*3
	b.mu.Unlock()
	if scarce || !b.sem.TryAcquire(n) {
		return false
	}
	b.count(n)
	return true
}

// scarce reports whether readers should make do with little.
func (b *readBudget) scarce() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used > b.total/4*3
}

func (b *readBudget) free(n int64) {
	b.count(-n)
	b.sem.Release(n)
}

func (b *readBudget) count(n int64) {
	b.mu.Lock()
	b.used += n
	b.mu.Unlock()
}

// peers remembers how long recent GETs took, so that one that is much slower can
// be sent again.
type peers struct {
	least time.Duration // negative: never

	mu    sync.Mutex // guards first, rate and n
	first [32]time.Duration
	rate  [32]time.Duration // for a MiB after the first byte
	n     int
}

func newPeers(least time.Duration) *peers { return &peers{least: least} }

// record adds a GET: time to its first frame, and time and bytes from there on.
func (p *peers) record(first, rest time.Duration, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.n % len(p.first)
	p.first[i] = first
	p.rate[i] = time.Duration(float64(rest) * (1 << 20) / float64(max(bytes, 1<<16)))
	p.n++
}

// patience returns how long a GET may go without another frame of n bytes before
// it is sent again, and false if it is never to be.
func (p *peers) patience(n int64) (time.Duration, bool) {
	if p.least < 0 {
		return 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	known := min(p.n, len(p.first))
	if known < 4 {
		// Too few to compare with. What is suspicious is still bounded.
		return max(p.least, 2*time.Second), true
	}
	first := slices.Sorted(slices.Values(p.first[:known]))
	rate := slices.Sorted(slices.Values(p.rate[:known]))
	slow := known - 1 - known/10
	wait := 3*first[slow] + time.Duration(3*float64(rate[slow])*float64(n)/(1<<20))
	return min(max(p.least, wait), 30*time.Second), true
}
