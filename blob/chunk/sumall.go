package chunk

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/celler/celler/internal/twosha"
)

// SumAll is [ProofKey.Sum] for neighbouring chunks of a NAR, and takes the state of
// SHA-256 over the NAR on over them. On processors that can both cost hardly more than
// one of them.
func (k *ProofKey) SumAll(chunks [][]byte, nar *SHAState) ([]ID, []Proof) {
	ids, proofs := make([]ID, len(chunks)), make([]Proof, len(chunks))
	if !twosha.Paired() {
		k.sumApart(chunks, nar, ids, proofs)
		return ids, proofs
	}
	for i, p := range chunks {
		ids[i], proofs[i] = k.sumPaired(p, nar)
	}
	return ids, proofs
}

// sumApart does it with one computation after the other.
func (k *ProofKey) sumApart(chunks [][]byte, nar *SHAState, ids []ID, proofs []Proof) {
	for i, p := range chunks {
		ids[i], proofs[i] = k.Sum(p)
	}
	nar.advance(chunks...)
}

// advance takes s on over p.
func (s *SHAState) advance(p ...[]byte) {
	h := s.Hash()
	for _, part := range p {
		h.Write(part)
	}
	next, err := SHAStateOf(h)
	if err != nil {
		panic("chunk: " + err.Error()) // h is one of ours
	}
	*s = next
}

// Write takes s on over p; it never fails.
func (s *SHAState) Write(p []byte) (int, error) {
	s.advance(p)
	return len(p), nil
}

// sumPaired advances the hash of a chunk and that of its NAR together, block by block.
// Their blocks do not lie at the same places: those of the chunk begin with it, those of
// the NAR where its tail ends.
func (k *ProofKey) sumPaired(p []byte, nar *SHAState) (ID, Proof) {
	const size = twosha.BlockSize
	length, tail := uint64(len(p)), nar.tailLen()
	words, own, idle := twosha.State(nar.words), twosha.Initial(), twosha.State{}
	if nar.length == 0 {
		words = twosha.Initial()
	}
	nar.length += length
	mine, theirs := p, p // what neither has taken yet
	switch {
	case tail > 0 && tail+len(p) < size: // no whole block of either
		copy(nar.tail[tail:], p)
		return k.finish(own, p, length)
	case tail > 0:
		var first [size]byte
		theirs = p[copy(first[copy(first[:], nar.tail[:tail]):], p):]
		if len(mine) >= size {
			twosha.Blocks(&words, &own, first[:], mine[:size])
			mine = mine[size:]
		} else {
			twosha.Blocks(&words, &idle, first[:], first[:])
		}
	}
	n := min(len(mine), len(theirs)) / size * size
	twosha.Blocks(&words, &own, theirs[:n], mine[:n])
	mine, theirs = mine[n:], theirs[n:]
	if len(theirs) >= size { // its tail made it one block more
		twosha.Blocks(&words, &idle, theirs[:size], theirs[:size])
		theirs = theirs[size:]
	}
	clear(nar.tail[copy(nar.tail[:], theirs):])
	if nar.length > 0 {
		nar.words = words
	}
	return k.finish(own, mine, length)
}

// finish ends the hash of a chunk of length bytes, of which all but rest are in own, in
// the two ways that give its id and its proof.
func (k *ProofKey) finish(own twosha.State, rest []byte, length uint64) (ID, Proof) {
	const size = twosha.BlockSize
	var ids, proofs [2 * size]byte
	n := copy(ids[:], rest)
	idBlocks := pad(&ids, n, length)
	n = copy(proofs[:], rest)
	proofs[n] = proofMark
	n += 1 + copy(proofs[n+1:], k[:])
	proofBlocks := pad(&proofs, n, length+1+uint64(len(k)))

	id, proof, idle := own, own, twosha.State{}
	twosha.Blocks(&id, &proof, ids[:idBlocks*size], proofs[:idBlocks*size]) // the proof has no fewer
	if proofBlocks > idBlocks {
		twosha.Blocks(&proof, &idle, proofs[size:], proofs[size:])
	}
	sum := proof.Sum()
	return ID(id.Sum()), Proof(sum[:len(Proof{})])
}

// pad puts the padding of SHA-256 behind the n last bytes of length, and returns how many
// blocks they are now.
func pad(last *[2 * sha256.BlockSize]byte, n int, length uint64) int {
	last[n] = 0x80
	blocks := 1
	if n+1+8 > sha256.BlockSize {
		blocks = 2
	}
	binary.BigEndian.PutUint64(last[blocks*sha256.BlockSize-8:], 8*length)
	return blocks
}
