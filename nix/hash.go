package nix

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// A HashAlgo is one of Nix's hash algorithms.
type HashAlgo uint8

// The algorithms Nix knows. The zero HashAlgo is none of them.
const (
	MD5 HashAlgo = iota + 1
	SHA1
	SHA256
	SHA512
)

// ParseHashAlgo reads "md5", "sha1", "sha256" or "sha512".
func ParseHashAlgo(s string) (HashAlgo, error) {
	switch s {
	case "md5":
		return MD5, nil
	case "sha1":
		return SHA1, nil
	case "sha256":
		return SHA256, nil
	case "sha512":
		return SHA512, nil
	}
	return 0, fmt.Errorf("unknown hash algorithm %s", quote(s))
}

func (a HashAlgo) String() string {
	switch a {
	case MD5:
		return "md5"
	case SHA1:
		return "sha1"
	case SHA256:
		return "sha256"
	case SHA512:
		return "sha512"
	}
	return "none"
}

// Size is the length of the sum in bytes; 0 for an unknown algorithm.
func (a HashAlgo) Size() int {
	switch a {
	case MD5:
		return 16
	case SHA1:
		return 20
	case SHA256:
		return 32
	case SHA512:
		return 64
	}
	return 0
}

// A Hash is a sum together with its algorithm. The zero Hash means "not known".
type Hash struct {
	Algo HashAlgo
	sum  [64]byte // the first Algo.Size() bytes count, the others are zero
}

// NewHash makes a Hash of a computed sum.
func NewHash(algo HashAlgo, sum []byte) (Hash, error) {
	h := Hash{Algo: algo}
	if algo.Size() == 0 || len(sum) != algo.Size() {
		return Hash{}, fmt.Errorf("%v hash: expected %d bytes, found %d", algo, algo.Size(), len(sum))
	}
	copy(h.sum[:], sum)
	return h, nil
}

// SHA256Hash makes a Hash of a SHA-256 sum.
func SHA256Hash(sum [32]byte) Hash {
	h := Hash{Algo: SHA256}
	copy(h.sum[:], sum[:])
	return h
}

// ParseHash reads a hash that names its algorithm: "algo:" followed by hex (of
// either case), nix32 or base64, told apart by length as Nix does; or the SRI
// form "algo-" followed by base64.
func ParseHash(s string) (Hash, error) {
	i := strings.IndexAny(s, ":-")
	if i < 0 {
		return Hash{}, fmt.Errorf(`hash %s: expected "<algorithm>:<sum>" or "<algorithm>-<base64>"`, quote(s))
	}
	algo, err := ParseHashAlgo(s[:i])
	if err != nil {
		return Hash{}, fmt.Errorf("hash %s: %w", quote(s), err)
	}
	h := Hash{Algo: algo}
	if s[i] == '-' {
		err = decodeBase64(h.sum[:algo.Size()], s[i+1:])
	} else {
		err = h.decode(s[i+1:])
	}
	if err != nil {
		return Hash{}, fmt.Errorf("hash %s: %w", quote(s), err)
	}
	return h, nil
}

// ParseHashAs reads a bare sum of a known algorithm in hex, nix32 or base64, or
// any spelling ParseHash accepts if it names that algorithm.
func ParseHashAs(algo HashAlgo, s string) (Hash, error) {
	if strings.ContainsAny(s, ":-") {
		h, err := ParseHash(s)
		if err == nil && h.Algo != algo {
			return Hash{}, fmt.Errorf("hash %s: expected algorithm %v", quote(s), algo)
		}
		return h, err
	}
	h := Hash{Algo: algo}
	if err := h.decode(s); err != nil {
		return Hash{}, fmt.Errorf("%v hash %s: %w", algo, quote(s), err)
	}
	return h, nil
}

func (h *Hash) decode(s string) error {
	size := h.Algo.Size()
	switch {
	case size == 0:
		return errors.New("no algorithm")
	case len(s) == hex.EncodedLen(size):
		return decodeHex(h.sum[:size], s)
	case len(s) == nix32Len(size):
		return decodeNix32(h.sum[:size], s)
	case len(s) == base64.StdEncoding.EncodedLen(size):
		return decodeBase64(h.sum[:size], s)
	}
	return fmt.Errorf("%d characters are no spelling of a %v sum: expected %d (hex), %d (nix32) or %d (base64)",
		len(s), h.Algo, hex.EncodedLen(size), nix32Len(size), base64.StdEncoding.EncodedLen(size))
}

