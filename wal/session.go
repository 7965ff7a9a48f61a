package wal

// SessionBytes is the length of a session row's value.
const SessionBytes = 3 * 8

// AppendSession appends the value of the row that remembers the writer of seg: its
// batch, the slot, and the time in unix milliseconds. Slot and time are for the day
// when silent sessions are dropped.
func AppendSession(dst []byte, seg *Segment) []byte {
	dst = AppendUint64(dst, seg.Batch)
	dst = AppendUint64(dst, uint64(seg.Seq))
	return AppendUint64(dst, uint64(seg.Time.UnixMilli()))
}
