package compact

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/celler/celler/wal"
)

// What a fold says it takes is what FlushBytes bounds, so it has to be near the truth for
// the rows that there are most of: those of chunks.
func TestFoldKnowsItsMemory(t *testing.T) {
	const rows, perSegment = 200_000, 1000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f := newFold(1, wal.Digest{})
	for i := 0; i < rows; {
		seg := &wal.Segment{Seq: f.last + 1}
		for range perSegment {
			key, value := make([]byte, 34), make([]byte, 24)
			binary.BigEndian.PutUint64(key[2:], uint64(i)*0x9e3779b97f4a7c15)
			seg.Entries = append(seg.Entries, wal.Entry{Kind: wal.Set, Key: key, Value: value})
			i++
		}
		f.add(seg, wal.Digest{}, Mutants{})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	// Sorting the keys takes 16 bytes each, and somewhat more while the slice grows.
	held += rows * 40
	if ratio := float64(f.bytes) / float64(held); ratio < 0.75 || ratio > 1.5 {
		t.Errorf("a fold of %d rows says %d bytes and holds %d", rows, f.bytes, held)
	}
	t.Logf("said %d, held %d, a row: %d", f.bytes, held, held/rows)
	runtime.KeepAlive(f)
}
