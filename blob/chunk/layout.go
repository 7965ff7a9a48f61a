package chunk

import (
	"encoding/binary"
	"errors"
)

const (
	// MaxPackChunks is the most chunks a pack may hold: a decoder may allocate by
	// it, and a footer of that size still fits one small read.
	MaxPackChunks = 1 << 16

	// maxLength is far above any object or NAR and far below overflow.
	maxLength = 1 << 56
)

// ErrNoPack reports that the index has no pack of that name.
var ErrNoPack = errors.New("no such pack")

// Layout is what the index keeps of one pack: enough to plan and to verify reads
// of its frames without asking the bucket.
//
// A pack is written into an object of its own name. It may be moved later, without
// what is dead of it, into an object that it shares with others: recipes and chunk
// rows go on naming the pack and the position in it, so positions never change.
type Layout struct {
	ID     PackID
	Object PackID   // name of the object that holds the frames; zero = ID
	Bytes  int64    // length of that whole object, footer included
	Footer int64    // of a moved pack: where the object's footer begins, else zero
	Frames []Frame  // in the order of the pack
	Sizes  []uint32 // plain length of every chunk, in the order of the pack; zero = a hole, it was dead when the pack was moved
}

// Frame is one zstd frame of a pack. One whose chunks are partly holes holds the
// others alone: it is another frame than the one that was pushed, and is never sent
// as it is. One that has holes only has no bytes.
type Frame struct {
	Offset   int64  // of its first byte in the object
	Size     int64  // compressed length in bytes; zero if there is nothing left of it
	Checksum uint32 // CRC-32C of the compressed bytes
	Chunks   uint32 // number of chunks, at least one, holes included
}

// Range is Count chunks of a pack from position First on.
type Range struct{ First, Count uint32 }

// NewPack is a pack that is durable in the bucket, whose chunks are to be made
// known. IDs are in the order of the pack; that of a hole is zero. Proofs are in the
// same order, or nil if they are not known: then nobody can refer to the chunks
// without sending them.
type NewPack struct {
	Layout Layout
	IDs    []ID
	Proofs []Proof
}

// Where returns the name of the object that holds the frames.
func (l *Layout) Where() PackID {
	if l.Moved() {
		return l.Object
	}
	return l.ID
}

// Moved reports whether the frames lie in an object of another name.
func (l *Layout) Moved() bool { return l.Object != PackID{} }

// FooterOffset returns where the footer of the object begins.
func (l *Layout) FooterOffset() int64 {
	if l.Moved() || len(l.Frames) == 0 {
		return l.Footer
	}
	last := l.Frames[len(l.Frames)-1]
	return last.Offset + last.Size
}

// Stored returns the compressed bytes of the frames.
func (l *Layout) Stored() int64 {
	n := int64(0)
	for _, f := range l.Frames {
		n += f.Size
	}
	return n
}

// Holes returns the positions of which nothing is left, ascending and apart.
func (l *Layout) Holes() []Range {
	var holes []Range
	for i := 0; i < len(l.Sizes); i++ {
		if l.Sizes[i] != 0 {
			continue
		}
		first := i
		for i < len(l.Sizes) && l.Sizes[i] == 0 {
			i++
		}
		holes = append(holes, Range{First: uint32(first), Count: uint32(i - first)})
	}
	return holes
}

const (
	layoutVersion      = 1
	movedLayoutVersion = 2
)

