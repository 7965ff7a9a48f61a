package keyspace

import (
	"encoding/binary"
	"math"
	"time"
)

// Day is a store day that is over. Store days count the time of a bucket for what
// lives as long as it is used: they are numbered, and how long each was is known only
// by when it ended, by the clock of the bucket.
type Day struct {
	Number uint32    // of the key
	Ended  time.Time // zero: it is over, but when it ended is not yet known
	Slot   uint64    // the slot that was written at Ended; 0 as long as that is not known
	Epoch  uint32    // the upload epoch in force when it ended
}

// AppendDayKey appends the key of a day.
func AppendDayKey(dst []byte, number uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, DayPrefix), number)
}

// AppendDay appends the value of a day.
func AppendDay(dst []byte, y *Day) []byte {
	dst = appendTime(append(dst, rowVersion), y.Ended)
	dst = binary.AppendUvarint(dst, y.Slot)
	return binary.AppendUvarint(dst, uint64(y.Epoch))
}

// DecodeDay decodes the row of one day.
func DecodeDay(key, value []byte) (Day, error) {
	rest, ok := cutPrefix(key, DayPrefix, 4)
	if !ok || binary.BigEndian.Uint32(rest) == 0 {
		return Day{}, keyError("day", key)
	}
	d := decoder[[]byte]{what: "day", src: value}
	d.version()
	y := Day{Number: binary.BigEndian.Uint32(rest), Ended: d.time()}
	y.Slot = d.upTo(math.MaxInt64, "slot")
	y.Epoch = d.uint32("upload epoch")
	if d.err == nil && y.Ended.IsZero() != (y.Slot == 0) {
		d.fail("slot %d and time %v are not both there", y.Slot, y.Ended)
	}
	if err := d.end(); err != nil {
		return Day{}, err
	}
	return y, nil
}
