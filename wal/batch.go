package wal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
)

// call is one Commit under way.
type call struct {
	op    Op
	since time.Time
	done  chan struct{} // closed by the sequencer, with settled

	// Guarded by Log.mu.
	sent      bool     // in doubt: its entries are, or were, in a request without an answer
	forward   *forward // the message to a peer that it may have been committed by
	abandoned bool     // the caller has left
	settled   bool     // seq and err are the answer
	seq       Seq
	err       error

	// Owned by the sequencer: what the last build made of it.
	verdict error  // it is rejected
	entries bool   // it has entries in the batch
	own     bool   // no peer is to commit it
	guest   *guest // it is a peer's
}

// batch is what one writer wants in one slot. Once it was sent it is in doubt
// until the slot is settled: the same bytes go to the same slot, under the same
// number, as often as it takes (I4).
type batch struct {
	number  uint64 // per writer
	calls   []*call
	entries []Entry
	voided  []*forward // messages to peers that the batch makes void
	riders  []*waiter  // callers of CatchUp whom a won slot answers as well

	seq     Seq
	segment *Segment // as a reader decodes it
	object  []byte
	digest  Digest

	began    time.Time // when the last create began
	first    time.Time // when the first did
	attempts int
	due      time.Time // when to try again
	won      bool      // the create succeeded; ROOT has not been read since
	existed  bool      // the slot was found occupied
	hedged   bool      // the create was sent twice, and one of them may have filled the slot
	outrun   bool      // the slot was read and has another object
	cause    error     // of the last failed attempt
	retry    *backoff
}

// open reports whether the batch only opens the writer's session.
func (b *batch) open() bool { return b.number == 1 }

// build asks the operations for their entries, on the state as it is.
func (l *Log) build(calls []*call) *batch {
	d := l.newDraft(l.digest, nil)
	l.extend(d, calls)
	return l.finish(d)
}

// maxNameBytes bounds the name in a PushBoundary.
const maxNameBytes = 256

func (l *Log) buildOne(c *call, view View) ([]Entry, error) {
	entries, err := c.op.Build(view)
	if err != nil || len(entries) == 0 || c.guest != nil {
		return entries, err
	}
	for i := range entries {
		e := &entries[i]
		why := e.check()
		if why == "" && reserved(e) {
			why = "the key is the log's own"
		}
		if why != "" {
			return nil, &EntryError{Op: c.op.Name, Key: e.Key, Reason: why}
		}
	}
	if c.op.Name == "" {
		return entries, nil
	}
	return append([]Entry{c.op.boundary()}, entries...), nil
}

// reserved reports whether an operation must not write e. The one thing it may do
// to bookkeeping is to forget the session of a writer.
func reserved(e *Entry) bool {
	switch e.Kind {
	case Delete:
		return e.Key[0] == reservedPrefix && !bytes.HasPrefix(e.Key, []byte(sessionPrefix))
	case DeleteRange:
		return e.Key[0] <= reservedPrefix && e.Value[0] >= reservedPrefix
	case Set:
		return e.Key[0] == reservedPrefix || bytes.HasPrefix(e.Key, []byte(lanesPrefix))
	default:
		return false
	}
}

// seal places the batch in the next slot, and reads it as everybody else will: a
// segment that a replica could not digest must not get into the log.
func (l *Log) seal(b *batch) error {
	b.seq, b.won, b.existed, b.outrun = l.seq+1, false, false, false
	seg := &Segment{
		Store: l.store, Seq: b.seq, Prev: l.digest, Writer: l.writer, Batch: b.number,
		Time: l.env.Now(), Entries: b.entries,
	}
	if l.o.Address != "" {
		seg.Entries = append(slices.Clip(b.entries), l.addressEntry())
	}
	var err error
	if b.object, err = l.codec.append(nil, seg); err != nil {
		return err
	}
	if b.segment, b.digest, err = l.codec.decode(b.object); err != nil {
		return fmt.Errorf("read own segment for slot %v: %w", b.seq, err)
	}
	l.m.segmentBytes.Update(float64(len(b.object)))
	return nil
}

// markSent makes the calls with entries in doubt, from their callers' view. It
// refuses if one of them has left in the meantime, having been told that nothing
// happened.
func (l *Log) markSent(b *batch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range b.calls {
		if c.abandoned && c.entries {
			return false
		}
	}
	for _, c := range b.calls {
		c.sent = c.entries || c.forward != nil
	}
	return true
}

// requeue puts calls back at the head of the queue: nothing has happened to them.
func (l *Log) requeue(calls []*call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	back := make([]*call, 0, len(calls)+len(l.queue))
	for _, c := range calls {
		if c.sent = c.forward != nil; !c.abandoned && !c.settled {
			back = append(back, c)
		}
	}
	l.queue = append(back, l.queue...)
	l.m.queue.Set(float64(len(l.queue)))
}

// answer settles calls. A rejected one gets its own verdict unless err says that
// the verdict was never proven.
func (l *Log) answer(calls []*call, seq Seq, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range calls {
		if c.settled {
			continue
		}
		c.settled, c.seq, c.err = true, seq, err
		if err != nil && c.forward != nil && !errors.Is(err, ErrUnknown) {
			// Nothing happened here, but what was sent to a peer may yet.
			c.err = fmt.Errorf("forwarded to a peer: %w: %w", ErrUnknown, err)
		}
		result := resultCommitted
		switch {
		case err != nil:
			c.seq = 0
			result = resultUnavailable
			if c.sent {
				result = resultUnknown
			}
		case c.verdict != nil:
			c.seq, c.err = 0, c.verdict
			result = resultRejected
		}
		if !c.abandoned {
			l.m.results[result].Inc()
		}
		close(c.done)
	}
}

// split separates the calls of a batch that are in doubt from those that have
// nothing in it.
func (b *batch) split() (inDoubt, others []*call) {
	for _, c := range b.calls {
		if c.entries || c.forward != nil {
			inDoubt = append(inDoubt, c)
		} else {
			others = append(others, c)
		}
	}
	return inDoubt, others
}
