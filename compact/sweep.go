package compact

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// sweep removes old snapshots, the tables that only they referred to, tables that
// were never installed, and slots that a crash left below the floor.
//
// What makes it safe is the compaction epoch E that ROOT has. Every snapshot to come
// is built on the one that ROOT names now, of tables of that one and of tables of
// epochs from E on. So a table of an earlier epoch that is not in it, nor in one that
// is kept for looking back, can be deleted now, however long ago or recently it was
// written, and whether its writer sleeps or not: it can never install it (I8).
//
// Snapshots that are to go are named by ROOT first (doom).
func (r *round) sweep(ctx context.Context) error {
	if err := r.readBase(ctx); err != nil || r.root.Snapshot.Seq == 0 {
		return err
	}
	all, err := r.listSnapshots(ctx)
	if err != nil {
		return err
	}
	r.forget(all)
	needed := map[blob.Key]bool{}
	for i := range r.base.Runs {
		for j := range r.base.Runs[i].Tables {
			needed[r.base.Runs[i].Tables[j].Key] = true
		}
	}
	var old []blob.Key
	keep := r.o.keep(all)
	_, anchors, err := r.anchors(ctx, all)
	if err != nil {
		return err
	}
	for i, v := range all {
		if v.key == r.root.Snapshot.Key {
			continue
		}
		p, err := r.readPast(ctx, v.key)
		if errors.Is(err, blob.ErrNotExist) {
			continue // swept by another
		}
		if err != nil {
			return err
		}
		if !keep[i] && !anchors[i] && r.void(p.epoch) {
			old = append(old, v.key)
			continue
		}
		for _, name := range p.tables {
			needed[name] = true
		}
	}
	var left []blob.Key
	if len(old) > 0 || r.lingers {
		left = r.finish(ctx)
	}
	if room := wal.MaxDoomed - len(left); len(old) > room { // the next rounds go on
		for _, key := range old[room:] {
			for _, name := range r.past[key].tables {
				needed[name] = true
			}
		}
		old = old[:room]
	}
	return r.removeGarbage(ctx, left, old, needed)
}

// void reports whether nothing of an epoch can be installed any more: a later one was
// claimed, or it is our own and all its installs have been answered.
func (r *round) void(epoch wal.Epoch) bool {
	return r.o.Mutants.sweepAll() || epoch < r.root.CompactEpoch || epoch == r.epoch && r.epoch == r.root.CompactEpoch
}

// past is what the sweep has to know of a snapshot.
type past struct {
	epoch  wal.Epoch
	tables []blob.Key
}

// readPast reads a snapshot that ROOT does not name, unless it is known.
func (r *round) readPast(ctx context.Context, key blob.Key) (*past, error) {
	if p := r.past[key]; p != nil {
		return p, nil
	}
	s, err := r.readSnapshot(ctx, key)
	if err != nil {
		return nil, err
	}
	p := &past{epoch: s.Epoch}
	for i := range s.Runs {
		for j := range s.Runs[i].Tables {
			name := s.Runs[i].Tables[j].Key
			if _, ok := r.names[name]; !ok {
				r.names[name] = name
			}
			p.tables = append(p.tables, r.names[name])
		}
	}
	r.past[key] = p
	return p, nil
}

// readSnapshot reads a snapshot that ROOT does not name.
func (r *round) readSnapshot(ctx context.Context, key blob.Key) (s *wal.Snapshot, err error) {
	err = r.retry(ctx, func(ctx context.Context) error {
		body, _, err := r.bucket.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		if s, err = wal.DecodeSnapshot(body); err != nil {
			return fmt.Errorf("read snapshot %s: %w", key, err)
		}
		return nil
	})
	if err == nil && s.Store != r.root.Store {
		err = &wal.ForeignError{Key: key, Store: s.Store, Own: r.root.Store}
	}
	return s, err
}

// forget drops what is known of snapshots that are gone.
func (r *round) forget(all []version) {
	there := map[blob.Key]bool{}
	for _, v := range all {
		there[v.key] = true
	}
	gone := false
	for key := range r.past {
		if !there[key] {
			delete(r.past, key)
			gone = true
		}
	}
	if gone {
		clear(r.names)
		for _, p := range r.past {
			for _, name := range p.tables {
				r.names[name] = name
			}
		}
	}
}

