package keyspace

import (
	"encoding/binary"
	"fmt"

	"github.com/celler/celler/blob/chunk"
)

const packIDLen = 4 + 8

// AppendPackKey appends the key of a pack.
func AppendPackKey(dst []byte, id chunk.PackID) []byte {
	return appendPackID(append(dst, PackPrefix), id)
}

// DecodePackKey returns the id in the key of a pack.
func DecodePackKey(key []byte) (chunk.PackID, error) {
	rest, ok := cutPrefix(key, PackPrefix, packIDLen)
	if !ok {
		return chunk.PackID{}, keyError("pack", key)
	}
	return decodePackID(rest), nil
}

// AppendPack appends the value of a pack's row: its layout.
func AppendPack(dst []byte, l *chunk.Layout) []byte { return chunk.AppendLayout(dst, l) }

// DecodePack decodes the row of one pack.
func DecodePack(key, value []byte) (chunk.Layout, error) {
	id, err := DecodePackKey(key)
	if err != nil {
		return chunk.Layout{}, err
	}
	l, rest, err := chunk.DecodeLayout(value)
	if err != nil {
		return chunk.Layout{}, fmt.Errorf("decode pack row %v: %w", id, err)
	}
	if len(rest) != 0 {
		return chunk.Layout{}, fmt.Errorf("decode pack row %v: %d bytes after the layout", id, len(rest))
	}
	if l.ID != id {
		return chunk.Layout{}, fmt.Errorf("decode pack row %v: the layout is of pack %v", id, l.ID)
	}
	return l, nil
}

func appendPackID(dst []byte, id chunk.PackID) []byte {
	dst = binary.BigEndian.AppendUint32(dst, id.Epoch)
	return binary.BigEndian.AppendUint64(dst, id.Rand)
}

func decodePackID(b []byte) chunk.PackID {
	return chunk.PackID{Epoch: binary.BigEndian.Uint32(b), Rand: binary.BigEndian.Uint64(b[4:])}
}
