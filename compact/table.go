package compact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"

	"github.com/celler/celler/wal"
)

// blockBytes compresses better than the blocks of the index, which are read one at
// a time; tables are read whole.
const blockBytes = 32 << 10

// span is the keys from start to end, exclusive.
type span struct{ start, end []byte }

func (s *span) covers(key []byte) bool {
	return bytes.Compare(key, s.start) >= 0 && bytes.Compare(key, s.end) < 0
}

// union returns the same keys as sorted spans that neither overlap nor touch.
func union(spans []span) []span {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b span) int { return bytes.Compare(a.start, b.start) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && bytes.Compare(s.start, out[n-1].end) <= 0 {
			if bytes.Compare(s.end, out[n-1].end) > 0 {
				out[n-1].end = s.end
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// clip returns what of spans lies in [start, end); nil is no bound.
func clip(spans []span, start, end []byte) []span {
	var out []span
	for _, s := range spans {
		if bytes.Compare(s.start, start) < 0 {
			s.start = start
		}
		if end != nil && bytes.Compare(s.end, end) > 0 {
			s.end = end
		}
		if bytes.Compare(s.start, s.end) < 0 {
			out = append(out, s)
		}
	}
	return out
}

// built is a table that has no name yet.
type built struct {
	meta wal.Table
	body []byte
}

// runWriter makes the tables of one run. Keys are added in ascending order; ranges
// delete what older runs have, never the keys of this run.
type runWriter struct {
	shard  wal.Shard
	limit  int64
	ranges []span // not yet written; sorted, disjoint, within the shard
	mutant Mutants
	emit   func(built) error

	obj   *objstorage.MemObj // nil between tables
	w     *sstable.Writer
	meta  wal.Table
	sum   wal.Summer
	bytes int64 // added to the table, uncompressed
}

func newRunWriter(shard wal.Shard, ranges []span, limit int64, mutant Mutants, emit func(built) error) *runWriter {
	return &runWriter{shard: shard, limit: limit, ranges: ranges, mutant: mutant, emit: emit}
}

// tableOptions are those of Pebble's level 0: with the options of the lowest level
// a writer marks tombstones as obsolete, because nothing can lie below them, and
// they are ignored once the table is ingested above something.
func tableOptions(m Mutants) sstable.WriterOptions {
	return sstable.WriterOptions{
		TableFormat:          sstable.TableFormatPebblev4,
		BlockSize:            blockBytes,
		Compression:          sstable.ZstdCompression,
		FilterPolicy:         bloom.FilterPolicy(10),
		FilterType:           sstable.TableFilter,
		WritingToLowestLevel: m.lowestLevel(),
	}
}

// abort lets go of an unfinished table. After finish it does nothing.
func (rw *runWriter) abort() {
	if rw.w != nil {
		_ = rw.w.Close() // what it wrote is thrown away
		rw.obj, rw.w = nil, nil
	}
}

func (rw *runWriter) begin() {
	rw.obj = &objstorage.MemObj{}
	rw.w = sstable.NewWriter(rw.obj, tableOptions(rw.mutant))
	rw.meta, rw.sum.Total, rw.bytes = wal.Table{}, wal.Sum{}, 0
}

// add appends one entry, a Set or a Delete.
func (rw *runWriter) add(kind wal.Kind, key, value []byte) error {
	if rw.obj != nil && rw.full() {
		if err := rw.end(key); err != nil {
			return err
		}
	}
	if rw.obj == nil {
		rw.begin()
		rw.meta.Smallest = slices.Clone(key)
	}
	var err error
	if kind == wal.Set {
		rw.meta.Sets++
		err = rw.w.Set(key, value)
	} else {
		rw.meta.Deletes++
		err = rw.w.Delete(key)
	}
	if err != nil {
		return fmt.Errorf("write table of shard %v: %w", rw.shard, err)
	}
	rw.meta.Largest = append(rw.meta.Largest[:0], key...)
	rw.sum.Add(kind, key, value)
	rw.bytes += int64(len(key) + len(value))
	return nil
}

// full reports whether the table is as large as a table should get. What was added
// since the last block went out is not compressed yet, so the estimate is above.
func (rw *runWriter) full() bool {
	return int64(rw.w.Raw().EstimatedSize()) >= rw.limit
}

// finish ends the last table. A run of range deletions alone is one table.
func (rw *runWriter) finish() error {
	if rw.obj == nil && len(rw.ranges) == 0 {
		return nil
	}
	if rw.obj == nil {
		rw.begin()
		rw.meta.Smallest = slices.Clone(rw.ranges[0].start)
		rw.meta.Largest = slices.Clone(rw.ranges[0].start)
	}
	return rw.end(nil)
}

// end writes the ranges below next, the first key of the next table, and closes
// the table.
func (rw *runWriter) end(next []byte) error {
	var now, later []span
	for _, s := range rw.ranges {
		if next == nil || bytes.Compare(s.end, next) <= 0 {
			now = append(now, s)
		} else if bytes.Compare(s.start, next) >= 0 {
			later = append(later, s)
		} else {
			now = append(now, span{s.start, next})
			later = append(later, span{next, s.end})
		}
	}
	rw.ranges = later
	for _, s := range now {
		if err := rw.w.DeleteRange(s.start, s.end); err != nil {
			return fmt.Errorf("write table of shard %v: %w", rw.shard, err)
		}
		rw.meta.Ranges++
		if bytes.Compare(s.start, rw.meta.Smallest) < 0 {
			rw.meta.Smallest = s.start
		}
		if bytes.Compare(s.end, rw.meta.Largest) > 0 {
			rw.meta.Largest = s.end
		}
	}
	w := rw.w
	rw.w = nil
	if err := w.Close(); err != nil {
		return fmt.Errorf("write table of shard %v: %w", rw.shard, err)
	}
	b := built{meta: rw.meta, body: slices.Clone(rw.obj.Data())}
	b.meta.Sum, b.meta.Size, b.meta.SHA256 = rw.sum.Total, int64(len(b.body)), wal.DigestOf(b.body)
	b.meta.Smallest, b.meta.Largest = slices.Clone(b.meta.Smallest), slices.Clone(b.meta.Largest)
	rw.obj = nil
	if !rw.mutant.lowestLevel() {
		if err := verifyTable(b.meta, b.body, now); err != nil {
			return err
		}
	}
	return rw.emit(b)
}

// verifyTable reads a table as an index will that has ingested it, and wants to
// find what was written.
func verifyTable(meta wal.Table, body []byte, ranges []span) error {
	r, err := openTable(meta, body)
	if err != nil {
		return err
	}
	defer r.close()
	if got, err := r.ranges(); err != nil || !slices.EqualFunc(got, ranges, func(a, b span) bool {
		return bytes.Equal(a.start, b.start) && bytes.Equal(a.end, b.end)
	}) {
		return errors.Join(err, &SumError{What: "range deletions", Table: meta.Key, Want: fmt.Sprint(len(ranges)), Have: fmt.Sprint(len(got))})
	}
	for {
		ok, err := r.next()
		if err != nil {
			return err // next has compared the sums at the end
		}
		if !ok {
			return nil
		}
	}
}

// tableReader yields the entries of one table.
type tableReader struct {
	meta wal.Table
	r    *sstable.Reader
	it   sstable.Iterator
	sum  wal.Summer

	kind       wal.Kind
	key, value []byte // valid until the next call of next
	buf        []byte
	begun      bool
}

func openTable(meta wal.Table, body []byte) (*tableReader, error) {
	r, err := sstable.NewMemReader(body, sstable.ReaderOptions{})
	if err != nil {
		return nil, fmt.Errorf("open table %s: %w", meta.Key, err)
	}
	it, err := r.NewIter(block.IterTransforms{HideObsoletePoints: true}, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open table %s: %w", meta.Key, err), r.Close())
	}
	return &tableReader{meta: meta, r: r, it: it}, nil
}

func (r *tableReader) close() {
	_ = r.it.Close() // it reads from memory; next has returned its errors
	_ = r.r.Close()
}

// next moves to the next entry. At the end it returns false, and an error if what
// was read is not what the table must have.
func (r *tableReader) next() (bool, error) {
	kv := r.it.Next
	if !r.begun {
		r.begun = true
		kv = r.it.First
	}
	e := kv()
	if e == nil {
		if err := r.it.Error(); err != nil {
			return false, fmt.Errorf("read table %s: %w", r.meta.Key, err)
		}
		if r.sum.Total != r.meta.Sum {
			return false, &SumError{What: "content sum", Table: r.meta.Key, Want: r.meta.Sum.String(), Have: r.sum.Total.String()}
		}
		return false, nil
	}
	value, _, err := e.Value(r.buf[:0])
	if err != nil {
		return false, fmt.Errorf("read table %s: %w", r.meta.Key, err)
	}
	switch kind := e.Kind(); kind {
	case sstable.InternalKeyKindSet:
		r.kind = wal.Set
	case sstable.InternalKeyKindDelete:
		r.kind = wal.Delete
	default:
		return false, &SumError{What: "kind of entry", Table: r.meta.Key, Want: "set or delete", Have: fmt.Sprint(kind)}
	}
	r.key = append(r.key[:0], e.K.UserKey...)
	r.value = append(r.value[:0], value...)
	r.sum.Add(r.kind, r.key, r.value)
	return true, nil
}

// ranges returns the range deletions of the table.
func (r *tableReader) ranges() ([]span, error) {
	it, err := r.r.NewRawRangeDelIter(context.Background(), sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", r.meta.Key, err)
	}
	if it == nil {
		return nil, nil
	}
	defer it.Close()
	var out []span
	s, err := it.First()
	for ; s != nil; s, err = it.Next() {
		out = append(out, span{slices.Clone(s.Start), slices.Clone(s.End)})
	}
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", r.meta.Key, err)
	}
	return out, nil
}
