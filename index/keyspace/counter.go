package keyspace

import (
	"encoding/binary"
	"math"
)

// Counter names a number of the state that only grows. A row that is not there
// counts as its first value, FirstCount.
type Counter string

// The counters.
const (
	// UploadEpoch fences uploads: a pack is named by the epoch in force when its
	// upload began, and may become part of the state only during that epoch and the
	// next. After two steps nothing of the old epoch can be committed any more.
	UploadEpoch Counter = "upload-epoch"
	// NextCacheID is the id that the next cache gets.
	NextCacheID Counter = "next-cache-id"
	// OpenDay is the number of the store day that is not over yet; see Day.
	OpenDay Counter = "day"
	// Ticks counts how often somebody asked the bucket for the time.
	Ticks Counter = "ticks"
	// Recounts counts how often somebody began to put counts right, and fences those
	// who began before.
	Recounts Counter = "recounts"
	// Counts is 2 once all paths are counted, and nobody may commit who does not count.
	Counts Counter = "counts"
)

// FirstCount is the value of a counter without a row.
const FirstCount = 1

// AppendCounterKey appends the key of a counter.
func AppendCounterKey(dst []byte, c Counter) []byte {
	return append(append(dst, CounterPrefix), c...)
}

// DecodeCounterKey returns the counter in a key.
func DecodeCounterKey(key []byte) (Counter, error) {
	rest, ok := cutPrefix(key, CounterPrefix, -1)
	if c := Counter(rest); ok && c.known() {
		return c, nil
	}
	return "", keyError("counter", key)
}

func (c Counter) known() bool {
	return c == UploadEpoch || c == NextCacheID || c == OpenDay || c == Ticks || c == Recounts || c == Counts
}

// AppendCount appends the value of a counter's row.
func AppendCount(dst []byte, n uint32) []byte {
	return binary.AppendUvarint(append(dst, rowVersion), uint64(n))
}

// DecodeCount decodes the row of one counter.
func DecodeCount(key, value []byte) (uint32, error) {
	if _, err := DecodeCounterKey(key); err != nil {
		return 0, err
	}
	d := decoder[[]byte]{what: "counter", src: value}
	d.version()
	n := uint32(d.upTo(math.MaxUint32, "count"))
	if d.err == nil && n < FirstCount {
		d.fail("count is %d, want at least %d", n, FirstCount)
	}
	if err := d.end(); err != nil {
		return 0, err
	}
	return n, nil
}
