package nar_test

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/celler/celler/nix/nar"
	"github.com/celler/celler/nix/nixtest"
)

// mkMany makes the archive of 10,000 files of 4 KiB.
func mkMany(t testing.TB) (nixtest.Dir, []byte) {
	d := nixtest.Dir{}
	contents := bytes.Repeat([]byte("celler!\n"), 512)
	for i := range 100 {
		sub := nixtest.Dir{}
		for j := range 100 {
			sub[fmt.Sprintf("file-%03d", j)] = nixtest.File{Contents: contents}
		}
		d[fmt.Sprintf("dir-%03d", i)] = sub
	}
	return d, nixtest.MkNAR(t, d)
}

func TestAllocationBudget(t *testing.T) {
	_, b := mkMany(t)
	src := bytes.NewReader(b)
	r, v := nar.NewReader(src), nar.NewVerifier()
	entries := 0
	budget := func(what string, limit float64, fn func()) {
		t.Helper()
		if got := testing.AllocsPerRun(3, fn); got > limit {
			t.Errorf("%s: %v allocations for 10,101 entries, the budget is %v", what, got, limit)
		}
	}
	budget("reader", 4, func() {
		src.Reset(b)
		r.Reset(src)
		for entries = 0; ; entries++ {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	})
	if entries != 10_101 {
		t.Errorf("%d entries", entries)
	}
	budget("verifier", 4, func() {
		v.Reset()
		for rest := b; len(rest) > 0; {
			n := min(1000, len(rest))
			if _, err := v.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	})
	zeros := make([]byte, 4096)
	budget("writer", 12, func() {
		w := nar.NewWriter(io.Discard)
		_ = w.Directory("")
		for i := range 100 {
			name := names[i]
			_ = w.Directory(name)
			for j := range 100 {
				_ = w.Regular(names[j], false, 4096)
				_, _ = w.Write(zeros)
			}
			_ = w.EndDirectory()
		}
		_ = w.EndDirectory()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

var names = func() (s [100]string) {
	for i := range s {
		s[i] = fmt.Sprintf("name-%03d", i)
	}
	return s
}()

func BenchmarkReader(b *testing.B) {
	_, text := mkMany(b)
	src := bytes.NewReader(text)
	r := nar.NewReader(src)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(text)
		r.Reset(src)
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	}
}

func BenchmarkVerifier(b *testing.B) {
	_, text := mkMany(b)
	v := nar.NewVerifier()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		v.Reset()
		for rest := text; len(rest) > 0; {
			n := min(32<<10, len(rest))
			_, _ = v.Write(rest[:n])
			rest = rest[n:]
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListing(b *testing.B) {
	_, text := mkMany(b)
	b.SetBytes(int64(len(text)))
	var dst []byte
	for b.Loop() {
		var err error
		if dst, err = nar.AppendListing(dst[:0], bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDumpMany(b *testing.B) {
	d, text := mkMany(b)
	benchmarkDump(b, d, len(text))
}

func BenchmarkDumpTree(b *testing.B) {
	d := nixtest.MkTree(1, 64<<20)
	benchmarkDump(b, d, len(nixtest.MkNAR(b, d)))
}

func benchmarkDump(b *testing.B, root nixtest.Node, size int) {
	path := filepath.Join(b.TempDir(), "tree")
	nixtest.WriteTree(b, path, root)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if err := nar.Dump(b.Context(), io.Discard, path); err != nil {
			b.Fatal(err)
		}
	}
}
