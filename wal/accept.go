package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// forwardMagic begins a message. It is part of the wire format.
const forwardMagic = "CLF1"

// forwardMessage is what one replica asks another to commit for it. Numbers are
// big-endian.
//
//	offset  size
//	0       4     magic "CLF1"
//	4       16    store id
//	20      16    writer id of the sender
//	36      1     lane
//	37      8     number that the lane must have
//	45      8     number that it is to have
//	53      …     count (uvarint), then as many operations: name, about, by, intent,
//	              each its length (uvarint) and its bytes
//
// One without operations asks for a turn, and the second number is the slot that its sender
// is trying for: see Log.requestTurn. Earlier versions refuse it.
type forwardMessage struct {
	store            StoreID
	writer           WriterID
	lane             uint8
	expected, number uint64
	ops              []forwardOp
}

type forwardOp struct {
	name, about, by string
	intent          []byte
}

const forwardHeaderLen = 53

func appendForward(dst []byte, m *forwardMessage) []byte {
	dst = append(dst, forwardMagic...)
	dst = append(dst, m.store[:]...)
	dst = append(dst, m.writer[:]...)
	dst = append(dst, m.lane)
	dst = binary.BigEndian.AppendUint64(dst, m.expected)
	dst = binary.BigEndian.AppendUint64(dst, m.number)
	dst = binary.AppendUvarint(dst, uint64(len(m.ops)))
	for i := range m.ops {
		op := &m.ops[i]
		for _, s := range []string{op.name, op.about, op.by} {
			dst = binary.AppendUvarint(dst, uint64(len(s)))
			dst = append(dst, s...)
		}
		dst = binary.AppendUvarint(dst, uint64(len(op.intent)))
		dst = append(dst, op.intent...)
	}
	return dst
}

// decodeForward reads a whole message. What it returns refers to src.
func decodeForward(src []byte) (*forwardMessage, error) {
	if len(src) < forwardHeaderLen || string(src[:4]) != forwardMagic {
		return nil, corrupt(0, "magic", fmt.Sprintf("%q", forwardMagic), fmt.Sprintf("%.8q", src))
	}
	m := &forwardMessage{
		store: StoreID(src[4:20]), writer: WriterID(src[20:36]), lane: src[36],
		expected: binary.BigEndian.Uint64(src[37:]), number: binary.BigEndian.Uint64(src[45:]),
	}
	rest := src[forwardHeaderLen:]
	count, n := binary.Uvarint(rest)
	const minOp = 4 // four lengths
	if n <= 0 || count > uint64(len(rest)-n)/minOp {
		return nil, corrupt(forwardHeaderLen, "number of operations", fmt.Sprintf("at most %d", len(rest)/minOp), count)
	}
	rest = rest[n:]
	m.ops = make([]forwardOp, count)
	for i := range m.ops {
		var parts [4][]byte
		for j := range parts {
			var err error
			if parts[j], rest, err = decodeBytes(rest); err != nil {
				return nil, corrupt(len(src)-len(rest), "operation", "its length and bytes", err)
			}
		}
		m.ops[i] = forwardOp{name: string(parts[0]), about: string(parts[1]), by: string(parts[2]), intent: parts[3]}
	}
	if len(rest) != 0 {
		return nil, corrupt(len(src)-len(rest), "message", "its end", fmt.Sprintf("%d bytes more", len(rest)))
	}
	return m, nil
}

