package keyspace

import (
	"encoding/binary"

	"github.com/celler/celler/nix"
)

// Use says on which store day a path was last used. Two rows say so: one is found by
// the path, the other in the order of days. They are written together.
type Use struct {
	Cache    CacheID
	HashPart nix.HashPart
	Day      uint32
}

// AppendLastUseKey appends the key of the row that is found by the path.
func AppendLastUseKey(dst []byte, cache CacheID, hashPart nix.HashPart) []byte {
	return append(AppendLastUsePrefix(dst, cache), hashPart[:]...)
}

// AppendLastUsePrefix appends what the keys of all those rows of a cache begin with.
func AppendLastUsePrefix(dst []byte, cache CacheID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, LastUsePrefix), uint32(cache))
}

// AppendLastUse appends the value of the row that is found by the path.
func AppendLastUse(dst []byte, day uint32) []byte {
	return binary.AppendUvarint(append(dst, rowVersion), uint64(day))
}

// DecodeLastUse decodes the row that is found by the path.
func DecodeLastUse(key, value []byte) (Use, error) {
	rest, ok := cutPrefix(key, LastUsePrefix, 4+len(nix.HashPart{}))
	if !ok {
		return Use{}, keyError("last use", key)
	}
	u := Use{Cache: CacheID(binary.BigEndian.Uint32(rest)), HashPart: nix.HashPart(rest[4:])}
	d := decoder[[]byte]{what: "last use", src: value}
	d.version()
	u.Day = d.day()
	if u.Cache == 0 {
		d.fail("there is no cache 0")
	}
	if err := d.end(); err != nil {
		return Use{}, err
	}
	return u, nil
}

// AppendUseOrderKey appends the key of the row that sorts by day.
func AppendUseOrderKey(dst []byte, u Use) []byte {
	dst = binary.BigEndian.AppendUint32(AppendUseOrderPrefix(dst, u.Cache), u.Day)
	return append(dst, u.HashPart[:]...)
}

// AppendUseOrderPrefix appends what the keys of all those rows of a cache begin with.
func AppendUseOrderPrefix(dst []byte, cache CacheID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, UseOrderPrefix), uint32(cache))
}

// AppendUseOrder appends the value of the row that sorts by day: it is all key.
func AppendUseOrder(dst []byte) []byte { return append(dst, rowVersion) }

// DecodeUseOrder decodes the row that sorts by day.
func DecodeUseOrder(key, value []byte) (Use, error) {
	rest, ok := cutPrefix(key, UseOrderPrefix, 4+4+len(nix.HashPart{}))
	if !ok {
		return Use{}, keyError("use", key)
	}
	u := Use{Cache: CacheID(binary.BigEndian.Uint32(rest)), Day: binary.BigEndian.Uint32(rest[4:]), HashPart: nix.HashPart(rest[8:])}
	d := decoder[[]byte]{what: "use", src: value}
	d.version()
	if u.Cache == 0 || u.Day == 0 {
		d.fail("there is no cache 0 and no day 0")
	}
	if err := d.end(); err != nil {
		return Use{}, err
	}
	return u, nil
}
