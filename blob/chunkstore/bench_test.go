package chunkstore_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

func mkBench(b *testing.B) (*chunkstore.Store, *directory, []byte, chunk.Recipe) {
	b.Helper()
	d := newDirectory()
	s := mkStore(b, memblob.New(), d, chunkstore.Options{Profile: mustProfile(b, chunk.DefaultProfile)})
	nar := text(1, 16<<20)
	res, err := s.Write(b.Context(), bytes.NewReader(nar))
	if err != nil {
		b.Fatal(err)
	}
	if err := d.CommitPacks(b.Context(), res.Packs); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(nar)))
	b.ReportAllocs()
	return s, d, nar, res.Recipe
}

func BenchmarkWriteNew(b *testing.B) {
	_, _, nar, _ := mkBench(b)
	for b.Loop() {
		d := newDirectory()
		s := mkStore(b, memblob.New(), d, chunkstore.Options{Profile: mustProfile(b, chunk.DefaultProfile)})
		if _, err := s.Write(b.Context(), bytes.NewReader(nar)); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

func BenchmarkWriteKnown(b *testing.B) {
	s, _, nar, _ := mkBench(b)
	for b.Loop() {
		if _, err := s.Write(b.Context(), bytes.NewReader(nar)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenWholeFrames(b *testing.B) {
	s, _, _, recipe := mkBench(b)
	for b.Loop() {
		rd, err := s.Open(b.Context(), &recipe)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rd); err != nil {
			b.Fatal(err)
		}
		rd.Close()
	}
}

func BenchmarkPlain(b *testing.B) {
	s, _, _, recipe := mkBench(b)
	for b.Loop() {
		rd, err := s.Plain(b.Context(), &recipe)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rd); err != nil {
			b.Fatal(err)
		}
		rd.Close()
	}
}
