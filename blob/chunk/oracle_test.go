package chunk_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/jotfs/fastcdc-go"

	"github.com/celler/celler/blob/chunk"
)

// random returns n random bytes, the same on every machine.
func random(seed byte, n int) []byte {
	out := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(out)
	return out
}

// mixed returns bytes with long runs of zeros and repetitions in them.
func mixed(seed byte, n int) []byte {
	out := random(seed, n)
	for i := 0; i+9000 < n; i += 30_000 + int(out[i])*100 {
		clear(out[i : i+8000+int(out[i+8999])*4])
	}
	return out[:n]
}

func mustProfile(t testing.TB, name string) chunk.Profile {
	t.Helper()
	p, err := chunk.ParseProfile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// cuts returns the lengths of all chunks of b.
func cuts(p chunk.Profile, b []byte) []int {
	var all []int
	for len(b) > 0 {
		n := p.Cut(b[:min(len(b), p.Max)])
		all = append(all, n)
		b = b[n:]
	}
	return all
}

// The oracle writes its package's table even for seed 0, so it must not run in
// two goroutines: no t.Parallel in this package.
func oracle(t *testing.T, p chunk.Profile, b []byte) []int {
	t.Helper()
	c, err := fastcdc.NewChunker(bytes.NewReader(b), fastcdc.Options{
		MinSize: p.Min, AverageSize: p.Avg, MaxSize: p.Max, BufSize: 2 * p.Max,
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for {
		next, err := c.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, next.Length)
	}
}

func TestOracle(t *testing.T) {
	for _, name := range []string{"fast2016-1k", "fast2016-4k", "fast2016-16k", "fast2016-64k", "fast2016-256k"} {
		p := mustProfile(t, name)
		for _, n := range []int{1, p.Min - 1, p.Min, p.Min + 1, p.Avg, p.Avg + 1, p.Max, p.Max + 1, 3<<20 + 1} {
			for seed, data := range map[byte][]byte{1: random(1, n), 2: mixed(2, n), 3: make([]byte, n)} {
				got, want := cuts(p, data), oracle(t, p, data)
				if len(got) != len(want) {
					t.Fatalf("%s, %d bytes of kind %d: %d chunks, want %d", name, n, seed, len(got), len(want))
				}
				for i := range want {
					if got[i] != want[i] {
						t.Fatalf("%s, %d bytes of kind %d: chunk %d has %d bytes, want %d", name, n, seed, i, got[i], want[i])
					}
				}
			}
		}
	}
}
