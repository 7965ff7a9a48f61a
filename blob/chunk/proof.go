package chunk

import "crypto/sha256"

// Name is the beginning of an [ID]: enough to look a chunk up by, and to notice by
// mistake that it is another.
type Name [8]byte

// Proof shows that who sends it has, or once had, the bytes of a chunk. It is made with
// the [ProofKey] of the bucket.
type Proof [8]byte

// Ref stands for a chunk of which the sender claims to have the bytes.
type Ref struct {
	Name  Name
	Proof Proof
}

// RefBytes is the length of an encoded Ref.
const RefBytes = 16

// ProofKey makes proofs of chunks. It is no secret to those who may push, and stays the
// same for the life of a bucket.
type ProofKey [32]byte

// proofMark stands between a chunk and the key. It is not 0x80, with which SHA-256 pads:
// so the id of a chunk, which is the state after padding, leads to no proof of it.
const proofMark = 0x01

// Sum returns the id of the plain chunk p and its proof, SHA-256(p ‖ 0x01 ‖ key) cut to
// eight bytes, in one pass over p.
func (k *ProofKey) Sum(p []byte) (ID, Proof) {
	h := sha256.New()
	h.Write(p)
	var id ID
	h.Sum(id[:0])
	var tail [1 + len(k)]byte
	tail[0] = proofMark
	copy(tail[1:], k[:])
	h.Write(tail[:])
	var sum [sha256.Size]byte
	return id, Proof(h.Sum(sum[:0])[:len(Proof{})])
}

// Name returns the beginning of the ID.
func (id ID) Name() Name { return Name(id[:len(Name{})]) }

// Append appends the encoding of r, RefBytes bytes.
func (r Ref) Append(dst []byte) []byte {
	return append(append(dst, r.Name[:]...), r.Proof[:]...)
}

// RefAt decodes the first RefBytes bytes of src, which must be there.
func RefAt(src []byte) Ref {
	return Ref{Name: Name(src[:8]), Proof: Proof(src[8:RefBytes])}
}
