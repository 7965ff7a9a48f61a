package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// laneCount is how much can be on its way to a peer at once. Each lane waits for its
	// answer, so it is the time of a commit divided by forwardGap, and some more.
	laneCount = 32
	laneBytes = 8
	// maxLanes bounds what is believed of a row.
	maxLanes = 256
)

// lanesPrefix begins the keys of the rows that keep the numbers of lanes. They are
// ordinary rows, which a State needs to know nothing of.
const lanesPrefix = "~lanes/"

// LanesKey returns the key of the row that keeps the numbers of the lanes of w. It may
// be deleted together with its session, and must not be otherwise.
func LanesKey(w WriterID) []byte { return append([]byte(lanesPrefix), w.String()...) }

// laneNumber returns the number of a lane.
func laneNumber(row []byte, lane int) (uint64, bool) {
	if len(row)%laneBytes != 0 || lane < 0 || lane >= len(row)/laneBytes {
		return 0, false
	}
	return binary.BigEndian.Uint64(row[lane*laneBytes:]), true
}

// withLane returns a copy of row in which a lane has another number.
func withLane(row []byte, lane int, number uint64) []byte {
	out := bytes.Clone(row)
	binary.BigEndian.PutUint64(out[lane*laneBytes:], number)
	return out
}

// freeLane returns a lane that nothing is under way on, or -1.
func (f *forwarding) freeLane() int {
	for i, m := range f.lanes {
		if m == nil {
			return i
		}
	}
	return -1
}

// openLanes returns the entries that the first batch of a writer has: lanes on which
// nothing was ever sent.
func (l *Log) openLanes() []Entry {
	if l.o.Forward == nil {
		return nil
	}
	return []Entry{{Kind: Set, Key: LanesKey(l.writer), Value: make([]byte, laneCount*laneBytes)}}
}

// freshNumber returns a number that no lane has had.
func (l *Log) freshNumber(old uint64) (uint64, error) {
	for {
		var b [laneBytes]byte
		if _, err := io.ReadFull(l.env.Rand, b[:]); err != nil {
			return 0, fmt.Errorf("draw a number: %w", err)
		}
		if n := binary.BigEndian.Uint64(b[:]); n != 0 && n != old {
			return n, nil
		}
	}
}

// voids returns the entries by which the next batch makes all messages void whose
// operations were taken back.
func (l *Log) voids(view View) (entries []Entry, voided []*forward, err error) {
	rows := make(map[string][]byte)
	for _, m := range l.fw.lanes {
		if m == nil || !m.overdue || l.o.Mutants.noLaneVoid() {
			continue
		}
		row, ok := rows[string(m.key)]
		if !ok {
			if row, _, err = view.Get(m.key); err != nil {
				return nil, nil, err
			}
		}
		if n, ok := laneNumber(row, m.lane); !ok || n != m.expected {
			continue // settleForwards has the last word
		}
		number, err := l.freshNumber(m.number)
		if err != nil {
			return nil, nil, err
		}
		rows[string(m.key)] = withLane(row, m.lane, number)
		voided = append(voided, m)
	}
	for _, m := range voided { // in the order of lanes, each row once
		if row, ok := rows[string(m.key)]; ok {
			entries = append(entries, Entry{Kind: Set, Key: m.key, Value: row})
			delete(rows, string(m.key))
		}
	}
	return entries, voided, nil
}
