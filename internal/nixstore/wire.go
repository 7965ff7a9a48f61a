package nixstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"syscall"
)

const (
	// maxString bounds one string from the daemon; the longest are error
	// messages with the log of a failed build in them.
	maxString = 4 << 20
	// maxPathString bounds a store path.
	maxPathString = 8 << 10
	// maxList bounds the lists from the daemon; the longest is that of the valid
	// ones among the paths asked about.
	maxList = 4 << 20
	// preallocate bounds what is allocated on the word of a length alone.
	preallocate = 1 << 10
)

// A ProtocolError reports that the daemon said what the protocol does not allow.
type ProtocolError struct {
	Expected, Found string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("nix daemon: expected %s, found %s", e.Expected, e.Found)
}

// A decoder reads the daemon's half of the connection. It keeps its first error
// and returns zeros from then on.
type decoder struct {
	r   *bufio.Reader
	err error
}

func (d *decoder) fail(err error) {
	if d.err != nil {
		return
	}
	// In here every end comes too early, and however the transport puts it, it
	// means that the other side is gone.
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		err = io.ErrUnexpectedEOF
	}
	d.err = err
}

func (d *decoder) badf(expected, found string, args ...any) {
	d.fail(&ProtocolError{Expected: expected, Found: fmt.Sprintf(found, args...)})
}

func (d *decoder) uint64() uint64 {
	if d.err != nil {
		return 0
	}
	b, err := d.r.Peek(8)
	if err != nil {
		d.fail(err)
		return 0
	}
	n := binary.LittleEndian.Uint64(b)
	_, _ = d.r.Discard(8)
	return n
}

func (d *decoder) bool(what string) bool {
	n := d.uint64()
	if n > 1 {
		d.badf(what+", 0 or 1", "%d", n)
	}
	return n == 1
}

// int64 reads a number that must not be negative.
func (d *decoder) int64(what string) int64 {
	n := d.uint64()
	if n > math.MaxInt64 {
		d.badf(what, "%d", n)
		return 0
	}
	return int64(n)
}

func (d *decoder) string(what string, limit int) string {
	n := d.uint64()
	if d.err != nil {
		return ""
	}
	if n > uint64(limit) {
		d.badf(fmt.Sprintf("%s of at most %d bytes", what, limit), "%d bytes", n)
		return ""
	}
	padded := (int(n) + 7) &^ 7
	var b []byte
	if padded <= d.r.Size() {
		var err error
		if b, err = d.r.Peek(padded); err != nil {
			d.fail(err)
			return ""
		}
		defer func() { _, _ = d.r.Discard(padded) }()
	} else {
		// Longer than the buffer: grow with what arrives, not with what is
		// announced.
		var err error
		if b, err = io.ReadAll(io.LimitReader(d.r, int64(padded))); err != nil {
			d.fail(err)
			return ""
		}
		if len(b) < padded {
			d.fail(io.ErrUnexpectedEOF)
			return ""
		}
	}
	for _, c := range b[n:] {
		if c != 0 {
			d.badf("padding of zeros after "+what, "%q", b[n:])
			return ""
		}
	}
	return string(b[:n])
}

func (d *decoder) strings(what string, limit int) []string {
	n := d.count(what)
	if n == 0 {
		return nil
	}
	list := make([]string, 0, min(n, preallocate))
	for range n {
		s := d.string(what, limit)
		if d.err != nil {
			return nil
		}
		list = append(list, s)
	}
	return list
}

func (d *decoder) count(what string) int {
	n := d.uint64()
	if n > maxList {
		d.badf(fmt.Sprintf("at most %d of %s", maxList, what), "%d", n)
		return 0
	}
	return int(n)
}

func appendUint64(dst []byte, n uint64) []byte {
	return binary.LittleEndian.AppendUint64(dst, n)
}

func appendString(dst []byte, s string) []byte {
	dst = appendUint64(dst, uint64(len(s)))
	dst = append(dst, s...)
	var zeros [8]byte
	return append(dst, zeros[:-len(s)&7]...)
}
