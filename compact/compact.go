package compact

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// Compactor performs rounds of compaction on one bucket.
type Compactor struct {
	bucket blob.Bucket
	o      Options // with defaults
	env    wal.Env
	m      *metricSet

	epoch   wal.Epoch             // last claimed
	lastKey blob.Key              // of last
	last    *wal.Snapshot         // the last base
	past    map[blob.Key]*past    // what the sweep knows of snapshots, which never change
	names   map[blob.Key]blob.Key // one copy of each table's name that stands in past
	swept   time.Time             // when the last sweep ended
	deleted []blob.Key            // snapshots, in the last sweep that did
	settled map[wal.Seq]bool      // slots with bookmarks that have a snapshot, or can get none any more
}

// sweepEvery is how often a bucket in which nothing happens is swept all the same,
// because what is in it grows older.
const sweepEvery = time.Hour

// New returns a Compactor. Nothing is read or written before the first Round.
func New(bucket blob.Bucket, o Options) *Compactor {
	o = o.withDefaults()
	return &Compactor{bucket: bucket, o: o, env: o.Env, m: newMetricSet(o.Metrics), past: map[blob.Key]*past{}, names: map[blob.Key]blob.Key{}, settled: map[wal.Seq]bool{}}
}

// Report says what a round did, or would do if it was a dry run.
type Report struct {
	DryRun bool `json:"dry_run,omitempty"`
	// Busy is set if another compactor is at work: nothing was folded or merged.
	Busy *Claim `json:"busy,omitempty"`

	Snapshot wal.Seq   `json:"snapshot"` // of ROOT, afterwards
	Floor    wal.Seq   `json:"floor"`    // of ROOT, afterwards
	Tail     wal.Seq   `json:"tail"`     // last slot seen
	Epoch    wal.Epoch `json:"epoch,omitempty"`

	Flushes      int   `json:"flushes"`
	Segments     int   `json:"segments"` // folded
	Merges       int   `json:"merges"`
	Tables       int   `json:"tables"` // written
	BytesRead    int64 `json:"bytes_read"`
	BytesWritten int64 `json:"bytes_written"`

	// Bookmarked counts snapshots that were made for bookmarks on the past.
	Bookmarked int `json:"bookmarked,omitempty"`

	SlotsDeleted     int `json:"slots_deleted"`
	SnapshotsDeleted int `json:"snapshots_deleted"`
	TablesDeleted    int `json:"tables_deleted"`
	// Undeleted counts objects that the bucket refused to delete, Refusal says why.
	// The next rounds try again.
	Undeleted int    `json:"undeleted,omitempty"`
	Refusal   string `json:"refusal,omitempty"`

	Runs  int   `json:"runs"`  // of the snapshot, afterwards
	Bytes int64 `json:"bytes"` // of its tables
}

// Claim is another compactor's claim to a compaction epoch.
type Claim struct {
	Epoch wal.Epoch `json:"epoch"`
	By    string    `json:"by"`
	At    time.Time `json:"at"`
}

// Idle reports whether there was nothing to do.
func (r *Report) Idle() bool {
	return r.Flushes+r.Merges+r.Bookmarked+r.SlotsDeleted+r.SnapshotsDeleted+r.TablesDeleted+r.Undeleted == 0 && r.Busy == nil
}

// Mode says what a round may do.
type Mode struct {
	DryRun bool // write and delete nothing
	Steal  bool // do not wait for another compactor to give up
}

// Round folds what is new in the log into a snapshot, merges runs, and removes what
// is not needed any more. Rounds of any number of Compactors may run at once: of two
// that overlap one finishes and the other is fenced, with an error that is a
// wal.ErrFenced, or finds the first at work and leaves it alone.
//
// A round that is broken off at any point leaves the bucket sound. The report says
// how far it came, also with an error.
func (c *Compactor) Round(ctx context.Context, mode Mode) (Report, error) {
	r := &round{Compactor: c, mode: mode}
	r.rep.DryRun = mode.DryRun
	began := c.env.Now()
	err := r.run(ctx)
	c.m.done(&r.rep, err, c.env.Now().Sub(began))
	return r.rep, err
}

