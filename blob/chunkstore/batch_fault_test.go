package chunkstore_test

import (
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

// TestBatchOfTinyFrames: what a batch keeps in memory is about what was sent, however many
// frames that is, whether they wait for the end of their segment or not.
func TestBatchOfTinyFrames(t *testing.T) {
	const frames = 4000
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	for _, waits := range []bool{false, true} {
		s := mkStore(t, memblob.New(), newDirectory(), chunkstore.Options{ProofKey: testKey})
		b, err := s.Batch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Begin(chunk.SHAState{}, nil); err != nil {
			t.Fatal(err)
		}
		if waits {
			if err := b.Known(nil); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		runtime.GC() // and the pool is empty
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range frames {
			data := []byte{byte(i), byte(i >> 8)}
			id, _ := testKey.Sum(data)
			if err := b.Frame(t.Context(), []chunk.Name{id.Name()}, []uint32{2}, enc.EncodeAll(data, nil)); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if took := int64(after.HeapAlloc) - int64(before.HeapAlloc); took > 32<<20 {
			t.Errorf("waiting %v: %d frames of 2 bytes take %d MiB, want at most 32", waits, frames, took>>20)
		}
		if err := b.End(t.Context()); err != nil {
			t.Fatal(err)
		}
		if segs, err := b.Settle(t.Context()); err != nil || segs[0].Plain != 2*frames {
			t.Errorf("settled %+v: %v", segs, err)
		}
	}
}
