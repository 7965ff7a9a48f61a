package keyspace

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// rowVersion is the first byte of every value this package lays out itself.
// Pack rows carry the version of chunk.AppendLayout instead.
const rowVersion = 1

// maxText bounds every single text of a row. The longest there is in good faith
// is a content address or a signature, both far below 1 KiB.
const maxText = 8 << 10

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendTime(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(dst, 0)
	}
	return binary.AppendUvarint(dst, uint64(t.UnixMilli()))
}

// maxMillis is the last millisecond of the year 9999, beyond which times have no
// RFC 3339 form.
const maxMillis = 253402300799999

// ValidTime reports whether a row can hold t: the zero time, or one from 1970
// (and one millisecond) to the year 9999. Rows keep milliseconds and UTC.
func validTime(t time.Time) error {
	if ms := t.UnixMilli(); !t.IsZero() && (ms < 1 || ms > maxMillis) {
		return fmt.Errorf("time %v is outside 1970..9999", t)
	}
	return nil
}

// decoder reads the encodings of this package, from bytes or, where many texts
// are to share one allocation, from a string. After the first error it answers
// zeros, so that callers look once, in end.
type decoder[T []byte | string] struct {
	what string
	src  T
	err  error
}

func (d *decoder[T]) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("decode "+d.what+" row: "+format, args...)
	}
}

func (d *decoder[T]) end() error {
	if d.err == nil && len(d.src) != 0 {
		d.fail("%d bytes after the last field", len(d.src))
	}
	return d.err
}

func (d *decoder[T]) version() {
	if v := d.byte(); d.err == nil && v != rowVersion {
		d.fail("version is %d, want %d", v, rowVersion)
	}
}

// versionUpTo reads a version from rowVersion to newest.
func (d *decoder[T]) versionUpTo(newest byte) byte {
	v := d.byte()
	if d.err == nil && (v < rowVersion || v > newest) {
		d.fail("version is %d, want %d to %d", v, rowVersion, newest)
	}
	return v
}

func (d *decoder[T]) take(n int) T {
	var none T
	if d.err != nil {
		return none
	}
	if n > len(d.src) {
		d.fail("unexpected end, %d bytes left, want %d", len(d.src), n)
		return none
	}
	t := d.src[:n]
	d.src = d.src[n:]
	return t
}

func (d *decoder[T]) byte() byte {
	if t := d.take(1); len(t) == 1 {
		return t[0]
	}
	return 0
}

func (d *decoder[T]) fill(dst []byte) { copy(dst, d.take(len(dst))) }

// uvarint refuses longer spellings of the same number.
func (d *decoder[T]) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	var v uint64
	for i := range len(d.src) {
		b := d.src[i]
		if i == 9 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if i > 0 && b == 0 {
				break
			}
			d.src = d.src[i+1:]
			return v
		}
	}
	d.fail("malformed varint, %d bytes left", len(d.src))
	return 0
}

// upTo reads a number that may not exceed limit.
func (d *decoder[T]) upTo(limit uint64, what string) uint64 {
	v := d.uvarint()
	if v > limit {
		d.fail("%s is %d, want at most %d", what, v, limit)
		return 0
	}
	return v
}

// count reads a number of items of at least size bytes each, which must all fit
// in what is left: the bound on what is allocated for them.
func (d *decoder[T]) count(size int) int {
	v := d.uvarint()
	if v > uint64(len(d.src)/size) {
		d.fail("%d items of at least %d bytes said to be in %d bytes", v, size, len(d.src))
		return 0
	}
	return int(v)
}

func (d *decoder[T]) text() T {
	return d.take(int(d.upTo(maxText, "length of a text")))
}

func (d *decoder[T]) time() time.Time {
	ms := d.upTo(maxMillis, "time")
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// keyError says that key is not of the row what.
func keyError(what string, key []byte) error {
	const shown = 64
	if len(key) > shown {
		return fmt.Errorf("decode %s key %x… of %d bytes: not such a key", what, key[:shown], len(key))
	}
	return fmt.Errorf("decode %s key %x: not such a key", what, key)
}

// cutPrefix returns what follows the prefix byte of key if n bytes follow it; n
// < 0 asks for at least one.
func cutPrefix(key []byte, prefix byte, n int) ([]byte, bool) {
	if len(key) < 2 || key[0] != prefix || n >= 0 && len(key) != 1+n {
		return nil, false
	}
	return key[1:], true
}

// printable reports whether s holds no byte that could end a line of a narinfo
// or be mistaken for one.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func flagIf(is bool, flag byte) byte {
	if is {
		return flag
	}
	return 0
}

// flags reads a byte of which only the bits of known may be set.
func (d *decoder[T]) flags(known byte) byte {
	f := d.byte()
	if f&^known != 0 {
		d.fail("flags are %#x, want none but %#x", f, known)
	}
	return f
}

func (d *decoder[T]) uint32(what string) uint32 { return uint32(d.upTo(math.MaxUint32, what)) }

// day reads the number of a store day; they begin at 1.
func (d *decoder[T]) day() uint32 {
	n := d.uint32("day")
	if d.err == nil && n == 0 {
		d.fail("there is no day 0")
	}
	return n
}
