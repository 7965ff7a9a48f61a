package keyspace

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/celler/celler/nix"
)

const (
	// MaxSideName is the longest name of a side object.
	MaxSideName = 512
	// MaxSideInline is the longest text that is kept in the row, in compressed bytes. A
	// longer one is stored as chunks, like a NAR.
	MaxSideInline = 4 << 10
)

// SideKind says what a side object is: each has a folder of its own below the URL of a
// cache. The numbers are durable.
type SideKind uint8

// The kinds of side objects.
const (
	SideLog         SideKind = 1 // log/<base name of the derivation>
	SideDebugInfo   SideKind = 2 // debuginfo/<build id>
	SideRealisation SideKind = 3 // realisations/<derivation hash>!<output>.doi
	SideBuildTrace  SideKind = 4 // build-trace-v2/<base name of the derivation>/<output>.doi
)

// OwnerKind says in which way a side object belongs to a path.
type OwnerKind uint8

// The ways.
const (
	OwnerNone   OwnerKind = 0 // not known, or, for a log, that of its derivation
	OwnerPath   OwnerKind = 1 // Owner is the hash part of the path, and 12 zeros
	OwnerUpload OwnerKind = 2 // Owner is the file hash of the upload that made the path
)

// Side is a text that a cache keeps beside its paths: a build log, where to find debug
// symbols, what a derivation came to.
type Side struct {
	Cache     CacheID  // of the key
	Kind      SideKind // of the key
	Name      string   // of the key
	Day       uint32   // store day on which it came, or last came again
	OwnerKind OwnerKind
	Owner     [32]byte
	Size      int64 // of the plain text

	// Either of the two:
	Zstd    []byte // the text, compressed; at most MaxSideInline
	Stored  bool   // or it is stored as chunks, by the recipe of
	TextSum [32]byte
	Served  int64 // stored: length of what the recipe would serve
}

// PathOwner is the Owner of what belongs to a path.
func PathOwner(hashPart nix.HashPart) (owner [32]byte) {
	copy(owner[:], hashPart[:])
	return owner
}

// Valid reports what is wrong with the row, if anything.
func (s *Side) Valid() error {
	switch {
	case s.Kind < SideLog || s.Kind > SideBuildTrace:
		return fmt.Errorf("side object is of kind %d, want %d to %d", s.Kind, SideLog, SideBuildTrace)
	case s.Name == "" || len(s.Name) > MaxSideName:
		return fmt.Errorf("name of a side object has %d bytes, want 1 to %d", len(s.Name), MaxSideName)
	case s.OwnerKind > OwnerUpload:
		return fmt.Errorf("owner is of kind %d, want at most %d", s.OwnerKind, OwnerUpload)
	case s.OwnerKind == OwnerNone && s.Owner != [32]byte{}:
		return errors.New("there is an owner of no kind")
	case s.OwnerKind == OwnerPath && [12]byte(s.Owner[20:]) != [12]byte{}:
		return errors.New("the hash part of the owner is longer than 20 bytes")
	case uint64(s.Size) > maxSize || uint64(s.Served) > maxSize:
		return fmt.Errorf("size %d or served size %d is outside 0..%d", s.Size, s.Served, int64(maxSize))
	case len(s.Zstd) > MaxSideInline:
		return fmt.Errorf("compressed text has %d bytes, want at most %d", len(s.Zstd), MaxSideInline)
	case s.Stored && len(s.Zstd) > 0, !s.Stored && (s.TextSum != [32]byte{} || s.Served != 0):
		return errors.New("the text is both in the row and elsewhere")
	}
	return validText("name of a side object", s.Name)
}

// AppendSidePrefix appends what the keys of all side objects of a cache begin with.
func AppendSidePrefix(dst []byte, cache CacheID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, SidePrefix), uint32(cache))
}

// AppendSideKey appends the key of a side object.
func AppendSideKey(dst []byte, cache CacheID, kind SideKind, name string) []byte {
	dst = append(append(AppendSidePrefix(dst, cache), byte(kind)), name...)
	return append(dst, 0)
}

const flagStored = 1 << 0

// AppendSide appends the value of s, which must be valid.
func AppendSide(dst []byte, s *Side) []byte {
	dst = binary.AppendUvarint(append(dst, rowVersion), uint64(s.Day))
	dst = append(dst, flagIf(s.Stored, flagStored))
	dst = binary.AppendUvarint(dst, uint64(s.Size))
	dst = append(dst, byte(s.OwnerKind))
	switch s.OwnerKind {
	case OwnerPath:
		dst = append(dst, s.Owner[:20]...)
	case OwnerUpload:
		dst = append(dst, s.Owner[:]...)
	case OwnerNone:
	}
	if s.Stored {
		dst = append(dst, s.TextSum[:]...)
		return binary.AppendUvarint(dst, uint64(s.Served))
	}
	return append(dst, s.Zstd...)
}

// DecodeSide decodes one side object; Zstd aliases value.
func DecodeSide(key, value []byte) (Side, error) {
	rest, ok := cutPrefix(key, SidePrefix, -1)
	if !ok || len(rest) < 7 || rest[len(rest)-1] != 0 || binary.BigEndian.Uint32(rest) == 0 {
		return Side{}, keyError("side object", key)
	}
	s := Side{Cache: CacheID(binary.BigEndian.Uint32(rest)), Kind: SideKind(rest[4]), Name: string(rest[5 : len(rest)-1])}
	d := decoder[[]byte]{what: "side object", src: value}
	d.version()
	s.Day = d.day()
	s.Stored = d.flags(flagStored)&flagStored != 0
	s.Size = int64(d.upTo(maxSize, "size"))
	s.OwnerKind = OwnerKind(d.byte())
	switch s.OwnerKind {
	case OwnerPath:
		d.fill(s.Owner[:20])
	case OwnerUpload:
		d.fill(s.Owner[:])
	case OwnerNone:
	}
	if s.Stored {
		d.fill(s.TextSum[:])
		s.Served = int64(d.upTo(maxSize, "served size"))
	} else if len(d.src) > 0 {
		s.Zstd = d.take(len(d.src))
	}
	if err := d.end(); err != nil {
		return Side{}, err
	}
	if err := s.Valid(); err != nil {
		return Side{}, fmt.Errorf("decode side object row: %w", err)
	}
	return s, nil
}
