package keyspace

import (
	"encoding/binary"
	"math"

	"github.com/celler/celler/blob/chunk"
)

// Chunk says where a chunk lies. There is at most one row for a chunk: the place
// where it was first stored. A pack may hold another copy that only the recipes
// know which were made with it.
type Chunk struct {
	ID       chunk.ID // of the key
	Location chunk.Location
}

// AppendChunkKey appends the key of a chunk.
func AppendChunkKey(dst []byte, id chunk.ID) []byte {
	return append(append(dst, ChunkPrefix), id[:]...)
}

// DecodeChunkKey returns the id in the key of a chunk.
func DecodeChunkKey(key []byte) (chunk.ID, error) {
	rest, ok := cutPrefix(key, ChunkPrefix, len(chunk.ID{}))
	if !ok {
		return chunk.ID{}, keyError("chunk", key)
	}
	return chunk.ID(rest), nil
}

// AppendChunk appends the value of a chunk's row. It depends on the location
// alone: there are hundreds of millions of these rows, so nothing else is in them.
func AppendChunk(dst []byte, l chunk.Location) []byte {
	dst = append(dst, rowVersion)
	dst = binary.AppendUvarint(dst, uint64(l.Pack.Epoch))
	dst = binary.LittleEndian.AppendUint64(dst, l.Pack.Rand)
	return binary.AppendUvarint(dst, uint64(l.Index))
}

// DecodeChunk decodes the row of one chunk.
func DecodeChunk(key, value []byte) (Chunk, error) {
	id, err := DecodeChunkKey(key)
	if err != nil {
		return Chunk{}, err
	}
	d := decoder[[]byte]{what: "chunk", src: value}
	d.version()
	c := Chunk{ID: id}
	c.Location.Pack.Epoch = uint32(d.upTo(math.MaxUint32, "upload epoch"))
	if b := d.take(8); len(b) == 8 {
		c.Location.Pack.Rand = binary.LittleEndian.Uint64(b)
	}
	c.Location.Index = uint32(d.upTo(chunk.MaxPackChunks-1, "position in the pack"))
	if err := d.end(); err != nil {
		return Chunk{}, err
	}
	return c, nil
}
