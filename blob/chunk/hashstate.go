package chunk

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
)

// HashState is SHA-256 in the middle of a stream. The zero value is its beginning. Two
// states are == if they are the same.
type HashState struct {
	words  [8]uint32 // after the last whole block
	length uint64    // bytes that went in; zero = the beginning, whatever the words
	tail   [sha256.BlockSize]byte
}

// maxHashed bounds what went in, so that lengths do not overflow.
const maxHashed = maxLength

// goMagic begins the state of crypto/sha256 as it is marshalled, which goes on with the
// eight words, a block and the length, big-endian.
const goMagic = "sha\x03"

// HashStateOf returns the state of h, which [sha256.New] or [HashState.Resume] made.
func HashStateOf(h hash.Hash) (HashState, error) {
	m, ok := h.(encoding.BinaryAppender)
	if !ok {
		return HashState{}, errors.New("save the state of SHA-256: this hash cannot")
	}
	b, err := m.AppendBinary(make([]byte, 0, 128))
	if err != nil {
		return HashState{}, fmt.Errorf("save the state of SHA-256: %w", err)
	}
	const size = len(goMagic) + 8*4 + sha256.BlockSize + 8
	if len(b) != size || string(b[:len(goMagic)]) != goMagic {
		return HashState{}, fmt.Errorf("save the state of SHA-256: %d bytes that begin with %q, want %d with %q", len(b), b[:min(4, len(b))], size, goMagic)
	}
	s := HashState{length: binary.BigEndian.Uint64(b[size-8:])}
	if s.length == 0 {
		return HashState{}, nil
	}
	b = b[len(goMagic):]
	for i := range s.words {
		s.words[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	copy(s.tail[:s.length%sha256.BlockSize], b[8*4:])
	return s, nil
}

// Resume returns a hash that goes on from the state.
func (s *HashState) Resume() (hash.Hash, error) {
	h := sha256.New()
	if s.length == 0 {
		return h, nil
	}
	u, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return nil, errors.New("resume SHA-256: this hash cannot")
	}
	b := append(make([]byte, 0, 128), goMagic...)
	for _, w := range s.words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	b = append(b, s.tail[:]...)
	b = binary.BigEndian.AppendUint64(b, s.length)
	if err := u.UnmarshalBinary(b); err != nil {
		return nil, fmt.Errorf("resume SHA-256: %w", err)
	}
	return h, nil
}

// Length returns how many bytes went in.
func (s *HashState) Length() int64 { return int64(s.length) }

// Append appends the encoding of s: a zero for the beginning; else a one, the eight words
// and the length as 32 and 64 big-endian bits, and the bytes that fill no block yet.
func (s *HashState) Append(dst []byte) []byte {
	if s.length == 0 {
		return append(dst, 0)
	}
	dst = append(dst, 1)
	for _, w := range s.words {
		dst = binary.BigEndian.AppendUint32(dst, w)
	}
	dst = binary.BigEndian.AppendUint64(dst, s.length)
	return append(dst, s.tail[:s.length%sha256.BlockSize]...)
}

// DecodeHashState decodes a state and returns the bytes after it. What it accepts,
// [HashState.Append] would have written.
func DecodeHashState(src []byte) (HashState, []byte, error) {
	const fixed = 1 + 8*4 + 8
	if len(src) > 0 && src[0] == 0 {
		return HashState{}, src[1:], nil
	}
	if len(src) < fixed || src[0] != 1 {
		return HashState{}, nil, fmt.Errorf("decode the state of SHA-256: %d bytes, want a 0, or a 1 and at least %d", len(src), fixed-1)
	}
	s := HashState{length: binary.BigEndian.Uint64(src[fixed-8:])}
	if s.length == 0 || s.length > maxHashed {
		return HashState{}, nil, fmt.Errorf("decode the state of SHA-256: it is said to have taken %d bytes, want 1 to %d", s.length, uint64(maxHashed))
	}
	for i := range s.words {
		s.words[i] = binary.BigEndian.Uint32(src[1+4*i:])
	}
	src = src[fixed:]
	n := int(s.length % sha256.BlockSize)
	if len(src) < n {
		return HashState{}, nil, fmt.Errorf("decode the state of SHA-256: %d bytes of a block, want %d", len(src), n)
	}
	copy(s.tail[:], src[:n])
	return s, src[n:], nil
}
