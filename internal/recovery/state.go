package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/index"
	"github.com/celler/celler/wal"
)

// buildState puts the state together in an index that is thrown away, and writes it as
// a snapshot.
func (x *examiner) buildState(ctx context.Context, epoch wal.Epoch, res *Result) (ref wal.SnapshotRef, err error) {
	dir, err := os.MkdirTemp(x.o.Dir, "recover-")
	if err != nil {
		return ref, fmt.Errorf("make a directory for the state: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o := x.o.Index
	o.Bucket, o.Now, o.Logger = &reduced{Bucket: x.log, x: x}, x.o.Env.Now, x.o.Logger
	db, err := index.Open(filepath.Join(dir, "index"), x.store, o)
	if err != nil {
		return ref, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	s := &state{examiner: x, db: db}
	if err := s.fill(ctx); err != nil {
		return ref, err
	}
	head := wal.Snapshot{Store: x.store, Seq: x.reached.last, Digest: x.reached.digest, Epoch: epoch}
	if x.uncertain {
		if err := s.mend(ctx, res); err != nil {
			return ref, err
		}
		if head.Seq, head.Digest, err = x.newBeginning(); err != nil {
			return ref, err
		}
	}
	x.o.Progress("writing the state")
	return compact.New(x.log, compact.Options{Env: x.o.Env, By: snapshotBy, Logger: x.o.Logger}).WriteState(ctx, head, db.Scan(nil, nil))
}

// newBeginning returns the slot and the digest that a log goes on from which has lost
// slots. No object has that digest: nothing of the old history can follow it.
func (x *examiner) newBeginning() (wal.Seq, wal.Digest, error) {
	root, err := wal.NewRoot(x.store, x.o.Env.Rand) // for its nonce
	if err != nil {
		return 0, wal.Digest{}, err
	}
	return x.next() - 1, wal.DigestOf([]byte("celler recover " + x.store.String() + " " + root.Nonce)), nil
}

// state is a state on its way.
type state struct {
	*examiner
	db   *index.DB
	gone map[chunk.PackID]bool // packs whose object is not there
}

// fill loads the snapshot and applies the slots.
func (s *state) fill(ctx context.Context) error {
	if s.base.snapshot != nil {
		s.o.Progress("loading the snapshot")
		root, err := wal.NewRoot(s.store, s.o.Env.Rand)
		if err != nil {
			return err
		}
		root.Snapshot = s.base.ref
		if s.plan.Salvage {
			// What is left of it has another sum.
			body, err := s.reducedSnapshot()
			if err != nil {
				return err
			}
			root.Snapshot.SHA256 = wal.DigestOf(body)
		}
		if err := s.db.Reset(ctx, root); err != nil {
			return err
		}
	}
	s.o.Progress("applying the log")
	c, err := s.follow(ctx, s.base.ref.Seq, s.base.ref.Digest, func(seg *wal.Segment, digest wal.Digest) error {
		return s.db.Apply(seg, digest)
	})
	if err != nil {
		return err
	}
	if c.last != s.reached.last || c.digest != s.reached.digest {
		return &ChangedError{"the log"}
	}
	if !s.plan.Salvage {
		return nil
	}
	for _, seq := range slices.Sorted(maps.Keys(s.listed.slots)) {
		if seq <= s.reached.last {
			continue
		}
		slot, err := s.readSlot(ctx, seq)
		if err != nil {
			return err
		}
		if slot.sound() {
			if err := s.apply(slot.seg.Writer, slot.seg.Batch, slot.seg.Entries); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply applies entries that do not come from the next slot.
func (s *state) apply(writer wal.WriterID, batch uint64, entries []wal.Entry) error {
	seq, digest, err := s.db.Position()
	if err != nil {
		return err
	}
	seg := &wal.Segment{Store: s.store, Seq: seq + 1, Prev: digest, Writer: writer, Batch: batch, Time: s.o.Env.Now(), Entries: entries}
	return s.db.Apply(seg, wal.DigestOf(digest[:]))
}

// reduced shows the snapshot that a salvage begins with, without the tables that
// cannot be used.
type reduced struct {
	blob.Bucket
	x *examiner
}

func (b *reduced) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	if !b.x.plan.Salvage || key != b.x.base.ref.Key {
		return b.Bucket.Get(ctx, key)
	}
	body, err := b.x.reducedSnapshot()
	return body, "reduced", err
}

func (x *examiner) reducedSnapshot() ([]byte, error) {
	s := *x.base.snapshot
	s.Runs = nil
	for _, run := range x.base.snapshot.Runs {
		run.Tables = slices.DeleteFunc(slices.Clone(run.Tables), func(t wal.Table) bool { return x.checked[t.Key] != "" })
		if len(run.Tables) > 0 {
			s.Runs = append(s.Runs, run)
		}
	}
	return wal.AppendSnapshot(nil, &s)
}
