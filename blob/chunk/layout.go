package chunk

import "encoding/binary"

const (
	// MaxPackChunks is the most chunks a pack may hold: a decoder may allocate by
	// it, and a footer of that size still fits one small read.
	MaxPackChunks = 1 << 16

	// maxLength is far above any object or NAR and far below overflow.
	maxLength = 1 << 56
)

// Layout is what the index keeps of one pack: enough to plan and to verify reads
// of its frames without asking the bucket.
type Layout struct {
	ID     PackID
	Bytes  int64    // length of the whole object, footer included
	Frames []Frame  // in the order of the pack
	Sizes  []uint32 // plain length of every chunk, in the order of the pack
}

// Frame is one zstd frame of a pack.
type Frame struct {
	Offset   int64  // of its first byte in the object
	Size     int64  // compressed length in bytes
	Checksum uint32 // CRC-32C of the compressed bytes
	Chunks   uint32 // number of chunks, at least one
}

// NewPack is a pack that is durable in the bucket, whose chunks are to be made
// known. IDs are in the order of the pack.
type NewPack struct {
	Layout Layout
	IDs    []ID
}

const layoutVersion = 1

// AppendLayout appends the encoding of l described in the package comment.
func AppendLayout(dst []byte, l *Layout) []byte {
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

// DecodeLayout decodes one layout and returns the bytes after it. The frames of
// the result lie inside the object, in order, and the sizes match their chunks.
func DecodeLayout(src []byte) (Layout, []byte, error) {
	d := decoder{what: "decode layout", src: src}
	var l Layout
	d.version(layoutVersion)
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
		n := d.uint32()
		if d.err != nil {
			break
		}
		if gap > l.Bytes-end || size == 0 || size > l.Bytes-end-gap {
			d.fail("frame %d has bytes %d+%d after %d, want some within %d", i, gap, size, end, l.Bytes)
			break
		}
		chunks += uint64(n)
		if n == 0 || chunks > MaxPackChunks {
			d.fail("frame %d has %d chunks, want some and at most %d in all", i, n, MaxPackChunks)
			break
		}
		l.Frames[i] = Frame{Offset: end + gap, Size: size, Checksum: binary.LittleEndian.Uint32(sum[:]), Chunks: n}
		end += gap + size
	}
	if d.err == nil && chunks > uint64(len(d.src)) {
		d.fail("%d sizes said to be in %d bytes", chunks, len(d.src))
	}
	if d.err == nil && chunks > 0 {
		l.Sizes = make([]uint32, chunks)
		for i := range l.Sizes {
			l.Sizes[i] = d.uint32()
		}
	}
	if d.err != nil {
		return Layout{}, nil, d.err
	}
	return l, d.src, nil
}
