package pack

import "github.com/celler/celler/blob/chunk"

// Builder gathers the frames of one pack in memory.
type Builder struct {
	body   []byte
	frames []Frame
	chunks int
}

// NewBuilder returns a Builder that puts the pack into the memory of buf.
func NewBuilder(buf []byte) *Builder { return &Builder{body: buf[:0]} }

// Size returns the length of the frames so far.
func (b *Builder) Size() int { return len(b.body) }

// Chunks returns the number of chunks so far.
func (b *Builder) Chunks() int { return b.chunks }

// Add appends a compressed frame that holds the chunks ids of the given plain
// lengths, and returns the position of the first of them in the pack.
func (b *Builder) Add(frame []byte, ids []chunk.ID, sizes []uint32) (first uint32) {
	first = uint32(b.chunks)
	f := Frame{Frame: rawFrame(len(b.body), frame, uint32(len(ids))), First: first, Entries: make([]Entry, len(ids))}
	for i, id := range ids {
		f.Entries[i] = Entry{Index: first + uint32(i), Size: sizes[i], ID: id}
	}
	b.frames = append(b.frames, f)
	b.body = append(b.body, frame...)
	b.chunks += len(ids)
	return first
}

func rawFrame(off int, data []byte, chunks uint32) chunk.Frame {
	return chunk.Frame{Offset: int64(off), Size: int64(len(data)), Checksum: CRC(data), Chunks: chunks}
}

// Seal gives the pack its name and returns the object and what is to be made
// known of it. The builder must not be used afterwards; the object lies in the
// memory given to NewBuilder, if that was large enough.
func (b *Builder) Seal(id ID) ([]byte, chunk.NewPack) {
	f := Footer{ID: id, Sections: []Section{{Pack: id, Chunks: uint32(b.chunks), Frames: b.frames}}}
	b.body = AppendFooter(b.body, &f)
	f.Bytes = int64(len(b.body))
	return b.body, f.NewPack(&f.Sections[0])
}

// Gatherer gathers in memory what is left of several packs, for one object.
type Gatherer struct {
	body     []byte
	sections []Section
	chunks   int
}

// NewGatherer returns a Gatherer that puts the object into the memory of buf.
func NewGatherer(buf []byte) *Gatherer { return &Gatherer{body: buf[:0]} }

// Size returns the length of the frames so far.
func (g *Gatherer) Size() int { return len(g.body) }

// Chunks returns the number of chunks so far.
func (g *Gatherer) Chunks() int { return g.chunks }

// Packs returns the number of packs so far.
func (g *Gatherer) Packs() int { return len(g.sections) }

// Begin begins a pack, which has so many chunks, holes included. At least one frame
// of it must follow.
func (g *Gatherer) Begin(id ID, chunks int) {
	g.sections = append(g.sections, Section{Pack: id, Chunks: uint32(chunks)})
}

// Add appends a compressed frame of the pack that began last: the chunks of entries,
// out of the count chunks from position first on that it had at first.
func (g *Gatherer) Add(frame []byte, first, count uint32, entries []Entry) {
	p := &g.sections[len(g.sections)-1]
	p.Frames = append(p.Frames, Frame{Frame: rawFrame(len(g.body), frame, count), First: first, Entries: entries})
	g.body = append(g.body, frame...)
	g.chunks += len(entries)
}

// Cut takes back the pack that began last, with all its frames.
func (g *Gatherer) Cut() {
	n := len(g.sections) - 1
	for _, f := range g.sections[n].Frames {
		g.body = g.body[:len(g.body)-int(f.Size)]
		g.chunks -= len(f.Entries)
	}
	g.sections = g.sections[:n]
}

// Seal gives the object its name and returns it and what is in it. The gatherer must
// not be used afterwards; the object lies in the memory given to NewGatherer, if that
// was large enough.
func (g *Gatherer) Seal(id ID) ([]byte, Footer) {
	f := Footer{ID: id, Sections: g.sections}
	g.body = AppendFooter(g.body, &f)
	f.Bytes = int64(len(g.body))
	return g.body, f
}
