package fileblob

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/celler/celler/blob"
)

// outcome wraps one of the sentinels of package blob.
func outcome(op string, key blob.Key, sentinel error) error {
	return fmt.Errorf("%s %s: %w", op, key, sentinel)
}

// fail wraps any other error.
func (b *Bucket) fail(op string, key blob.Key, err error) error {
	kind := kindOf(err)
	hint := hints[kind]
	if _, moved := errors.AsType[*movedError](err); moved {
		kind, hint = blob.KindNoBucket, "put the directory back, or start again with the one that is there now"
	}
	return &blob.Error{Op: op, Bucket: b.dir, Key: key, Kind: kind, Hint: hint, Err: err}
}

func kindOf(err error) blob.Kind {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return blob.KindFull
	case errors.Is(err, syscall.EROFS):
		return blob.KindReadOnly
	case errors.Is(err, errNoLink), errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOLCK):
		return blob.KindUnsupported
	case errors.Is(err, fs.ErrPermission):
		return blob.KindDenied
	case errors.Is(err, fs.ErrNotExist):
		return blob.KindNoBucket
	}
	return blob.KindOther
}

// errNoLink says that a file could be written but not linked.
var errNoLink = errors.New("file system without hard links")

// movedError reports a directory that was moved away, or replaced by another.
type movedError struct{ dir string }

func (e *movedError) Error() string {
	return fmt.Sprintf("the directory at %s is not the one that was opened", e.dir)
}

// clashError reports a key that is the directory of another.
type clashError struct{ object, directory string }

func (e *clashError) Error() string {
	return fmt.Sprintf("%s is an object and cannot be the directory of %s", e.object, e.directory)
}

var hints = map[blob.Kind]string{ //nolint:gochecknoglobals // a constant table
	blob.KindFull:        "free some space, or raise the quota",
	blob.KindReadOnly:    "mount the file system writable",
	blob.KindUnsupported: "use a file system with hard links and locks, mounted as a whole",
	blob.KindDenied:      "make the directory and all in it readable and writable for the user celler runs as",
	blob.KindNoBucket:    "create the directory that should hold the bucket",
}
