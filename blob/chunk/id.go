package chunk

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

// ID names a chunk: the SHA-256 of its plain bytes.
type ID [32]byte

// Sum returns the ID of the plain chunk p.
func Sum(p []byte) ID { return sha256.Sum256(p) }

// ParseID parses the 64 lower-case hexadecimal digits that [ID.String] prints.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("parse chunk id %q: want %d hexadecimal digits, found %d bytes", s, 2*len(id), len(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, fmt.Errorf("parse chunk id %q: want lower-case hexadecimal digits", s)
	}
	return id, nil
}

// String returns the ID as 64 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// AppendText appends the form of [ID.String]; it never fails.
func (id ID) AppendText(dst []byte) ([]byte, error) { return hex.AppendEncode(dst, id[:]), nil }

// PackID names a pack. Epoch is the upload epoch in force when the upload of the
// pack began, Rand is random: a name is used once and never again.
type PackID struct {
	Epoch uint32
	Rand  uint64
}

// ParsePackID parses the form that [PackID.String] prints.
func ParsePackID(s string) (PackID, error) {
	if len(s) != 8+1+16 || s[8] != '/' {
		return PackID{}, fmt.Errorf("parse pack id %q: want 8 and 16 hexadecimal digits around a slash", s)
	}
	epoch, err1 := strconv.ParseUint(s[:8], 16, 32)
	rnd, err2 := strconv.ParseUint(s[9:], 16, 64)
	id := PackID{Epoch: uint32(epoch), Rand: rnd}
	if err1 != nil || err2 != nil || id.String() != s {
		return PackID{}, fmt.Errorf("parse pack id %q: want lower-case hexadecimal digits", s)
	}
	return id, nil
}

// String returns "<epoch>/<rand>", 8 and 16 lower-case hexadecimal digits.
func (id PackID) String() string { return fmt.Sprintf("%08x/%016x", id.Epoch, id.Rand) }

// AppendText appends the form of [PackID.String]; it never fails.
func (id PackID) AppendText(dst []byte) ([]byte, error) {
	return fmt.Appendf(dst, "%08x/%016x", id.Epoch, id.Rand), nil
}

// Compare orders packs by epoch, then by random part: the order of their names.
func (id PackID) Compare(other PackID) int {
	return cmp.Or(cmp.Compare(id.Epoch, other.Epoch), cmp.Compare(id.Rand, other.Rand))
}

// Location says where a chunk lies: in which pack, and at which position among
// that pack's chunks.
type Location struct {
	Pack  PackID
	Index uint32
}
