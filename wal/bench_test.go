package wal_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/celler/celler/blob/fileblob"
	"github.com/celler/celler/wal"
)

// BenchmarkCommit is one client that waits for each commit: the price of a slot
// without the bucket's.
func BenchmarkCommit(b *testing.B) {
	l, _ := mustOpen(b, mkBucket(b), wal.Options{})
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		mustCommit(b, l, set(fmt.Sprintf("key %d", n%1000), "value"))
	}
}

// BenchmarkCommitMany is 64 clients on a directory: what group commit makes of it.
func BenchmarkCommitMany(b *testing.B) {
	bucket, err := fileblob.Open(b.TempDir(), fileblob.Options{})
	if err != nil {
		b.Fatal(err)
	}
	mustFound(b, bucket)
	l, _ := mustOpen(b, bucket, wal.Options{})
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		n := 0
		for pb.Next() {
			n++
			mustCommit(b, l, set(fmt.Sprintf("key %d", n%1000), "value"))
		}
	})
	b.ReportMetric(float64(l.Seq())/float64(b.N), "slots/op")
}

// bigSegment is about what 130 pushes at once come to.
func bigSegment() *wal.Segment {
	s := goldenSegment()
	s.Entries = nil
	rand := mkRand(1)
	for i := range 4000 {
		var id [32]byte
		_, _ = rand.Read(id[:])
		s.Entries = append(s.Entries, wal.Entry{Kind: wal.Set, Key: append([]byte("c"), id[:]...), Value: bytes.Repeat([]byte{byte(i)}, 14)})
	}
	return s
}

func BenchmarkAppendSegment(b *testing.B) {
	s := bigSegment()
	object, err := wal.AppendSegment(nil, s)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(object)))
	b.ReportAllocs()
	for b.Loop() {
		if object, err = wal.AppendSegment(object[:0], s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeSegment(b *testing.B) {
	object, err := wal.AppendSegment(nil, bigSegment())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(object)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := wal.DecodeSegment(object); err != nil {
			b.Fatal(err)
		}
	}
}
