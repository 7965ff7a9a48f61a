package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/pack"
	"github.com/celler/celler/wal"
)

// DamagedError reports a bucket that lacks something it must have, or has something
// that is not what was written. Nothing but a recovery goes on with it.
type DamagedError struct {
	Bucket string
	Err    error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("bucket %s is damaged: %v", e.Bucket, e.Err)
}

// Unwrap returns what is missing or wrong.
func (e *DamagedError) Unwrap() error { return e.Err }

// Behind reports whether all that is known to be wrong is that the server had more.
func (e *DamagedError) Behind() bool { return errors.Is(e.Err, wal.ErrRolledBack) }

// damaged marks an error of opening a log that trying again will not cure.
func damaged(bucket string, err error) error {
	if err != nil && !errors.Is(err, wal.ErrForked) && (wal.IsDamage(err) || errors.Is(err, blob.ErrNotExist)) {
		return &DamagedError{Bucket: bucket, Err: err}
	}
	return err
}

// checkWhole refuses a log of which a part is missing. What there is of it would do for
// a server to begin with, and the first thing written would bury the rest.
func (n *Node) checkWhole(ctx context.Context) error {
	if err := n.log.CheckWhole(ctx); err != nil {
		return damaged(n.cfg.LogBucket, fmt.Errorf("check log in bucket %s: %w", n.cfg.LogBucket, err))
	}
	if n.log.Seq() > 0 {
		return nil
	}
	for info, err := range n.dataBucket.List(ctx, pack.Prefix, "") {
		if blob.KindOf(err) == blob.KindDenied {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look for packs in bucket %s: %w", n.cfg.DataBucket, err)
		}
		if _, err := pack.ParseKey(info.Key); err != nil {
			continue
		}
		if seq, err := n.log.CatchUp(ctx); seq > 0 || err != nil {
			return err // it was just being founded
		}
		return &DamagedError{Bucket: n.cfg.LogBucket, Err: fmt.Errorf("the log is empty, but there is %s", info.Key)}
	}
	return nil
}
