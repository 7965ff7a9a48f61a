package httpapi

import (
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
