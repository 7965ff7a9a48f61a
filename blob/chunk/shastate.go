package chunk

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"fmt"
	"hash"
)

// SHAState is SHA-256 between two bytes of its input: what a prefix of a NAR has
// come to. States are compared with ==. The zero value is the beginning.
type SHAState struct {
	words  [8]uint32 // after the last whole block; zero at the beginning
	length uint64    // bytes so far
	tail   [sha256.BlockSize - 1]byte
}

// MaxSHAStateBytes is the length of the longest encoding of a SHAState.
const MaxSHAStateBytes = 1 + 32 + 9 + sha256.BlockSize - 1

const (
	stateBegin = 0x00
	stateLater = 0x01

	// The standard library's encoding of the state of crypto/sha256: this head, the
	// words, a block of which the first bytes are the tail, the length.
	shaHead  = "sha\x03"
	shaBytes = len(shaHead) + 32 + sha256.BlockSize + 8
)

// SHAStateOf returns the state of h, which must be from crypto/sha256.
func SHAStateOf(h hash.Hash) (SHAState, error) {
	m, ok := h.(encoding.BinaryAppender)
	if !ok {
		return SHAState{}, fmt.Errorf("take the state of a hash: %T has none", h)
	}
	var buf [shaBytes]byte
	b, err := m.AppendBinary(buf[:0])
	if err != nil {
		return SHAState{}, fmt.Errorf("take the state of a hash: %w", err)
	}
	if len(b) != shaBytes || string(b[:len(shaHead)]) != shaHead {
		return SHAState{}, fmt.Errorf("take the state of a hash: found %d bytes that begin with %q, want those of SHA-256", len(b), b[:min(len(b), 4)])
	}
	var s SHAState
	if s.length = binary.BigEndian.Uint64(b[shaBytes-8:]); s.length == 0 {
		return s, nil
	}
	b = b[len(shaHead):]
	for i := range s.words {
		s.words[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	copy(s.tail[:s.tailLen()], b[32:])
	return s, nil
}

// Hash returns a SHA-256 that goes on where s is.
func (s *SHAState) Hash() hash.Hash {
	h := sha256.New()
	if s.length == 0 {
		return h
	}
	b := make([]byte, 0, shaBytes)
	b = append(b, shaHead...)
	for _, w := range s.words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	b = append(b, s.tail[:]...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, s.length)
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(b); err != nil {
		panic(fmt.Sprintf("chunk: SHA-256 refuses a state: %v", err)) // all of them are some state
	}
	return h
}

// Sum returns the hash of everything up to s.
func (s *SHAState) Sum() [sha256.Size]byte { return [sha256.Size]byte(s.Hash().Sum(nil)) }

// Length returns how many bytes went in.
func (s *SHAState) Length() int64 { return int64(s.length) }

func (s *SHAState) tailLen() int { return int(s.length % sha256.BlockSize) }

// Append appends the encoding of s described in docs/protocol.md.
func (s *SHAState) Append(dst []byte) []byte {
	if s.length == 0 {
		return append(dst, stateBegin)
	}
	dst = append(dst, stateLater)
	for _, w := range s.words {
		dst = binary.BigEndian.AppendUint32(dst, w)
	}
	dst = binary.AppendUvarint(dst, s.length)
	return append(dst, s.tail[:s.tailLen()]...)
}

// DecodeSHAState decodes one state and returns the bytes after it. What it accepts,
// Append would have written.
func DecodeSHAState(src []byte) (SHAState, []byte, error) {
	d := decoder{what: "decode state of SHA-256", src: src}
	var s SHAState
	switch kind := d.byte(); {
	case d.err != nil || kind == stateBegin:
		return s, d.src, d.err
	case kind != stateLater:
		d.fail("kind is %#x, want 0 or 1", kind)
		return SHAState{}, nil, d.err
	}
	var words [32]byte
	d.bytes(words[:])
	for i := range s.words {
		s.words[i] = binary.BigEndian.Uint32(words[4*i:])
	}
	if s.length = uint64(d.length()); d.err == nil && s.length == 0 {
		d.fail("no bytes went into it, want some")
	}
	d.bytes(s.tail[:s.tailLen()])
	if d.err != nil {
		return SHAState{}, nil, d.err
	}
	return s, d.src, nil
}
