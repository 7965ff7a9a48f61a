package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/wal"
)

// openDirect opens log and chunk store of a bucket for a verb that works on them without
// a server: no address is taken, nothing is founded, no resident copies are made. The
// verb has an index of its own below the cache directory, so that the next call needs to
// read little; one that is in use gives way to an index that is thrown away.
//
// wrap, if not nil, is put around each bucket.
func openDirect(ctx context.Context, cfg config.Config, o Options, verb string, wrap func(blob.Bucket) blob.Bucket) (*Node, error) {
	o, err := o.withDefaults(ctx)
	if err != nil {
		return nil, err
	}
	cfg.CacheDir, cfg.ResidentBytes = filepath.Join(cfg.CacheDir, verb), 0
	n := &Node{cfg: cfg, o: o}
	if wrap == nil {
		wrap = func(b blob.Bucket) blob.Bucket { return b }
	}
	err = n.openDirectly(ctx, wrap)
	if locked, ok := errors.AsType[*index.LockedError](err); ok {
		o.Logger.Info("the index is in use, one for this time only is made", "err", locked)
		if n.cfg.CacheDir, err = os.MkdirTemp("", "celler-"+verb+"-"); err != nil {
			return nil, errors.Join(fmt.Errorf("make a directory for the index: %w", err), n.Close())
		}
		dir := n.cfg.CacheDir
		n.onClose("temporary directory", func() error { return os.RemoveAll(dir) })
		err = n.openState(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) openDirectly(ctx context.Context, wrap func(blob.Bucket) blob.Bucket) (err error) {
	b := n.cfg.Buckets
	if n.logBucket, err = n.openExistingBucket(ctx, b.LogBucket, wrap); err != nil {
		return err
	}
	if n.format, err = wal.ReadFormat(ctx, n.logBucket); err != nil {
		return notFounded(err, b.LogBucket)
	}
	n.dataBucket = n.logBucket
	if !b.Same() {
		if n.dataBucket, err = n.openExistingBucket(ctx, b.DataBucket, wrap); err != nil {
			return err
		}
	}
	return n.openState(ctx)
}

func (n *Node) openState(ctx context.Context) error {
	if err := n.openLog(ctx); err != nil {
		return err
	}
	return n.openStore(ctx)
}

func (n *Node) openExistingBucket(ctx context.Context, url string, wrap func(blob.Bucket) blob.Bucket) (blob.Bucket, error) {
	raw, err := openExisting(ctx, url, n.cfg.S3)
	if err != nil {
		return nil, err
	}
	n.onClose("bucket "+url, func() error { return closeBucket(raw) })
	return wrap(raw), nil
}
