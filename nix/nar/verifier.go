package nar

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"github.com/celler/celler/nix"
)

// A Verifier judges a NAR that is written to it in pieces of any size, for
// instance as one arm of an [io.MultiWriter]. Write fails at the first byte that
// no NAR could have there; Close fails if the archive is not complete.
type Verifier struct {
	// OnEntry, if set, is called with every entry as it begins. The Header is
	// valid during the call.
	OnEntry func(*Header)

	p     parser
	off   int64
	start int64 // offset of the current string
	err   error
	stage stage
	buf   []byte // the part of the current length or string that has arrived
	left  int64  // bytes of the current length, string, contents or padding still to come
	pad   int    // padding after the current string
}

type stage uint8

const (
	stageLength stage = iota
	stageString
	stageContents
	stagePadding
)

// NewVerifier returns a Verifier that has seen nothing.
func NewVerifier() *Verifier {
	v := &Verifier{}
	v.Reset()
	return v
}

// Reset makes the Verifier judge another NAR with the buffers it has.
func (v *Verifier) Reset() {
	v.p.reset()
	v.off, v.start, v.err = 0, 0, nil
	v.buf = v.buf[:0]
	v.stage, v.left, v.pad = stageLength, 8, 0
}

// Write judges the next bytes. After an error it keeps returning that error.
func (v *Verifier) Write(b []byte) (int, error) {
	total := len(b)
	for len(b) > 0 && v.err == nil {
		b = b[v.step(b):]
	}
	return total - len(b), v.err
}

// Close reports whether the archive was complete and valid.
func (v *Verifier) Close() error {
	switch {
	case v.err != nil:
	case v.stage == stagePadding:
		v.err = v.p.endPadding(v.off)
	case v.p.state != wantEnd:
		v.err = v.p.end(v.off)
	}
	return v.err
}

// Size is how many bytes were accepted.
func (v *Verifier) Size() int64 { return v.off }

// Summary is complete once Close has returned nil.
func (v *Verifier) Summary() Summary {
	s := v.p.sum
	s.NarSize = v.off
	return s
}

// step consumes some of b, which is not empty, and says how much.
func (v *Verifier) step(b []byte) int {
	if v.p.state == wantEnd && v.stage == stageLength {
		v.err = v.p.fail(v.off, "more data")
		return 0
	}
	n := int(min(int64(len(b)), v.left))
	chunk := b[:n]
	switch v.stage {
	case stageContents:
		v.advance(n)
		if v.left == 0 {
			v.p.contentsDone()
			v.afterString()
		}
	case stagePadding:
		for _, c := range chunk {
			if c != 0 {
				v.err = v.p.badPadding(v.off - (int64(v.pad) - v.left))
				return 0
			}
		}
		v.advance(n)
		if v.left == 0 {
			v.expectLength()
		}
	case stageLength, stageString:
		if int64(n) < v.left {
			v.buf = append(v.buf, chunk...)
			v.advance(n)
			break
		}
		if len(v.buf) > 0 {
			v.buf = append(v.buf, chunk...)
			chunk = v.buf
		}
		v.advance(n)
		if v.stage == stageLength {
			v.length(chunk)
		} else {
			v.string(chunk)
		}
	}
	return n
}

func (v *Verifier) advance(n int) {
	v.off += int64(n)
	v.left -= int64(n)
}

func (v *Verifier) expectLength() {
	v.stage, v.left, v.start = stageLength, 8, v.off
	v.buf = v.buf[:0]
}

func (v *Verifier) length(b []byte) {
	n := binary.LittleEndian.Uint64(b)
	if n > uint64(v.p.limit()) || int64(n) > maxContents-v.start {
		v.err = v.p.tooLong(v.start, n)
		return
	}
	v.buf = v.buf[:0]
	v.left, v.pad = int64(n), padding(int64(n))
	if v.p.state == wantContents {
		v.p.contents(v.off, v.left)
		if v.OnEntry != nil {
			v.OnEntry(&v.p.hdr)
		}
		v.stage = stageContents
		if n == 0 {
			v.p.contentsDone()
			v.afterString()
		}
		return
	}
	v.stage = stageString
	if n == 0 {
		v.string(nil)
	}
}

func (v *Verifier) string(b []byte) {
	entry, err := v.p.token(v.start, b)
	if err != nil {
		v.err = err
		return
	}
	if entry && v.OnEntry != nil {
		v.OnEntry(&v.p.hdr)
	}
	v.afterString()
}

func (v *Verifier) afterString() {
	if v.pad == 0 {
		v.expectLength()
		return
	}
	v.stage, v.left = stagePadding, int64(v.pad)
}

// Verify reads r to its end, checks that it is exactly one NAR, and hashes it.
func Verify(r io.Reader) (Summary, error) {
	v := NewVerifier()
	sum := sha256.New()
	buf := make([]byte, verifyBuffer)
	for {
		n, rerr := r.Read(buf)
		if _, err := v.Write(buf[:n]); err != nil {
			return Summary{}, err
		}
		sum.Write(buf[:n])
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return Summary{}, rerr
		}
	}
	if err := v.Close(); err != nil {
		return Summary{}, err
	}
	s := v.Summary()
	s.NarHash = nix.SHA256Hash([32]byte(sum.Sum(nil)))
	return s, nil
}

// verifyBuffer is a compromise between calls of Read and the processor's cache.
const verifyBuffer = 64 << 10
