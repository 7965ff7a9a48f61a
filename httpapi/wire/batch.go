package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/celler/celler/blob/chunk"
)

// batchMagic begins a batch.
const batchMagic = "CDB1"

// The kinds of what a batch is made of.
const (
	itemSegment = 'S'
	itemFrame   = 'F'
	itemKnown   = 'K'
	itemEnd     = 'E'
)

// AppendBatch appends the beginning of a batch. Segments follow.
func AppendBatch(dst []byte) []byte { return append(dst, batchMagic...) }

// AppendSegment appends the beginning of a segment: the state of SHA-256 before it.
// Frames and known chunks follow, then AppendSegmentEnd.
func AppendSegment(dst []byte, s chunk.SHAState) []byte {
	return s.Append(append(dst, itemSegment))
}

// AppendFrame appends new chunks: their names and plain lengths, and one zstd frame of all
// of their bytes.
func AppendFrame(dst []byte, names []chunk.Name, sizes []uint32, frame []byte) []byte {
	dst = append(dst, itemFrame)
	dst = binary.AppendUvarint(dst, uint64(len(names)))
	for i, name := range names {
		dst = append(dst, name[:]...)
		dst = binary.AppendUvarint(dst, uint64(sizes[i]))
	}
	dst = binary.AppendUvarint(dst, uint64(len(frame)))
	return append(dst, frame...)
}

// AppendKnown appends chunks that the server has.
func AppendKnown(dst []byte, refs []chunk.Ref) []byte {
	dst = append(dst, itemKnown)
	dst = binary.AppendUvarint(dst, uint64(len(refs)))
	return AppendRefs(dst, refs)
}

// AppendSegmentEnd appends the end of a segment.
func AppendSegmentEnd(dst []byte) []byte { return append(dst, itemEnd) }

// BatchLimits bound what a batch may hold.
type BatchLimits struct {
	ChunkMin     int   // plain bytes of a chunk that is not the last of its frame
	ChunkMax     int   // plain bytes of a chunk
	FrameBytes   int   // plain bytes of a frame
	SegmentBytes int64 // plain bytes of a segment
	Segments     int
	Chunks       int // of a batch, new and known; more than one segment can have
}

// ErrBatchChunks is in the BatchError of a batch of too many chunks: it is to be sent as
// several.
var ErrBatchChunks = errors.New("too many chunks in a batch")

// FrameChunks is the most chunks of a frame.
func (l *BatchLimits) FrameChunks() int { return l.FrameBytes/l.ChunkMin + 1 }

// KnownChunks is the most chunks of the K items of a segment together.
func (l *BatchLimits) KnownChunks() int { return int(l.SegmentBytes)/l.ChunkMin + 1 }

// EncodedFrameBytes is the length of the longest frame: zstd makes what cannot be
// compressed longer, by a few bytes for each 128 KiB.
func (l *BatchLimits) EncodedFrameBytes() int { return l.FrameBytes + l.FrameBytes/1024 + 64 }

// BatchKind says what a [BatchItem] is.
type BatchKind uint8

// The kinds of items.
const (
	BatchSegment BatchKind = iota + 1 // a segment begins
	BatchFrame
	BatchKnown
	BatchEnd // the segment ends
)

// BatchItem is one part of a batch. What it points to belongs to the reader and is valid
// until the next call.
type BatchItem struct {
	Kind  BatchKind
	State chunk.SHAState // of BatchSegment
	Names []chunk.Name   // of BatchFrame
	Sizes []uint32       // likewise
	Frame []byte         // likewise
	Refs  []chunk.Ref    // of BatchKnown
}

// BatchError reports a batch that is malformed.
type BatchError struct {
	Segment, Item int   // where; Item counts from 0 in each segment, -1: the segment as a whole
	Err           error // what
}

func (e *BatchError) Error() string {
	switch {
	case e.Segment < 0:
		return "batch: " + e.Err.Error()
	case e.Item < 0:
		return fmt.Sprintf("batch: segment %d: %v", e.Segment, e.Err)
	}
	return fmt.Sprintf("batch: segment %d, item %d: %v", e.Segment, e.Item, e.Err)
}
func (e *BatchError) Unwrap() error { return e.Err }

