package wal

import "time"

// Overlay is the view of a batch in the making.
type Overlay = overlay

// NewOverlay and Apply are what the sequencer does with it.
func NewOverlay(base View) *Overlay { return newOverlay(base) }

// Apply performs entries on the overlay.
func (o *overlay) Apply(entries []Entry) { o.apply(entries) }

// Pace decides when batches begin.
type Pace = pace

// SawForeign, Want, Relieve, Committed, Arrivals and HoldUntil are its methods.
func (p *pace) SawForeign(w WriterID, now time.Time)              { p.sawForeign(w, now) }
func (p *pace) Want(w WriterID)                                   { p.want(w) }
func (p *pace) Relieve(w WriterID)                                { p.relieve(w) }
func (p *pace) Committed(now time.Time, d time.Duration, ops int) { p.committed(now, d, ops) }
func (p *pace) Arrivals(now time.Time, n int) bool                { return p.arrivals(now, n) }
func (p *pace) HoldUntil(queued int, oldest time.Time) time.Time  { return p.holdUntil(queued, oldest) }

// LateAfter returns after how long a create is late if these were answered, or -1.
func LateAfter(share float64, took ...time.Duration) time.Duration {
	h := hedge{share: share}
	for _, d := range took {
		h.answered(d)
	}
	return h.late(time.Time{})
}

// TurnMessage asks for a turn.
func (l *Log) TurnMessage(w WriterID, seq Seq) []byte {
	return appendForward(nil, &forwardMessage{store: l.store, writer: w, number: uint64(seq)})
}

// AsksForTurn reports whether a message has no operations.
func AsksForTurn(message []byte) bool {
	m, err := decodeForward(message)
	return err == nil && len(m.ops) == 0
}

// TurnSlot returns the slot for which a message asks for a turn.
func TurnSlot(message []byte) Seq {
	m, err := decodeForward(message)
	if err != nil {
		return 0
	}
	return Seq(m.number)
}

// GoldenMessage is a message of one replica to another.
func GoldenMessage() []byte {
	return appendForward(nil, &forwardMessage{
		store: StoreID{1}, writer: WriterID{2}, lane: 3, expected: 4, number: 5,
		ops: []forwardOp{{"append", "ci", "a m", []byte("l x")}, {"a", "", "", nil}},
	})
}

// ReencodeMessage decodes a message and encodes it again.
func ReencodeMessage(src []byte) ([]byte, bool) {
	m, err := decodeForward(src)
	if err != nil {
		return nil, false
	}
	return appendForward(nil, m), true
}
