package twosha

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// padded returns p with the padding of SHA-256.
func padded(p []byte) []byte {
	out := append(append([]byte(nil), p...), 0x80)
	for len(out)%BlockSize != BlockSize-8 {
		out = append(out, 0)
	}
	return binary.BigEndian.AppendUint64(out, 8*uint64(len(p)))
}

func noise(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

// check feeds p to one and q to the other and compares both with the standard library. The
// parts of both, after the first cut blocks, go in two calls.
func check(t *testing.T, p, q []byte, cut int) {
	t.Helper()
	pp, qq := padded(p), padded(q)
	for len(pp) < len(qq) { // more whole blocks, so that both are as long
		p = append(p[:len(p):len(p)], make([]byte, BlockSize)...)
		pp = padded(p)
	}
	for len(qq) < len(pp) {
		q = append(q[:len(q):len(q)], make([]byte, BlockSize)...)
		qq = padded(q)
	}
	cut = min(cut*BlockSize, len(pp))
	a, b := Initial(), Initial()
	Blocks(&a, &b, pp[:cut], qq[:cut])
	Blocks(&a, &b, pp[cut:], qq[cut:])
	if got, want := a.Sum(), sha256.Sum256(p); got != want {
		t.Errorf("the first of %d bytes: %x, want %x", len(p), got, want)
	}
	if got, want := b.Sum(), sha256.Sum256(q); got != want {
		t.Errorf("the second of %d bytes: %x, want %x", len(q), got, want)
	}
	a, b = Initial(), Initial()
	alone(&a, pp[:cut])
	alone(&a, pp[cut:])
	if got, want := a.Sum(), sha256.Sum256(p); got != want {
		t.Errorf("alone, %d bytes: %x, want %x", len(p), got, want)
	}
}

// TestBlocksAgreesWithStandardLibrary at every length and position in memory.
func TestBlocksAgreesWithStandardLibrary(t *testing.T) {
	data := noise(7, 4096)
	for n := range 300 {
		check(t, data[n%17:n%17+n], data[500+n%13:500+n%13+n], n%3)
	}
	check(t, data, data[1:], 20)
}

// TestBlocksOfUnlikeLength: it is told what it cannot do.
func TestBlocksOfUnlikeLength(t *testing.T) {
	for _, n := range [][2]int{{64, 128}, {128, 64}, {63, 63}, {0, 64}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v bytes were taken", n)
				}
			}()
			a, b := Initial(), Initial()
			Blocks(&a, &b, make([]byte, n[0]), make([]byte, n[1]))
		}()
	}
}

func FuzzBlocks(f *testing.F) {
	f.Add([]byte("abc"), []byte("another"), uint8(0))
	f.Add(noise(1, 1000), noise(2, 64), uint8(5))
	f.Fuzz(func(t *testing.T, p, q []byte, cut uint8) { check(t, p, q, int(cut)) })
}

// BenchmarkTwo is what two hashes of 16 KiB each take, both at a time and one after the
// other.
func BenchmarkTwo(b *testing.B) {
	const n = 16 << 10
	p, q := noise(1, n), noise(2, n)
	b.Run("paired", func(b *testing.B) {
		b.SetBytes(n)
		x, y := Initial(), Initial()
		for b.Loop() {
			Blocks(&x, &y, p, q)
		}
	})
	b.Run("crypto", func(b *testing.B) {
		b.SetBytes(n)
		x, y := sha256.New(), sha256.New()
		for b.Loop() {
			x.Write(p)
			y.Write(q)
		}
	})
}
