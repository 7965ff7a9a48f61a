package nar

import (
	"bufio"
	"encoding/binary"
	"io"
)

// readerBuffer is what a Reader reads ahead. It must hold the longest string
// that is looked at in one piece, a symlink target.
const readerBuffer = 64 << 10

// A Reader pulls the entries of a NAR from a stream, parents before children, in
// the order in which they stand.
//
//	r := nar.NewReader(f)
//	for {
//		h, err := r.Next()
//		if err == io.EOF {
//			break // complete and valid
//		}
//		…
//	}
type Reader struct {
	br   *bufio.Reader
	p    parser
	off  int64
	left int64 // of the current file's contents
	seek io.Seeker
	err  error
}

// seekFrom is how many bytes of contents must be left to be passed over for a seek to be
// worth more than reading on.
const seekFrom = 1 << 20

// NewSeekReader reads a NAR from r, from where that stands, and passes over contents that
// are not read by seeking.
func NewSeekReader(r io.ReadSeeker) *Reader {
	nr := NewReader(r)
	nr.seek = r
	return nr
}

// NewReader reads a NAR from r, which it may read past the end of.
func NewReader(r io.Reader) *Reader {
	return &Reader{br: bufio.NewReaderSize(r, readerBuffer)}
}

// Reset makes the Reader read another NAR with the buffers it has.
func (r *Reader) Reset(src io.Reader) {
	r.br.Reset(src)
	r.p.reset()
	r.off, r.left, r.err = 0, 0, nil
	r.seek = nil
}

// Next skips what is left of the current file and returns the next entry. It
// returns io.EOF once the archive was complete and nothing followed it. The
// Header is valid until the next call.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	if err != nil {
		r.err = err
		return nil, err
	}
	return h, nil
}

func (r *Reader) next() (*Header, error) {
	if r.p.state == wantContents {
		if err := r.finishContents(); err != nil {
			return nil, err
		}
	}
	for r.p.state != wantEnd {
		start := r.off
		n, err := r.length()
		if err != nil {
			return nil, err
		}
		if r.p.state == wantContents {
			r.p.contents(r.off, n)
			r.left = n
			return &r.p.hdr, nil
		}
		entry, err := r.token(start, int(n))
		if err != nil {
			return nil, err
		}
		if entry {
			return &r.p.hdr, nil
		}
	}
	if _, err := r.br.Peek(1); err != io.EOF {
		if err == nil {
			err = r.p.fail(r.off, "more data")
		}
		return nil, err
	}
	return nil, io.EOF
}

// length reads the length of a string and checks it against what the grammar
// can accept now.
func (r *Reader) length() (int64, error) {
	b, err := r.peek(8)
	if err != nil {
		return 0, err
	}
	n := binary.LittleEndian.Uint64(b)
	if n > uint64(r.p.limit()) || int64(n) > maxContents-r.off {
		return 0, r.p.tooLong(r.off, n)
	}
	r.discard(8)
	return int64(n), nil
}

// token feeds the next n bytes to the grammar and checks the padding.
func (r *Reader) token(start int64, n int) (entry bool, err error) {
	pad := padding(int64(n))
	b, err := r.peek(n + pad)
	if err != nil {
		// The grammar's verdict on a complete string comes before the end of the
		// input, as it does for a Verifier.
		if len(b) >= n {
			if _, terr := r.p.token(start, b[:n]); terr != nil {
				return false, terr
			}
			return false, r.shortPadding(err, b[n:], r.off+int64(n))
		}
		return false, err
	}
	entry, err = r.p.token(start, b[:n])
	if err != nil {
		return false, err
	}
	for _, c := range b[n:] {
		if c != 0 {
			return false, r.p.badPadding(r.off + int64(n))
		}
	}
	r.discard(n + pad)
	return entry, nil
}

// shortPadding judges padding that the input ends within.
func (r *Reader) shortPadding(err error, pad []byte, offset int64) error {
	for _, c := range pad {
		if c != 0 {
			return r.p.badPadding(offset)
		}
	}
	if e, ok := err.(*SyntaxError); ok {
		return r.p.endPadding(e.Offset)
	}
	return err
}

// peek returns n bytes without consuming them. If there are fewer it returns
// those and an error that says where the input ended.
func (r *Reader) peek(n int) ([]byte, error) {
	b, err := r.br.Peek(n)
	if err == nil {
		return b, nil
	}
	if truncated(err) {
		err = r.p.end(r.off + int64(len(b)))
	}
	return b, err
}

func (r *Reader) discard(n int) {
	_, _ = r.br.Discard(n) // was peeked, so it is there
	r.off += int64(n)
}

// Read reads the contents of the current file; it returns io.EOF at their end,
// and at once if the current entry has none.
func (r *Reader) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if int64(len(b)) > r.left {
		b = b[:r.left]
	}
	n, err := r.br.Read(b)
	r.left -= int64(n)
	r.off += int64(n)
	if err != nil && r.left > 0 {
		if truncated(err) {
			err = r.p.end(r.off)
		}
		r.err = err
		return n, err
	}
	return n, nil
}

func (r *Reader) finishContents() error {
	if rest := r.left - int64(r.br.Buffered()); r.seek != nil && rest >= seekFrom {
		r.discardBuffered()
		// Not to the very end: a NAR that is cut off there must not pass for one that is
		// whole, and a seek beyond the end is no error.
		n := rest - 1
		if _, err := r.seek.Seek(n, io.SeekCurrent); err != nil {
			return err
		}
		r.left -= n
		r.off += n
	}
	for r.left > 0 {
		n, err := r.br.Discard(int(min(r.left, 1<<30)))
		r.left -= int64(n)
		r.off += int64(n)
		if err != nil {
			if truncated(err) {
				err = r.p.end(r.off)
			}
			return err
		}
	}
	pad := padding(r.p.hdr.Size)
	b, err := r.peek(pad)
	r.p.contentsDone()
	if err != nil {
		return r.shortPadding(err, b, r.off)
	}
	for _, c := range b {
		if c != 0 {
			return r.p.badPadding(r.off)
		}
	}
	r.discard(pad)
	return nil
}

// discardBuffered drops what was read ahead, all of it contents.
func (r *Reader) discardBuffered() {
	n, _ := r.br.Discard(r.br.Buffered())
	r.left -= int64(n)
	r.off += int64(n)
}

// Offset is how many bytes of the NAR were consumed.
func (r *Reader) Offset() int64 { return r.off }

// Summary is complete once Next has returned io.EOF.
func (r *Reader) Summary() Summary {
	s := r.p.sum
	s.NarSize = r.off
	return s
}
