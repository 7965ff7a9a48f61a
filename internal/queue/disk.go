package queue

import (
	"io/fs"
	"os"
)

// disk is what Add and its kin do to the local disk, so that a test can fail each of
// these calls, and cut the power after it.
type disk struct {
	create    func(name string) (file, error) // fails if there is one
	rename    func(from, to string) error
	remove    func(name string) error
	syncDir   func(dir string) error
	readFile  func(name string, limit int) ([]byte, error)
	readNames func(dir string) ([]string, error) // in any order
}

// file is one that is being written.
type file interface {
	Write(b []byte) (int, error)
	Sync() error
	Close() error
}

func realDisk() disk {
	return disk{
		// Readable by all: it is the directory that keeps others out, and the hook and
		// the agent may be different users.
		create: func(name string) (file, error) { return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) },
		rename: os.Rename,
		remove: os.Remove,
		syncDir: func(dir string) error {
			f, err := os.Open(dir)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			return f.Sync()
		},
		readFile:  readFile,
		readNames: readNames,
	}
}

// readFile reads at most one byte more than limit, which tells that there is more.
func readFile(name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid}
	}
	b := make([]byte, min(int(info.Size()), limit)+1)
	n := 0
	for n < len(b) {
		m, err := f.Read(b[n:])
		n += m
		if m == 0 || err != nil {
			break
		}
	}
	return b[:n], nil
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return f.Readdirnames(-1)
}
