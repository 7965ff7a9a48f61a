//go:build unix

package nar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"syscall"
)

const (
	// dumpWindow is how many entries are prepared ahead of the writer. Times
	// dumpSmall it bounds memory (4 MiB), by itself it bounds open files.
	dumpWindow = 64
	// dumpSmall is the size up to which a file is read ahead as a whole. Nearly
	// all files of a closure are below it, nearly all bytes are above.
	dumpSmall = 64 << 10
	// dumpBuffer is the unit in which large files are copied.
	dumpBuffer = 256 << 10
)

// Dump writes the NAR of the file, symlink or directory at path, the same bytes
// as nix-store --dump. Opening and reading of small files runs ahead of the
// writer, since their cost is latency. A file whose size changes meanwhile is an
// error, and so is one that a NAR cannot hold: a device, a socket, a pipe.
func Dump(ctx context.Context, w io.Writer, path string) error {
	nw := NewWriter(w)
	if err := dump(ctx, nw, path); err != nil {
		return err
	}
	return nw.Close()
}

func dump(ctx context.Context, nw *Writer, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	d := dumper{ctx: ctx, w: nw}
	switch info.Mode().Type() {
	case fs.ModeDir:
		return d.tree(path)
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return nw.Symlink("", target)
	case 0:
		it := newItem()
		it.kind, it.path = itemFile, path
		it.load()
		return d.file(it)
	}
	return unsupported(path, info.Mode())
}

func unsupported(path string, mode fs.FileMode) error {
	return fmt.Errorf("dump %s: expected a file, directory or symlink, found mode %v", path, mode)
}

type itemKind uint8

const (
	itemFile itemKind = iota
	itemDirectory
	itemEnd // of a directory
	itemSymlink
	itemError
)

// An item is one step of the writer. Items are made once per Dump and go round:
// walker, for files also a loader, writer, and back.
type item struct {
	kind   itemKind
	name   string
	path   string
	target string
	err    error

	// What load finds out about a file. ready is sent one token when it is done.
	ready      chan struct{}
	executable bool
	size       int64
	data       []byte // all contents if size <= dumpSmall
	fd         int    // open if size > dumpSmall, else -1
}

func newItem() *item { return &item{ready: make(chan struct{}, 1), fd: -1} }

// load opens a file and, if it is small, reads it.
func (it *item) load() {
	it.err = it.tryLoad()
	if it.err != nil {
		it.close()
	}
}

func (it *item) tryLoad() error {
	// Not os.Open: that registers with the poller, a system call which fails for
	// every regular file. O_NONBLOCK keeps a pipe put in place of the file from
	// blocking the open.
	fd, err := retry(func() (int, error) {
		return syscall.Open(it.path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	})
	if err != nil {
		return &fs.PathError{Op: "open", Path: it.path, Err: err}
	}
	it.fd = fd
	var st syscall.Stat_t
	if _, err := retry(func() (int, error) { return 0, syscall.Fstat(fd, &st) }); err != nil {
		return &fs.PathError{Op: "stat", Path: it.path, Err: err}
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return fmt.Errorf("dump %s: no longer a regular file", it.path)
	}
	it.executable = st.Mode&syscall.S_IXUSR != 0
	it.size = st.Size
	if it.size > dumpSmall {
		return nil
	}
	// One byte more than expected: that the read comes back short proves the end
	// without another system call.
	if int64(cap(it.data)) <= it.size {
		it.data = make([]byte, 0, max(it.size+1, 4<<10))
	}
	it.data = it.data[:0]
	for {
		n, err := readFD(fd, it.data[len(it.data):it.size+1])
		if err != nil {
			return &fs.PathError{Op: "read", Path: it.path, Err: err}
		}
		it.data = it.data[:len(it.data)+n]
		if n == 0 || int64(len(it.data)) >= it.size {
			break
		}
	}
	if int64(len(it.data)) != it.size {
		return it.changed()
	}
	it.close()
	return nil
}

func (it *item) changed() error {
	return fmt.Errorf("dump %s: the size changed while it was read, expected %d bytes", it.path, it.size)
}

func (it *item) close() {
	if it.fd >= 0 {
		_ = syscall.Close(it.fd) // opened for reading, nothing to lose
		it.fd = -1
	}
}

func readFD(fd int, b []byte) (int, error) {
	return retry(func() (int, error) { return syscall.Read(fd, b) })
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

type dumper struct {
	ctx context.Context //nolint:containedctx // lives for one call of Dump
	w   *Writer
	buf []byte

	free  chan *item // items nobody uses
	order chan *item // items in archive order; closed by the walker
	work  chan *item // files to load; closed by the walker
}

// tree dumps a directory: a walker lists, loaders open and read, and this
// goroutine writes. All three channels have room for every item, so that only
// receiving from free ever blocks, and there the context is heard.
func (d *dumper) tree(root string) error {
	ctx, cancel := context.WithCancel(d.ctx)
	d.ctx = ctx
	d.free = make(chan *item, dumpWindow)
	d.order = make(chan *item, dumpWindow)
	d.work = make(chan *item, dumpWindow)
	for range dumpWindow {
		d.free <- newItem()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(d.order)
		defer close(d.work)
		d.walk(root, "")
	})
	for range max(4, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for it := range d.work {
				it.load()
				it.ready <- struct{}{}
			}
		})
	}
	err := d.writeAll()
	if err == nil {
		err = context.Cause(ctx) // the walker may have stopped for it
	}
	cancel()
	for it := range d.order {
		if it.kind == itemFile {
			<-it.ready
			it.close()
		}
	}
	wg.Wait()
	return err
}

