package wal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/celler/celler/blob"
)

// sequence is the sequencer: the one goroutine that reads the tail, applies
// segments and claims slots. Everybody else leaves a call or a waiter in a queue
// and wakes it. It does one thing at a time, so there is never a second batch
// while one is in doubt, and slot n+1 is never claimed before slot n is applied (I3).
func (l *Log) sequence(ctx context.Context) {
	defer close(l.done)
	defer l.codec.close()
	ctx, cancel := context.WithCancel(ctx)
	defer l.sending.Wait()
	defer cancel()
	for ctx.Err() == nil && l.fatalErr() == nil {
		switch what, pause := l.next(); what {
		case workCatchUp:
			l.caught = true
			_ = l.serveWaiters(ctx) // its callers have the error; a fatal one ends the loop
		case workFollow:
			l.caught = true
			_ = l.follow(ctx) // nobody waits for it
		case workAttempt:
			l.caught = false
			l.attempt(ctx)
		case workBatch:
			l.caught = false
			l.begin(ctx)
		case workSend:
			l.send(ctx)
		case workTakeBack:
			l.takeBack(ctx)
		case workBounce:
			l.sendBack()
		case workNone:
			l.env.Sleep(ctx, pause, l.wake)
		}
	}
	l.drain()
}

type work int

const (
	workNone     work = iota // wait: for something to do, or for the time to do it
	workFollow               // a peer has hinted at a slot
	workCatchUp              // somebody waits for a catch-up
	workAttempt              // the batch in doubt is due again
	workBatch                // operations wait for a slot
	workSend                 // operations wait, and a peer may commit them
	workTakeBack             // a peer has failed to commit what it was sent
	workBounce               // peers wait for us, and it is another who wins the slots
)

