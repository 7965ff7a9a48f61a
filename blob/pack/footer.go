package pack

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
)

const (
	magic         = "CLP1"
	footerVersion = 1

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

// ID names a pack.
type ID = chunk.PackID

// Key returns the key of the object that holds pack id.
func Key(id ID) blob.Key { return blob.Key("pack/" + id.String()) }

// Kind says how the plain bytes of a chunk are stored.
type Kind uint8

// KindPlain is a chunk stored as it is.
const KindPlain Kind = 0

// Footer is what a pack says of itself.
type Footer struct {
	Layout chunk.Layout
	IDs    []chunk.ID // of every chunk, in the order of the pack
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

// AppendFooter appends the footer of a pack with layout l, and the trailer. Of l
// it uses the id, the frames and the sizes.
func AppendFooter(dst []byte, l *chunk.Layout, ids []chunk.ID) []byte {
	start := len(dst)
	dst = append(dst, footerVersion)
	dst = binary.LittleEndian.AppendUint32(dst, l.ID.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, l.ID.Rand)
	dst = binary.AppendUvarint(dst, uint64(len(l.Frames)))
	for _, f := range l.Frames {
		dst = binary.AppendUvarint(dst, uint64(f.Size))
		dst = binary.LittleEndian.AppendUint32(dst, f.Checksum)
		dst = binary.AppendUvarint(dst, uint64(f.Chunks))
	}
	for i, id := range ids {
		dst = append(dst, byte(KindPlain))
		dst = binary.AppendUvarint(dst, uint64(l.Sizes[i]))
		dst = append(dst, id[:]...)
	}
	footer := dst[start:]
	sum := CRC(footer)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(footer)))
	dst = binary.LittleEndian.AppendUint32(dst, sum)
	return append(dst, magic...)
}

// DecodeFooter decodes the footer of pack id from tail, the last bytes of the
// object, which has size bytes in all. The error is a *CorruptError, or a
// *ShortError if tail begins after the footer does.
func DecodeFooter(id ID, tail []byte, size int64) (Footer, error) {
	d := decoder{key: Key(id), end: size}
	if size < int64(len(tail)) {
		return Footer{}, d.corrupt(0, "object", fmt.Sprintf("at least %d bytes", len(tail)), fmt.Sprint(size))
	}
	if len(tail) < TrailerBytes {
		if size < int64(TrailerBytes) {
			return Footer{}, d.corrupt(0, "object", fmt.Sprintf("at least %d bytes", TrailerBytes), fmt.Sprint(size))
		}
		return Footer{}, &ShortError{Need: int64(TrailerBytes)}
	}
	trailer := tail[len(tail)-TrailerBytes:]
	at := size - int64(TrailerBytes)
	if got := string(trailer[8:]); got != magic {
		return Footer{}, d.corrupt(at+8, "magic", fmt.Sprintf("%q", magic), fmt.Sprintf("%q", got))
	}
	n := int64(binary.LittleEndian.Uint32(trailer))
	if n > MaxFooterBytes || n > at {
		return Footer{}, d.corrupt(at, "footer length", fmt.Sprintf("at most %d", min(at, MaxFooterBytes)), fmt.Sprint(n))
	}
	if int64(len(tail)) < n+int64(TrailerBytes) {
		return Footer{}, &ShortError{Need: n + int64(TrailerBytes)}
	}
	body := tail[int64(len(tail)-TrailerBytes)-n : len(tail)-TrailerBytes]
	if want, got := binary.LittleEndian.Uint32(trailer[4:]), CRC(body); want != got {
		return Footer{}, d.corrupt(at-n, "footer checksum", fmt.Sprintf("%08x", want), fmt.Sprintf("%08x", got))
	}
	d.src, d.end = body, at
	return d.footer(id, at-n, size)
}

// ShortError reports that DecodeFooter needs more of the object's tail.
type ShortError struct{ Need int64 }

