package storewatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// eventBuffer holds some hundred events, the names of store paths being long.
const eventBuffer = 64 << 10

// follow listens for removals from dir.
func follow(dir string) (*follower, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("listen for events of %s: %w", dir, err)
	}
	// As it does not block, reading it can be interrupted by closing it.
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_DELETE|syscall.IN_ONLYDIR); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("listen for events of %s: %w", dir, err)
	}
	buf := make([]byte, eventBuffer)
	return &follower{
		next: func() ([]string, bool, error) {
			n, err := f.Read(buf)
			if err != nil {
				return nil, false, fmt.Errorf("read events: %w", err)
			}
			return decodeEvents(buf[:n])
		},
		stop: func() { _ = f.Close() },
	}, nil
}

// decodeEvents decodes what the kernel tells: for each event a header of 16 bytes,
// watch, mask, cookie and length of the name, and the name filled up with zeros.
func decodeEvents(b []byte) (names []string, lost bool, err error) {
	for len(b) > 0 {
		if len(b) < syscall.SizeofInotifyEvent {
			return names, lost, fmt.Errorf("event of %d bytes", len(b))
		}
		mask := binary.NativeEndian.Uint32(b[4:])
		length := binary.NativeEndian.Uint32(b[12:])
		b = b[syscall.SizeofInotifyEvent:]
		if uint64(length) > uint64(len(b)) {
			return names, lost, fmt.Errorf("event whose name has %d bytes, of which %d are there", length, len(b))
		}
		name, _, _ := bytes.Cut(b[:length], []byte{0})
		b = b[length:]
		switch {
		case mask&syscall.IN_Q_OVERFLOW != 0:
			lost = true
		case mask&(syscall.IN_IGNORED|syscall.IN_UNMOUNT) != 0:
			return names, true, errors.New("the store directory went away")
		case mask&syscall.IN_DELETE != 0:
			names = append(names, string(name))
		}
	}
	return names, lost, nil
}

// changeTime is when a file was made, moved or changed, whatever its modification time
// was set to.
func changeTime(info fs.FileInfo) (time.Time, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(stat.Ctim.Unix()), true
}
