package sim

import (
	"context"
	"io"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// memoryDisk keeps a waltest.State, which can load snapshots, so that logs are
// truncated under its nodes.
type memoryDisk struct{ st *waltest.State }

type memoryState struct{ *waltest.State }

func (memoryState) Close() error { return nil }

func (d *memoryDisk) Open(_ context.Context, bucket blob.Bucket, _ wal.StoreID, wipe bool) (State, error) {
	if wipe || d.st == nil {
		d.st = waltest.NewState(bucket)
	} else {
		d.st = d.st.Clone()
	}
	return memoryState{d.st}, nil
}

// pebbleDisk keeps the real index on a file system in memory that forgets what
// was not synced.
type pebbleDisk struct {
	w  *World
	fs *vfs.MemFS
}

func (d *pebbleDisk) Open(_ context.Context, bucket blob.Bucket, store wal.StoreID, wipe bool) (State, error) {
	if wipe || d.fs == nil {
		d.fs = vfs.NewCrashableMem()
	}
	db, err := index.Open("index", store, index.Options{FS: d.fs, Now: d.w.time, CacheBytes: 1 << 20, Bucket: patient{bucket}, FetchParallel: 2})
	if err != nil {
		return nil, err
	}
	return &crashingState{DB: db, disk: d}, nil
}

// crashingState loses what was not synced when it is closed.
type crashingState struct {
	*index.DB
	disk *pebbleDisk
}

func (s *crashingState) Close() error {
	clone := s.disk.fs.CrashClone(vfs.CrashCloneCfg{})
	err := s.DB.Close()
	s.disk.fs = clone
	return err
}

// patient is a bucket that asks again, as drivers do, when it is not answered: to load a
// snapshot takes a hundred answers in a row.
type patient struct{ blob.Bucket }

func (p patient) Get(ctx context.Context, key blob.Key) (body []byte, tag blob.Tag, err error) {
	for range 4 {
		if body, tag, err = p.Bucket.Get(ctx, key); blob.KindOf(err) != blob.KindUnreachable || ctx.Err() != nil {
			break
		}
	}
	return body, tag, err
}

func (p patient) GetRange(ctx context.Context, key blob.Key, off, n int64) (r io.ReadCloser, err error) {
	for range 4 {
		if r, err = p.Bucket.GetRange(ctx, key, off, n); blob.KindOf(err) != blob.KindUnreachable || ctx.Err() != nil {
			break
		}
	}
	return r, err
}
