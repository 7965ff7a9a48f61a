package pack

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
)

const (
	magic              = "CLP1"
	footerVersion      = 1
	movedFooterVersion = 2

	// TrailerBytes is what follows the footer: its length, its checksum, the magic.
	TrailerBytes = 4 + 4 + len(magic)

	// MaxFooterBytes bounds what a reader allocates for a footer. The largest
	// legal one (chunk.MaxPackChunks chunks, each in a frame of its own) is
	// smaller.
	MaxFooterBytes = 4 << 20

	// MaxFramePlain bounds the plain bytes of a frame, and so what a reader needs
	// to decode one chunk. Writers stay far below it.
	MaxFramePlain = 8 << 20

	// maxFrameSize bounds a compressed frame: zstd never grows by more than this
	// over MaxFramePlain.
	maxFrameSize = MaxFramePlain + MaxFramePlain/64 + 1024
)

// ID names a pack, and the object it was written into.
type ID = chunk.PackID

// Prefix is what the keys of all packs begin with.
const Prefix blob.Key = "pack/"

// Key returns the key of the object called id.
func Key(id ID) blob.Key { return Prefix + blob.Key(id.String()) }

// Kind says how the plain bytes of a chunk are stored.
type Kind uint8

// KindPlain is a chunk stored as it is.
const KindPlain Kind = 0

// ParseKey returns the name in the key of an object that holds packs.
func ParseKey(key blob.Key) (ID, error) {
	name, ok := strings.CutPrefix(string(key), string(Prefix))
	if !ok {
		return ID{}, fmt.Errorf("parse pack key %q: want it to begin with %q", string(key), string(Prefix))
	}
	return chunk.ParsePackID(name)
}

// Footer is what an object says of itself: which packs, or what is left of which,
// it holds. One that was pushed holds the pack of its own name and no other; one
// that others were moved into holds none of its own name.
type Footer struct {
	ID       ID
	Bytes    int64 // length of the whole object
	Sections []Section
}

// Section is what an object holds of one pack.
type Section struct {
	Pack   ID
	Chunks uint32  // of the pack, holes included
	Frames []Frame // in the order of the pack
}

// Frame is one frame of a pack. Its Chunks counts the holes, too.
type Frame struct {
	chunk.Frame
	First   uint32 // position of its first chunk in the pack
	Entries []Entry
}

// Entry is one chunk in a frame.
type Entry struct {
	Index uint32 // its position in the pack
	Size  uint32 // plain length
	ID    chunk.ID
}

// Moved reports whether the object holds packs of other names.
func (f *Footer) Moved() bool { return len(f.Sections) != 1 || f.Sections[0].Pack != f.ID }

// Section returns what the object holds of a pack, or nil.
func (f *Footer) Section(id ID) *Section {
	for i := range f.Sections {
		if f.Sections[i].Pack == id {
			return &f.Sections[i]
		}
	}
	return nil
}

// Offset returns where the footer begins: behind the frames.
func (f *Footer) Offset() int64 {
	n := int64(0)
	for i := range f.Sections {
		for _, fr := range f.Sections[i].Frames {
			n += fr.Size
		}
	}
	return n
}

// NewPack returns what the index keeps of section p, with which the pack is read from
// this object.
func (f *Footer) NewPack(p *Section) chunk.NewPack {
	np := chunk.NewPack{
		Layout: chunk.Layout{ID: p.Pack, Bytes: f.Bytes, Frames: make([]chunk.Frame, 0, len(p.Frames)), Sizes: make([]uint32, p.Chunks)},
		IDs:    make([]chunk.ID, p.Chunks),
	}
	if f.Moved() {
		np.Layout.Object, np.Layout.Footer = f.ID, f.Offset()
	}
	next := uint32(0)
	gone := func(to uint32) {
		if to > next {
			np.Layout.Frames = append(np.Layout.Frames, chunk.Frame{Chunks: to - next})
		}
	}
	for _, fr := range p.Frames {
		gone(fr.First)
		np.Layout.Frames = append(np.Layout.Frames, fr.Frame)
		next = fr.First + fr.Chunks
		for _, e := range fr.Entries {
			np.Layout.Sizes[e.Index], np.IDs[e.Index] = e.Size, e.ID
		}
	}
	gone(p.Chunks)
	return np
}

// CRC returns the checksum of p that frames and footers carry: CRC-32C.
func CRC(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

// CorruptError reports bytes of a pack that are not what they must be.
type CorruptError struct {
	Key      blob.Key
	Offset   int64  // of the damaged part in the object
	What     string // the damaged part
	Expected string
	Found    string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is corrupt at offset %d: %s: expected %s, found %s", e.Key, e.Offset, e.What, e.Expected, e.Found)
}

// AppendFooter appends the encoding of f, and the trailer: version 1 for a pack in the
// object of its own name, else version 2. Frames must lie back to back in the order
// of the sections; their offsets are not looked at.
func AppendFooter(dst []byte, f *Footer) []byte {
	start := len(dst)
	version := byte(footerVersion)
	if f.Moved() {
		version = movedFooterVersion
	}
	dst = append(dst, version)
	dst = appendID(dst, f.ID)
	if f.Moved() {
		dst = appendSections(dst, f.Sections)
	} else {
		dst = appendFrames(dst, f.Sections[0].Frames)
	}
	footer := dst[start:]
	sum := CRC(footer)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(footer)))
	dst = binary.LittleEndian.AppendUint32(dst, sum)
	return append(dst, magic...)
}

func appendID(dst []byte, id ID) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, id.Epoch)
	return binary.LittleEndian.AppendUint64(dst, id.Rand)
}

func appendFrames(dst []byte, frames []Frame) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(frames)))
	for _, f := range frames {
		dst = binary.AppendUvarint(dst, uint64(f.Size))
		dst = binary.LittleEndian.AppendUint32(dst, f.Checksum)
		dst = binary.AppendUvarint(dst, uint64(f.Chunks))
	}
	for _, f := range frames {
		for _, e := range f.Entries {
			dst = appendEntry(dst, e)
		}
	}
	return dst
}

func appendEntry(dst []byte, e Entry) []byte {
	dst = append(dst, byte(KindPlain))
	dst = binary.AppendUvarint(dst, uint64(e.Size))
	return append(dst, e.ID[:]...)
}

func appendSections(dst []byte, sections []Section) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(sections)))
	for i := range sections {
		p := &sections[i]
		dst = appendID(dst, p.Pack)
		dst = binary.AppendUvarint(dst, uint64(p.Chunks))
		dst = binary.AppendUvarint(dst, uint64(len(p.Frames)))
		next := uint32(0)
		for _, f := range p.Frames {
			dst = binary.AppendUvarint(dst, uint64(f.First-next))
			dst = binary.AppendUvarint(dst, uint64(f.Chunks))
			dst = binary.AppendUvarint(dst, uint64(f.Size))
			dst = binary.LittleEndian.AppendUint32(dst, f.Checksum)
			dst = binary.AppendUvarint(dst, uint64(len(f.Entries)))
			at := f.First
			for _, e := range f.Entries {
				dst = binary.AppendUvarint(dst, uint64(e.Index-at))
				dst = appendEntry(dst, e)
				at = e.Index + 1
			}
			next = f.First + f.Chunks
		}
	}
	return dst
}