// decodeHex accepts upper case too: Attic's server prints it, Nix reads it.
func decodeHex(dst []byte, s string) error {
	for i := range dst {
		hi, lo := hexDigit(s[2*i]), hexDigit(s[2*i+1])
		if hi|lo > 15 {
			return fmt.Errorf("%q is not a hexadecimal byte", s[2*i:2*i+2])
		}
		dst[i] = hi<<4 | lo
	}
	return nil
}

func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// decodeBase64 accepts the sum with or without padding: Nix does so in SRI
// hashes. Stray bits and line breaks, which the standard decoder lets pass, are
// refused.
func decodeBase64(dst []byte, s string) error {
	raw := s
	if len(s) == base64.StdEncoding.EncodedLen(len(dst)) {
		raw = strings.TrimRight(s, "=")
	}
	if want := base64.RawStdEncoding.EncodedLen(len(dst)); len(raw) != want {
		return fmt.Errorf("expected %d characters of base64, found %d", base64.StdEncoding.EncodedLen(len(dst)), len(s))
	}
	if strings.ContainsAny(raw, "\r\n") {
		return errors.New("line break in base64")
	}
	var buf [66]byte // DecodedLen of the longest sum, rounded up to whole quanta
	n, err := base64.RawStdEncoding.Strict().Decode(buf[:], []byte(raw))
	if err != nil {
		return fmt.Errorf("decode base64: %w", err)
	}
	if n != len(dst) {
		return fmt.Errorf("expected %d bytes in base64, found %d", len(dst), n)
	}
	copy(dst, buf[:n])
	return nil
}

// IsZero reports whether h is the zero value: no hash is known.
func (h Hash) IsZero() bool { return h.Algo == 0 }

// Sum is a copy of the bytes of the sum.
func (h Hash) Sum() []byte { return append([]byte(nil), h.sum[:h.Algo.Size()]...) }

// Sum256 is the sum of a SHA-256 hash; false for any other algorithm.
func (h Hash) Sum256() ([32]byte, bool) {
	return [32]byte(h.sum[:32]), h.Algo == SHA256
}

// Hex is "algo:<hex>" in lower case.
func (h Hash) Hex() string {
	return h.text(func(dst []byte) []byte {
		return hex.AppendEncode(append(dst, ':'), h.sum[:h.Algo.Size()])
	})
}

// Nix32 is "algo:<nix32>", the spelling of narinfos and fingerprints.
func (h Hash) Nix32() string { return string(h.appendNix32(make([]byte, 0, 128))) }

// Base64 is "algo:<base64>".
func (h Hash) Base64() string {
	return h.text(func(dst []byte) []byte {
		return base64.StdEncoding.AppendEncode(append(dst, ':'), h.sum[:h.Algo.Size()])
	})
}

// SRI is "algo-<base64>".
func (h Hash) SRI() string {
	return h.text(func(dst []byte) []byte {
		return base64.StdEncoding.AppendEncode(append(dst, '-'), h.sum[:h.Algo.Size()])
	})
}

func (h Hash) text(sum func([]byte) []byte) string {
	if h.IsZero() {
		return ""
	}
	return string(sum(append(make([]byte, 0, 160), h.Algo.String()...)))
}

// String is Nix32; empty for the zero Hash.
func (h Hash) String() string { return h.Nix32() }

// AppendText appends the Nix32 spelling. It never fails.
func (h Hash) AppendText(dst []byte) ([]byte, error) { return h.appendNix32(dst), nil }

func (h Hash) appendNix32(dst []byte) []byte {
	if h.IsZero() {
		return dst
	}
	dst = append(dst, h.Algo.String()...)
	dst = append(dst, ':')
	return AppendNix32(dst, h.sum[:h.Algo.Size()])
}

// MarshalText is AppendText to a new slice.
func (h Hash) MarshalText() ([]byte, error) { return h.AppendText(nil) }

// UnmarshalText is ParseHash; an empty text is the zero Hash.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*h = Hash{}
		return nil
	}
	v, err := ParseHash(string(text))
	if err != nil {
		return err
	}
	*h = v
	return nil
}
