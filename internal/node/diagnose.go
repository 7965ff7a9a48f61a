package node

import (
	"errors"
	"fmt"
	"strings"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/wal"
)

// RightsError reports a pattern or a right that a token cannot carry.
type RightsError struct{ Err error }

func (e *RightsError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong with it.
func (e *RightsError) Unwrap() error { return e.Err }

// CannotMintError reports a key that verifies tokens and cannot make them.
type CannotMintError struct{ From string }

func (e *CannotMintError) Error() string {
	return fmt.Sprintf("the signing key from %s is a public key: it verifies tokens and cannot make them", e.From)
}

// Diagnose finds, for an error of the packages a node is made of, the sentence that
// tells an operator what is the matter and the hint what to do. Packages above cannot
// ask for the causes themselves: they do not know those packages.
func Diagnose(err error) (sentence, hint string, ok bool) {
	if locked, ok := errors.AsType[*index.LockedError](err); ok {
		return locked.Error(), "another celler runs with this --cache-dir; give each its own", true
	}
	if disk, ok := errors.AsType[*index.DiskError](err); ok {
		return disk.Error(), disk.Hint(), true
	}
	if newer, ok := errors.AsType[*wal.TooNewError](err); ok {
		return newer.Error(), "upgrade this celler, or start the newer one", true
	}
	if foreign, ok := errors.AsType[*wal.ForeignError](err); ok {
		return foreign.Error(), "objects of two buckets were mixed: check the bucket's prefix, and whether it was copied over another", true
	}
	if corrupt, ok := errors.AsType[*wal.CorruptError](err); ok {
		return corrupt.Error(), "the object is damaged in the bucket or on the way; \"celler recover --dry-run\" looks again and says what can be saved", true
	}
	if gone, ok := errors.AsType[*wal.UnreachableError](err); ok {
		return gone.Error(), "\"celler log show\" prints the log there is, \"celler bookmark list\" the points that are kept", true
	}
	if old, ok := errors.AsType[*wal.NothingSoOldError](err); ok {
		return old.Error(), "a bucket that was copied has the times of the copy: name a slot or a bookmark instead", true
	}
	if unknown, ok := errors.AsType[*wal.NoBookmarkError](err); ok {
		known := "there are: " + strings.Join(unknown.Known, ", ")
		if len(unknown.Known) == 0 {
			known = "there are none; set one with \"celler bookmark add NAME\""
		}
		return unknown.Error(), known + "; a time is written as \"2 hours ago\" or 2026-03-01", true
	}
	if taken, ok := errors.AsType[*wal.BookmarkExistsError](err); ok {
		return taken.Error(), fmt.Sprintf("choose another name, or \"celler bookmark remove %s\" first", taken.Name), true
	}
	switch {
	case errors.Is(err, wal.ErrForked):
		return err.Error(), "the bucket let two writes win or lost one; run \"celler doctor bucket\", and do not delete anything", true
	case wal.IsDamage(err):
		return err.Error(), "the bucket lost objects, or was replaced by a copy: delete nothing, and see what \"celler recover --dry-run\" says", true
	case errors.Is(err, wal.ErrTooOld):
		return err.Error(), "upgrade this celler", true
	}
	if hint := blob.HintOf(err); hint != "" {
		return err.Error(), hint, true
	}
	return "", "", false
}
