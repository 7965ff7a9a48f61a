package wal

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/celler/celler/blob"
)

// A group commit is as slow as one request, and everybody who waits in it, and in the
// next, waits as long. So a request that has no answer after longer than most take is
// sent once more: the very same bytes to the very same key. The first answer that says
// anything counts, the other request is left to itself (a straggler).
//
// To the bucket, and to everybody else, that is nothing new. A create without an answer
// is sent again anyway, and may be performed at any later time (I4); a hedge only does
// not wait for the time-out. Whichever of the two is performed first fills the slot;
// "exists" may therefore mean our own, and is settled by the state after the slot was
// read, as always. What is performed later finds the slot filled, and does nothing. If
// the slot is truncated by then, it leaves an object below the floor, where nobody looks,
// nobody believes and the next sweep deletes what it finds (I1, I2). No deadline is
// needed for that, and none is relied upon.
//
// What is new is that an answer may come while another batch is under way. It belongs to
// the flight that asked for it, and to no other.
//
// See docs/adr/0015-waiting-for-the-bucket.md.

const (
	// hedgeMemory is how many requests tell what is usual.
	hedgeMemory = 64
	// lateFactor is how many times as long as nearly all others a request takes that is
	// late. Who is merely slow is not overtaken by a second request often enough to pay.
	lateFactor = 1.5
	// fewestAnswers is how many requests must have been answered before one is taken to be
	// late. While they are few, that is one that takes longer than lateFactor times any.
	fewestAnswers = 8
	// maxStragglers is how many requests may be left to themselves at a time. Each holds
	// a segment. If there are more, the bucket is not late but overloaded.
	maxStragglers = 4
	// hedgePause is how long nothing is hedged after a hedge was refused: there are
	// buckets that answer a second writer of a key with "busy".
	hedgePause = time.Minute
)

// hedge knows how long requests of one kind take, and decides when one is late. Nothing
// depends on it but speed and price (I10).
type hedge struct {
	least  time.Duration // nothing is late before; negative: nothing ever is
	share  float64       // of the requests that may be sent twice
	counts hedgeCounts

	// Guarded by Log.mu.
	took       []time.Duration // the last hedgeMemory
	next       int             // where the next goes
	stragglers int
	notBefore  time.Time
	stray      *reply // of a straggler; only a mutant looks at it
}

// late returns after how long a request that begins now will be late, or -1. What
// happens more often than the share says is usual, and so not late.
func (h *hedge) late(now time.Time) time.Duration {
	few := len(h.took) < fewestAnswers && float64(len(h.took))*h.share < 2
	if h.least < 0 || few || now.Before(h.notBefore) {
		return -1
	}
	sorted := slices.Clone(h.took)
	slices.Sort(sorted)
	i := int((1 - min(h.share, 1)) * float64(len(sorted)))
	usual := time.Duration(0)
	if h.share < 1 {
		usual = sorted[min(i, len(sorted)-1)]
	}
	return max(time.Duration(lateFactor*float64(usual)), h.least)
}

// allowed reports whether a request that is late may be sent again.
func (h *hedge) allowed(now time.Time) bool {
	return h.stragglers < maxStragglers && !now.Before(h.notBefore)
}

// answered notes how long a request took.
func (h *hedge) answered(d time.Duration) {
	if len(h.took) < hedgeMemory {
		h.took = append(h.took, d)
		return
	}
	h.took[h.next] = d
	h.next = (h.next + 1) % hedgeMemory
}

// reply is what the bucket says to a request.
type reply struct {
	body []byte
	tag  blob.Tag
	err  error
}

// decides reports whether the bucket has said anything. Any other error may be that of
// the way to it.
func (r reply) decides() bool {
	return r.err == nil || errors.Is(r.err, blob.ErrExist) || errors.Is(r.err, blob.ErrNotExist) || errors.Is(r.err, blob.ErrUnchanged)
}

// flight is one request, sent once or twice.
type flight struct {
	hedge *hedge
	send  func(ctx context.Context, again bool) reply
	began time.Time
	sent  int  // how often; the sequencer's
	left  bool // nobody waits any more; set by the sequencer

	// Guarded by Log.mu.
	late    time.Duration // when to send again, or -1
	out     int           // how many are under way
	decided bool
	second  bool // it was the second that decided
	reply   reply
}

// ask sends a request and returns the answer, and whether it was sent twice to get it.
// Meanwhile the next batch is built.
func (l *Log) ask(ctx context.Context, h *hedge, send func(ctx context.Context, again bool) reply) (_ reply, hedged bool) {
	f := &flight{hedge: h, send: send, began: l.env.Now()}
	l.mu.Lock()
	if f.late = h.late(f.began); f.late >= l.o.CallTimeout {
		f.late = -1 // it has ended by then
	}
	if l.o.Mutants.anyAnswer() && h.stray != nil {
		f.decided, f.reply, h.stray = true, *h.stray, nil
	}
	l.mu.Unlock()
	l.launch(ctx, f)
	for {
		more := l.buildAhead()
		pause := l.await(ctx, f)
		switch {
		case f.left:
			return f.reply, f.sent == 2
		case pause == 0:
			l.launch(ctx, f)
		case !more:
			l.env.Sleep(ctx, pause, l.wake)
		}
	}
}

// await looks whether f has its answer. If not it returns when to look again; zero means
// that the request is to be sent again.
func (l *Log) await(ctx context.Context, f *flight) time.Duration {
	now := l.env.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil && !f.decided {
		f.reply = reply{err: context.Cause(ctx)}
	}
	if f.decided || f.out == 0 || ctx.Err() != nil {
		f.left = true
		f.hedge.stragglers += f.out
		if f.second {
			f.hedge.counts.second.Inc()
		} else if f.sent == 2 {
			f.hedge.counts.first.Inc()
		}
		return -1
	}
	if f.late < 0 {
		return -1
	}
	if pause := f.began.Add(f.late).Sub(now); pause > 0 {
		return pause
	}
	f.late = -1
	if !f.hedge.allowed(now) {
		return -1
	}
	return 0
}

// launch sends the request of f. The sequencer waits for all requests when it ends.
func (l *Log) launch(ctx context.Context, f *flight) {
	f.sent++
	again := f.sent == 2
	began := l.env.Now()
	l.mu.Lock()
	f.out++
	l.mu.Unlock()
	l.sending.Add(1)
	l.env.Spawn(func() {
		defer l.sending.Done()
		ctx, cancel := l.env.WithTimeout(ctx, l.o.CallTimeout)
		defer cancel()
		r := f.send(ctx, again)
		l.landed(f, r, again, began)
	})
}

// landed notes the answer to a request.
func (l *Log) landed(f *flight, r reply, again bool, began time.Time) {
	now := l.env.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	f.out--
	if r.decides() {
		f.hedge.answered(now.Sub(began))
	} else if again && f.hedge.share < 1 {
		f.hedge.notBefore = now.Add(hedgePause)
	}
	if f.left {
		f.hedge.stragglers--
		if l.o.Mutants.anyAnswer() {
			f.hedge.stray = &r
		}
		return
	}
	if !f.decided {
		f.decided, f.second, f.reply = r.decides(), again, r
	}
	l.wakeSequencer()
}
