package sim

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/celler/celler/wal"
)

// World is the seeded scheduler and the state of the bucket.
type World struct {
	// FaultRate is the share of bucket writes that go wrong; reads and deletes
	// fail half as often.
	FaultRate float64
	// DoubleWins is the share of creates of an existing object that succeed and
	// replace it, as on a bucket that checks before it writes.
	DoubleWins float64
	// Lazy names the actor whose steps are chosen rarely, so that it sleeps
	// through what the others do.
	Lazy string
	// Breathe, if positive, lets real timers, which stand still otherwise, go on after
	// every so many steps.
	Breathe int64
	// Trace, if not nil, receives one line a step.
	Trace io.Writer

	rng     *rand.Rand
	objects map[string]object
	version int
	step    int64
	now     atomic.Pointer[time.Time] // stores also ask, between steps
	trail   uint64                    // hash over all choices: equal for equal runs

	seenRoot map[string]int // newest version of ROOT that each actor has read since it started
	frozen   map[string]time.Time

	mu   sync.Mutex // guards pending and arrivals
	pend []*event
	seq  int
}

// event is something that waits to be chosen.
type event struct {
	actor, what string
	arrival     int
	due         time.Time              // of timers; zero for all others
	perform     func() (finished bool) // one step; run by the scheduler
	done        chan struct{}
}

// NewWorld returns the world of one seed. It must be made inside a synctest bubble.
func NewWorld(seed uint64) *World {
	w := &World{
		rng:     rand.New(rand.NewPCG(seed, 0x5eed)),
		objects: map[string]object{}, seenRoot: map[string]int{}, frozen: map[string]time.Time{},
	}
	w.setNow(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	return w
}

func (w *World) setNow(t time.Time) { w.now.Store(&t) }

func (w *World) time() time.Time { return *w.now.Load() }

// Step is the number of steps taken: the world's own time for histories.
func (w *World) Step() int64 { return w.step }

// Trail is a hash over every choice made so far.
func (w *World) Trail() uint64 { return w.trail }

// add queues an event.
func (w *World) add(e *event) *event {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq++
	e.arrival = w.seq
	e.done = make(chan struct{})
	w.pend = append(w.pend, e)
	return e
}

func (w *World) remove(e *event) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.pend, e)
	if i < 0 {
		return false
	}
	w.pend = slices.Delete(w.pend, i, i+1)
	return true
}

// Pause parks the caller until the scheduler chooses it.
func (w *World) Pause(actor, what string) {
	<-w.add(&event{actor: actor, what: what, perform: func() bool { return true }}).done
}

// Run schedules until nothing is left to choose: every actor has ended or waits
// for one that has.
func (w *World) Run() {
	for {
		synctest.Wait()
		e := w.choose()
		if e == nil {
			return
		}
		w.step++
		h := fnv.New64a()
		fmt.Fprintf(h, "%d %s %s", w.trail, e.actor, e.what)
		w.trail = h.Sum64()
		if w.Trace != nil {
			fmt.Fprintf(w.Trace, "%6d %-8s %s\n", w.step, e.actor, e.what)
		}
		if !e.due.IsZero() && e.due.After(w.time()) {
			w.setNow(e.due)
		}
		w.setNow(w.time().Add(time.Millisecond))
		if e.perform() {
			w.remove(e)
			close(e.done)
		}
		if w.Breathe > 0 && w.step%w.Breathe == 0 {
			synctest.Wait()
			time.Sleep(2 * time.Second)
		}
	}
}

// Freeze stops an actor, as SIGSTOP does a process, until so much time has passed in the
// world: what it has asked for may happen, but nothing that it does.
func (w *World) Freeze(actor string, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen[actor] = w.time().Add(d)
}

