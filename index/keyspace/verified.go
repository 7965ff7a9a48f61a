package keyspace

import (
	"time"

	"github.com/celler/celler/blob/chunk"
)

// Verified says when an object that holds packs was last read from the bucket and
// compared with what it must be.
type Verified struct {
	Object  chunk.PackID // of the key
	At      time.Time    // not later than when it was read, by the bucket's clock
	Damaged bool         // it was not what it must be
}

// AppendVerifiedKey appends the key of the row of an object.
func AppendVerifiedKey(dst []byte, object chunk.PackID) []byte {
	return appendPackID(append(dst, VerifiedPrefix), object)
}

// AppendVerified appends the value of v.
func AppendVerified(dst []byte, v *Verified) []byte {
	dst = appendTime(append(dst, rowVersion), v.At)
	return append(dst, flagIf(v.Damaged, 1))
}

// DecodeVerified decodes the row of one object.
func DecodeVerified(key, value []byte) (Verified, error) {
	rest, ok := cutPrefix(key, VerifiedPrefix, packIDLen)
	if !ok {
		return Verified{}, keyError("verified", key)
	}
	d := decoder[[]byte]{what: "verified", src: value}
	d.version()
	v := Verified{Object: decodePackID(rest), At: d.time()}
	v.Damaged = d.flags(1) != 0
	if err := d.end(); err != nil {
		return Verified{}, err
	}
	return v, nil
}
