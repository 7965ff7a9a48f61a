package wal

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/celler/celler/blob"
)

// errPast is why a bucket of the past takes no writes.
var errPast = errors.New("this is how the bucket was, not how it is; it takes no writes") //nolint:gochecknoglobals // an error value

// past shows a log as it was.
type past struct {
	blob.Bucket
	root    []byte
	rootTag blob.Tag
	last    Seq
}

// Past returns a view of bucket in which the log ends with slot last, ROOT names the
// snapshot of base, which h must have said leads there, and nothing can be written. A
// Log can be opened on it as on any other, and never finds anything new.
//
// What has come of it counts only if ROOT, read after it was made, still lets base lead
// to last (I1): ask [PastHolds].
func Past(bucket blob.Bucket, h *History, base SnapshotRef, last Seq) (blob.Bucket, error) {
	root := h.Root
	root.Snapshot, root.Floor, root.Bookmarks, root.Doomed = base, base.Seq+1, nil, nil
	body, err := EncodeRoot(root)
	if err != nil {
		return nil, fmt.Errorf("show the past: %w", err)
	}
	return &past{Bucket: bucket, root: body, rootTag: blob.Tag(fmt.Sprintf("%q", "past "+root.Nonce)), last: last}, nil
}

// PastHolds reports whether the slots after base up to last are still those of the log.
func PastHolds(ctx context.Context, bucket blob.Bucket, base SnapshotRef, last Seq) (bool, error) {
	if base.Seq == last {
		return true, nil // only a snapshot was read, and those do not change
	}
	root, err := ReadRoot(ctx, bucket)
	return err == nil && root.Floor <= base.Seq+1, err
}

func (p *past) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	return p.GetIf(ctx, key, "")
}

func (p *past) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	if key == RootKey {
		if old == p.rootTag {
			return nil, "", blob.ErrUnchanged
		}
		return p.root, p.rootTag, nil
	}
	if p.hidden(key) {
		return nil, "", fmt.Errorf("get %s: %w", key, blob.ErrNotExist)
	}
	return p.Bucket.GetIf(ctx, key, old)
}

// hidden reports whether key names a slot that was not there yet.
func (p *past) hidden(key blob.Key) bool {
	return key > p.last.Key() && key <= Seq(math.MaxUint64).Key()
}

func (p *past) Create(context.Context, blob.Key, []byte) (blob.Tag, error) {
	return "", refuse("create")
}

func (p *past) Swap(context.Context, blob.Key, blob.Tag, []byte) (blob.Tag, error) {
	return "", refuse("swap")
}
func (p *past) Put(context.Context, blob.Key, []byte) (blob.Tag, error) { return "", refuse("put") }
func (p *past) Delete(context.Context, ...blob.Key) error               { return refuse("delete") }

func refuse(op string) error {
	return &blob.Error{Op: op, Kind: blob.KindReadOnly, Err: errPast}
}
