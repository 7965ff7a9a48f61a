package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// A replica that keeps losing slots lets the winner commit for it. It sends operations
// to the peer that wrote the last segment; the peer builds them anew on the state before
// its own next slot, like its own operations, and they get into its segment.
//
// The answer may be lost, and the peer may commit what it was sent at any later time.
// So what is sent is numbered, and the state remembers numbers. A writer has a few
// lanes, kept in one row; what is sent over a lane says which number the lane has and
// which it is to have, and the peer commits it only with a change from the one to the
// other, checked like everything else against the state before its slot (I6). From that
// three things follow.
//
//   - It is committed at most once, however often and by whomever it is received.
//   - The state tells whether it was, after the slot is truncated too. The sender
//     acknowledges nothing on the word of a peer, only on the state after a catch-up.
//   - It can be taken back: a segment that gives the lane another number makes it
//     void for ever. A sender that has waited long enough puts the operations into a
//     batch of its own together with that change; if that batch wins its slot, what was
//     sent was not committed before, for the change was checked, and never will be.
//
// See docs/adr/0011-forwarding.md.

const (
	// forwardGap is the least time between two messages: what arrives within it
	// travels together.
	forwardGap = 10 * time.Millisecond
	// leaderMemory is how long after its last segment a peer is taken for the one that
	// commits for all.
	leaderMemory = 2 * time.Second
	// minForwardWait and maxForwardWait bound how long the state may take to show that
	// a message was committed. Then its operations are taken back.
	minForwardWait = 1500 * time.Millisecond
	maxForwardWait = 4 * time.Second
	// forwardPause is how long nothing is forwarded after a peer did not answer.
	forwardPause = 2 * time.Second
	// maxForwardBytes bounds one message, and maxIntentBytes one operation in it: what is
	// larger is not worth a detour.
	maxForwardBytes = 1 << 20
	maxIntentBytes  = 64 << 10
)

// ErrRefused is returned by Log.Accept, and by Options.Forward, if a peer did not commit
// what it was sent. The sender commits it itself.
var ErrRefused = errors.New("the peer does not commit what it was sent")

// forward is a message on its way.
type forward struct {
	key              []byte // of the row of lanes
	lane             int
	expected, number uint64
	calls            []*call
	body             []byte
	address          string    // of the peer that it was sent to last
	due              time.Time // when its operations are taken back
	overdue          bool      // they were: they are in the queue, and the next batch voids the message
	seq              Seq       // the slot in which the state showed it, if that was seen

	// Guarded by Log.mu.
	answered bool
	err      error
}

// forwarding is the sender's side. The sequencer owns it.
type forwarding struct {
	lanes     [laneCount]*forward
	opened    bool // the row of lanes of our writer is in the state
	leader    string
	leaderAt  time.Time // when the leader's last segment was applied
	notBefore time.Time // the next message
	broken    time.Time // nothing is forwarded until then

	requesting atomic.Bool // a turn, and there is no answer yet
}

// lead notes who wrote a segment that was applied.
func (l *Log) lead(seg *Segment) {
	if l.o.Forward == nil {
		return
	}
	f := &l.fw
	if seg.Batch > 1 { // who only opens its session has nothing to commit yet
		f.leader, f.leaderAt = "", l.env.Now()
		if seg.Writer != l.writer {
			f.leader = seg.address()
		}
	}
	for _, m := range f.lanes {
		if m == nil {
			continue
		}
		for i := range seg.Entries {
			if e := &seg.Entries[i]; e.Kind == Set && bytes.Equal(e.Key, m.key) {
				if n, ok := laneNumber(e.Value, m.lane); ok && n == m.number {
					m.seq = seg.Seq
				}
			}
		}
	}
}

// forwards reports whether an operation may go to a peer now.
func (l *Log) forwards(now time.Time) bool {
	f := &l.fw
	return l.o.Forward != nil && f.opened && f.leader != "" && f.leader != l.o.Address && now.Sub(f.leaderAt) <= leaderMemory && !now.Before(f.broken)
}

