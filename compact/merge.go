package compact

import (
	"bytes"
	"context"
	"fmt"

	"github.com/celler/celler/wal"
)

// merge makes one run of several neighbouring ones, newest first, and returns it. It
// has no tables if everything in them came to nothing.
func (r *round) merge(ctx context.Context, runs []wal.Run, oldest bool) (wal.Run, error) {
	out := wal.Run{Shard: runs[0].Shard, First: runs[len(runs)-1].First, Last: runs[0].Last}
	cursors, err := r.openRuns(ctx, runs)
	if err != nil {
		return out, err
	}
	defer func() {
		for _, c := range cursors {
			c.close()
		}
	}()
	var ranges []span
	if !oldest {
		for _, c := range cursors {
			ranges = append(ranges, c.deleted...)
		}
		ranges = union(ranges)
	}
	w := newRunWriter(out.Shard, ranges, r.o.TableBytes, r.o.Mutants, func(b built) error {
		name, err := r.tableName()
		if err != nil {
			return err
		}
		b.meta.Key = name
		if err := r.upload(ctx, b); err != nil {
			return err
		}
		out.Tables = append(out.Tables, b.meta)
		return nil
	})
	defer w.abort()
	dropped := wal.Summer{}
	for {
		winner := newest(cursors)
		if winner < 0 {
			break
		}
		if err := r.mergeKey(ctx, w, cursors, winner, oldest, &dropped); err != nil {
			return out, err
		}
	}
	if err := w.finish(); err != nil {
		return out, err
	}
	return out, conserved(runs, &out, dropped.Total)
}

// conserved holds that what went into a merge either came out or was dropped.
func conserved(in []wal.Run, out *wal.Run, dropped wal.Sum) error {
	var want wal.Sum
	for i := range in {
		for j := range in[i].Tables {
			want = want.Add(in[i].Tables[j].Sum)
		}
	}
	have := dropped
	for i := range out.Tables {
		have = have.Add(out.Tables[i].Sum)
	}
	if want != have {
		return &SumError{What: fmt.Sprintf("content sum of the merge of %d runs of shard %v", len(in), out.Shard), Want: want.String(), Have: have.String()}
	}
	return nil
}

// newest returns the cursor with the smallest key, of several the newest; -1 if all
// are at their ends.
func newest(cursors []*cursor) int {
	at := -1
	for i, c := range cursors {
		if !c.done && (at < 0 || bytes.Compare(c.key(), cursors[at].key()) < 0) {
			at = i
		}
	}
	return at
}

// mergeKey writes what the newest run says of the smallest key, unless that is
// nothing, and moves every cursor past the key.
func (r *round) mergeKey(ctx context.Context, w *runWriter, cursors []*cursor, winner int, oldest bool, dropped *wal.Summer) error {
	top := cursors[winner]
	keep := top.table.kind == wal.Set || !oldest && !r.o.Mutants.dropTombstones()
	for _, c := range cursors[:winner] {
		for i := range c.deleted {
			keep = keep && !c.deleted[i].covers(top.key())
		}
	}
	if keep {
		if err := w.add(top.table.kind, top.key(), top.table.value); err != nil {
			return err
		}
	} else {
		dropped.Add(top.table.kind, top.key(), top.table.value)
	}
	key := append([]byte(nil), top.key()...)
	if err := top.next(ctx); err != nil {
		return err
	}
	for _, c := range cursors[winner+1:] {
		if c.done || !bytes.Equal(c.key(), key) {
			continue
		}
		dropped.Add(c.table.kind, key, c.table.value)
		if err := c.next(ctx); err != nil {
			return err
		}
	}
	return nil
}

// cursor reads the entries of a run, a table at a time.
type cursor struct {
	r       *round
	rest    []wal.Table
	table   *tableReader // nil at the end
	deleted []span       // all range deletions of the run
	done    bool
}

// openRuns opens the runs at their first entries.
func (r *round) openRuns(ctx context.Context, runs []wal.Run) ([]*cursor, error) {
	cursors := make([]*cursor, len(runs))
	for i := range runs {
		cursors[i] = &cursor{r: r, rest: runs[i].Tables}
	}
	err := r.each(len(runs), func(i int) error {
		if err := cursors[i].readRanges(ctx); err != nil {
			return err
		}
		return cursors[i].next(ctx)
	})
	if err != nil {
		for _, c := range cursors {
			c.close()
		}
		return nil, err
	}
	return cursors, nil
}

// readRanges collects the range deletions before any entry is read, because those
// of a newer run decide about keys that its own entries have not reached.
func (c *cursor) readRanges(ctx context.Context) error {
	for _, meta := range c.rest {
		if meta.Ranges == 0 {
			continue
		}
		t, err := c.r.fetch(ctx, meta)
		if err != nil {
			return err
		}
		spans, err := t.ranges()
		t.close()
		if err != nil {
			return err
		}
		if int64(len(spans)) != meta.Ranges {
			return &SumError{What: "range deletions", Table: meta.Key, Want: fmt.Sprint(meta.Ranges), Have: fmt.Sprint(len(spans))}
		}
		c.deleted = append(c.deleted, spans...)
	}
	return nil
}

func (c *cursor) key() []byte { return c.table.key }

// next moves to the next entry, or to the end.
func (c *cursor) next(ctx context.Context) error {
	for {
		if c.table == nil {
			if len(c.rest) == 0 {
				c.done = true
				return nil
			}
			var err error
			if c.table, err = c.r.fetch(ctx, c.rest[0]); err != nil {
				return err
			}
			c.rest = c.rest[1:]
		}
		ok, err := c.table.next()
		if err != nil || ok {
			return err
		}
		c.close()
	}
}

func (c *cursor) close() {
	if c.table != nil {
		c.table.close()
		c.table = nil
	}
}
