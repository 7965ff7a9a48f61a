package keyspace

import (
	"encoding/binary"
	"fmt"
)

// Nar counts the paths, of all caches, that name one NAR. The row goes with the
// last of them; an Unreferenced row comes in its place.
type Nar struct {
	NarHash    [32]byte // of the key
	Paths      uint64   // at least one
	NarSize    int64    // bytes of the plain NAR
	ServedSize int64    // bytes of its served form
}

// Unreferenced says since when no path names a NAR whose recipe is still there.
type Unreferenced struct {
	NarHash [32]byte // of the key
	Day     uint32   // store day on which the last path went
	Purge   bool     // somebody wants its bytes gone from the bucket, not just unreachable
	Now     bool     // and does not want to wait for those who remember its URL
}

// AppendNarKey appends the key of the row that counts the paths of a NAR.
func AppendNarKey(dst []byte, narHash [32]byte) []byte {
	return append(append(dst, NarPrefix), narHash[:]...)
}

// DecodeNarKey returns the NAR in the key.
func DecodeNarKey(key []byte) ([32]byte, error) {
	rest, ok := cutPrefix(key, NarPrefix, 32)
	if !ok {
		return [32]byte{}, keyError("nar", key)
	}
	return [32]byte(rest), nil
}

// AppendNar appends the value of n.
func AppendNar(dst []byte, n *Nar) []byte {
	dst = append(dst, rowVersion)
	dst = binary.AppendUvarint(dst, n.Paths)
	dst = binary.AppendUvarint(dst, uint64(n.NarSize))
	return binary.AppendUvarint(dst, uint64(n.ServedSize))
}

// DecodeNar decodes the row of one NAR.
func DecodeNar(key, value []byte) (Nar, error) {
	narHash, err := DecodeNarKey(key)
	if err != nil {
		return Nar{}, err
	}
	d := decoder[[]byte]{what: "nar", src: value}
	d.version()
	n := Nar{NarHash: narHash, Paths: d.upTo(maxSize, "number of paths")}
	n.NarSize = int64(d.upTo(maxSize, "NAR size"))
	n.ServedSize = int64(d.upTo(maxSize, "served size"))
	if err := d.end(); err != nil {
		return Nar{}, err
	}
	if n.Paths == 0 {
		return Nar{}, fmt.Errorf("decode nar row: no path names it, want at least one")
	}
	return n, nil
}

// AppendUnreferencedKey appends the key of the row for a NAR.
func AppendUnreferencedKey(dst []byte, narHash [32]byte) []byte {
	return append(append(dst, UnreferencedPrefix), narHash[:]...)
}

// DecodeUnreferencedKey returns the NAR in the key.
func DecodeUnreferencedKey(key []byte) ([32]byte, error) {
	rest, ok := cutPrefix(key, UnreferencedPrefix, 32)
	if !ok {
		return [32]byte{}, keyError("unreferenced", key)
	}
	return [32]byte(rest), nil
}

const (
	flagPurge    = 1 << 0
	flagPurgeNow = 1 << 1
)

// AppendUnreferenced appends the value of u.
func AppendUnreferenced(dst []byte, u *Unreferenced) []byte {
	dst = append(dst, rowVersion)
	dst = binary.AppendUvarint(dst, uint64(u.Day))
	return append(dst, flagIf(u.Purge, flagPurge)|flagIf(u.Now, flagPurgeNow))
}

// DecodeUnreferenced decodes the row of one NAR.
func DecodeUnreferenced(key, value []byte) (Unreferenced, error) {
	narHash, err := DecodeUnreferencedKey(key)
	if err != nil {
		return Unreferenced{}, err
	}
	d := decoder[[]byte]{what: "unreferenced", src: value}
	d.version()
	u := Unreferenced{NarHash: narHash, Day: d.day()}
	flags := d.flags(flagPurge | flagPurgeNow)
	u.Purge, u.Now = flags&flagPurge != 0, flags&flagPurgeNow != 0
	if err := d.end(); err != nil {
		return Unreferenced{}, err
	}
	return u, nil
}