// next chooses what to do. Catch-ups and attempts at a batch take turns, so that
// neither readers nor writers can starve the other side.
func (l *Log) next() (work, time.Duration) {
	now := l.env.Now()
	if l.pending == nil && l.drafted() != nil && l.forwards(now) {
		l.scrap()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.wanted {
		l.pace.want(w)
	}
	l.wanted = l.wanted[:0]
	due, failed := l.fw.nextDue()
	if failed || !due.IsZero() && !due.After(now) {
		return workTakeBack, 0
	}
	ready, pause := workNone, time.Duration(-1)
	if l.pending != nil {
		ready, pause = workAttempt, l.pending.due.Sub(now)
	} else if n, since := l.waiting(); n > 0 {
		if l.bounce(now) {
			return workBounce, 0
		}
		if ready, pause = l.nextSend(now); ready == workNone {
			ready, pause = workBatch, l.pace.holdUntil(n, since).Sub(now)
		}
	}
	isDue := ready != workNone && pause <= 0
	if yields := !isDue || ready == workAttempt && !l.caught; yields && len(l.waiters) > 0 {
		return workCatchUp, 0
	} else if yields && l.hinted() {
		return workFollow, 0
	}
	if isDue {
		return ready, 0
	}
	if wait := due.Sub(now); !due.IsZero() && (pause < 0 || wait < pause) {
		pause = wait
	}
	return workNone, pause
}

// waiting returns how many operations wait for a batch, and since when. Log.mu is held.
func (l *Log) waiting() (n int, since time.Time) {
	if len(l.queue) > 0 {
		n, since = len(l.queue), l.queue[0].since
	}
	if l.draft != nil && len(l.draft.calls) > 0 {
		n, since = n+len(l.draft.calls), l.draft.calls[0].since
	}
	return n, since
}

// begin makes a batch of what is in the queue and sends it. Those who wait for a
// catch-up ride along: a won slot proves that nothing is missing before it.
func (l *Log) begin(ctx context.Context) {
	d := l.drafted()
	l.draft = nil
	if d == nil {
		d = l.newDraft(l.digest, nil)
	}
	l.countArrivals()
	calls := l.take(d, l.o.MaxBatch)
	if len(d.calls)+len(calls) == 0 {
		return
	}
	if err := l.root.writable(); err != nil {
		l.answer(append(d.calls, calls...), 0, err)
		return
	}
	l.extend(d, calls)
	b := l.finish(d)
	if len(b.entries) == 0 && !l.o.Mutants.rejectWithoutProof() {
		// Nothing to write, so no slot will prove that "nothing" is the right
		// answer. A catch-up that starts now does.
		if err := l.serveWaiters(ctx); err != nil {
			l.answer(b.calls, 0, l.unavailable(err))
			return
		}
		b = l.build(b.calls)
	}
	if len(b.entries) == 0 {
		l.answer(b.calls, l.seq, nil)
		return
	}

	session, known, err := l.state.Session(l.writer)
	if err != nil {
		l.requeue(b.calls)
		_ = l.fail(fmt.Errorf("read the session of writer %v: %w", l.writer, err))
		return
	}
	b.number = session + 1
	if !known || l.cloned {
		// The writer's first batch has no effects, so that there is nothing to be
		// in doubt about when a missing session cannot tell "not yet" from "no more".
		l.requeue(b.calls)
		b = &batch{number: 1, retry: newBackoff(l.env)}
		if err := l.renewWriter(); err != nil {
			_ = l.fail(err)
			return
		}
		b.entries = l.openLanes()
	}
	if err := l.seal(b); err != nil {
		l.answer(b.calls, 0, err)
		return
	}
	if !l.markSent(b) {
		l.requeue(b.calls)
		return
	}
	l.mu.Lock()
	b.riders, l.waiters = l.waiters, nil
	l.mu.Unlock()
	l.pending = b
	l.requestTurn(ctx, b)
	l.attempt(ctx)
}

// attempt tries to settle the pending batch.
//
//	create       answer          what it means
//	ok                           ours, if ROOT read now has its floor at or below the slot
//	exists                       perhaps ours, from an attempt whose answer was lost:
//	                             the state after a catch-up knows
//	anything else                nothing. The request may have been lost, performed,
//	                             or be performed later. Again, the same bytes
func (l *Log) attempt(ctx context.Context) {
	b := l.pending
	b.attempts++
	if !b.won {
		b.began = l.env.Now()
		if b.attempts == 1 {
			b.first = b.began
		}
		err := l.create(ctx, b)
		if errors.Is(err, blob.ErrExist) {
			b.existed = true
			l.resolve(ctx)
			return
		}
		if err != nil {
			l.stayInDoubt(ctx, fmt.Errorf("create segment in slot %v: %w", b.seq, err))
			return
		}
		b.won = true
		if l.o.OnWon != nil {
			l.o.OnWon(b.seq)
		}
	}
	if !l.o.Mutants.noWriterCheck() {
		// The writer's half of I1: the slot may have been truncated long ago, and
		// its name free again.
		if err := l.confirmRoot(ctx); err != nil {
			l.stayInDoubt(ctx, err)
			return
		}
		if l.root.Floor > b.seq {
			l.m.phantoms.Inc()
			l.log.Warn("won a slot below the floor", "seq", uint64(b.seq), "batch", b.number)
			b.won = false
			l.resolve(ctx)
			return
		}
	}
	if err := l.apply(b.segment, b.digest); err != nil {
		return
	}
	l.setFresh(b.began)
	l.committed()
}

// create sends the batch to its slot. Only the first attempt is hedged: after that the
// pauses between attempts say how often.
func (l *Log) create(ctx context.Context, b *batch) error {
	h := &l.creates
	if b.attempts > 1 {
		h = &l.patient
	}
	key, object, other := b.seq.Key(), b.object, l.mutateHedge(b)
	r, hedged := l.ask(ctx, h, func(ctx context.Context, again bool) reply {
		object := object
		if again {
			object = other
		}
		tag, err := l.bucket.Create(ctx, key, object)
		return reply{tag: tag, err: err}
	})
	b.hedged = b.hedged || hedged
	return r.err
}

// resolve catches up, which settles the pending batch or leaves it in doubt.
func (l *Log) resolve(ctx context.Context) {
	b := l.pending
	l.releaseRiders(b)
	if b.hedged {
		// Most likely the occupant is ours. One look at the slot tells.
		if _ = l.look(ctx, 1); l.pending != b {
			return
		}
	}
	err := l.serveWaiters(ctx)
	if l.pending != b {
		return
	}
	if err == nil {
		// The bucket contradicts itself: a slot that exists and cannot be read.
		// Nothing to conclude, and nothing to be gained by hurrying.
		err = fmt.Errorf("slot %v is occupied, but there is no segment in it", b.seq)
	}
	l.stayInDoubt(ctx, err)
}
