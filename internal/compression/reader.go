package compression

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

const (
	// MaxMemory is the most that a decoder may need: a window of 128 MiB, which is what
	// the highest levels of zstd and xz ask for, and some.
	MaxMemory = 128<<20 + 4<<20

	baseMemory   = 1 << 20
	bzip2Memory  = 4 << 20          // four bytes for each of 900 kB
	brotliMemory = 16<<20 + 1<<20   // the largest window there is without its extension
	lz4Memory    = 28 << 20         // three times the largest block there is, 8 MiB, and some
	maxWindow    = int64(128 << 20) // of zstd and xz
	headerBytes  = 128              // of what a format announces
)

// lz4Beginning begins a frame of lz4.
const lz4Beginning = "\x04\x22\x4d\x18"

// ErrMemory reports data that announce, or come to need, more memory than is allowed.
var ErrMemory = errors.New("it needs too much memory to be decompressed")

// CorruptError reports data that are not what their format demands.
type CorruptError struct {
	Format Format
	Err    error
}

func (e *CorruptError) Error() string { return fmt.Sprintf("decompress %v data: %v", e.Format, e.Err) }
func (e *CorruptError) Unwrap() error { return e.Err }

// Reader gives the plain data. It ends with io.EOF only if the compressed data were
// complete and nothing followed them.
type Reader struct {
	format Format
	src    *source
	dec    io.Reader
	stop   func()
	err    error
}

// source remembers why reading failed, which decoders do not all tell.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return EOF itself
		s.err = err
	}
	return n, err
}

// NewReader decodes src. reserve is called once, before anything is allocated, with the
// memory that the data announce to need; what it returns NewReader fails with.
func NewReader(f Format, src io.Reader, reserve func(bytes int64) error) (*Reader, error) {
	r := &Reader{format: f, src: &source{r: src}, stop: func() {}}
	in := bufio.NewReaderSize(r.src, 64<<10)
	begin, err := in.Peek(headerBytes)
	if err != nil && r.src.err != nil {
		return nil, r.src.err
	}
	need, err := need(f, begin)
	if err != nil {
		return nil, &CorruptError{f, err}
	}
	if need > MaxMemory {
		return nil, &CorruptError{f, ErrMemory}
	}
	if err := reserve(need); err != nil {
		return nil, err
	}
	if err := r.open(in, need); err != nil {
		return nil, r.why(err)
	}
	return r, nil
}

func (r *Reader) open(in *bufio.Reader, need int64) (err error) {
	switch r.format {
	case None:
		r.dec = in
	case Xz:
		r.dec = newXzReader(in, need-baseMemory)
	case Bzip2:
		r.dec = bzip2.NewReader(in)
	case Brotli:
		r.dec = brotli.NewReader(in)
	case Lz4:
		r.dec = lz4.NewReader(in)
	case Gzip:
		r.dec, err = gzip.NewReader(in)
	case Zstd:
		dec, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(max(need-baseMemory, zstd.MinWindowSize))))
		if err != nil {
			return err
		}
		r.dec, r.stop = dec, dec.Close
	default:
		err = errors.ErrUnsupported
	}
	return err
}

// need is the memory that data announce.
func need(f Format, begin []byte) (int64, error) {
	switch f {
	case Xz:
		dict, err := xzDictionary(begin)
		return dict + baseMemory, err
	case Zstd:
		// Some writers begin with a frame that holds nothing for the decoder.
		var h zstd.Header
		if err := h.Decode(begin); err != nil {
			return 0, err
		}
		window := int64(h.WindowSize)
		if h.WindowSize > uint64(maxWindow) {
			return 0, ErrMemory
		}
		if h.Skippable || h.SingleSegment {
			window = max(window, 8<<20) // those after it may be longer
		}
		return max(window, zstd.MinWindowSize) + baseMemory, nil
	case Bzip2:
		return bzip2Memory, nil
	case Brotli:
		return brotliMemory, nil
	case Lz4:
		if !bytes.HasPrefix(begin, []byte(lz4Beginning)) {
			return 0, fmt.Errorf("it begins with %x, want %x", begin[:min(len(begin), len(lz4Beginning))], lz4Beginning)
		}
		return lz4Memory, nil
	case None, Gzip:
	}
	return baseMemory, nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.dec.Read(p)
	if err != nil {
		r.err = r.why(err)
		return n, r.err
	}
	return n, nil
}

// why tells errors of the source from those of what it gave.
func (r *Reader) why(err error) error {
	switch {
	case r.src.err != nil:
		return r.src.err
	case err == io.EOF: //nolint:errorlint // only the bare one is the end
		return io.EOF
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = ErrMemory
	case r.format == None:
		return err
	}
	return &CorruptError{r.format, err}
}

// Close lets go of the memory.
func (r *Reader) Close() {
	r.stop()
	if r.err == nil {
		r.err = errors.New("compression: the reader is closed")
	}
}