// forwardable reports whether a peer could perform the call.
func (c *call) forwardable() bool { return c.op.Intent != nil && !c.own }

// nextDue returns when the first message is due, or zero, and whether there is one that
// a peer has failed to commit. Log.mu is held.
func (f *forwarding) nextDue() (due time.Time, failed bool) {
	for _, m := range f.lanes {
		if m == nil || m.overdue {
			continue
		}
		failed = failed || m.answered && m.err != nil
		if due.IsZero() || m.due.Before(due) {
			due = m.due
		}
	}
	return due, failed
}

// nextSend chooses between sending what is queued to a peer and, with workNone,
// committing it. Log.mu is held.
func (l *Log) nextSend(now time.Time) (work, time.Duration) {
	if !l.forwards(now) {
		return workNone, 0
	}
	mine, theirs := false, false
	for _, c := range l.queue {
		if c.abandoned || c.settled {
			continue
		}
		theirs = theirs || c.forwardable()
		mine = mine || !c.forwardable()
	}
	pause := l.fw.notBefore.Sub(now)
	switch {
	case mine && (!theirs || pause > 0 || l.fw.freeLane() < 0):
		return workNone, 0 // all of it, then
	case l.fw.freeLane() < 0:
		return workSend, maxForwardWait // a lane will be free, or due, before that
	default:
		return workSend, pause
	}
}

// takeBack puts the operations of messages that are due, or that a peer does not
// commit, back into the queue.
//
// A message may be sent again as it is, to another peer if there is a new leader: it is
// good for one time only.
func (l *Log) takeBack(ctx context.Context) {
	now := l.env.Now()
	for _, m := range l.fw.lanes {
		if m == nil || m.overdue {
			continue
		}
		l.mu.Lock()
		failed := m.answered && m.err != nil
		refused := failed && errors.Is(m.err, ErrRefused)
		err := m.err
		l.mu.Unlock()
		switch {
		case !failed && now.Before(m.due):
			continue
		case refused && now.Before(m.due) && l.forwards(now) && l.fw.leader != m.address:
			l.post(ctx, m)
			continue
		}
		m.overdue = true
		result := forwardOverdue
		if refused {
			result = forwardRefused
		} else {
			l.fw.broken = now.Add(forwardPause)
			l.log.Debug("a peer did not commit in time what it was sent", "err", err)
		}
		l.m.forwards[result].Inc()
		for _, c := range m.calls {
			c.own = true
		}
		l.requeue(m.calls)
	}
}

// send forwards what is in the queue.
func (l *Log) send(ctx context.Context) {
	lane := l.fw.freeLane()
	key := LanesKey(l.writer)
	row, ok, err := l.state.Get(key)
	expected, known := laneNumber(row, lane)
	if err != nil || !ok || !known {
		l.fw.opened = false
		return
	}
	m := &forward{key: key, lane: lane, expected: expected}
	message := &forwardMessage{store: l.store, writer: l.writer, lane: uint8(lane), expected: expected}
	if m.number, err = l.freshNumber(expected); err != nil {
		_ = l.fail(err)
		return
	}
	message.number = m.number
	if l.takeForwardable(m, message); len(m.calls) == 0 {
		return
	}
	now := l.env.Now()
	m.due = now.Add(min(max(4*l.pace.commit, minForwardWait), maxForwardWait))
	l.fw.notBefore = now.Add(forwardGap)
	l.fw.lanes[lane] = m
	m.body = appendForward(nil, message)
	l.post(ctx, m)
}

// post sends a message to the leader.
func (l *Log) post(ctx context.Context, m *forward) {
	l.mu.Lock()
	m.answered, m.err = false, nil
	l.mu.Unlock()
	address := l.fw.leader
	m.address = address
	l.sending.Add(1)
	l.env.Spawn(func() {
		defer l.sending.Done()
		ctx, cancel := l.env.WithTimeout(ctx, maxForwardWait)
		defer cancel()
		seq, err := l.o.Forward(ctx, address, m.body)
		if err == nil {
			l.Hint(seq)
		}
		l.mu.Lock()
		m.answered, m.err = true, err
		l.wakeSequencer()
		l.mu.Unlock()
	})
}

