package wal

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math/bits"
)

// Sum is a content sum: the sum, modulo 2^256, of the SHA-256 of each entry of a
// set of entries. It does not depend on their order, and what is taken away can be
// subtracted, so that whoever folds and merges can prove that nothing got lost.
type Sum [32]byte

// Add returns s + other.
func (s Sum) Add(other Sum) Sum {
	var out Sum
	var carry uint64
	for i := 24; i >= 0; i -= 8 {
		var word uint64
		word, carry = bits.Add64(binary.BigEndian.Uint64(s[i:]), binary.BigEndian.Uint64(other[i:]), carry)
		binary.BigEndian.PutUint64(out[i:], word)
	}
	return out
}

func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText writes 64 lower-case hexadecimal digits.
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (s *Sum) UnmarshalText(text []byte) error { return unhex("content sum", s[:], text) }

// Summer adds up entries. The zero Summer is ready; it is not safe for concurrent use.
type Summer struct {
	Total Sum
	h     hash.Hash
	buf   [32]byte
}

// Of returns the sum of one entry.
func (s *Summer) Of(kind Kind, key, value []byte) Sum {
	if s.h == nil {
		s.h = sha256.New()
	}
	s.h.Reset()
	head := append(s.buf[:0], byte(kind))
	head = binary.BigEndian.AppendUint32(head, uint32(len(key)))
	s.h.Write(head)
	s.h.Write(key)
	s.h.Write(value)
	return Sum(s.h.Sum(s.buf[:0]))
}

// Add adds one entry to Total.
func (s *Summer) Add(kind Kind, key, value []byte) {
	s.Total = s.Total.Add(s.Of(kind, key, value))
}
