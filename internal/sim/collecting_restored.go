package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/wal"
)

// onlooker sees the world's bucket as it is at one moment: what it reads takes no step, and
// nothing happens meanwhile.
type onlooker struct{ founder }

var _ blob.Bucket = onlooker{}

// GetRange implements blob.Bucket.
func (o onlooker) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	body, _, err := o.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	end := min(int64(len(body)), off+n)
	return io.NopCloser(bytes.NewReader(body[min(off, end):end])), nil
}

// List implements blob.Bucket.
func (o onlooker) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return o.w.Bucket("onlooker").List(ctx, prefix, after) // takes no step either
}

// checkRestored wants what a restore was to bring back to be there, and to be complete, in
// the state of the slot in which it was acknowledged, but for what somebody has tried to
// remove since it was asked for. Later is too late to look: what is missing is pushed again,
// or nobody would have it any more anyway, and nothing ever comes of it.
func (c *collecting) checkRestored(ctx context.Context, name string, seq wal.Seq, then *catalog.Snapshot, asked moment, lost []catalog.LostPath) {
	p, err := index.OpenPast(ctx, onlooker{founder{c.w}}, "restored", seq, index.Options{FS: vfs.NewMem(), Now: c.w.time, CacheBytes: 1 << 20, FetchParallel: 1})
	if _, truncated := errors.AsType[*wal.UnreachableError](err); truncated || ctx.Err() != nil {
		return
	}
	if err == nil {
		err = errors.Join(c.compareRestored(name, p.DB, then, asked, lost), p.Close())
	}
	if err != nil {
		c.violate("%s: the state after a restore: %v", name, err)
	}
}

func (c *collecting) compareRestored(name string, db *index.DB, then *catalog.Snapshot, asked moment, lost []catalog.LostPath) error {
	now, err := catalog.SnapshotOf(db)
	if err != nil {
		return err
	}
	defer func() { _ = now.Close() }()
	was, _, err1 := then.Cache(simCache)
	is, _, err2 := now.Cache(simCache)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for path := range simPaths {
		hashPart := simPath(path).HashPart()
		_, wasThere, err1 := then.Path(was.ID, hashPart)
		row, isThere, err2 := now.Path(is.ID, hashPart)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		removed := slices.ContainsFunc(lost, func(l catalog.LostPath) bool { return l.StorePath == simPath(path) })
		c.knows(func(f *facts) { removed = removed || !f.of(path).removal.before(asked.step) })
		if wasThere && !isThere && !removed {
			c.violate("%s: slot %d was restored in slot %d, without %s", name, then.Seq(), now.Seq(), path)
		}
		if !isThere {
			continue
		}
		if ok, err := now.Servable(row.NarHash); !ok || err != nil {
			c.violate("%s: slot %d was restored in slot %d, with %s, which cannot be put together: %v", name, then.Seq(), now.Seq(), path, err)
		}
	}
	return nil
}
