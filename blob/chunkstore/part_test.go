package chunkstore_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

// TestOpenPart reads parts of a NAR, and not more of the bucket than they need.
func TestOpenPart(t *testing.T) {
	b, d := blobtest.Count(memblob.New()), newDirectory()
	s := mkStore(t, b, d, chunkstore.Options{PackBytes: 1 << 20})
	nar := text(7, 12_000_000)
	res := mustWrite(t, s, d, nar)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 60 {
		off := r.Int64N(int64(len(nar)))
		size := r.Int64N(min(int64(len(nar))-off, 300_000) + 1)
		if i == 0 {
			off, size = 0, int64(len(nar))
		}
		before := b.Bytes("get_range")
		rd, err := s.OpenPart(t.Context(), &res.Recipe, off, size)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rd)
		if err != nil || !bytes.Equal(got, nar[off:off+size]) {
			t.Fatalf("%d bytes from %d on: %d bytes, %v", size, off, len(got), err)
		}
		if most := int64(4 << 20); i > 0 && b.Bytes("get_range")-before > most {
			t.Errorf("%d bytes from %d on: %d bytes were fetched, want at most %d", size, off, b.Bytes("get_range")-before, most)
		}
		if at, err := rd.Seek(-min(size, 5), io.SeekEnd); err != nil || at != size-min(size, 5) {
			t.Errorf("seek to the end: %d, %v", at, err)
		}
		if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, nar[off+size-min(size, 5):off+size]) {
			t.Errorf("the last 5 bytes of %d from %d on: %d bytes, %v", size, off, len(got), err)
		}
		if err := rd.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range [][2]int64{{-1, 1}, {0, -1}, {1, int64(len(nar))}, {int64(len(nar)) + 1, 0}} {
		if _, err := s.OpenPart(t.Context(), &res.Recipe, bad[0], bad[1]); err == nil {
			t.Errorf("%d bytes from %d on: no error", bad[1], bad[0])
		}
	}
}
