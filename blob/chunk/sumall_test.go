package chunk

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

// checkSums compares all ways to hash chunks of a NAR, which begin after before bytes.
func checkSums(t *testing.T, before []byte, chunks [][]byte) {
	t.Helper()
	key := ProofKey{3, 1, 4}
	h := sha256.New()
	h.Write(before)
	from, err := SHAStateOf(h)
	if err != nil {
		t.Fatal(err)
	}
	paired, apart, all := from, from, from
	ids, proofs := make([]ID, len(chunks)), make([]Proof, len(chunks))
	key.sumApart(chunks, &apart, ids, proofs)
	allIDs, allProofs := key.SumAll(chunks, &all)
	for i, p := range chunks {
		h.Write(p)
		want, wantProof := key.Sum(p)
		if id, proof := key.sumPaired(p, &paired); id != want || proof != wantProof {
			t.Errorf("chunk %d of %d bytes after %d: paired %v %x, want %v %x", i, len(p), paired.length, id, proof, want, wantProof)
		}
		if ids[i] != want || proofs[i] != wantProof || allIDs[i] != want || allProofs[i] != wantProof {
			t.Errorf("chunk %d of %d bytes: %v %x apart, %v %x, want %v %x", i, len(p), ids[i], proofs[i], allIDs[i], allProofs[i], want, wantProof)
		}
		state, err := SHAStateOf(h)
		if err != nil {
			t.Fatal(err)
		}
		if paired != state {
			t.Fatalf("after chunk %d of %d bytes: %+v, want %+v", i, len(p), paired, state)
		}
	}
	if apart != paired || all != paired {
		t.Errorf("%+v apart, %+v, want %+v", apart, all, paired)
	}
}

// TestSumAllAgreesWithSum for every length of a chunk after every tail of a NAR.
func TestSumAllAgreesWithSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 70_000)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for before := range 130 {
		for _, n := range []int{0, 1, 21, 22, 23, 30, 31, 54, 55, 56, 62, 63, 64, 65, 118, 119, 120, 127, 128, 129, 200, 4096} {
			checkSums(t, data[:before], [][]byte{data[1000 : 1000+n]})
		}
	}
	for range 50 {
		var chunks [][]byte
		for range 1 + rng.IntN(6) {
			from := rng.IntN(10_000)
			chunks = append(chunks, data[from:from+rng.IntN(200)*rng.IntN(300)])
		}
		checkSums(t, data[:rng.IntN(1000)], chunks)
	}
}

func FuzzSumAll(f *testing.F) {
	f.Add([]byte("before"), []byte("a chunk, and another"), 7)
	f.Add([]byte{}, bytes.Repeat([]byte{1}, 200), 64)
	f.Fuzz(func(t *testing.T, before, data []byte, cut int) {
		cut = min(max(cut, 0), len(data))
		checkSums(t, before, [][]byte{data[:cut], data[cut:]})
	})
}

func BenchmarkSumAll(b *testing.B) {
	key := ProofKey{1}
	data := make([]byte, 512<<10)
	var chunks [][]byte
	for p := data; len(p) > 0; p = p[16<<10:] {
		chunks = append(chunks, p[:16<<10])
	}
	b.Run("all", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		var nar SHAState
		for b.Loop() {
			key.SumAll(chunks, &nar)
		}
	})
	b.Run("apart", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		var nar SHAState
		ids, proofs := make([]ID, len(chunks)), make([]Proof, len(chunks))
		for b.Loop() {
			key.sumApart(chunks, &nar, ids, proofs)
		}
	})
}
