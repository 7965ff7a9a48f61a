package compression

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The container of xz is read here rather than by the library, which allocates whatever
// dictionary a block announces. Checksums of blocks are passed over: what is inside is
// known by better hashes.

const (
	xzBeginning   = "\xfd7zXZ\x00"
	xzEnding      = "YZ"
	xzHeaderBytes = 12
	xzFilterLZMA2 = 0x21
	xzCheckCRC32  = 1
	xzFreeDicts   = 1 << 30 // of dictionaries, whatever is in their blocks
)

var (
	errXzTruncated   = fmt.Errorf("it ends too early: %w", io.ErrUnexpectedEOF)
	errXzShortBlocks = errors.New("its blocks are many, and much shorter than their dictionaries")
)

// xzCheckBytes are the lengths of the checks of a block, by the number of the check.
func xzCheckBytes(kind byte) int {
	return [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[kind&15]
}

// xzReader decodes the streams of a file.
type xzReader struct {
	in     *counted
	limit  int64 // of dictionaries
	flags  [2]byte
	check  int
	open   bool // within a stream
	blocks uint64
	block  *lzma.Reader2
	start  int64 // where the data of the block begin
	dicts  int64 // of all blocks
	plain  int64
	err    error
}

// counted knows how much was read.
type counted struct {
	r *bufio.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counted) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func newXzReader(in *bufio.Reader, limit int64) *xzReader {
	return &xzReader{in: &counted{r: in}, limit: limit}
}

func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(p)
		x.plain += int64(n)
		if err == io.EOF { //nolint:errorlint // the library returns the bare one
			x.block = nil
			if err = x.endBlock(); err == nil && n == 0 {
				continue
			}
		} else if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errXzTruncated
		}
		x.err = err
		return n, x.err
	}
	return 0, x.err
}

// next goes on to the next block, whatever lies before it.
func (x *xzReader) next() error {
	if !x.open {
		return x.header()
	}
	size, err := x.in.ReadByte()
	switch {
	case err != nil:
		return errXzTruncated
	case size == 0:
		return x.index()
	}
	header := make([]byte, (int(size)+1)*4)
	header[0] = size
	if _, err := io.ReadFull(x.in, header[1:]); err != nil {
		return errXzTruncated
	}
	dict, err := xzBlock(header)
	if err != nil {
		return err
	}
	if err := x.announce(dict); err != nil {
		return err
	}
	x.blocks++
	x.start = x.in.n
	x.block, err = lzma.Reader2Config{DictCap: int(max(dict, lzma.MinDictCap))}.NewReader2(x.in)
	return err
}

// announce bounds what a block's dictionary costs. Each is allocated anew and cleared, which
// is work that the data must be worth: writers make blocks longer than their dictionaries.
func (x *xzReader) announce(dict int64) error {
	if dict > x.limit {
		return ErrMemory
	}
	if x.dicts += dict; x.dicts > xzFreeDicts+4*x.plain {
		return errXzShortBlocks
	}
	return nil
}

// header reads the beginning of a stream; before that of a further one there may be zeros.
func (x *xzReader) header() error {
	var h [xzHeaderBytes]byte
	for {
		n, err := io.ReadFull(x.in, h[:4])
		if n == 0 && err == io.EOF && x.flags != [2]byte{} { //nolint:errorlint // ReadFull returns the bare one
			return io.EOF
		}
		if err != nil {
			return errXzTruncated
		}
		if x.flags == ([2]byte{}) || h[0] != 0 || [4]byte(h[:4]) != [4]byte{} {
			break
		}
	}
	if _, err := io.ReadFull(x.in, h[4:]); err != nil {
		return errXzTruncated
	}
	if err := xzStream(h[:]); err != nil {
		return err
	}
	x.flags = [2]byte{0xff, h[7]} // not zero: a stream was there
	x.check = xzCheckBytes(h[7])
	x.open, x.blocks = true, 0
	return nil
}

