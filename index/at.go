package index

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// pastPrefix begins the names of directories that hold a state of the past.
const pastPrefix = "past-"

// Past is the state as it was after a slot, in a directory of its own that Close
// removes.
type Past struct {
	*DB
	// Bucket shows the log as it was: it ends with the slot, and takes no writes.
	Bucket blob.Bucket
}

// OpenPast makes the state as it was after slot seq, of the newest snapshot that leads
// there and of the log from there on. It returns a *wal.UnreachableError if that is not
// kept. The directory is made below dir, in which those are removed that processes
// left which were killed.
func OpenPast(ctx context.Context, bucket blob.Bucket, dir string, seq wal.Seq, o Options) (*Past, error) {
	o = o.withDefaults()
	o.Bucket = bucket
	format, err := wal.ReadFormat(ctx, bucket)
	if err != nil {
		return nil, err
	}
	if err := o.FS.MkdirAll(dir, 0o700); err != nil {
		return nil, &DiskError{Dir: dir, Err: err}
	}
	removeStale(dir, o)
	// Compactors may take away what the state is being made of. What there is to begin
	// from is less each time, so that this ends.
	tried := map[blob.Key]bool{}
	var why error
	for {
		h, err := wal.ReadHistory(ctx, bucket)
		if err != nil {
			return nil, err
		}
		if err := h.Reach(ctx, bucket, seq); err != nil {
			return nil, err
		}
		fresh := false
		for _, base := range h.Bases(seq) {
			if tried[base.Key] {
				continue
			}
			tried[base.Key], fresh = true, true
			p, err := openFrom(ctx, bucket, dir, format.Store, h, base, seq, o)
			if err == nil {
				return p, nil
			}
			why = fmt.Errorf("make the state of slot %d from the snapshot of slot %d: %w", uint64(seq), uint64(base.Seq), err)
			if !errors.Is(err, blob.ErrNotExist) {
				return nil, why
			}
		}
		if !fresh {
			return nil, why
		}
	}
}

// openFrom makes the state of slot seq from one snapshot. The error is
// blob.ErrNotExist if the snapshot, one of its tables, or the log after it is gone.
func openFrom(ctx context.Context, bucket blob.Bucket, dir string, store wal.StoreID, h *wal.History, base wal.Kept, seq wal.Seq, o Options) (_ *Past, err error) {
	ref, err := wal.ReadKept(ctx, bucket, store, base)
	if err != nil {
		return nil, err
	}
	view, err := wal.Past(bucket, h, ref, seq)
	if err != nil {
		return nil, err
	}
	var name [8]byte
	if _, err := rand.Read(name[:]); err != nil {
		return nil, fmt.Errorf("draw the name of a directory: %w", err)
	}
	db, err := Open(o.FS.PathJoin(dir, fmt.Sprintf("%s%x", pastPrefix, name)), store, o)
	if err != nil {
		return nil, err
	}
	p := &Past{DB: db, Bucket: view}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	l, err := wal.Open(ctx, view, db, wal.Options{Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	at := l.Seq()
	if err := l.Close(); err != nil {
		return nil, err
	}
	holds, err := wal.PastHolds(ctx, bucket, ref, seq)
	if err != nil {
		return nil, err
	}
	if !holds || at != seq {
		return nil, fmt.Errorf("the log from slot %v on was truncated at slot %v while it was read: %w", ref.Seq+1, at+1, blob.ErrNotExist)
	}
	return p, nil
}

// Close lets go of the directory and removes it. Nobody may read any more.
func (p *Past) Close() error {
	err := p.DB.Close()
	if rerr := p.fs.RemoveAll(p.dir); rerr != nil {
		err = errors.Join(err, &DiskError{Dir: p.dir, Err: rerr})
	}
	return err
}

// removeStale removes directories of states of the past that no process has open.
// Nothing depends on it.
func removeStale(dir string, o Options) {
	names, err := o.FS.List(dir)
	if err != nil {
		return
	}
	for _, name := range names {
		if !strings.HasPrefix(name, pastPrefix) {
			continue
		}
		path := o.FS.PathJoin(dir, name)
		lock, err := pebble.LockDirectory(path, o.FS)
		if err != nil {
			continue // somebody reads it
		}
		err = errors.Join(o.FS.RemoveAll(path), lock.Close())
		if err != nil {
			o.Logger.Warn("a state of the past that nobody uses could not be removed", "err", err)
		}
	}
}
