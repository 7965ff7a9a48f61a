package wal

import (
	"context"
	"fmt"
)

// settle finds out, after a catch-up, what became of the pending batch, and of what
// was sent to peers.
//
// If its slot was read and has another object, it has lost. If the slot was not
// read, because a snapshot was loaded that goes beyond it, the session in the state
// tells (I4). If the session is gone as well, nobody can tell.
func (l *Log) settle() error {
	if l.fatalErr() != nil {
		return nil
	}
	if l.pending != nil {
		if err := l.settleBatch(); err != nil {
			return err
		}
	}
	return l.settleForwards()
}

func (l *Log) settleBatch() error {
	b := l.pending
	session, known, err := l.state.Session(l.writer)
	if err != nil {
		return l.fail(fmt.Errorf("read the session of writer %v: %w", l.writer, err))
	}
	if l.o.Mutants.noSessions() {
		session, known = l.ownSeen, true
	}
	if b.existed && l.o.Mutants.lostOnExist() {
		session = 0
	}
	switch {
	case b.outrun:
		l.lost()
	case !known && !b.open():
		return l.fenced()
	case session >= b.number:
		l.committed()
	case l.seq >= b.seq:
		l.lost()
	}
	return nil
}

// committed settles the pending batch: it is in its slot and applied.
func (l *Log) committed() {
	b := l.pending
	l.pending = nil
	l.setDoubt(nil)
	now := l.env.Now()
	l.m.commitSeconds.Update(now.Sub(b.first).Seconds())
	l.m.batchOps.Update(float64(len(b.calls)))
	if b.open() {
		l.fw.opened = l.o.Forward != nil
	} else {
		l.pace.committed(now, now.Sub(b.began), len(b.calls))
	}
	for _, m := range b.voided {
		l.drop(m)
	}
	if b.hedged && !b.won && l.o.OnWon != nil {
		l.o.OnWon(b.seq) // the create that filled the slot was not the one that said so
	}
	l.answer(b.calls, b.seq, nil)
	l.answerWaiters(b.riders, nil)
}

// lost settles the pending batch: its slot went to somebody else, so its
// operations are as if never sent. They are built again on the new state (I6).
func (l *Log) lost() {
	b := l.pending
	l.m.lost.Inc()
	l.pace.losing = true
	l.releaseRiders(b)
	if l.o.Mutants.noRevalidation() && !b.open() {
		if err := l.seal(b); err == nil {
			return
		}
	}
	l.pending = nil
	l.setDoubt(nil)
	if !l.o.Mutants.draftUnchecked() {
		l.scrap() // before, so that the order stays
	}
	l.requeue(b.calls)
}

// fenced settles the pending batch: nobody can tell any more what became of it.
func (l *Log) fenced() error {
	b := l.pending
	l.m.fenced.Inc()
	l.log.Warn("the session of this writer is gone", "writer", l.writer.String(), "batch", b.number, "seq", uint64(b.seq))
	l.releaseRiders(b)
	l.pending = nil
	l.setDoubt(nil)
	inDoubt, others := b.split()
	l.scrap()
	l.requeue(others)
	l.answer(inDoubt, 0, fmt.Errorf("batch %d of writer %v in slot %v: %w: %w", b.number, l.writer, b.seq, ErrUnknown, ErrFenced))
	if err := l.renewWriter(); err != nil {
		return l.fail(err)
	}
	return nil
}

// stayInDoubt notes a failed attempt and when to make the next. After
// Options.GiveUp callers are not kept waiting any longer: those of the batch learn
// that the outcome is unknown, those in the queue that nothing happened.
func (l *Log) stayInDoubt(ctx context.Context, cause error) {
	b := l.pending
	b.cause = cause
	l.m.unanswered.Inc()
	l.releaseRiders(b)
	now := l.env.Now()
	b.due = now.Add(b.retry.pause())
	if l.mutate(ctx, b) || now.Sub(b.first) < l.o.GiveUp {
		return
	}
	doubt := &InDoubtError{Seq: b.seq, Writer: l.writer, Batch: b.number, Attempts: b.attempts, Since: b.first, Cause: cause}
	if l.setDoubt(doubt) {
		l.log.Warn("the log takes no segments", "err", cause, "seq", uint64(b.seq), "batch", b.number, "attempt", b.attempts)
	}
	inDoubt, others := b.split()
	b.calls = nil
	l.answer(inDoubt, 0, doubt)
	l.answer(append(others, l.takeAll()...), 0, l.unavailable(cause))
}

// setDoubt publishes what Err returns, and reports whether it is news.
func (l *Log) setDoubt(doubt *InDoubtError) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := (l.doubt == nil) != (doubt == nil)
	l.doubt = doubt
	l.m.inDoubt.Set(0)
	if doubt != nil {
		l.m.inDoubt.Set(1)
	} else if news {
		l.log.Info("the log takes segments again", "seq", uint64(l.seq))
	}
	return news
}

func (l *Log) takeAll() []*call {
	l.scrap()
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.queue
	l.queue = nil
	l.m.queue.Set(0)
	return all
}

// releaseRiders lets those who rode along with b wait for a catch-up again.
func (l *Log) releaseRiders(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiters = append(b.riders, l.waiters...)
	b.riders = nil
}

func (l *Log) unavailable(cause error) error {
	if fatal := l.fatalErr(); fatal != nil {
		return fatal
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

// drain answers everybody who still waits when the sequencer ends.
func (l *Log) drain() {
	l.scrap()
	l.mu.Lock()
	l.ended = l.fatal
	if l.ended == nil {
		l.ended = ErrClosed
	}
	ended, waiters, queue := l.ended, l.waiters, l.queue
	l.waiters, l.queue = nil, nil
	close(l.advanced)
	l.advanced = make(chan struct{})
	l.mu.Unlock()

	if b := l.pending; b != nil {
		inDoubt, others := b.split()
		l.answerWaiters(b.riders, ended)
		l.answer(inDoubt, 0, fmt.Errorf("batch %d of writer %v in slot %v: %w: %w", b.number, l.writer, b.seq, ErrUnknown, ended))
		l.answer(others, 0, ended)
	}
	for _, m := range l.fw.lanes {
		if m != nil {
			l.answer(m.calls, 0, ended) // with ErrUnknown
		}
	}
	l.answerWaiters(waiters, ended)
	l.answer(queue, 0, ended)
}
