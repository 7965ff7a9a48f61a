package catalog

import (
	"errors"
	"fmt"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// What a caller may conclude. Match with errors.Is. After any of these nothing
// was changed.
var (
	ErrNoCache       = errors.New("no such cache")
	ErrCacheExists   = errors.New("the cache exists already")
	ErrNoPath        = errors.New("no such path in the cache")
	ErrNoRecipe      = errors.New("no such NAR")
	ErrNoPack        = chunk.ErrNoPack
	ErrNoPin         = errors.New("no such pin in the cache")
	ErrChunksMissing = errors.New("chunks are missing, upload again")
	// ErrFenced: another collection has begun since. Begin again.
	ErrFenced = errors.New("another collection has begun")
	// ErrTouched: too much has come to life since the collector last looked. Look at
	// the touches and try again.
	ErrTouched = errors.New("too much has changed since the last look")
	// ErrUncounted: a cache of an earlier celler has no counts yet. Recount.
	ErrUncounted = errors.New("the cache has not been counted: run celler fsck --repair")
	// ErrStale: what the change was worked out from has changed. Work it out again.
	ErrStale = errors.New("the state has changed since it was read")
	// ErrNoUpload: no such file was uploaded, or what was in it is gone.
	ErrNoUpload = errors.New("no such upload")
	// ErrNoSide: the cache has no such side object.
	ErrNoSide = errors.New("no such side object")
	// ErrOtherNar: the path is there, and is something else.
	ErrOtherNar = errors.New("the path is there with another content")
	// ErrPinned: a pin names the path.
	ErrPinned = errors.New("the path is pinned")
	// ErrUnreachable: whether there is something newer could not be found out.
	ErrUnreachable = errors.New("the log cannot be read at the moment")
	// ErrInvalid: the request itself is wrong, and will be wrong next time. The
	// text says what was expected.
	ErrInvalid = errors.New("invalid")
)

// The errors of the log that callers of this package meet, so that they need not
// import it.
var (
	ErrConflict    = wal.ErrConflict    // nothing happened; try again
	ErrUnknown     = wal.ErrUnknown     // it may have happened; trying again is harmless
	ErrUnavailable = wal.ErrUnavailable // nothing happened; no writes at the moment
	ErrForked      = wal.ErrForked      // read-only for good
	ErrRolledBack  = wal.ErrRolledBack  // read-only for good
	ErrClosed      = wal.ErrClosed      // the node is going down; nothing happened
)

// ChunksMissingError says why a publication was refused: something it refers to
// was removed, or was uploaded too long ago, since the writer looked. Writing the
// NAR again stores it anew. It is an ErrChunksMissing.
type ChunksMissingError struct {
	Runs    []chunk.Run    // chunks of the recipe that are gone
	Expired []chunk.PackID // new packs whose upload began too many upload epochs ago
}

func (e *ChunksMissingError) Error() string {
	n := 0
	for _, r := range e.Runs {
		n += int(r.Count)
	}
	return fmt.Sprintf("%d chunks in %d runs are gone and %d packs were uploaded too long ago", n, len(e.Runs), len(e.Expired))
}

func (e *ChunksMissingError) Is(target error) bool { return target == ErrChunksMissing }

// PinnedError says which pin keeps a path from being withdrawn. It is an ErrPinned.
type PinnedError struct {
	Cache     CacheName
	Pin       string
	Revision  uint32
	StorePath nix.StorePath
}

func (e *PinnedError) Error() string {
	return fmt.Sprintf("path %s of cache %q: pin %q names it in revision %d: remove the pin first", e.StorePath.Base(), string(e.Cache), e.Pin, e.Revision)
}

func (e *PinnedError) Is(target error) bool { return target == ErrPinned }

// OtherNarError says how a path differs from the one that is there. It is an ErrOtherNar.
type OtherNarError struct {
	Cache        CacheName
	StorePath    nix.StorePath
	There, Given [32]byte // NAR hashes; equal if what differs is the references
}

func (e *OtherNarError) Error() string {
	if e.There == e.Given {
		return fmt.Sprintf("path %s is in cache %q with other references", e.StorePath.Base(), string(e.Cache))
	}
	return fmt.Sprintf("path %s is in cache %q with NAR %x, not %x", e.StorePath.Base(), string(e.Cache), e.There, e.Given)
}

func (e *OtherNarError) Is(target error) bool { return target == ErrOtherNar }

// BadRecipeError is a recipe that cannot be read.
type BadRecipeError struct {
	NarHash [32]byte
	Err     error
}

func (e *BadRecipeError) Error() string { return fmt.Sprintf("recipe of NAR %x: %v", e.NarHash, e.Err) }

func (e *BadRecipeError) Unwrap() error { return e.Err }

var (
	errEnough   = errors.New("enough")
	errPartGone = errors.New("one of its parts is not there")
)
