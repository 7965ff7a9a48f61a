package fileblob

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// directBytes is from which size on a body goes to the disk without a copy in the page
	// cache. It is synced at once, so the cache would not make the write faster; it would cost a
	// copy into fresh memory, and turn out pages that somebody reads. What is smaller is read
	// again soon, as segments of the log are. Who reads a large object for the first time reads
	// it from the disk.
	directBytes = 1 << 20
	// directAlign is what direct writes must be a multiple of, in memory and on disk. A file
	// system that asks for more refuses the write, and gets an ordinary one.
	directAlign = 4096
)

// write writes body to f, which is empty, and returns how much of it went past the page cache:
// nothing where the file system cannot do that, and all but what is left over in the end where it
// can. If anything goes wrong, all is written in the ordinary way, which tells the cause.
func write(f *os.File, body []byte) (direct int, err error) {
	whole := len(body) &^ (directAlign - 1)
	if len(body) < directBytes || uintptr(unsafe.Pointer(unsafe.SliceData(body)))%directAlign != 0 || setDirect(f, true) != nil {
		_, err := f.Write(body)
		return 0, err
	}
	_, err = f.Write(body[:whole])
	if off := setDirect(f, false); off != nil {
		return 0, off
	}
	if err != nil {
		whole = 0
	}
	_, err = f.WriteAt(body[whole:], int64(whole))
	return whole, err
}

// setDirect makes the writes to f that follow direct, or not.
func setDirect(f *os.File, on bool) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = conn.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err != nil {
			set = err
			return
		}
		if flags &^= unix.O_DIRECT; on {
			flags |= unix.O_DIRECT
		}
		_, set = unix.FcntlInt(fd, unix.F_SETFL, flags)
	})
	if err != nil {
		return err
	}
	return set
}
