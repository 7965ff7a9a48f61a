package compact

import (
	"bytes"
	"maps"
	"slices"

	"github.com/celler/celler/wal"
)

// fold is what a stretch of the log comes to: for each key it touched, the last
// value or that it was deleted. It needs to know nothing of the state before,
// because segments hold effects.
type fold struct {
	first, last wal.Seq
	digest      wal.Digest // of the object in slot last
	segments    int
	rows        map[string]change
	ranges      []span
	bytes       int64 // that the rows take in memory, about
}

type change struct {
	value   []byte
	deleted bool
}

// rowMemory is what a row takes beside its key and value: its place in the map, its two
// allocations, and its place in the sorted keys.
const rowMemory = 160

func newFold(first wal.Seq, before wal.Digest) *fold {
	return &fold{first: first, last: first - 1, digest: before, rows: map[string]change{}}
}

// add performs a segment: its entries in order, and then the row that remembers its
// writer, which every replica sets beside them.
func (f *fold) add(seg *wal.Segment, digest wal.Digest, m Mutants) {
	for _, e := range seg.Entries {
		switch e.Kind {
		case wal.Set:
			// A copy, because the entries of a segment share one buffer, and the last
			// row left of it would keep all of it.
			f.set(e.Key, change{value: bytes.Clone(e.Value)})
		case wal.Delete:
			f.set(e.Key, change{deleted: true})
		case wal.DeleteRange:
			f.deleteRange(span{e.Key, e.Value})
		case wal.PushBoundary: // for people
		}
	}
	if !m.noSessions() {
		f.set(wal.SessionKey(seg.Writer), change{value: wal.AppendSession(nil, seg)})
	}
	f.last, f.digest = seg.Seq, digest
	f.segments++
}

func (f *fold) set(key []byte, c change) {
	old, ok := f.rows[string(key)]
	if !ok {
		f.bytes += int64(len(key)) + rowMemory
	}
	f.bytes += int64(len(c.value) - len(old.value))
	f.rows[string(key)] = c
}

func (f *fold) deleteRange(s span) {
	maps.DeleteFunc(f.rows, func(key string, c change) bool {
		covered := s.covers([]byte(key))
		if covered {
			f.bytes -= int64(len(key)+len(c.value)) + rowMemory
		}
		return covered
	})
	f.ranges = union(append(f.ranges, s))
}

// tables writes the fold as runs, one a shard, and returns them with their tables.
// Where nothing lies below, nothing needs to be deleted.
func (f *fold) tables(below map[wal.Shard]bool, limit int64, m Mutants) ([]wal.Run, [][]built, error) {
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(f.rows)), func(k string) bool {
		return f.rows[k].deleted && !below[wal.ShardOf([]byte(k))]
	})
	var runs []wal.Run
	var all [][]built
	for _, shard := range f.shards(keys, below) {
		n := 0
		for n < len(keys) && wal.ShardOf([]byte(keys[n])) == shard {
			n++
		}
		var ranges []span
		if below[shard] {
			ranges = clip(f.ranges, shard.Start(), shard.End())
		}
		var out []built
		w := newRunWriter(shard, ranges, limit, m, func(b built) error {
			out = append(out, b)
			return nil
		})
		if err := f.write(w, keys[:n]); err != nil {
			return nil, nil, err
		}
		keys = keys[n:]
		runs = append(runs, wal.Run{Shard: shard, First: f.first, Last: f.last})
		all = append(all, out)
	}
	return runs, all, nil
}

// write adds the rows of one shard.
func (f *fold) write(w *runWriter, keys []string) error {
	defer w.abort()
	for _, key := range keys {
		c, kind := f.rows[key], wal.Set
		if c.deleted {
			kind = wal.Delete
		}
		if err := w.add(kind, []byte(key), c.value); err != nil {
			return err
		}
	}
	return w.finish()
}

// shards returns, in order, the shards that the fold has something to say of.
func (f *fold) shards(keys []string, below map[wal.Shard]bool) []wal.Shard {
	var out []wal.Shard
	for _, key := range keys {
		if s := wal.ShardOf([]byte(key)); len(out) == 0 || out[len(out)-1] != s {
			out = append(out, s)
		}
	}
	for shard := range below {
		if len(clip(f.ranges, shard.Start(), shard.End())) > 0 {
			out = append(out, shard)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