// thawed reports whether an actor goes on, and if not sets next to when the first of
// those that do not will. The caller holds w.mu.
func (w *World) thawed(actor string, next *time.Time) bool {
	until, frozen := w.frozen[actor]
	if !frozen || !w.time().Before(until) {
		delete(w.frozen, actor)
		return true
	}
	if next.IsZero() || until.Before(*next) {
		*next = until
	}
	return false
}

// RunIdle is Run in a world where something may also wait for real timers, which stand
// still while there is anything to choose.
func (w *World) RunIdle() {
	for range 1000 {
		before := w.step
		w.Run()
		time.Sleep(time.Minute)
		synctest.Wait()
		w.mu.Lock()
		idle := len(w.pend) == 0
		w.mu.Unlock()
		if idle && w.step == before {
			return
		}
	}
}

// choose picks the next event. Timers compete with requests, so that time-outs
// and back-offs happen before, between and after answers; among themselves they
// fire in order.
func (w *World) choose() *event {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		e, thaw := w.pick()
		if e != nil || thaw.IsZero() {
			return e
		}
		w.setNow(thaw) // somebody wakes up
	}
}

// pick is choose among those that are not frozen. If there is nothing to do before
// one of those wakes up it returns when that is. The caller holds w.mu.
func (w *World) pick() (_ *event, thaw time.Time) {
	var ready, timers []*event
	for _, e := range w.pend {
		if !w.thawed(e.actor, &thaw) {
			continue
		}
		if e.due.IsZero() {
			ready = append(ready, e)
		} else {
			timers = append(timers, e)
		}
	}
	order := func(a, b *event) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.actor, b.actor), cmp.Compare(a.what, b.what), cmp.Compare(a.arrival, b.arrival))
	}
	slices.SortFunc(ready, order)
	slices.SortFunc(timers, order)
	if len(ready) == 0 && !thaw.IsZero() && (len(timers) == 0 || thaw.Before(timers[0].due)) {
		return nil, thaw
	}
	if len(timers) > 0 && (len(ready) == 0 || w.rng.IntN(8) == 0) {
		return timers[0], thaw
	}
	if len(ready) == 0 {
		return nil, thaw
	}
	e := ready[w.rng.IntN(len(ready))]
	if e.actor == w.Lazy && w.rng.IntN(20) != 0 {
		e = ready[w.rng.IntN(len(ready))]
	}
	return e, thaw
}

// Env returns what a node named actor gets instead of a clock, randomness and
// goroutines. Its clock is off by drift.
func (w *World) Env(actor string, seed uint64, drift time.Duration) wal.Env {
	return wal.Env{
		Now:   func() time.Time { return w.time().Add(drift) },
		Rand:  &randReader{rng: rand.New(rand.NewPCG(seed, 0xe4))},
		Spawn: func(fn func()) { go fn() },
		Sleep: func(ctx context.Context, d time.Duration, wake <-chan struct{}) {
			if ctx.Err() != nil {
				return
			}
			var fired <-chan struct{}
			var e *event
			if d >= 0 {
				e = w.add(&event{actor: actor, what: "timer", due: w.time().Add(d).Add(1), perform: func() bool { return true }})
				fired = e.done
			}
			select {
			case <-ctx.Done():
			case <-wake:
			case <-fired:
			}
			if e != nil {
				w.remove(e)
			}
		},
		WithTimeout: func(ctx context.Context, _ time.Duration) (context.Context, context.CancelFunc) {
			// A time-out is a fault of the bucket here: see bucket.fail.
			return context.WithCancel(ctx)
		},
	}
}

// randReader makes a Reader of a generator.
type randReader struct{ rng *rand.Rand }

func (r *randReader) Read(p []byte) (int, error) {
	var word [8]byte
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(word[:], r.rng.Uint64())
		copy(p[i:], word[:])
	}
	return len(p), nil
}

// forgetRoot notes that an actor starts anew. Actors start between two steps.
func (w *World) forgetRoot(actor string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seenRoot, actor)
}

func (w *World) sawRoot(actor string, version int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seenRoot[actor] = max(w.seenRoot[actor], version)
}
