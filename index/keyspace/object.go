package keyspace

import (
	"encoding/binary"
	"fmt"

	"github.com/celler/celler/blob/chunk"
)

// MaxObjectPacks bounds how many packs one object may hold frames of.
const MaxObjectPacks = 1 << 14

// Object is one that packs were moved into. A pack that was not moved lies in the
// object of its own name and needs no such row.
type Object struct {
	ID    chunk.PackID   // of the key
	Bytes int64          // length of the object
	Packs []chunk.PackID // whose rows name it, ascending
}

// Buried is an object in which nothing lives any more. It is deleted once nobody can
// be reading it.
type Buried struct {
	Object chunk.PackID // of the key
	Day    uint32       // store day on which the last of it died
	Bytes  int64        // length of the object
}

// AppendObjectKey appends the key of an object.
func AppendObjectKey(dst []byte, id chunk.PackID) []byte {
	return appendPackID(append(dst, ObjectPrefix), id)
}

// AppendObject appends the value of o, whose packs must ascend.
func AppendObject(dst []byte, o *Object) []byte {
	dst = append(dst, rowVersion)
	dst = binary.AppendUvarint(dst, uint64(o.Bytes))
	dst = binary.AppendUvarint(dst, uint64(len(o.Packs)))
	for _, id := range o.Packs {
		dst = appendPackID(dst, id)
	}
	return dst
}

// DecodeObject decodes the row of one object.
func DecodeObject(key, value []byte) (Object, error) {
	rest, ok := cutPrefix(key, ObjectPrefix, packIDLen)
	if !ok {
		return Object{}, keyError("object", key)
	}
	d := decoder[[]byte]{what: "object", src: value}
	d.version()
	o := Object{ID: decodePackID(rest), Bytes: int64(d.upTo(maxSize, "length"))}
	if n := d.count(packIDLen); n > MaxObjectPacks {
		d.fail("%d packs, want at most %d", n, MaxObjectPacks)
	} else if n > 0 {
		o.Packs = make([]chunk.PackID, n)
	}
	for i := range o.Packs {
		b := d.take(packIDLen)
		if d.err != nil {
			break
		}
		if o.Packs[i] = decodePackID(b); i > 0 && o.Packs[i-1].Compare(o.Packs[i]) >= 0 {
			d.fail("pack %v comes after %v", o.Packs[i], o.Packs[i-1])
		}
	}
	if err := d.end(); err != nil {
		return Object{}, err
	}
	return o, nil
}

// AppendBuriedKey appends the key of a buried object.
func AppendBuriedKey(dst []byte, id chunk.PackID) []byte {
	return appendPackID(append(dst, BuriedPrefix), id)
}

// AppendBuried appends the value of b.
func AppendBuried(dst []byte, b *Buried) []byte {
	dst = append(dst, rowVersion)
	dst = binary.AppendUvarint(dst, uint64(b.Day))
	return binary.AppendUvarint(dst, uint64(b.Bytes))
}

// DecodeBuried decodes the row of one buried object.
func DecodeBuried(key, value []byte) (Buried, error) {
	rest, ok := cutPrefix(key, BuriedPrefix, packIDLen)
	if !ok {
		return Buried{}, keyError("buried", key)
	}
	d := decoder[[]byte]{what: "buried", src: value}
	d.version()
	b := Buried{Object: decodePackID(rest), Day: d.day(), Bytes: int64(d.upTo(maxSize, "length"))}
	if err := d.end(); err != nil {
		return Buried{}, fmt.Errorf("object %v: %w", b.Object, err)
	}
	return b, nil
}
