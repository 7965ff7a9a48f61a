package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/wal"
)

// readOnly is a bucket that takes no writes from us.
type readOnly struct{ blob.Bucket }

func (readOnly) Create(context.Context, blob.Key, []byte) (blob.Tag, error) {
	return "", refuseWrite("create")
}

func (readOnly) Swap(context.Context, blob.Key, blob.Tag, []byte) (blob.Tag, error) {
	return "", refuseWrite("swap")
}

func (readOnly) Put(context.Context, blob.Key, []byte) (blob.Tag, error) {
	return "", refuseWrite("put")
}
func (readOnly) Delete(context.Context, ...blob.Key) error { return refuseWrite("delete") }

func refuseWrite(op string) error {
	return &blob.Error{Op: op, Kind: blob.KindReadOnly, Err: errors.New("this server shows the past and writes nothing")}
}

var errNoKeyYet = errors.New("the bucket had no token secret then; configure one, or choose a later point")

// openPast takes the place of openBuckets, openFormat and openLog in a node that shows
// the past: nothing is probed, founded or written, and the index is one of its own that
// goes with the node.
func (n *Node) openPast(ctx context.Context) (err error) {
	b := n.cfg.Buckets
	wrap := func(b blob.Bucket) blob.Bucket { return readOnly{b} }
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
	m, err := n.o.At.resolve(ctx, n.logBucket)
	if err != nil {
		return err
	}
	n.past = &m
	past, err := n.scratchPast(ctx, m)
	if err != nil {
		return err
	}
	n.onClose("index", past.Close)
	n.db, n.cfg.ResidentBytes = past.DB, 0
	if n.log, err = wal.Open(ctx, past.Bucket, n.db, wal.Options{Logger: n.o.Logger, Metrics: n.o.Metrics}); err != nil {
		return fmt.Errorf("open log in bucket %s: %w", b.LogBucket, err)
	}
	n.onClose("log", n.log.Close)
	n.cat = catalog.New(n.log, n.db, catalog.Options{Now: n.o.Now, Logger: n.o.Logger, Metrics: n.o.Metrics})
	return nil
}

// scratchPast makes the state of a moment in a directory of its own, below that of the
// bucket's index so that it lies on the same disk.
func (n *Node) scratchPast(ctx context.Context, m Moment) (*index.Past, error) {
	dir := filepath.Join(n.cfg.CacheDir, n.format.Store.String())
	if n.cfg.LogBucket == "mem:" {
		var err error
		if dir, err = os.MkdirTemp("", "celler-"); err != nil {
			return nil, fmt.Errorf("make a directory for the index: %w", err)
		}
		n.onClose("temporary directory", func() error { return os.RemoveAll(dir) })
	}
	return index.OpenPast(ctx, n.logBucket, dir, wal.Seq(m.Seq), n.scratch())
}

// scratch are the options of an index that is thrown away.
func (n *Node) scratch() index.Options {
	o := n.scratchOptions
	o.Now, o.Logger = n.o.Now, n.o.Logger
	if n.past != nil {
		o.Metrics = n.o.Metrics
	}
	return o
}

// pastHasKey reports a state so old that it has no token secret: without one nobody
// could read anything but public caches.
func (n *Node) pastHasKey(ctx context.Context) error {
	_, _, err := n.cat.Secret(ctx, tokenSecret, func() ([]byte, error) { return nil, errNoKeyYet })
	if errors.Is(err, errNoKeyYet) {
		return fmt.Errorf("show %v: %w", *n.past, err)
	}
	return err
}

// pastText says which state is shown, for answers; "" for the present.
func (n *Node) pastText() string {
	if n.past == nil {
		return ""
	}
	return "the past (" + n.past.String() + ")"
}

// Past says which state of the past the node shows; false if it shows the present.
func (n *Node) Past() (Moment, bool) {
	if n.past == nil {
		return Moment{}, false
	}
	return *n.past, true
}
