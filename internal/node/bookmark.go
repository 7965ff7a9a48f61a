package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/wal"
)

// Bookmark is a slot whose state is kept.
type Bookmark struct {
	Name string    `json:"name"`
	Seq  uint64    `json:"seq"`
	At   time.Time `json:"at,omitzero"` // when it was set, by the clock of who did
	By   string    `json:"by,omitempty"`
}

// withLogBucket calls fn with the bucket of the log, which must have been founded.
func withLogBucket(ctx context.Context, b config.Buckets, fn func(blob.Bucket) error) error {
	bucket, err := openExisting(ctx, b.LogBucket, b.S3)
	if err != nil {
		return err
	}
	err = checkFounded(ctx, bucket, b.LogBucket)
	if err == nil {
		err = fn(bucket)
	}
	return errors.Join(err, closeBucket(bucket))
}

// SetBookmark sets a bookmark on the present, or on another point that is still kept.
func SetBookmark(ctx context.Context, b config.Buckets, name string, when *When, by string, now time.Time) (set Bookmark, err error) {
	err = withLogBucket(ctx, b, func(bucket blob.Bucket) error {
		var seq wal.Seq
		if when != nil {
			m, err := when.resolve(ctx, bucket)
			if err != nil {
				return err
			}
			seq = wal.Seq(m.Seq)
		} else if seq, err = wal.FindTail(ctx, bucket); err != nil {
			return err
		}
		if seq == 0 {
			return fmt.Errorf("set bookmark %q: the log is empty, there is nothing to come back to", name)
		}
		mark, err := wal.RootChange{By: by}.SetBookmark(ctx, bucket, wal.Bookmark{Name: name, Seq: seq, At: now.UTC().Truncate(time.Second), By: by})
		set = Bookmark{Name: mark.Name, Seq: uint64(mark.Seq), At: mark.At, By: mark.By}
		return err
	})
	return set, err
}

// RemoveBookmark removes a bookmark.
func RemoveBookmark(ctx context.Context, b config.Buckets, name, by string) error {
	return withLogBucket(ctx, b, func(bucket blob.Bucket) error {
		return wal.RootChange{By: by}.DropBookmark(ctx, bucket, name)
	})
}

// Bookmarks lists the bookmarks, oldest slot first.
func Bookmarks(ctx context.Context, b config.Buckets) (all []Bookmark, err error) {
	err = withLogBucket(ctx, b, func(bucket blob.Bucket) error {
		marks, err := wal.Bookmarks(ctx, bucket)
		for _, m := range marks {
			all = append(all, Bookmark{Name: m.Name, Seq: uint64(m.Seq), At: m.At, By: m.By})
		}
		return err
	})
	return all, err
}
