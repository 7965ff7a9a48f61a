package chunk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/celler/celler/blob/chunk"
)

func TestProofIsFrozen(t *testing.T) {
	var key chunk.ProofKey
	for i := range key {
		key[i] = byte(i)
	}
	id, proof := key.Sum([]byte("a chunk"))
	if want := chunk.Sum([]byte("a chunk")); id != want {
		t.Errorf("id %v, want %v", id, want)
	}
	sum := sha256.Sum256(append([]byte("a chunk\x01"), key[:]...))
	if proof != chunk.Proof(sum[:8]) {
		t.Errorf("proof %x, want %x", proof, sum[:8])
	}
	if got, want := hex.EncodeToString(chunk.Ref{Name: id.Name(), Proof: proof}.Append(nil)), "abbe7862de7660b319ed8131e7e2a868"; got != want {
		t.Errorf("ref %s, want %s: proofs in indexes would not match any more", got, want)
	}
}

// TestProofsTell tries what somebody might who has something else than the chunk.
func TestProofsTell(t *testing.T) {
	key := chunk.ProofKey{1}
	p := bytes.Repeat([]byte("sixty-four bytes are one block of SHA-256, and these are as many"), 2)
	id, proof := key.Sum(p)
	for name, other := range map[string][]byte{
		"the id": id[:], "a beginning": p[:64], "an end": p[64:],
		"the chunk as it is padded": append(append(bytes.Clone(p), 0x80), make([]byte, 63)...),
	} {
		if _, got := key.Sum(other); got == proof {
			t.Errorf("%s has the proof of the chunk", name)
		}
	}
	if _, got := (&chunk.ProofKey{2}).Sum(p); got == proof {
		t.Error("another key makes the same proof")
	}
}

func TestRefCodec(t *testing.T) {
	want := chunk.Ref{Name: chunk.Name{1, 2, 3}, Proof: chunk.Proof{7: 9}}
	if got := chunk.RefAt(want.Append(nil)); got != want {
		t.Errorf("%x, want %x", got, want)
	}
}