// Accept commits operations that a peer has sent in a message, all of them or none, and
// returns their slot. revive makes an operation of its name and its intent.
//
// ErrRefused means that nothing happened. What the error says is for the log: the peer
// finds out from the state what became of its message.
func (l *Log) Accept(ctx context.Context, message []byte, revive func(name string, intent []byte) (Op, error)) (Seq, error) {
	m, err := decodeForward(message)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if m.store != l.store {
		return 0, fmt.Errorf("%w: %w", ErrRefused, &ForeignError{Key: "message", Store: m.store, Own: l.store})
	}
	if len(m.ops) == 0 {
		l.leaveTurn(m.writer, Seq(m.number))
		return 0, ErrTurn
	}
	if len(m.ops) > maxPlainBytes/minEntryLen {
		return 0, fmt.Errorf("%w: it has %d operations", ErrRefused, len(m.ops))
	}
	g := &guest{log: l, message: m}
	cost := 0
	for i := range m.ops {
		from := &m.ops[i]
		op, err := revive(from.name, from.intent)
		if err != nil {
			return 0, fmt.Errorf("%w: operation %q: %w", ErrRefused, from.name, err)
		}
		op.Name, op.About, op.By = from.name, from.about, from.by
		g.ops = append(g.ops, &call{op: op})
		cost += op.Cost
	}
	c := &call{op: Op{Name: "forwarded", Cost: cost, Build: g.build}, own: true, guest: g, done: make(chan struct{})}
	if err := l.enqueue(c); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	seq, err := l.outcome(ctx, c)
	if err != nil && !errors.Is(err, ErrUnknown) {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return seq, err
}

// ErrTurn is what Accept returns for a message without operations. It is an ErrRefused.
var ErrTurn = fmt.Errorf("%w: it has none; the sender is left a turn", ErrRefused)

// turnSlack is by how many slots who asks for a turn may be behind us.
const turnSlack = 16

// leaveTurn has the sequencer leave a writer, which tries for slot seq, the time of a commit.
// A message that is late, or a copy of one, is for a slot that was decided long ago.
func (l *Log) leaveTurn(w WriterID, seq Seq) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq+turnSlack < l.applied || slices.Contains(l.wanted, w) || len(l.wanted) >= maxTurns {
		return
	}
	l.wanted = append(l.wanted, w)
	l.m.turnsLeft.Inc()
}

// guest is a message of a peer in our queue.
type guest struct {
	log     *Log
	message *forwardMessage
	ops     []*call
	checked bool // the lane was right once; only a mutant asks
}

// bounce looks at the peers that wait for our next batch. They are no competitors, and
// if another replica leads it reports that they should better turn to it: if everybody
// who once won went on committing for others, all would go on losing slots to each
// other. Log.mu is held.
func (l *Log) bounce(now time.Time) (any bool) {
	for _, c := range l.queue {
		if c.guest != nil {
			l.pace.relieve(c.guest.message.writer)
			any = true
		}
	}
	return any && l.forwards(now)
}

// sendBack refuses what peers have sent and what is in no batch.
func (l *Log) sendBack() {
	l.mu.Lock()
	var guests []*call
	l.queue = slices.DeleteFunc(l.queue, func(c *call) bool {
		if c.guest != nil {
			guests = append(guests, c)
		}
		return c.guest != nil
	})
	l.m.queue.Set(float64(len(l.queue)))
	l.mu.Unlock()
	l.answer(guests, 0, errNotLeader)
}

// errNotLeader tells a peer that it should send its message to the one that wins the
// slots now.
var errNotLeader = fmt.Errorf("%w: another replica wins the slots", ErrConflict)

var errMoved = errors.New("the lane has another number than the message says")

// build returns the entries of all operations, each given those before, and the change
// of the lane without which they must not be committed.
func (g *guest) build(view View) ([]Entry, error) {
	m := g.message
	key := LanesKey(m.writer)
	row, _, err := view.Get(key)
	if err != nil {
		return nil, err
	}
	mutants := g.log.o.Mutants
	skip := mutants.noLaneCheck() || g.checked && mutants.laneCheckedOnce()
	switch n, known := laneNumber(row, int(m.lane)); {
	case !known || len(row) > maxLanes*laneBytes:
		return nil, fmt.Errorf("lane %d of writer %v: there is none", m.lane, m.writer)
	case n == m.number && !skip:
		return nil, nil // it came twice
	case n != m.expected && !skip:
		return nil, errMoved
	}
	g.checked = true
	over := newOverlay(view)
	var all []Entry
	for _, c := range g.ops {
		entries, err := g.log.buildOne(c, over)
		if err != nil {
			return nil, fmt.Errorf("operation %q: %w", c.op.Name, err)
		}
		if len(entries) == 0 {
			return nil, fmt.Errorf("operation %q: there is nothing to do", c.op.Name)
		}
		over.apply(entries)
		all = append(all, entries...)
	}
	return append(all, Entry{Kind: Set, Key: key, Value: withLane(row, int(m.lane), m.number)}), nil
}
