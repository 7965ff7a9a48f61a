package sim

import (
	"context"

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
	db, err := index.Open("index", store, index.Options{FS: d.fs, Now: d.w.clock, CacheBytes: 1 << 20, Bucket: bucket, FetchParallel: 2})
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
