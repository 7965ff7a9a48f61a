package nar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A Writer writes a NAR entry by entry and refuses to write one that a Reader
// would refuse. The root has the empty name; it is either one file, one symlink,
// or a directory whose entries follow, in order, until EndDirectory. An error is
// kept and returned by all later calls.
type Writer struct {
	w     io.Writer
	buf   []byte
	off   int64
	err   error
	left  int64    // contents of the current file still to come
	pad   int      // padding after them
	file  bool     // a regular file is open
	done  bool     // the root is complete
	names []byte   // last names of the open directories, one after the other
	dirs  []wlevel // the open directories
}

// wlevel is one open directory; its last entry's name is names[start:start+n].
type wlevel struct {
	start, n int
}

// writerBuffer is how much is collected before the destination is written to.
const writerBuffer = 64 << 10

// NewWriter returns a Writer to w. It buffers: only Close writes the last bytes.
func NewWriter(w io.Writer) *Writer {
	nw := &Writer{w: w, buf: make([]byte, 0, writerBuffer)}
	nw.string(Magic)
	return nw
}

// Directory begins a directory.
func (w *Writer) Directory(name string) error {
	if err := w.begin(name); err != nil {
		return err
	}
	if len(w.dirs) == MaxDepth {
		return w.fail(fmt.Errorf("directory %q: more than %d nested directories", name, MaxDepth))
	}
	w.dirs = append(w.dirs, wlevel{start: len(w.names)})
	w.strings("type", "directory")
	return w.err
}

// EndDirectory ends the innermost open directory.
func (w *Writer) EndDirectory() error {
	if err := w.endFile(); err != nil {
		return err
	}
	if len(w.dirs) == 0 {
		return w.fail(errors.New("end of a directory that was not begun"))
	}
	w.names = w.names[:w.dirs[len(w.dirs)-1].start]
	w.dirs = w.dirs[:len(w.dirs)-1]
	w.end()
	return w.err
}

// Regular begins a file; exactly size bytes must be given to Write before the
// next entry.
func (w *Writer) Regular(name string, executable bool, size int64) error {
	if err := w.begin(name); err != nil {
		return err
	}
	if size < 0 || size > maxContents-w.off {
		return w.fail(fmt.Errorf("file %q: %d is no size", name, size))
	}
	w.strings("type", "regular")
	if executable {
		w.strings("executable", "")
	}
	w.string("contents")
	w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(size))
	w.file, w.left, w.pad = true, size, padding(size)
	return w.err
}

// Write writes contents of the file that Regular began.
func (w *Writer) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(b)) > w.left {
		return 0, w.fail(fmt.Errorf("%d bytes more than the size announced", int64(len(b))-w.left))
	}
	w.left -= int64(len(b))
	if len(b) >= writerBuffer {
		w.flush()
		w.put(b)
	} else {
		w.bytes(b)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(b), nil
}

// Symlink writes a symlink.
func (w *Writer) Symlink(name, target string) error {
	if err := w.begin(name); err != nil {
		return err
	}
	if target == "" || len(target) > MaxTarget {
		return w.fail(fmt.Errorf("symlink %q: a target of %d bytes, expected 1 to %d", name, len(target), MaxTarget))
	}
	for i := range len(target) {
		if target[i] == 0 {
			return w.fail(fmt.Errorf("symlink %q: NUL in target %q", name, target))
		}
	}
	w.strings("type", "symlink", "target")
	w.string(target)
	w.end()
	return w.err
}

// Close checks that the archive is complete and writes what is buffered. It does
// not close the destination.
func (w *Writer) Close() error {
	if err := w.endFile(); err != nil {
		return err
	}
	if !w.done {
		return w.fail(fmt.Errorf("closed with %d directories open", len(w.dirs)))
	}
	w.flush()
	if w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}

var errClosed = errors.New("write nar: already closed")

// Size is how many bytes the NAR has so far.
func (w *Writer) Size() int64 { return w.off + int64(len(w.buf)) }

// begin ends the previous file and opens a node called name.
func (w *Writer) begin(name string) error {
	if err := w.endFile(); err != nil {
		return err
	}
	if len(w.dirs) == 0 {
		if w.done || name != "" {
			return w.fail(fmt.Errorf("%q: expected a single root, with an empty name", name))
		}
		w.string("(")
		return w.err
	}
	if err := checkName(name); err != nil {
		return w.fail(fmt.Errorf("expected a file name, found %w", err))
	}
	d := &w.dirs[len(w.dirs)-1]
	if last := w.names[d.start : d.start+d.n]; d.n > 0 && name <= string(last) {
		return w.fail(fmt.Errorf("name %q does not sort after %q", name, last))
	}
	w.names = append(w.names[:d.start], name...)
	d.n = len(name)
	w.strings("entry", "(", "name")
	w.string(name)
	w.strings("node", "(")
	return w.err
}

// end closes the current node, and the entry it stands in.
func (w *Writer) end() {
	w.string(")")
	if len(w.dirs) == 0 {
		w.done = true
		return
	}
	w.string(")")
}

func (w *Writer) endFile() error {
	if w.err != nil || !w.file {
		return w.err
	}
	if w.left > 0 {
		return w.fail(fmt.Errorf("%d bytes of the current file are missing: %w", w.left, io.ErrUnexpectedEOF))
	}
	var zeros [8]byte
	w.bytes(zeros[:w.pad])
	w.file = false
	w.end()
	return w.err
}

func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = fmt.Errorf("write nar: %w", err)
	}
	return w.err
}

func (w *Writer) strings(ss ...string) {
	for _, s := range ss {
		w.string(s)
	}
}

func (w *Writer) string(s string) {
	const room = 8 + MaxTarget + 8
	if len(w.buf)+room > cap(w.buf) {
		w.flush()
	}
	w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(len(s)))
	w.buf = append(w.buf, s...)
	var zeros [8]byte
	w.buf = append(w.buf, zeros[:padding(int64(len(s)))]...)
}

func (w *Writer) bytes(b []byte) {
	if len(w.buf)+len(b) > cap(w.buf) {
		w.flush()
	}
	w.buf = append(w.buf, b...)
}

func (w *Writer) flush() {
	if len(w.buf) > 0 {
		w.put(w.buf)
	}
	w.buf = w.buf[:0]
}

func (w *Writer) put(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	w.off += int64(n)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = err // the destination's own error, unchanged
	}
}
