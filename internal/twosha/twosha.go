package twosha

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"fmt"
)

// BlockSize is what SHA-256 works on at a time.
const BlockSize = sha256.BlockSize

// State is SHA-256 between two blocks.
type State [8]uint32

// Initial returns the state before the first block.
func Initial() State {
	return State{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
}

// Sum returns the bytes of a state: the hash, if the last block had the padding.
func (s *State) Sum() (sum [sha256.Size]byte) {
	for i, w := range s {
		binary.BigEndian.PutUint32(sum[4*i:], w)
	}
	return sum
}

// Blocks advances a over the blocks of p and b over those of q. Both must be as many, and
// whole ones; a and b must not be the same.
func Blocks(a, b *State, p, q []byte) {
	if len(p) != len(q) || len(p)%BlockSize != 0 {
		panic(fmt.Sprintf("twosha: %d and %d bytes, want as many, in blocks of %d", len(p), len(q), BlockSize))
	}
	if len(p) == 0 {
		return
	}
	if !Paired() {
		alone(a, p)
		alone(b, q)
		return
	}
	blocks((*[8]uint32)(a), (*[8]uint32)(b), &p[0], &q[0], len(p)/BlockSize)
}

// alone advances s by the standard library, through its encoding of a state: this head,
// the words, a block of which nothing is used, and the length, which only padding needs.
func alone(s *State, p []byte) {
	const head = "sha\x03"
	b := append(make([]byte, 0, len(head)+32+BlockSize+8), head...)
	for _, w := range s {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	b = append(b, make([]byte, BlockSize+8)...)
	h := sha256.New()
	err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(b)
	if err == nil {
		h.Write(p)
		b, err = h.(encoding.BinaryAppender).AppendBinary(b[:0])
	}
	if err != nil {
		panic(fmt.Sprintf("twosha: SHA-256 refuses a state: %v", err)) // all of them are some state
	}
	for i := range s {
		s[i] = binary.BigEndian.Uint32(b[len(head)+4*i:])
	}
}
