package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"time"
)

// MaxGetBytes bounds what Get and GetIf read into memory. Objects that may be
// larger are read with GetRange. The largest object celler reads whole is a
// segment or a manifest of a few MiB; packs are read by range.
const MaxGetBytes = 64 << 20

// The outcomes callers branch on. Match them with errors.Is.
var (
	// ErrNotExist reports that there is no object under the key.
	ErrNotExist = errors.New("object does not exist")
	// ErrExist reports that Create found the key occupied and did not write.
	ErrExist = errors.New("object exists already")
	// ErrChanged reports that Swap found another tag, or no object, and did not write.
	ErrChanged = errors.New("object has changed")
	// ErrUnchanged reports that the object still has the tag given to GetIf.
	ErrUnchanged = errors.New("object has not changed")
)

// Tag is the opaque entity tag of one version of an object, quotes included.
// The empty Tag means "not known".
type Tag string

// Info is what List tells of an object.
type Info struct {
	Key     Key
	Size    int64     // bytes
	Tag     Tag       // empty if the driver cannot tell without reading the object
	ModTime time.Time // by the bucket's clock
}

// Bucket is a place where objects live. The package comment states the
// consistency it must have; blobtest.Run checks an implementation.
//
// Every error but the four sentinels should carry an [*Error] that names the
// operation, the object and, where there is one, the remedy.
type Bucket interface {
	// Get returns the whole object and its tag, or ErrNotExist. An object of
	// more than MaxGetBytes is an error.
	Get(ctx context.Context, key Key) (body []byte, tag Tag, err error)

	// GetIf is Get, but returns ErrUnchanged if the object still has tag old.
	// With an empty old it is Get.
	GetIf(ctx context.Context, key Key, old Tag) (body []byte, tag Tag, err error)

	// GetRange streams the n bytes that start at off. It returns ErrNotExist if
	// there is no object. If the object ends before off+n, reading ends with
	// io.ErrUnexpectedEOF after the bytes there are; it never ends early with a
	// clean io.EOF. A stream that breaks on the way ends with another error, of
	// KindUnreachable, and may be resumed by asking for the rest. off must not be
	// negative and n must be positive. The caller closes the reader; closing it
	// under a Read, or a second time, does no harm.
	GetRange(ctx context.Context, key Key, off, n int64) (io.ReadCloser, error)

	// Create stores body under key if there is no object. It returns ErrExist if
	// there is one. Any other error leaves the outcome unknown: the object may
	// exist now or may appear later. Create never retries.
	Create(ctx context.Context, key Key, body []byte) (Tag, error)

	// Swap replaces the object if its tag is old. It returns ErrChanged if the
	// tag differs or there is no object. Any other error leaves the outcome
	// unknown. Swap never retries.
	Swap(ctx context.Context, key Key, old Tag, body []byte) (Tag, error)

	// Put stores body under key, whatever is there. It is for names that are
	// used only once, such as packs, and may therefore send the same bytes again
	// after a failure. The Tag is empty if the driver cannot tell without hashing
	// the body: nobody swaps what lies under such a name.
	Put(ctx context.Context, key Key, body []byte) (Tag, error)

	// Delete removes the objects. Absent ones count as removed. After an error
	// some may be gone and others not; calling again finishes the work.
	Delete(ctx context.Context, keys ...Key) error

	// List yields the objects whose keys start with prefix (bytewise, not by
	// segment) and sort strictly after after, in bytewise order of their keys.
	// Objects written or deleted while the listing runs may or may not be seen.
	// The iteration ends after the first error.
	List(ctx context.Context, prefix, after Key) iter.Seq2[Info, error]
}

// ValidRange returns nil if off and n may be given to GetRange. It is for
// drivers.
func ValidRange(off, n int64) error {
	if off < 0 || n <= 0 || off > math.MaxInt64-n {
		return fmt.Errorf("impossible range: %d bytes at %d", n, off)
	}
	return nil
}