// walk hands out the items of a directory. It returns false when there is no
// use in going on.
func (d *dumper) walk(dir, name string) bool {
	if !d.emit(itemDirectory, name, dir, nil) {
		return false
	}
	entries, err := os.ReadDir(dir) // sorts by name, that is by bytes
	if err != nil {
		d.emit(itemError, name, dir, err)
		return false
	}
	for _, e := range entries {
		path := dir + "/" + e.Name()
		var more bool
		switch e.Type() {
		case 0:
			more = d.emit(itemFile, e.Name(), path, nil)
		case fs.ModeDir:
			more = d.walk(path, e.Name())
		case fs.ModeSymlink:
			more = d.emit(itemSymlink, e.Name(), path, nil)
		default:
			more = d.emit(itemError, e.Name(), path, unsupported(path, e.Type()))
		}
		if !more {
			return false
		}
	}
	return d.emit(itemEnd, name, dir, nil)
}

func (d *dumper) emit(kind itemKind, name, path string, err error) bool {
	var it *item
	select {
	case it = <-d.free:
	case <-d.ctx.Done():
		return false
	}
	it.kind, it.name, it.path, it.err = kind, name, path, err
	if kind == itemSymlink {
		it.target, it.err = os.Readlink(path)
	}
	more := it.err == nil
	if kind == itemFile {
		d.work <- it
	}
	d.order <- it // from here on it belongs to others
	return more
}

func (d *dumper) writeAll() error {
	for it := range d.order {
		err := d.write(it)
		if err != nil {
			return err
		}
		d.free <- it
	}
	return nil
}

func (d *dumper) write(it *item) error {
	switch it.kind {
	case itemFile:
		<-it.ready
		return d.file(it)
	case itemDirectory:
		return d.w.Directory(it.name)
	case itemEnd:
		return d.w.EndDirectory()
	case itemSymlink:
		if it.err != nil {
			return it.err
		}
		return d.w.Symlink(it.name, it.target)
	}
	return it.err
}

// file writes a loaded file and closes it.
func (d *dumper) file(it *item) error {
	defer it.close()
	if it.err != nil {
		return it.err
	}
	if err := d.w.Regular(it.name, it.executable, it.size); err != nil {
		return err
	}
	if it.fd < 0 {
		_, err := d.w.Write(it.data)
		return err
	}
	if d.buf == nil {
		d.buf = make([]byte, dumpBuffer)
	}
	for left := it.size; left > 0; {
		if err := d.ctx.Err(); err != nil {
			return context.Cause(d.ctx)
		}
		n, err := readFD(it.fd, d.buf[:min(int64(len(d.buf)), left)])
		if err != nil {
			return &fs.PathError{Op: "read", Path: it.path, Err: err}
		}
		if n == 0 {
			return it.changed()
		}
		left -= int64(n)
		if _, err := d.w.Write(d.buf[:n]); err != nil {
			return err
		}
	}
	return nil
}
