package compact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// deleteBatch is how many objects one call of Delete names; S3 takes 1,000.
const deleteBatch = 1000

// version is what a listing says of a snapshot.
type version struct {
	key blob.Key
	seq wal.Seq
	at  time.Time // by the bucket's clock
}

// listSnapshots lists the snapshots there are, oldest first by slot and then by
// time, but for those that are being deleted. A listing decides nothing but what is thrown
// away (I10): the one that ROOT names is kept by its name, whether it is listed or not.
func (r *round) listSnapshots(ctx context.Context) ([]version, error) {
	var all []version
	err := r.retry(ctx, func(ctx context.Context) error {
		all, r.lingers = nil, false
		for info, err := range r.bucket.List(ctx, "snap/", "") {
			if err != nil {
				return fmt.Errorf("list snapshots: %w", err)
			}
			name := strings.TrimPrefix(string(info.Key), "snap/")
			seq, err := wal.ParseSeq(name[:min(16, len(name))])
			if err != nil {
				continue // not ours
			}
			if slices.Contains(r.root.Doomed, info.Key) {
				r.lingers = true
				continue // as good as gone
			}
			all = append(all, version{info.Key, seq, info.ModTime})
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b version) int {
		if a.seq != b.seq {
			return cmp.Compare(a.seq, b.seq)
		}
		return a.at.Compare(b.at)
	})
	return all, err
}

// newestTime is the bucket's own idea of now, as far as its snapshots tell: what is
// aged is never aged by the clock of the machine we happen to run on.
func newestTime(all []version) (now time.Time) {
	for _, v := range all {
		if v.at.After(now) {
			now = v.at
		}
	}
	return now
}

// floorFor returns the first slot that is to stay in the log: not above the
// snapshot, KeepSegments before the tail, and not above the newest snapshot that is
// older than LogRetention.
func (r *round) floorFor(all []version) wal.Seq {
	floor := r.root.Snapshot.Seq
	if keep := wal.Seq(max(0, r.o.KeepSegments)); keep > 0 {
		if r.rep.Tail <= keep {
			return r.root.Floor
		}
		floor = min(floor, r.rep.Tail-keep+1)
	}
	if r.o.LogRetention > 0 {
		aged := wal.Seq(0)
		now := newestTime(all)
		for _, v := range all {
			if now.Sub(v.at) >= r.o.LogRetention && v.seq <= r.root.Snapshot.Seq {
				aged = max(aged, v.seq)
			}
		}
		floor = min(floor, aged)
	}
	return max(floor, r.root.Floor)
}

// errMarked tells that a bookmark has come or gone, or a snapshot that one may need, and
// that the floor may belong elsewhere. The next round sees to it.
var errMarked = errors.New("the bookmarks have changed") //nolint:gochecknoglobals // an error value

// marksHold returns errMarked if another ROOT than the one this round looks at has other
// bookmarks, or dooms other snapshots.
func (r *round) marksHold(now *wal.Root) error {
	if err := now.CheckWriter(); err != nil {
		return err
	}
	if r.o.Mutants.noMarkCheck() || maps.Equal(now.Bookmarks, r.root.Bookmarks) && slices.Equal(now.Doomed, r.root.Doomed) {
		return nil
	}
	return errMarked
}

// truncate raises the floor and then deletes the slots below it, in this order (I2).
// The names are known, so nothing is listed for it. Slots that a crash leaves, or a
// writer that slept, lie below the floor and are removed by the sweep.
func (r *round) truncate(ctx context.Context) error {
	if r.root.Snapshot.Seq == 0 {
		return nil
	}
	all, err := r.listSnapshots(ctx)
	if err != nil {
		return err
	}
	from := max(r.root.Floor, 1)
	to, err := r.hold(ctx, all, r.floorFor(all))
	if err != nil {
		return err
	}
	if to <= from {
		return nil
	}
	r.rep.SlotsDeleted = int(to - from)
	if r.mode.DryRun {
		return nil
	}
	if r.o.Mutants.deleteBeforeFloor() {
		r.deleteSlots(ctx, from, to)
	}
	root, err := r.swap(ctx, func(root *wal.Root) error {
		if err := r.marksHold(root); err != nil {
			return err
		}
		root.Floor = max(root.Floor, min(to, root.Snapshot.Seq))
		return nil
	})
	if err != nil {
		r.rep.SlotsDeleted = 0
	}
	if errors.Is(err, errMarked) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("raise the floor to slot %v: %w", to, err)
	}
	r.root.Floor = root.Floor
	r.deleteSlots(ctx, from, to)
	return nil
}

func (r *round) deleteSlots(ctx context.Context, from, to wal.Seq) {
	var keys []blob.Key
	for seq := from; seq < to; seq++ {
		keys = append(keys, seq.Key())
	}
	r.rep.SlotsDeleted = r.remove(ctx, keys)
}

// remove deletes objects that nobody needs and returns how many of them it could. A
// bucket that refuses, because objects are locked for instance, is asked again by
// later rounds; nothing depends on it.
func (r *round) remove(ctx context.Context, keys []blob.Key) int {
	removed := 0
	for batch := range slices.Chunk(keys, deleteBatch) {
		err := r.retry(ctx, func(ctx context.Context) error { return r.bucket.Delete(ctx, batch...) })
		if err != nil {
			r.rep.Undeleted += len(batch)
			if r.rep.Refusal == "" {
				r.rep.Refusal = err.Error()
				r.o.Logger.Warn("objects that are not needed could not be deleted", "err", err, "object", string(batch[0]))
			}
			continue
		}
		removed += len(batch)
	}
	return removed
}
