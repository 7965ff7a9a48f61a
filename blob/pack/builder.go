package pack

import "github.com/celler/celler/blob/chunk"

// Builder gathers the frames of one pack in memory.
type Builder struct {
	body   []byte
	frames []chunk.Frame
	sizes  []uint32
	ids    []chunk.ID
}

// NewBuilder returns a Builder that puts the pack into the memory of buf.
func NewBuilder(buf []byte) *Builder { return &Builder{body: buf[:0]} }

// Size returns the length of the frames so far.
func (b *Builder) Size() int { return len(b.body) }

// Chunks returns the number of chunks so far.
func (b *Builder) Chunks() int { return len(b.ids) }

// Add appends a compressed frame that holds the chunks ids of the given plain
// lengths, and returns the position of the first of them in the pack.
func (b *Builder) Add(frame []byte, ids []chunk.ID, sizes []uint32) (first uint32) {
	first = uint32(len(b.ids))
	b.frames = append(b.frames, chunk.Frame{
		Offset: int64(len(b.body)), Size: int64(len(frame)), Checksum: CRC(frame), Chunks: uint32(len(ids)),
	})
	b.body = append(b.body, frame...)
	b.ids = append(b.ids, ids...)
	b.sizes = append(b.sizes, sizes...)
	return first
}

// Seal gives the pack its name and returns the object and what is to be made
// known of it. The builder must not be used afterwards; the object lies in the
// memory given to NewBuilder, if that was large enough.
func (b *Builder) Seal(id ID) ([]byte, chunk.NewPack) {
	l := chunk.Layout{ID: id, Frames: b.frames, Sizes: b.sizes}
	b.body = AppendFooter(b.body, &l, b.ids)
	l.Bytes = int64(len(b.body))
	return b.body, chunk.NewPack{Layout: l, IDs: b.ids}
}