func (e *ShortError) Error() string { return fmt.Sprintf("the last %d bytes are needed", e.Need) }

// guess is how much of a pack ReadFooter asks for first. The footer of a pack of
// 16 MiB with chunks of 16 KiB is some 80 KiB.
const guess = 128 << 10

// ReadFooter reads the footer of pack id, an object of size bytes, from bucket.
func ReadFooter(ctx context.Context, bucket blob.Bucket, id ID, size int64) (Footer, error) {
	n := min(size, guess)
	for {
		if n <= 0 {
			return DecodeFooter(id, nil, size)
		}
		tail, err := readTail(ctx, bucket, Key(id), size-n, n)
		if err != nil {
			return Footer{}, fmt.Errorf("read footer of %s: %w", Key(id), err)
		}
		f, err := DecodeFooter(id, tail, size)
		var short *ShortError
		if asShort(err, &short) && short.Need > n {
			n = short.Need
			continue
		}
		return f, err
	}
}

func readTail(ctx context.Context, bucket blob.Bucket, key blob.Key, off, n int64) ([]byte, error) {
	r, err := bucket.GetRange(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	tail := make([]byte, n)
	if _, err := io.ReadFull(r, tail); err != nil {
		return nil, err
	}
	return tail, nil
}

func asShort(err error, short **ShortError) bool {
	s, ok := err.(*ShortError) //nolint:errorlint // DecodeFooter returns it bare
	*short = s
	return ok
}

// decoder reads the body of a footer that ends at offset end of its object.
type decoder struct {
	key blob.Key
	src []byte
	end int64
	err error
}

func (d *decoder) corrupt(off int64, what, expected, found string) error {
	return &CorruptError{Key: d.key, Offset: off, What: what, Expected: expected, Found: found}
}

func (d *decoder) fail(what, expected, found string) {
	if d.err == nil {
		d.err = d.corrupt(d.end-int64(len(d.src)), what, expected, found)
	}
}

func (d *decoder) take(what string, n int) []byte {
	if d.err == nil && len(d.src) < n {
		d.fail(what, fmt.Sprintf("%d bytes", n), fmt.Sprintf("%d left", len(d.src)))
	}
	if d.err != nil {
		return nil
	}
	p := d.src[:n]
	d.src = d.src[n:]
	return p
}

// number reads a minimal varint from 1 to most.
func (d *decoder) number(what string, most uint64) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.src)
	if n <= 0 || n > 1 && d.src[n-1] == 0 {
		d.fail(what, "a minimal varint", "none")
		return 0
	}
	if v == 0 || v > most {
		d.fail(what, fmt.Sprintf("1 to %d", most), fmt.Sprint(v))
		return 0
	}
	d.src = d.src[n:]
	return v
}

// footer decodes the body; the frames end at offset frames, where it begins.
func (d *decoder) footer(id ID, frames, size int64) (Footer, error) {
	f := Footer{Layout: chunk.Layout{ID: id, Bytes: size}}
	if v := d.take("version", 1); v != nil && v[0] != footerVersion {
		return Footer{}, d.corrupt(frames, "version", fmt.Sprint(footerVersion), fmt.Sprint(v[0]))
	}
	if p := d.take("pack id", 12); p != nil {
		got := ID{Epoch: binary.LittleEndian.Uint32(p), Rand: binary.LittleEndian.Uint64(p[4:])}
		if got != id {
			return Footer{}, d.corrupt(frames+1, "pack id", id.String(), got.String())
		}
	}
	chunks := d.frames(&f, frames)
	for i := 0; i < chunks && d.err == nil; i++ {
		if k := d.take("chunk kind", 1); k != nil && Kind(k[0]) != KindPlain {
			d.fail("chunk kind", fmt.Sprint(KindPlain), fmt.Sprint(k[0]))
		}
		f.Layout.Sizes = append(f.Layout.Sizes, uint32(d.number("chunk length", MaxFramePlain)))
		if p := d.take("chunk id", len(chunk.ID{})); p != nil {
			f.IDs = append(f.IDs, chunk.ID(p))
		}
	}
	if d.err == nil && len(d.src) > 0 {
		d.fail("footer", "its end", fmt.Sprintf("%d more bytes", len(d.src)))
	}
	if d.err == nil {
		d.checkPlain(&f.Layout, frames)
	}
	if d.err != nil {
		return Footer{}, d.err
	}
	return f, nil
}

