package httpapi

import (
	"runtime"
	"testing"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
)

// TestJoinManyReceipts: to join takes as long as there are receipts, not as their square.
func TestJoinManyReceipts(t *testing.T) {
	const n = 20_000
	state := stateOf(t, []byte("a"))
	seg := chunkstore.Segment{From: state, To: state, Plain: 1, Encoder: 1, Runs: []chunk.Run{{Count: 1}}}
	rs := make([]receipt, n)
	for i := range rs {
		rs[i] = receiptOf(&seg, false)
	}
	began := time.Now()
	all, err := joinReceipts(rs)
	if err != nil || len(all.parts) != n || len(rs[0].parts) != 1 {
		t.Fatalf("joined %d parts of %d: %v", len(all.parts), n, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v to join %d receipts", took, n)
	}
}

// TestManyBadReceipts: the first that is none ends it, before there is room for the rest.
func TestManyBadReceipts(t *testing.T) {
	x := &exchange{s: &server{delta: newDelta([]byte("key"), chunkstore.Limits{}, Mutants{})}}
	sealed := make([][]byte, 1<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := x.openReceipts("the list", "ci", sealed); err == nil {
		t.Error("what is empty was taken for a receipt")
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Errorf("it took %d MiB", took>>20)
	}
}