// round is one call of Round.
type round struct {
	*Compactor
	mode Mode

	root  wal.Root
	base  *wal.Snapshot // what ROOT names; Seq zero for the empty state
	epoch wal.Epoch     // zero until claimed

	lingers bool // a snapshot that ROOT says is being deleted was listed

	mu  sync.Mutex // guards rep.BytesRead, BytesWritten and Tables while objects move
	rep Report
}

func (r *round) run(ctx context.Context) error {
	if err := r.readBase(ctx); err != nil {
		return err
	}
	if err := r.build(ctx); err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	if since := r.env.Now().Sub(r.swept); !r.rep.Idle() || r.mode.DryRun || since < 0 || since >= sweepEvery {
		if err := r.truncate(ctx); err != nil {
			return err
		}
		if err := r.sweep(ctx); err != nil {
			return err
		}
		r.swept = r.env.Now()
	}
	r.rep.Snapshot, r.rep.Floor = r.root.Snapshot.Seq, r.root.Floor
	r.rep.Runs = len(r.base.Runs)
	for i := range r.base.Runs {
		r.rep.Bytes += r.base.Runs[i].Bytes()
	}
	return nil
}

// readBase reads ROOT and the snapshot it names.
func (r *round) readBase(ctx context.Context) error {
	err := r.retry(ctx, func(ctx context.Context) (err error) {
		r.root, err = wal.ReadRoot(ctx, r.bucket)
		return err
	})
	if err != nil {
		return err
	}
	if err := r.root.CheckWriter(); err != nil {
		return err
	}
	r.rep.Tail = max(r.rep.Tail, r.root.Snapshot.Seq)
	if r.root.Snapshot.Seq == 0 {
		r.base = &wal.Snapshot{Store: r.root.Store}
		return nil
	}
	if r.lastKey == r.root.Snapshot.Key {
		r.base = r.last
		return nil
	}
	err = r.retry(ctx, func(ctx context.Context) (err error) {
		r.base, err = wal.ReadSnapshot(ctx, r.bucket, r.root.Store, r.root.Snapshot)
		return err
	})
	if err != nil {
		return err
	}
	r.last, r.lastKey = r.base, r.root.Snapshot.Key
	return nil
}

// build flushes and merges until there is nothing left to do. The epoch is claimed
// when the first of that is about to be written.
func (r *round) build(ctx context.Context) error {
	for {
		f, more, err := r.readSlots(ctx, r.base, r.flushEnd(r.base.Seq))
		if err != nil {
			return err
		}
		r.rep.Tail = max(r.rep.Tail, f.last)
		if f.segments > 0 {
			if ok, err := r.claim(ctx); err != nil || !ok {
				return err
			}
			if err := r.flush(ctx, f); err != nil {
				return err
			}
		}
		if !more || r.mode.DryRun {
			break
		}
	}
	return r.mergeAll(ctx)
}

// flush writes the fold and installs a snapshot with it on top.
func (r *round) flush(ctx context.Context, f *fold) error {
	r.rep.Flushes++
	r.rep.Segments += f.segments
	if r.mode.DryRun {
		return nil
	}
	runs, err := r.write(ctx, f, r.base)
	if err != nil {
		return err
	}
	next := wal.Snapshot{Seq: f.last, Digest: f.digest, Runs: stack(runs, r.base.Runs)}
	return r.install(ctx, &next)
}

