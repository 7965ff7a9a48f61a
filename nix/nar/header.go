package nar

import (
	"fmt"
	"io"
	"math"

	"github.com/celler/celler/nix"
)

const (
	// Magic is the first string of every NAR.
	Magic = "nix-archive-1"
	// MaxName is the longest name of a directory entry, in bytes: NAME_MAX of
	// every file system Nix runs on.
	MaxName = 255
	// MaxTarget is the longest target of a symlink, in bytes: PATH_MAX without
	// the terminating zero.
	MaxTarget = 4095
	// MaxDepth is how deep directories may be nested. A path of PATH_MAX bytes
	// has no more components.
	MaxDepth = 2048
	// maxContents leaves room to add a header and padding to a size without
	// overflow.
	maxContents = math.MaxInt64 - 1<<16
)

// A Type is what an entry is.
type Type uint8

// The three types a NAR knows.
const (
	Regular Type = iota + 1
	Directory
	Symlink
)

func (t Type) String() string {
	switch t {
	case Regular:
		return "regular"
	case Directory:
		return "directory"
	case Symlink:
		return "symlink"
	}
	return "none"
}

// A Header describes one entry. The slices belong to whoever handed it out and
// are overwritten by its next call.
type Header struct {
	Path          []byte // from the root, slashes between names; empty for the root
	Depth         int    // number of names in Path
	Type          Type
	Executable    bool   // of a regular file
	Size          int64  // of a regular file, bytes
	ContentOffset int64  // of a regular file: where its contents begin in the NAR
	Target        []byte // of a symlink
}

// Name is the last name of Path.
func (h *Header) Name() []byte {
	for i := len(h.Path) - 1; i >= 0; i-- {
		if h.Path[i] == '/' {
			return h.Path[i+1:]
		}
	}
	return h.Path
}

// A SyntaxError says where bytes stop being a NAR. A NAR that merely ends too
// early matches [io.ErrUnexpectedEOF].
type SyntaxError struct {
	Offset   int64  // of the first byte of the offending string or padding; where the input ended, if it did
	Path     string // of the entry being read
	Expected string
	Found    string
	Err      error // io.ErrUnexpectedEOF if the input ended, else nil
}

func (e *SyntaxError) Error() string {
	var in string
	if e.Path != "" {
		in = fmt.Sprintf(", in entry %q", e.Path)
	}
	return fmt.Sprintf("nar: offset %d%s: expected %s, found %s", e.Offset, in, e.Expected, e.Found)
}

func (e *SyntaxError) Unwrap() error { return e.Err }

// Summary is what is known of a NAR once it was read to its end.
type Summary struct {
	NarHash     nix.Hash // only Verify computes it; else zero
	NarSize     int64    // bytes
	Files       int64
	Directories int64
	Symlinks    int64
	Contents    int64 // sum of the sizes of regular files, bytes
}

// padding is how many zeros follow a string of n bytes.
func padding(n int64) int { return int(-n & 7) }

// truncated reports whether err means that the input ended.
func truncated(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }
