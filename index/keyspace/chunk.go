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
	Proof    chunk.Proof // zero: not known, and no reference to the chunk is right
}

// provedChunkVersion is the version of the rows of chunks with a proof.
const provedChunkVersion = 2

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

// AppendChunkName appends the prefix of the keys of all chunks of a name.
func AppendChunkName(dst []byte, name chunk.Name) []byte {
	return append(append(dst, ChunkPrefix), name[:]...)
}

// AppendChunk appends the value of a chunk's row. There are hundreds of millions of
// these rows, so nothing is in them but where the chunk lies and its proof.
func AppendChunk(dst []byte, l chunk.Location, proof chunk.Proof) []byte {
	version := byte(rowVersion)
	if proof != (chunk.Proof{}) {
		version = provedChunkVersion
	}
	dst = append(dst, version)
	dst = binary.AppendUvarint(dst, uint64(l.Pack.Epoch))
	dst = binary.LittleEndian.AppendUint64(dst, l.Pack.Rand)
	dst = binary.AppendUvarint(dst, uint64(l.Index))
	if version == provedChunkVersion {
		dst = append(dst, proof[:]...)
	}
	return dst
}

// DecodeChunk decodes the row of one chunk.
func DecodeChunk(key, value []byte) (Chunk, error) {
	id, err := DecodeChunkKey(key)
	if err != nil {
		return Chunk{}, err
	}
	d := decoder[[]byte]{what: "chunk", src: value}
	version := d.versionUpTo(provedChunkVersion)
	c := Chunk{ID: id}
	c.Location.Pack.Epoch = uint32(d.upTo(math.MaxUint32, "upload epoch"))
	if b := d.take(8); len(b) == 8 {
		c.Location.Pack.Rand = binary.LittleEndian.Uint64(b)
	}
	c.Location.Index = uint32(d.upTo(chunk.MaxPackChunks-1, "position in the pack"))
	if version == provedChunkVersion {
		d.fill(c.Proof[:])
		if d.err == nil && c.Proof == (chunk.Proof{}) {
			d.fail("the proof is zero, want no proof or another")
		}
	}
	if err := d.end(); err != nil {
		return Chunk{}, err
	}
	return c, nil
}
