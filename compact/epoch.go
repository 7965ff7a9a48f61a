package compact

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/celler/celler/wal"
)

// errTaken tells claim that somebody else was faster.
var errTaken = errors.New("somebody else has claimed an epoch") //nolint:gochecknoglobals // an error value

// claim makes this round the one that may install, unless it is already. It returns
// false if another compactor is at work, which then stands in the report.
//
// There is no lock and no lease behind this. An epoch may be claimed from anybody at
// any time; whoever held the one before can install nothing any more, and its tables
// are garbage that can be told by their names. Looking at the clock, and leaving a
// young claim alone, only saves work.
func (r *round) claim(ctx context.Context) (bool, error) {
	if r.epoch > 0 || r.mode.DryRun {
		return true, nil
	}
	seen := r.root
	if claimed := seen.CompactEpoch > seen.Snapshot.Epoch && seen.CompactEpoch != r.Compactor.epoch; claimed && !r.mode.Steal {
		if age := r.env.Now().Sub(seen.At); age >= 0 && age < r.o.StealAfter {
			r.busy(seen)
			return false, nil
		}
	}
	root, err := r.swap(ctx, func(root *wal.Root) error {
		if err := root.CheckWriter(); err != nil {
			return err
		}
		if root.CompactEpoch != seen.CompactEpoch || root.Snapshot != seen.Snapshot {
			return errTaken
		}
		root.CompactEpoch++
		return nil
	})
	if errors.Is(err, errTaken) {
		r.busy(root)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("claim a compaction epoch: %w", err)
	}
	r.root, r.epoch = root, root.CompactEpoch
	r.Compactor.epoch = r.epoch
	r.rep.Epoch = r.epoch
	return true, nil
}

func (r *round) busy(root wal.Root) {
	r.rep.Busy = &Claim{Epoch: root.CompactEpoch, By: root.By, At: root.At.UTC().Truncate(time.Second)}
}

// swap changes ROOT. A swap without an answer is asked after until it is known what
// became of it; when the bucket says nothing at all for long, the round ends.
func (r *round) swap(ctx context.Context, change func(*wal.Root) error) (wal.Root, error) {
	ctx, cancel := r.env.WithTimeout(ctx, attempts*r.o.CallTimeout)
	defer cancel()
	return wal.RootChange{Env: r.env, By: r.o.By}.Swap(ctx, r.bucket, change)
}

// install writes the snapshot and makes it the one ROOT names.
//
// Every table was confirmed to be there before, and the snapshot's own object is
// before ROOT names it. The swap holds two things at once: that the epoch is still
// ours, so that nobody has swept our tables; and that ROOT still names the snapshot
// we built on, so that nothing is lost that somebody else installed.
func (r *round) install(ctx context.Context, next *wal.Snapshot) error {
	ref, err := r.writeSnapshot(ctx, next, r.base.Seq+1)
	if err != nil {
		return err
	}
	base := r.root.Snapshot
	root, err := r.swap(ctx, func(root *wal.Root) error {
		if root.Snapshot.Key == ref.Key {
			return nil // an earlier attempt has landed after all
		}
		if r.o.Mutants.noEpochFence() {
			if ref.Seq < root.Snapshot.Seq {
				return &FencedError{Ours: r.epoch, Theirs: root.CompactEpoch}
			}
		} else if root.CompactEpoch != r.epoch || root.Snapshot != base {
			return &FencedError{Ours: r.epoch, Theirs: root.CompactEpoch}
		}
		if err := root.CheckWriter(); err != nil {
			return err
		}
		root.Snapshot = ref
		root.TailHint = max(root.TailHint, r.rep.Tail)
		return nil
	})
	if err != nil {
		return fmt.Errorf("install snapshot %s: %w", ref.Key, err)
	}
	r.root, r.base = root, next
	r.last, r.lastKey = next, ref.Key
	r.o.Logger.Info("installed a snapshot", "snapshot", string(ref.Key), "seq", uint64(ref.Seq), "epoch", uint64(r.epoch))
	return nil
}

// writeSnapshot writes the object of a snapshot for which slots from first on were
// read. ROOT is read after them and before the object is written (I1), so that every
// snapshot there is, is true: who looks back takes any that is whole, and cannot know
// which were installed once.
func (r *round) writeSnapshot(ctx context.Context, next *wal.Snapshot, first wal.Seq) (wal.SnapshotRef, error) {
	next.Store, next.Epoch, next.By = r.root.Store, r.epoch, r.o.By
	next.At = r.env.Now().UTC().Truncate(time.Millisecond)
	body, err := wal.AppendSnapshot(nil, next)
	if err != nil {
		return wal.SnapshotRef{}, err
	}
	var b [4]byte
	if _, err := io.ReadFull(r.env.Rand, b[:]); err != nil {
		return wal.SnapshotRef{}, fmt.Errorf("draw the name of a snapshot: %w", err)
	}
	ref := wal.SnapshotRef{
		Seq: next.Seq, Digest: next.Digest, Epoch: r.epoch,
		Key: wal.SnapshotKey(next.Seq, binary.BigEndian.Uint32(b[:])), SHA256: wal.DigestOf(body),
	}
	var root wal.Root
	err = r.retry(ctx, func(ctx context.Context) (err error) {
		root, err = wal.ReadRoot(ctx, r.bucket)
		return err
	})
	if err == nil && root.CompactEpoch != r.epoch && !r.o.Mutants.noEpochFence() {
		err = &FencedError{Ours: r.epoch, Theirs: root.CompactEpoch}
	}
	if err == nil && root.Floor > first && next.Seq >= first && !r.o.Mutants.noEpochFence() && !r.o.Mutants.noReadCheck() {
		err = fmt.Errorf("slot %v was truncated while it was read", first)
	}
	if err != nil {
		return ref, fmt.Errorf("write snapshot: %w", err)
	}
	err = r.retry(ctx, func(ctx context.Context) error {
		_, err := r.bucket.Put(ctx, ref.Key, body)
		return err
	})
	if err != nil {
		return ref, fmt.Errorf("write snapshot: %w", err)
	}
	r.rep.BytesWritten += int64(len(body))
	return ref, nil
}