// write writes the tables of a fold that comes on top of base.
func (r *round) write(ctx context.Context, f *fold, base *wal.Snapshot) ([]wal.Run, error) {
	runs, tables, err := f.tables(below(base), r.o.TableBytes, r.o.Mutants)
	if err != nil {
		return nil, err
	}
	var flat []*built
	for i := range tables {
		for j := range tables[i] {
			b := &tables[i][j]
			if b.meta.Key, err = r.tableName(); err != nil {
				return nil, err
			}
			runs[i].Tables = append(runs[i].Tables, b.meta)
			flat = append(flat, b)
		}
	}
	return runs, r.each(len(flat), func(i int) error { return r.upload(ctx, *flat[i]) })
}

// stack puts the new runs, one a shard, over the old ones.
func stack(top, old []wal.Run) []wal.Run {
	var out []wal.Run
	for len(top) > 0 || len(old) > 0 {
		if len(old) == 0 || len(top) > 0 && top[0].Shard <= old[0].Shard {
			out, top = append(out, top[0]), top[1:]
		} else {
			out, old = append(out, old[0]), old[1:]
		}
	}
	return out
}

// below returns the shards that a snapshot has runs of.
func below(base *wal.Snapshot) map[wal.Shard]bool {
	below := map[wal.Shard]bool{}
	for i := range base.Runs {
		below[base.Runs[i].Shard] = true
	}
	return below
}

// mergeAll merges until nothing is due. Shards come of age together, so the merges
// of many are installed at once; but not too many, because what is merged and not
// installed is lost if the round is broken off.
func (r *round) mergeAll(ctx context.Context) error {
	for {
		next := wal.Snapshot{Seq: r.base.Seq, Digest: r.base.Digest, Runs: slices.Clone(r.base.Runs)}
		merges, read := 0, int64(0)
		for read < r.o.InstallBytes {
			j := r.o.nextMerge(&next)
			if j.count == 0 {
				break
			}
			if ok, err := r.claim(ctx); err != nil || !ok {
				return err
			}
			inputs := next.Runs[j.first : j.first+j.count]
			for i := range inputs {
				read += inputs[i].Bytes()
			}
			if r.mode.DryRun {
				r.rep.Merges++
				next.Runs = slices.Delete(next.Runs, j.first, j.first+j.count)
				continue
			}
			merged, err := r.merge(ctx, inputs, j.oldest)
			if err != nil {
				return err
			}
			var out []wal.Run
			if len(merged.Tables) > 0 {
				out = append(out, merged)
			}
			next.Runs = slices.Replace(slices.Clone(next.Runs), j.first, j.first+j.count, out...)
			merges++
		}
		if merges == 0 {
			return nil
		}
		if err := r.install(ctx, &next); err != nil {
			return err
		}
		r.rep.Merges += merges
	}
}

// tableName returns a name that was never used. Only one goroutine of a round calls it.
func (r *round) tableName() (blob.Key, error) {
	var b [8]byte
	if _, err := io.ReadFull(r.env.Rand, b[:]); err != nil {
		return "", fmt.Errorf("draw the name of a table: %w", err)
	}
	return wal.TableKey(r.epoch, binary.BigEndian.Uint64(b[:])), nil
}

// upload writes a table and returns once it is known to be there.
func (r *round) upload(ctx context.Context, b built) error {
	err := r.retry(ctx, func(ctx context.Context) error {
		_, err := r.bucket.Put(ctx, b.meta.Key, b.body)
		return err
	})
	if err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rep.Tables++
	r.rep.BytesWritten += b.meta.Size
	return nil
}

// fetch reads a table and checks that it is the one the snapshot means.
func (r *round) fetch(ctx context.Context, meta wal.Table) (*tableReader, error) {
	var body []byte
	err := r.retry(ctx, func(ctx context.Context) (err error) {
		body, _, err = r.bucket.Get(ctx, meta.Key)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	if sum := wal.DigestOf(body); sum != meta.SHA256 {
		return nil, &wal.CorruptError{Key: meta.Key, What: "SHA-256", Want: meta.SHA256.String(), Got: sum.String()}
	}
	r.mu.Lock()
	r.rep.BytesRead += int64(len(body))
	r.mu.Unlock()
	return openTable(meta, body)
}
