package wal

import "fmt"

// draft is a batch in the making.
//
// While the bucket is asked about one batch the next is built, on the state that there
// will be if that one wins its slot. It is not encoded and not sent before that slot is
// applied and checked (I3), and if the state turns out to be another, which the digest
// of its last segment tells, the operations are built anew (I6).
type draft struct {
	after   Digest // of the last segment of the state that it is built on
	over    *overlay
	calls   []*call
	entries []Entry
	cost    int  // of the calls, as they say
	size    int  // of the entries
	full    bool // the next operation did not fit
}

// preparedAtOnce is how many operations are built before it is asked again whether the
// bucket has answered: the answer must not wait for them.
const preparedAtOnce = 16

// newDraft begins a batch on the state and, after that, the entries of the segment with
// digest after.
func (l *Log) newDraft(after Digest, before []Entry) *draft {
	d := &draft{after: after, over: newOverlay(l.state)}
	d.over.apply(before)
	return d
}

// extend asks operations for their entries, each given those before it. Those that do
// not fit any more go back to the front of the queue.
func (l *Log) extend(d *draft, calls []*call) {
	var view View = d.over
	if l.o.Mutants.seesOnlyStateBefore() {
		view = l.state
	}
	for i, c := range calls {
		c.verdict, c.entries = nil, false
		entries, err := l.buildOne(c, view)
		n := 0
		for j := range entries {
			n += entries[j].size()
		}
		switch {
		case err != nil:
			c.verdict = err
		case n > l.o.MaxOpBytes:
			c.verdict = &TooLargeError{Op: c.op.Name, Bytes: n, Max: l.o.MaxOpBytes}
		case d.size > 0 && d.size+n > l.o.MaxSegmentBytes:
			l.requeue(calls[i:])
			d.full = true
			return
		default:
			d.size += n
			c.entries = len(entries) > 0
			d.entries = append(d.entries, entries...)
			d.over.apply(entries)
		}
		d.calls = append(d.calls, c)
	}
}

// finish makes a batch of d, with what makes messages to peers void.
func (l *Log) finish(d *draft) *batch {
	b := &batch{retry: newBackoff(l.env), calls: d.calls}
	voids, voided, err := l.voids(d.over)
	if err != nil {
		_ = l.fail(fmt.Errorf("read lanes: %w", err))
	}
	b.entries, b.voided = append(d.entries, voids...), voided
	return b
}

// take removes from the queue what may fit d, at most n operations.
func (l *Log) take(d *draft, n int) []*call {
	l.mu.Lock()
	defer l.mu.Unlock()
	var calls []*call
	n = min(n, l.o.MaxBatch-len(d.calls))
	for len(l.queue) > 0 && len(calls) < n && d.cost < l.o.MaxSegmentBytes && !d.full {
		c := l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		if c.abandoned || c.settled {
			continue
		}
		if c.guest != nil {
			l.pace.relieve(c.guest.message.writer)
		}
		d.cost += c.op.Cost
		calls = append(calls, c)
	}
	l.m.queue.Set(float64(len(l.queue)))
	return calls
}

// buildAhead builds a part of what has been queued since the pending batch was sent. It
// returns true if there is more to do.
func (l *Log) buildAhead() bool {
	b := l.pending
	if b == nil || l.pace.losing || l.forwards(l.env.Now()) {
		return false
	}
	if l.draft != nil && l.draft.after != b.digest {
		l.scrap()
	}
	l.mu.Lock()
	queued := len(l.queue)
	l.mu.Unlock()
	if queued == 0 {
		return false
	}
	if l.draft == nil {
		l.draft = l.newDraft(b.digest, b.entries)
	}
	calls := l.take(l.draft, preparedAtOnce)
	l.extend(l.draft, calls)
	return len(calls) == preparedAtOnce
}

// drafted returns the draft if the state is what it was built on.
func (l *Log) drafted() *draft {
	if l.draft != nil && l.draft.after != l.digest && !l.o.Mutants.draftUnchecked() {
		l.scrap()
	}
	return l.draft
}

// scrap gives up the draft. Nothing has happened to its operations.
func (l *Log) scrap() {
	if d := l.draft; d != nil {
		l.draft = nil
		l.requeue(d.calls)
	}
}