func xzStream(h []byte) error {
	switch {
	case string(h[:6]) != xzBeginning:
		return fmt.Errorf("it begins with %x, want %x", h[:6], xzBeginning)
	case h[6] != 0 || h[7] > 15:
		return fmt.Errorf("flags of the stream are %x", h[6:8])
	case binary.LittleEndian.Uint32(h[8:]) != crc32.ChecksumIEEE(h[6:8]):
		return errors.New("checksum of the stream header is wrong")
	}
	return nil
}

// xzBlock returns the dictionary of a block, whose header is whole.
func xzBlock(h []byte) (dict int64, err error) {
	end := len(h) - 4
	if binary.LittleEndian.Uint32(h[end:]) != crc32.ChecksumIEEE(h[:end]) {
		return 0, errors.New("checksum of a block header is wrong")
	}
	flags, rest := h[1], bytes.NewReader(h[2:end])
	if flags&0x3c != 0 || flags&3 != 0 {
		return 0, fmt.Errorf("flags of a block are %#x: only LZMA2 without other filters is supported", flags)
	}
	for _, bit := range []byte{0x40, 0x80} { // lengths
		if flags&bit != 0 {
			if _, err := binary.ReadUvarint(rest); err != nil {
				return 0, errXzTruncated
			}
		}
	}
	var filter [3]byte
	if _, err := io.ReadFull(rest, filter[:]); err != nil {
		return 0, errXzTruncated
	}
	if filter[0] != xzFilterLZMA2 || filter[1] != 1 || filter[2] > 40 {
		return 0, fmt.Errorf("filter of a block is %x: only LZMA2 without other filters is supported", filter)
	}
	if filter[2] == 40 {
		return 1<<32 - 1, nil
	}
	return int64(2|filter[2]&1) << (filter[2]/2 + 11), nil
}

// xzDictionary returns the dictionary of the first block of a file; 0 if there is none.
func xzDictionary(begin []byte) (int64, error) {
	if len(begin) < xzHeaderBytes {
		return 0, errXzTruncated
	}
	if err := xzStream(begin); err != nil {
		return 0, err
	}
	rest := begin[xzHeaderBytes:]
	if len(rest) == 0 {
		return 0, errXzTruncated
	}
	// A header that announces lengths, too, is longer than what is at hand; those that
	// all writers make are not.
	if size := (int(rest[0]) + 1) * 4; rest[0] != 0 && size <= len(rest) {
		return xzBlock(rest[:size])
	}
	if rest[0] == 0 {
		return 0, nil
	}
	return 8 << 20, nil
}

// endBlock passes over what follows the data of a block.
func (x *xzReader) endBlock() error {
	pad := int(-(x.in.n - x.start) & 3)
	tail := make([]byte, pad+x.check)
	if _, err := io.ReadFull(x.in, tail); err != nil {
		return errXzTruncated
	}
	for _, c := range tail[:pad] {
		if c != 0 {
			return errors.New("padding of a block is not zero")
		}
	}
	return nil
}

// index passes over the index and the footer of a stream.
func (x *xzReader) index() error {
	start := x.in.n - 1
	records, err := binary.ReadUvarint(x.in)
	if err != nil {
		return errXzTruncated
	}
	if records != x.blocks {
		return fmt.Errorf("the index has %d blocks, there were %d", records, x.blocks)
	}
	for range 2 * records {
		if _, err := binary.ReadUvarint(x.in); err != nil {
			return errXzTruncated
		}
	}
	tail := make([]byte, int(-(x.in.n-start)&3)+4+xzHeaderBytes) // padding, checksum, footer
	if _, err := io.ReadFull(x.in, tail); err != nil {
		return errXzTruncated
	}
	footer := tail[len(tail)-xzHeaderBytes:]
	if string(footer[10:]) != xzEnding || binary.LittleEndian.Uint32(footer) != crc32.ChecksumIEEE(footer[4:10]) || footer[9] != x.flags[1] {
		return errors.New("the footer is damaged")
	}
	x.open = false
	return nil
}