// BatchReader reads a batch item by item, and keeps no more than one item of it in
// memory.
type BatchReader struct {
	r       *bufio.Reader
	limits  BatchLimits
	segment int // -1 before the first
	item    int
	open    bool  // within a segment
	plain   int64 // bytes of the frames of the segment
	known   int   // chunks of its K items
	chunks  int   // of all segments
	started bool
	err     error
	names   []chunk.Name
	sizes   []uint32
	frame   []byte
	refs    []chunk.Ref
}

// batchBuffer is what is read at a time, besides frames.
const batchBuffer = 16 << 10

// NewBatchReader reads a batch from r. All limits must be set.
func NewBatchReader(r io.Reader, limits BatchLimits) *BatchReader {
	return &BatchReader{r: bufio.NewReaderSize(r, batchBuffer), limits: limits, segment: -1, item: -1}
}

// Next returns the next item, io.EOF after the last, a *BatchError if there is
// something else than an item, and errors of the reader below as they are, except that
// the end in the middle is an io.ErrUnexpectedEOF in a *BatchError.
func (b *BatchReader) Next() (BatchItem, error) {
	if b.err != nil {
		return BatchItem{}, b.err
	}
	item, err := b.next()
	if err != nil {
		b.err = err
		return BatchItem{}, err
	}
	return item, nil
}

// Place returns where the item that Next returned last stands.
func (b *BatchReader) Place() (segment, item int) { return b.segment, b.item }

func (b *BatchReader) fail(format string, args ...any) error {
	return &BatchError{Segment: b.segment, Item: b.item, Err: fmt.Errorf(format, args...)}
}

// cut sorts the errors of the reader below.
func (b *BatchReader) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &BatchError{Segment: b.segment, Item: b.item, Err: io.ErrUnexpectedEOF}
	}
	return err
}

func (b *BatchReader) next() (BatchItem, error) {
	if !b.started {
		b.started = true
		var magic [len(batchMagic)]byte
		if _, err := io.ReadFull(b.r, magic[:]); err != nil {
			return BatchItem{}, b.cut(err)
		}
		if string(magic[:]) != batchMagic {
			return BatchItem{}, b.fail("it begins with %q, want %q", magic[:], batchMagic)
		}
	}
	kind, err := b.r.ReadByte()
	switch {
	case errors.Is(err, io.EOF) && !b.open && b.segment >= 0:
		return BatchItem{}, io.EOF
	case err != nil:
		return BatchItem{}, b.cut(err)
	case !b.open && kind == itemSegment:
		return b.readSegment()
	case !b.open:
		return BatchItem{}, b.fail("found %#x where a segment would begin", kind)
	}
	b.item++
	switch kind {
	case itemFrame:
		return b.readFrame()
	case itemKnown:
		return b.readKnown()
	case itemEnd:
		if b.item == 0 {
			return BatchItem{}, b.fail("the segment is empty")
		}
		b.open = false
		return BatchItem{Kind: BatchEnd}, nil
	}
	return BatchItem{}, b.fail("found %#x where an item would begin", kind)
}

func (b *BatchReader) readSegment() (BatchItem, error) {
	b.segment++
	b.item, b.plain, b.known, b.open = -1, 0, 0, true
	if b.segment >= b.limits.Segments {
		return BatchItem{}, b.fail("too many segments, want at most %d", b.limits.Segments)
	}
	var buf [chunk.MaxSHAStateBytes]byte
	kind, err := b.r.ReadByte()
	if err != nil {
		return BatchItem{}, b.cut(err)
	}
	enc := append(buf[:0], kind)
	if kind != 0 {
		enc = enc[:1+32]
		if _, err := io.ReadFull(b.r, enc[1:]); err != nil {
			return BatchItem{}, b.cut(err)
		}
		length, err := b.uvarint("length of the state", 1<<56)
		if err != nil {
			return BatchItem{}, err
		}
		enc = binary.AppendUvarint(enc, length)
		tail := enc[len(enc) : len(enc)+int(length%64)]
		if _, err := io.ReadFull(b.r, tail); err != nil {
			return BatchItem{}, b.cut(err)
		}
		enc = enc[:len(enc)+len(tail)]
	}
	s, _, err := chunk.DecodeSHAState(enc)
	if err != nil {
		return BatchItem{}, b.fail("%w", err)
	}
	return BatchItem{Kind: BatchSegment, State: s}, nil
}