// frames decodes the frame table and returns the number of chunks.
func (d *decoder) frames(f *Footer, frames int64) int {
	const least, leastChunk = 6, 34 // bytes of a table entry
	n := d.number("number of frames", uint64(len(d.src)/least))
	off, chunks := int64(0), uint64(0)
	for i := uint64(0); i < n && d.err == nil; i++ {
		size := int64(d.number("frame length", maxFrameSize))
		sum := d.take("frame checksum", 4)
		count := d.number("chunks of a frame", chunk.MaxPackChunks)
		if d.err != nil {
			break
		}
		f.Layout.Frames = append(f.Layout.Frames, chunk.Frame{Offset: off, Size: size, Checksum: binary.LittleEndian.Uint32(sum), Chunks: uint32(count)})
		off += size
		chunks += count
	}
	switch {
	case d.err != nil:
	case off != frames:
		d.fail("total length of the frames", fmt.Sprint(frames), fmt.Sprint(off))
	case chunks > chunk.MaxPackChunks || chunks > uint64(len(d.src)/leastChunk):
		d.fail("number of chunks", fmt.Sprintf("at most %d", min(chunk.MaxPackChunks, len(d.src)/leastChunk)), fmt.Sprint(chunks))
	}
	return int(chunks)
}

// checkPlain checks that every frame may be decoded in bounded memory.
func (d *decoder) checkPlain(l *chunk.Layout, at int64) {
	next := 0
	for i, f := range l.Frames {
		plain := int64(0)
		for _, n := range l.Sizes[next : next+int(f.Chunks)] {
			plain += int64(n)
		}
		next += int(f.Chunks)
		if plain > MaxFramePlain {
			d.err = d.corrupt(at, fmt.Sprintf("plain length of frame %d", i), fmt.Sprintf("at most %d", MaxFramePlain), fmt.Sprint(plain))
			return
		}
	}
}

// ReadFooterOf reads the footer of a pack whose layout is known, in one request,
// and checks that it agrees with the layout.
func ReadFooterOf(ctx context.Context, bucket blob.Bucket, l *chunk.Layout) (Footer, error) {
	key := Key(l.ID)
	if len(l.Frames) == 0 {
		return Footer{}, fmt.Errorf("read footer of %s: its layout has no frames", key)
	}
	last := l.Frames[len(l.Frames)-1]
	at := last.Offset + last.Size
	if n := l.Bytes - at; n < int64(TrailerBytes) || n > MaxFooterBytes+int64(TrailerBytes) {
		return Footer{}, fmt.Errorf("read footer of %s: its layout leaves %d bytes for it", key, n)
	}
	tail, err := readTail(ctx, bucket, key, at, l.Bytes-at)
	if err != nil {
		return Footer{}, fmt.Errorf("read footer of %s: %w", key, err)
	}
	f, err := DecodeFooter(l.ID, tail, l.Bytes)
	if err != nil {
		return Footer{}, err
	}
	if !slices.Equal(f.Layout.Frames, l.Frames) || !slices.Equal(f.Layout.Sizes, l.Sizes) {
		return Footer{}, &CorruptError{
			Key: key, Offset: at, What: "footer",
			Expected: fmt.Sprintf("the %d frames and %d chunks of the index", len(l.Frames), len(l.Sizes)),
			Found:    fmt.Sprintf("other ones (%d frames, %d chunks)", len(f.Layout.Frames), len(f.Layout.Sizes)),
		}
	}
	return f, nil
}
