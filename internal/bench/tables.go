package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// tableBytes is where a table ends, as for compact.
const tableBytes = 8 << 20

// install makes the rows of s part of the newest snapshot in the bucket, as if they had
// been folded long ago. The snapshot must have no rows in their shards.
func (s *state) install(ctx context.Context, bucket blob.Bucket) (tables int, size int64, err error) {
	root, err := wal.ReadRoot(ctx, bucket)
	if err != nil {
		return 0, 0, err
	}
	base, err := wal.ReadSnapshot(ctx, bucket, root.Store, root.Snapshot)
	if err != nil {
		return 0, 0, err
	}
	epoch := root.CompactEpoch + 1
	runs, err := s.runs(ctx, bucket, epoch, base.Seq)
	if err != nil {
		return 0, 0, err
	}
	for i := range runs {
		tables += len(runs[i].Tables)
		size += runs[i].Bytes()
	}
	next := wal.Snapshot{Store: root.Store, Seq: base.Seq, Digest: base.Digest, Epoch: epoch, At: time.Now().UTC(), Runs: append(runs, base.Runs...)}
	slices.SortStableFunc(next.Runs, func(a, b wal.Run) int { return int(a.Shard) - int(b.Shard) })
	body, err := wal.AppendSnapshot(nil, &next)
	if err != nil {
		return 0, 0, err
	}
	ref := wal.SnapshotRef{Seq: next.Seq, Digest: next.Digest, Key: wal.SnapshotKey(next.Seq, 1), SHA256: wal.DigestOf(body), Epoch: epoch}
	if _, err := bucket.Put(ctx, ref.Key, body); err != nil {
		return 0, 0, err
	}
	_, err = wal.RootChange{By: "bench"}.Swap(ctx, bucket, func(r *wal.Root) error {
		if r.Rev != root.Rev && r.Snapshot.Key != ref.Key {
			return errors.New("somebody else writes to the bucket")
		}
		r.CompactEpoch, r.Snapshot = epoch, ref
		return nil
	})
	return tables, size, err
}

// runs writes the tables of every shard, one shard for each core at a time.
func (s *state) runs(ctx context.Context, bucket blob.Bucket, epoch wal.Epoch, last wal.Seq) ([]wal.Run, error) {
	type job struct {
		kind rowKind
		from int64 // place of the first row
		run  int
	}
	var jobs []job
	for _, k := range s.kinds() {
		// Only where a hash follows the prefix the rows are in more than one shard.
		parts := int64(1)
		if key, _, err := k.row(0, nil, nil); err != nil {
			return nil, err
		} else if last, _, err := k.row(k.count-1, nil, nil); err != nil {
			return nil, err
		} else if wal.ShardOf(key) != wal.ShardOf(last) {
			parts = 16
		}
		for i := range parts {
			part := k
			part.count /= parts
			jobs = append(jobs, job{kind: part, from: i * part.count, run: len(jobs)})
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	runs := make([]wal.Run, len(jobs))
	work := make(chan job, len(jobs))
	for _, j := range jobs {
		work <- j
	}
	close(work)
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			for j := range work {
				w := &tableWriter{ctx: ctx, state: s, bucket: bucket, epoch: epoch, run: wal.Run{First: 1, Last: last}}
				if err := w.write(j.kind, j.from); err != nil {
					cancel(fmt.Errorf("write %c rows from %d on: %w", j.kind.prefix, j.from, err))
					return
				}
				runs[j.run] = w.run
			}
		})
	}
	wg.Wait()
	return runs, context.Cause(ctx)
}

// tableWriter writes the tables of one run, in the format that compact writes.
type tableWriter struct {
	ctx    context.Context
	state  *state
	bucket blob.Bucket
	epoch  wal.Epoch
	run    wal.Run

	obj  *objstorage.MemObj
	w    *sstable.Writer
	meta wal.Table
	sum  wal.Summer
}

func (t *tableWriter) write(k rowKind, from int64) (err error) {
	var key, value []byte
	for place := from; place < from+k.count; place++ {
		if k.skips(t.state, place) {
			continue
		}
		if key, value, err = k.row(place, key[:0], value[:0]); err != nil {
			return err
		}
		if len(t.run.Tables) == 0 && t.w == nil {
			t.run.Shard = wal.ShardOf(key)
		}
		if wal.ShardOf(key) != t.run.Shard {
			return fmt.Errorf("row %d is in shard %v, the first was in %v", place, wal.ShardOf(key), t.run.Shard)
		}
		if t.w != nil && int64(t.w.Raw().EstimatedSize()) >= tableBytes {
			if err := t.end(); err != nil {
				return err
			}
		}
		if t.w == nil {
			t.begin(key)
		}
		if err := t.w.Set(key, value); err != nil {
			return err
		}
		t.meta.Sets++
		t.meta.Largest = append(t.meta.Largest[:0], key...)
		t.sum.Add(wal.Set, key, value)
	}
	return t.end()
}

func (t *tableWriter) begin(key []byte) {
	t.obj = &objstorage.MemObj{}
	t.w = sstable.NewWriter(t.obj, sstable.WriterOptions{
		TableFormat: sstable.TableFormatPebblev4, BlockSize: 32 << 10, Compression: sstable.ZstdCompression,
		FilterPolicy: bloom.FilterPolicy(10), FilterType: sstable.TableFilter,
	})
	t.meta, t.sum.Total = wal.Table{Smallest: slices.Clone(key)}, wal.Sum{}
}

func (t *tableWriter) end() error {
	if err := t.w.Close(); err != nil {
		return err
	}
	body := t.obj.Data()
	t.meta.Size, t.meta.SHA256, t.meta.Sum = int64(len(body)), wal.DigestOf(body), t.sum.Total
	name := mix(binary.BigEndian.Uint64(t.meta.SHA256[:]))
	t.meta.Key = wal.TableKey(t.epoch, name)
	if _, err := t.bucket.Put(t.ctx, t.meta.Key, body); err != nil {
		return err
	}
	t.meta.Largest = slices.Clone(t.meta.Largest)
	t.run.Tables = append(t.run.Tables, t.meta)
	t.obj, t.w = nil, nil
	return nil
}