// AppendLayout appends the encoding of l described in the package comment: version 2
// of a pack that was moved, else version 1.
func AppendLayout(dst []byte, l *Layout) []byte {
	if l.Moved() {
		return appendMoved(dst, l)
	}
	dst = append(dst, layoutVersion)
	dst = appendPackID(dst, l.ID)
	dst = binary.AppendUvarint(dst, uint64(l.Bytes))
	dst = binary.AppendUvarint(dst, uint64(len(l.Frames)))
	end := int64(0)
	for _, f := range l.Frames {
		dst = binary.AppendUvarint(dst, uint64(f.Offset-end))
		dst = binary.AppendUvarint(dst, uint64(f.Size))
		dst = binary.LittleEndian.AppendUint32(dst, f.Checksum)
		dst = binary.AppendUvarint(dst, uint64(f.Chunks))
		end = f.Offset + f.Size
	}
	for _, n := range l.Sizes {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

func appendMoved(dst []byte, l *Layout) []byte {
	dst = append(dst, movedLayoutVersion)
	dst = appendPackID(dst, l.ID)
	dst = appendPackID(dst, l.Object)
	dst = binary.AppendUvarint(dst, uint64(l.Bytes))
	dst = binary.AppendUvarint(dst, uint64(l.Footer))
	dst = binary.AppendUvarint(dst, uint64(len(l.Frames)))
	end := int64(0)
	for _, f := range l.Frames {
		dst = binary.AppendUvarint(dst, uint64(f.Chunks))
		dst = binary.AppendUvarint(dst, uint64(f.Size))
		if f.Size == 0 {
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(f.Offset-end))
		dst = binary.LittleEndian.AppendUint32(dst, f.Checksum)
		end = f.Offset + f.Size
	}
	for i := 0; i < len(l.Sizes); {
		dst = binary.AppendUvarint(dst, uint64(l.Sizes[i]))
		first := i
		for i++; l.Sizes[first] == 0 && i < len(l.Sizes) && l.Sizes[i] == 0; i++ {
		}
		if l.Sizes[first] == 0 {
			dst = binary.AppendUvarint(dst, uint64(i-first))
		}
	}
	return dst
}

// DecodeLayout decodes one layout and returns the bytes after it. The frames of
// the result lie inside the object, in order, and the sizes match their chunks.
func DecodeLayout(src []byte) (Layout, []byte, error) {
	d := decoder{what: "decode layout", src: src}
	var l Layout
	switch version := d.byte(); {
	case d.err != nil:
	case version == layoutVersion:
		d.layout(&l)
	case version == movedLayoutVersion:
		d.moved(&l)
	default:
		d.fail("version is %d, want %d or %d", version, layoutVersion, movedLayoutVersion)
	}
	if d.err != nil {
		return Layout{}, nil, d.err
	}
	return l, d.src, nil
}

// layout reads what follows version 1.
func (d *decoder) layout(l *Layout) {
	l.ID = d.packID()
	l.Bytes = d.length()
	if n := d.count(7); n > 0 {
		l.Frames = make([]Frame, n)
	}
	end, chunks := int64(0), uint64(0)
	for i := range l.Frames {
		gap, size := d.length(), d.length()
		var sum [4]byte
		d.bytes(sum[:])
		n := d.chunksOfFrame(i, &chunks)
		if d.err == nil && (gap > l.Bytes-end || size == 0 || size > l.Bytes-end-gap) {
			d.fail("frame %d has bytes %d+%d after %d, want some within %d", i, gap, size, end, l.Bytes)
		}
		if d.err != nil {
			return
		}
		l.Frames[i] = Frame{Offset: end + gap, Size: size, Checksum: binary.LittleEndian.Uint32(sum[:]), Chunks: n}
		end += gap + size
	}
	if chunks > uint64(len(d.src)) {
		d.fail("%d sizes said to be in %d bytes", chunks, len(d.src))
	}
	if d.err == nil && chunks > 0 {
		l.Sizes = make([]uint32, chunks)
		for i := range l.Sizes {
			l.Sizes[i] = d.uint32()
		}
	}
}

// chunksOfFrame reads the number of chunks of frame i and adds it to those before.
func (d *decoder) chunksOfFrame(i int, chunks *uint64) uint32 {
	n := d.uint32()
	*chunks += uint64(n)
	if d.err == nil && (n == 0 || *chunks > MaxPackChunks) {
		d.fail("frame %d has %d chunks, want some and at most %d in all", i, n, MaxPackChunks)
	}
	return n
}

// moved reads what follows version 2.
func (d *decoder) moved(l *Layout) {
	l.ID, l.Object = d.packID(), d.packID()
	if d.err == nil && (l.Object == l.ID || !l.Moved()) {
		d.fail("pack %v is said to be moved to %v", l.ID, l.Object)
	}
	l.Bytes, l.Footer = d.length(), d.length()
	if d.err == nil && l.Footer > l.Bytes {
		d.fail("the footer begins at %d of %d bytes", l.Footer, l.Bytes)
	}
	if n := d.count(2); n > 0 {
		l.Frames = make([]Frame, n)
	}
	end, chunks := int64(0), uint64(0)
	for i := range l.Frames {
		f := Frame{Chunks: d.chunksOfFrame(i, &chunks), Size: d.length()}
		if f.Size == 0 {
			if i > 0 && l.Frames[i-1].Size == 0 {
				d.fail("frames %d and %d are gone, want them to be one", i-1, i)
			}
		} else {
			gap := d.length()
			var sum [4]byte
			d.bytes(sum[:])
			if d.err == nil && (gap > l.Footer-end || f.Size > l.Footer-end-gap) {
				d.fail("frame %d has bytes %d+%d after %d, want some before %d", i, gap, f.Size, end, l.Footer)
			}
			f.Offset, f.Checksum = end+gap, binary.LittleEndian.Uint32(sum[:])
			end += gap + f.Size
		}
		if d.err != nil {
			return
		}
		l.Frames[i] = f
	}
	if d.err == nil && end == 0 {
		d.fail("nothing is left of pack %v", l.ID)
	}
	d.sizes(l, int(chunks))
}

// sizes reads the lengths of the chunks of a moved pack and compares them with what
// its frames have.
func (d *decoder) sizes(l *Layout, chunks int) {
	if d.err != nil {
		return
	}
	l.Sizes = make([]uint32, chunks) // at most MaxPackChunks
	for i, hole := 0, false; i < chunks && d.err == nil; {
		size := d.uint32()
		if l.Sizes[i] = size; size != 0 {
			hole = false
			i++
			continue
		}
		n := d.uvarint()
		if d.err == nil && (hole || n == 0 || n > uint64(chunks-i)) {
			d.fail("%d holes from chunk %d of %d on, want some, and all that follow each other together", n, i, chunks)
			return
		}
		i, hole = i+int(n), true
	}
	next := 0
	for i, f := range l.Frames {
		live := 0
		for _, n := range l.Sizes[next : next+int(f.Chunks)] {
			if n != 0 {
				live++
			}
		}
		next += int(f.Chunks)
		if d.err == nil && (live > 0) != (f.Size > 0) {
			d.fail("frame %d has %d chunks in %d bytes", i, live, f.Size)
		}
	}
}