func (b *BatchReader) readFrame() (BatchItem, error) {
	l := &b.limits
	count, err := b.uvarint("number of chunks", uint64(l.FrameChunks()))
	if err != nil {
		return BatchItem{}, err
	}
	if count == 0 {
		return BatchItem{}, b.fail("the frame has no chunks")
	}
	if err := b.count(count); err != nil {
		return BatchItem{}, err
	}
	b.names, b.sizes = b.names[:0], b.sizes[:0]
	plain := 0
	for i := range count {
		var name chunk.Name
		if _, err := io.ReadFull(b.r, name[:]); err != nil {
			return BatchItem{}, b.cut(err)
		}
		size, err := b.uvarint("size of a chunk", uint64(l.ChunkMax))
		if err != nil {
			return BatchItem{}, err
		}
		if size == 0 || i+1 < count && size < uint64(l.ChunkMin) {
			return BatchItem{}, b.fail("chunk %d of %d has %d bytes, want at least %d, but for the last", i, count, size, l.ChunkMin)
		}
		if plain += int(size); plain > l.FrameBytes {
			return BatchItem{}, b.fail("the chunks of the frame have more than %d bytes", l.FrameBytes)
		}
		b.names, b.sizes = append(b.names, name), append(b.sizes, uint32(size))
	}
	if b.plain += int64(plain); b.plain > l.SegmentBytes {
		return BatchItem{}, b.fail("the segment has more than %d plain bytes", l.SegmentBytes)
	}
	length, err := b.uvarint("length of the frame", uint64(l.EncodedFrameBytes()))
	if err != nil {
		return BatchItem{}, err
	}
	if err := b.fill(int(length)); err != nil {
		return BatchItem{}, err
	}
	return BatchItem{Kind: BatchFrame, Names: b.names, Sizes: b.sizes, Frame: b.frame}, nil
}

// fill reads the bytes of a frame. What is allocated grows with what arrives, and is
// then used again.
func (b *BatchReader) fill(length int) error {
	const step = 64 << 10
	b.frame = b.frame[:0]
	for len(b.frame) < length {
		n := min(length-len(b.frame), max(step, cap(b.frame)-len(b.frame)))
		if cap(b.frame)-len(b.frame) < n {
			grown := make([]byte, len(b.frame), min(2*len(b.frame)+step, max(length, step)))
			copy(grown, b.frame)
			b.frame = grown
			n = min(length-len(b.frame), cap(b.frame)-len(b.frame))
		}
		part := b.frame[len(b.frame) : len(b.frame)+n]
		if _, err := io.ReadFull(b.r, part); err != nil {
			return b.cut(err)
		}
		b.frame = b.frame[:len(b.frame)+n]
	}
	return nil
}

func (b *BatchReader) readKnown() (BatchItem, error) {
	count, err := b.uvarint("number of chunks", uint64(b.limits.KnownChunks()-b.known))
	if err != nil {
		return BatchItem{}, err
	}
	if count == 0 {
		return BatchItem{}, b.fail("no chunks, want some")
	}
	if err := b.count(count); err != nil {
		return BatchItem{}, err
	}
	b.known += int(count)
	b.refs = b.refs[:0]
	for range count {
		var ref [chunk.RefBytes]byte
		if _, err := io.ReadFull(b.r, ref[:]); err != nil {
			return BatchItem{}, b.cut(err)
		}
		b.refs = append(b.refs, chunk.RefAt(ref[:]))
	}
	return BatchItem{Kind: BatchKnown, Refs: b.refs}, nil
}

// count counts the chunks of an item.
func (b *BatchReader) count(n uint64) error {
	if b.chunks += int(n); b.chunks > b.limits.Chunks {
		return b.fail("%w, want at most %d", ErrBatchChunks, b.limits.Chunks)
	}
	return nil
}

// uvarint reads a number in its shortest form.
func (b *BatchReader) uvarint(what string, limit uint64) (uint64, error) {
	var v uint64
	for i := 0; ; i++ {
		c, err := b.r.ReadByte()
		if err != nil {
			return 0, b.cut(err)
		}
		if i == binary.MaxVarintLen64-1 && c > 1 || i > 0 && c == 0 {
			return 0, b.fail("%s: malformed number", what)
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			break
		}
	}
	if v > limit {
		return 0, b.fail("%s is %d, want at most %d", what, v, limit)
	}
	return v, nil
}
