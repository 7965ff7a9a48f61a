package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/wal"
)

// ForeignBucketError reports a place that is neither empty nor a bucket of celler's.
type ForeignBucketError struct {
	Bucket string
	Key    blob.Key // an object that celler did not put there
}

func (e *ForeignBucketError) Error() string {
	return fmt.Sprintf("bucket %s holds objects that are not celler's, such as %q", e.Bucket, e.Key)
}

// found founds the bucket if nobody has, and says whether it did. A place with other
// objects in it is refused: a typing mistake in a prefix must not scatter packs among
// somebody's files.
func found(ctx context.Context, b blob.Bucket, name, profile, by string) (wal.Format, bool, error) {
	f, err := wal.ReadFormat(ctx, b)
	if err == nil {
		return f, false, nil
	}
	if !errors.Is(err, blob.ErrNotExist) {
		return f, false, fmt.Errorf("read format of bucket %s: %w", name, err)
	}
	if err := refuseForeign(ctx, b, name); err != nil {
		return f, false, err
	}
	f, err = wal.Founding{By: by}.Found(ctx, b, wal.Format{Profile: profile})
	if err != nil {
		return f, false, fmt.Errorf("found bucket %s: %w", name, err)
	}
	return f, true, nil
}

// refuseForeign looks at the first objects there are. A founding that was interrupted
// leaves ROOT alone, and a probe may have left its scratch.
func refuseForeign(ctx context.Context, b blob.Bucket, name string) error {
	for info, err := range b.List(ctx, "", "") {
		if blob.KindOf(err) == blob.KindDenied {
			return nil // may not list, so cannot know; nothing celler does depends on it
		}
		if err != nil {
			return fmt.Errorf("look for other objects in bucket %s: %w", name, err)
		}
		if prefix, _, ok := strings.Cut(string(info.Key), "/"); ok && slices.Contains([]string{"log", "snap", "tab", "pack", "bookmark", "recover"}, prefix) {
			return &DamagedError{Bucket: name, Err: fmt.Errorf("FORMAT is missing, but there is %s", info.Key)}
		}
		if info.Key != wal.RootKey && info.Key != wal.FormatKey && !strings.HasPrefix(string(info.Key), "probe/") {
			return &ForeignBucketError{Bucket: name, Key: info.Key}
		}
	}
	return nil
}

// parseProfile accepts the name of a chunk profile; "" is the default one.
func parseProfile(name string) (chunk.Profile, error) {
	if name == "" {
		name = chunk.DefaultProfile
	}
	return chunk.ParseProfile(name)
}
