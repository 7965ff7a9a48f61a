package nix

import (
	"errors"
	"fmt"
)

const nix32Alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

// nix32Digits maps a character to its digit, 0xff for those outside the
// alphabet. It is a constant string so that nobody can write to it.
const nix32Digits = "" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\x0a\x0b\x0c\x0d\xff\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\xff" +
	"\x17\x18\x19\x1a\xff\xff\x1b\x1c\x1d\x1e\x1f\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"

// nix32Len is the number of digits that n bytes need.
func nix32Len(n int) int { return (n*8 + 4) / 5 }

// AppendNix32 appends the nix32 spelling of src, in Nix's digit order: the
// first character holds the most significant bits of the last byte.
func AppendNix32(dst, src []byte) []byte {
	for n := nix32Len(len(src)) - 1; n >= 0; n-- {
		i, j := n*5/8, uint(n*5%8)
		digit := uint16(src[i]) >> j
		if i+1 < len(src) {
			digit |= uint16(src[i+1]) << (8 - j)
		}
		dst = append(dst, nix32Alphabet[digit&0x1f])
	}
	return dst
}

var errNix32Overflow = errors.New("nix32 digits beyond the last byte are not zero")

// decodeNix32 fills dst with the bytes that s spells. The length of s must be
// nix32Len(len(dst)).
func decodeNix32(dst []byte, s string) error {
	if len(s) != nix32Len(len(dst)) {
		return fmt.Errorf("expected %d nix32 characters, found %d", nix32Len(len(dst)), len(s))
	}
	clear(dst)
	for n := range len(s) {
		c := s[len(s)-1-n]
		digit := uint16(nix32Digits[c])
		if digit > 31 {
			return fmt.Errorf("character %q is not in the nix32 alphabet", c)
		}
		i, j := n*5/8, uint(n*5%8)
		dst[i] |= byte(digit << j)
		carry := byte(digit >> (8 - j))
		if i+1 < len(dst) {
			dst[i+1] |= carry
		} else if carry != 0 {
			return errNix32Overflow
		}
	}
	return nil
}