// requestTurn asks the leader to leave us the slot after the one that b is sent to. Who
// commits for all knows each slot first and begins the next at once; what cannot be forwarded,
// such as the batch that opens a session, would lose to it for as long as it takes to be lucky.
// Nothing depends on the answer.
func (l *Log) requestTurn(ctx context.Context, b *batch) {
	f := &l.fw
	now := l.env.Now()
	known := l.o.Forward != nil && f.leader != "" && f.leader != l.o.Address && now.Sub(f.leaderAt) <= leaderMemory
	if !known || now.Before(f.broken) || f.requesting.Swap(true) {
		return
	}
	address := f.leader
	body := appendForward(nil, &forwardMessage{store: l.store, writer: l.writer, number: uint64(b.seq)})
	l.m.turnsWanted.Inc()
	l.sending.Add(1)
	l.env.Spawn(func() {
		defer l.sending.Done()
		defer f.requesting.Store(false)
		ctx, cancel := l.env.WithTimeout(ctx, maxForwardWait)
		defer cancel()
		_, _ = l.o.Forward(ctx, address, body)
	})
}

// takeForwardable moves what can be forwarded from the queue into m and its message.
// From here on it is in doubt.
func (l *Log) takeForwardable(m *forward, message *forwardMessage) {
	l.countArrivals()
	l.mu.Lock()
	defer l.mu.Unlock()
	size := 0
	rest := l.queue[:0]
	for _, c := range l.queue {
		switch {
		case c.abandoned || c.settled:
		case !c.forwardable() || len(m.calls) >= l.o.MaxBatch || size >= maxForwardBytes/2:
			rest = append(rest, c)
		default:
			intent, err := c.op.Intent()
			if err != nil || len(intent) > maxIntentBytes {
				c.own = true
				rest = append(rest, c)
				continue
			}
			size += len(intent)
			message.ops = append(message.ops, forwardOp{name: c.op.Name, about: c.op.About, by: c.op.By, intent: intent})
			m.calls = append(m.calls, c)
			c.sent, c.forward = true, m
		}
	}
	clear(l.queue[len(rest):])
	l.queue = rest
	l.m.queue.Set(float64(len(l.queue)))
}

// drop ends the doubt about a message.
func (l *Log) drop(m *forward) {
	if l.fw.lanes[m.lane] == m {
		l.fw.lanes[m.lane] = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range m.calls {
		if c.forward == m {
			c.forward, c.sent = nil, false
		}
	}
}

// settleForwards finds out from the state what became of messages.
func (l *Log) settleForwards() error {
	for _, m := range l.fw.lanes {
		if m == nil {
			continue
		}
		row, _, err := l.state.Get(m.key)
		if err != nil {
			return l.fail(fmt.Errorf("read the lanes of writer %v: %w", l.writer, err))
		}
		n, known := laneNumber(row, m.lane)
		switch {
		case known && n == m.number:
			seq := m.seq
			if seq == 0 {
				seq = l.seq // somewhere before
			}
			l.m.forwards[forwardCommitted].Inc()
			for _, c := range m.calls {
				c.verdict = nil
			}
			l.drop(m)
			l.answer(m.calls, seq, nil)
		case known && n == m.expected:
			// Not yet, or never.
		default:
			// The row is gone, or somebody with our id has used it.
			l.m.fenced.Inc()
			calls := m.calls
			l.answer(calls, 0, fmt.Errorf("operations forwarded over lane %d of writer %v: %w: %w", m.lane, l.writer, ErrUnknown, ErrFenced))
			l.drop(m)
			l.fw.opened = false
			l.cloned = true // go on under a new id
		}
	}
	return nil
}