func (r *round) removeGarbage(ctx context.Context, left, old []blob.Key, needed map[blob.Key]bool) error {
	tables, err := r.list(ctx, "tab/", func(key blob.Key) bool {
		epoch, err := wal.ParseTableKey(key)
		return err == nil && r.void(epoch) && !needed[key]
	})
	if err != nil {
		return err
	}
	slots, err := r.list(ctx, "log/", func(key blob.Key) bool { return key < r.root.Floor.Key() })
	if err != nil {
		return err
	}
	if r.mode.DryRun {
		r.rep.SnapshotsDeleted, r.rep.TablesDeleted, r.rep.SlotsDeleted = len(old), len(tables), r.rep.SlotsDeleted+len(slots)
		return nil
	}
	if err := r.doom(ctx, left, old); err != nil {
		if errors.Is(err, errMarked) {
			err = nil // a bookmark may need what looked old; the next round knows
		}
		return err
	}
	// Snapshots before their tables: one that can be found can be read.
	if r.rep.SnapshotsDeleted = r.remove(ctx, old); r.rep.SnapshotsDeleted == len(old) && len(old) > 0 {
		r.deleted = old
	}
	r.rep.TablesDeleted = r.remove(ctx, tables)
	r.rep.SlotsDeleted += r.remove(ctx, slots)
	return nil
}

// finish deletes what ROOT says is being deleted, unless this Compactor has: whoever said so
// may have died. It returns what may still be there.
func (r *round) finish(ctx context.Context) []blob.Key {
	left := slices.DeleteFunc(slices.Clone(r.root.Doomed), func(key blob.Key) bool { return slices.Contains(r.deleted, key) })
	if len(left) == 0 || !r.mode.DryRun && r.remove(ctx, left) == len(left) {
		return nil
	}
	return left
}

// doom has ROOT say which snapshots are about to be deleted, beside those of which it must go
// on saying so. From then on nobody counts on them; whether somebody has begun to, the swap
// finds out. So it does not matter for how long whoever deletes them sleeps before he does,
// and also not whether somebody else has done it meanwhile: names are used once.
func (r *round) doom(ctx context.Context, left, old []blob.Key) error {
	if len(old) == 0 {
		return nil
	}
	root, err := r.swap(ctx, func(root *wal.Root) error {
		if err := r.marksHold(root); err != nil {
			return err
		}
		if !r.o.Mutants.noDoom() {
			root.Doomed = slices.Concat(left, old)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("say which snapshots are about to be deleted: %w", err)
	}
	r.root.Doomed = root.Doomed
	return nil
}

// list returns the names below prefix that are wanted. Names of slots ascend, so
// that only what lies below the floor, and one page, is listed of the log.
func (r *round) list(ctx context.Context, prefix blob.Key, wanted func(blob.Key) bool) ([]blob.Key, error) {
	var keys []blob.Key
	err := r.retry(ctx, func(ctx context.Context) error {
		keys = nil
		for info, err := range r.bucket.List(ctx, prefix, "") {
			if err != nil {
				return fmt.Errorf("list %s: %w", prefix, err)
			}
			if wanted(info.Key) {
				keys = append(keys, info.Key)
			} else if prefix == "log/" {
				break
			}
		}
		return nil
	})
	return keys, err
}

// keep says which of the snapshots, in the order of listSnapshots, are kept for
// looking back: all of the last day, then one an hour, then one a day.
func (o *Options) keep(all []version) []bool {
	now := newestTime(all)
	keep := make([]bool, len(all))
	seen := map[int64]bool{}
	for i := len(all) - 1; i >= 0; i-- { // the newest of each hour and day
		age := now.Sub(all[i].at)
		step := time.Duration(0)
		switch {
		case age < o.KeepAll:
			keep[i] = true
			continue
		case age < o.KeepHourly:
			step = time.Hour
		case age < o.KeepDaily:
			step = 24 * time.Hour
		default:
			continue
		}
		slot := all[i].at.UnixNano()/int64(step)*2 + map[bool]int64{true: 1}[step > time.Hour]
		keep[i] = !seen[slot]
		seen[slot] = true
	}
	return keep
}
