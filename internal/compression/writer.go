package compression

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/pierrec/lz4/v4"
)

// NewWriter encodes what is written to it; Close completes it and leaves w open. There is
// no writer for zstd: NARs are kept in it.
func NewWriter(f Format, w io.Writer) (io.WriteCloser, error) {
	switch f {
	case None:
		return nopCloser{w}, nil
	case Xz:
		return &xzWriter{w: w}, nil
	case Bzip2:
		return newBzip2Writer(w), nil
	case Gzip:
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case Brotli:
		return brotli.NewWriterLevel(w, brotli.BestSpeed), nil
	case Lz4:
		w := lz4.NewWriter(w)
		return w, w.Apply(lz4.BlockSizeOption(lz4.Block256Kb))
	case Zstd:
	}
	return nil, errors.ErrUnsupported
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// xzWriter makes a stream of one block whose chunks are not compressed.
//
//	stream header   12 B
//	block header    12 B: one filter, LZMA2 with a dictionary of 64 KiB
//	chunks          control, 1 B (1 the first, 2 others); length-1, 2 B; up to 64 KiB
//	end of chunks   1 B, 0; zeros up to a multiple of four
//	check           CRC-32 of the plain data
//	index, footer
type xzWriter struct {
	w       io.Writer
	buf     []byte // a chunk that gathers, with room for its header in front
	begun   bool
	first   bool
	plain   int64
	written int64 // of the block: header, chunks
	sum     uint32
	err     error
}

const (
	xzChunk       = 64 << 10
	xzChunkHeader = 3
	xzBlockHeader = 12
	xzDict64K     = 8 // (2 | 8&1) << (8/2 + 11)
)

func (x *xzWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 && x.err == nil {
		if x.buf == nil {
			x.buf = make([]byte, xzChunkHeader, xzChunkHeader+xzChunk)
		}
		n := min(len(p), cap(x.buf)-len(x.buf))
		x.buf = append(x.buf, p[:n]...)
		p = p[n:]
		if len(x.buf) == cap(x.buf) {
			x.flush()
		}
	}
	return total - len(p), x.err
}

func (x *xzWriter) put(b []byte) {
	if x.err == nil {
		_, x.err = x.w.Write(b)
	}
}

func (x *xzWriter) begin() {
	if x.begun {
		return
	}
	x.begun, x.first = true, true
	h := append([]byte(xzBeginning), 0, xzCheckCRC32)
	h = binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE(h[6:8]))
	block := []byte{xzBlockHeader/4 - 1, 0, xzFilterLZMA2, 1, xzDict64K, 0, 0, 0}
	block = binary.LittleEndian.AppendUint32(block, crc32.ChecksumIEEE(block))
	x.put(append(h, block...))
	x.written = xzBlockHeader
}

func (x *xzWriter) flush() {
	x.begin()
	n := len(x.buf) - xzChunkHeader
	if n <= 0 {
		return
	}
	x.buf[0] = 2
	if x.first {
		x.buf[0], x.first = 1, false
	}
	binary.BigEndian.PutUint16(x.buf[1:], uint16(n-1))
	x.sum = crc32.Update(x.sum, crc32.IEEETable, x.buf[xzChunkHeader:])
	x.put(x.buf)
	x.plain += int64(n)
	x.written += int64(len(x.buf))
	x.buf = x.buf[:xzChunkHeader]
}

// Close implements io.Closer.
func (x *xzWriter) Close() error {
	x.flush()
	x.written++ // the end of the chunks
	tail := make([]byte, 1+(-x.written&3), 64)
	tail = binary.LittleEndian.AppendUint32(tail, x.sum)
	at := len(tail)
	tail = append(tail, 0, 1)
	tail = binary.AppendUvarint(tail, uint64(x.written)+4)
	tail = binary.AppendUvarint(tail, uint64(x.plain))
	for (len(tail)-at)%4 != 0 {
		tail = append(tail, 0)
	}
	tail = binary.LittleEndian.AppendUint32(tail, crc32.ChecksumIEEE(tail[at:]))
	footer := binary.LittleEndian.AppendUint32(nil, uint32((len(tail)-at)/4-1))
	footer = append(footer, 0, xzCheckCRC32)
	tail = binary.LittleEndian.AppendUint32(tail, crc32.ChecksumIEEE(footer))
	x.put(append(append(tail, footer...), xzEnding...))
	return x.err
}
