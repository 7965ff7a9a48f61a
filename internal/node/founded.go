package node

import (
	"context"
	"fmt"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// NotFoundedError reports a bucket that no celler has founded.
type NotFoundedError struct {
	Bucket  string
	NoPlace bool // the directory is not even there
}

func (e *NotFoundedError) Error() string {
	if e.NoPlace {
		return fmt.Sprintf("there is no bucket %s: no such directory", e.Bucket)
	}
	return fmt.Sprintf("bucket %s is not celler's: it has no object FORMAT", e.Bucket)
}

func checkFounded(ctx context.Context, b blob.Bucket, name string) error {
	_, err := wal.ReadFormat(ctx, b)
	return notFounded(err, name)
}
