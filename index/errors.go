package index

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
)

// DiskError reports that the local disk, not the bucket, cannot do its part: it is
// full, read-only, failing, or not ours to write. Nothing is lost by it: the index
// can be made again from the bucket on any other disk.
type DiskError struct {
	Dir string
	Err error
}

func (e *DiskError) Error() string {
	return fmt.Sprintf("index directory %s: %v (the bucket is untouched: %s)", e.Dir, e.Err, e.Hint())
}

// Hint says what the operator can do.
func (e *DiskError) Hint() string {
	switch {
	case errors.Is(e.Err, syscall.ENOSPC), errors.Is(e.Err, syscall.EDQUOT):
		return "free some space there or choose another directory, and start again"
	case errors.Is(e.Err, syscall.EROFS), errors.Is(e.Err, syscall.EACCES), errors.Is(e.Err, syscall.EPERM):
		return "make the directory writable for this user or choose another one, and start again"
	}
	return "check the disk or choose another directory, and start again"
}

func (e *DiskError) Unwrap() error { return e.Err }

// LockedError reports that another process, or another DB of this one, has the
// directory open.
type LockedError struct {
	Dir string
	Err error
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("index directory %s is in use by another celler: give each its own directory (%v)", e.Dir, e.Err)
}

func (e *LockedError) Unwrap() error { return e.Err }

// CorruptError reports that what is in the directory is not what was written
// there. The next Open begins a new index and fills it from the log.
type CorruptError struct {
	Dir string
	Err error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("index directory %s is damaged: %v (the bucket is untouched: start again, and the index is rebuilt)", e.Dir, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// isDiskError tells the errors of the operating system that no new index would cure.
func isDiskError(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.EIO,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG:
		return true
	}
	return false
}

func isLockError(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || strings.Contains(err.Error(), "lock held by current process")
}

// classify turns an error of Pebble into one of ours, with what we were doing.
func (db *DB) classify(doing string, err error) error {
	switch {
	case pebble.IsCorruptionError(err):
		err = &CorruptError{Dir: db.dir, Err: err}
		db.fail(err)
	case isDiskError(err):
		err = &DiskError{Dir: db.dir, Err: err}
	}
	return fmt.Errorf("%s: %w", doing, err)
}
