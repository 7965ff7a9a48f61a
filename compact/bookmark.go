package compact

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// A bookmark needs a snapshot that leads to its slot. The best is one of the slot
// itself, which needs no log beside it: flushes end at bookmarks, so that bookmarks on
// slots to come get theirs in passing, and settle makes one aside for a bookmark that
// was set on the past. Until there is one, the floor stays where the log leads from an
// earlier snapshot to the slot.

// marked returns the slots that have bookmarks, in order.
func (r *round) marked() []wal.Seq {
	if r.o.Mutants.noBookmarks() {
		return nil
	}
	return slices.Compact(slices.Sorted(maps.Values(r.root.Bookmarks)))
}

// flushEnd returns the slot at which a flush of what follows slot after has to end.
func (r *round) flushEnd(after wal.Seq) wal.Seq {
	if !r.mode.DryRun {
		for _, seq := range r.marked() {
			if seq > after {
				return seq
			}
		}
	}
	return ^wal.Seq(0)
}

// anchor is what the state after a slot can be made of.
type anchor struct {
	seq  wal.Seq // the slot
	base version // the best snapshot that leads there and is whole; without a key the empty state
	ok   bool    // there is one
}

// anchors finds what the state of each bookmark can be made of, and the oldest state
// that the log can be followed from. needed says by index which of the snapshots are
// part of that: those, and all that might have been better had they been whole, because
// a listing that lags is no reason to throw anything away.
func (r *round) anchors(ctx context.Context, all []version) (found []anchor, needed []bool, err error) {
	needed = make([]bool, len(all))
	slots := r.marked()
	begin := max(r.root.Floor, 1)
	if r.root.Snapshot.Seq > begin {
		slots = append(slots, begin)
	}
	if len(slots) == 0 {
		return nil, needed, nil
	}
	there := map[blob.Key]bool{}
	_, err = r.list(ctx, "tab/", func(key blob.Key) bool { there[key] = true; return false })
	if err != nil {
		return nil, nil, err
	}
	for _, seq := range slots {
		a := anchor{seq: seq, ok: r.root.Floor <= 1}
		for i := len(all) - 1; i >= 0; i-- {
			if all[i].seq > seq || all[i].seq != seq && all[i].seq+1 < r.root.Floor {
				continue
			}
			p, err := r.readPast(ctx, all[i].key)
			if errors.Is(err, blob.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			needed[i] = true
			if !slices.ContainsFunc(p.tables, func(key blob.Key) bool { return !there[key] }) {
				a.base, a.ok = all[i], true
				break
			}
		}
		found = append(found, a)
	}
	return found, needed, nil
}

// hold lowers a floor to where bookmarks that have no snapshot of their own need it.
func (r *round) hold(ctx context.Context, all []version, floor wal.Seq) (wal.Seq, error) {
	if len(r.root.Bookmarks) == 0 {
		return floor, nil
	}
	found, _, err := r.anchors(ctx, all)
	for _, a := range found {
		if _, marked := slices.BinarySearch(r.marked(), a.seq); marked && a.ok && a.base.seq < a.seq {
			floor = min(floor, a.base.seq+1)
			delete(r.settled, a.seq)
		}
	}
	return max(floor, r.root.Floor), err
}

// settle makes a snapshot for each bookmark that has none of its own slot although ROOT
// has come past it. It is not installed; the bookmark is what keeps it.
func (r *round) settle(ctx context.Context) error {
	marked := r.marked()
	maps.DeleteFunc(r.settled, func(seq wal.Seq, _ bool) bool { return !slices.Contains(marked, seq) })
	due := slices.DeleteFunc(marked, func(seq wal.Seq) bool {
		return r.settled[seq] || seq >= r.root.Snapshot.Seq
	})
	if len(due) == 0 || r.mode.DryRun {
		return nil
	}
	all, err := r.listSnapshots(ctx)
	if err != nil {
		return err
	}
	found, _, err := r.anchors(ctx, all)
	if err != nil {
		return err
	}
	for _, a := range found {
		if !slices.Contains(due, a.seq) {
			continue
		}
		if a.ok && a.base.seq < a.seq {
			if ok, err := r.claim(ctx); err != nil || !ok {
				return err
			}
			if err := r.settleOne(ctx, a); err != nil {
				return fmt.Errorf("make a snapshot for the bookmark of slot %v: %w", a.seq, err)
			}
		}
		r.settled[a.seq] = true // or lost, and then it is no use to look again
	}
	return nil
}

// settleOne folds what lies between the snapshot and the bookmark.
func (r *round) settleOne(ctx context.Context, a anchor) error {
	base := &wal.Snapshot{Store: r.root.Store}
	if a.base.key != "" {
		var err error
		if base, err = r.readSnapshot(ctx, a.base.key); err != nil {
			return err
		}
	}
	first := base.Seq + 1
	for base.Seq < a.seq {
		f, _, err := r.readSlots(ctx, base, a.seq)
		if err != nil {
			return err
		}
		if f.segments == 0 {
			return fmt.Errorf("read slot %v: %w", base.Seq+1, blob.ErrNotExist)
		}
		runs, err := r.write(ctx, f, base)
		if err != nil {
			return err
		}
		base = &wal.Snapshot{Seq: f.last, Digest: f.digest, Runs: stack(runs, base.Runs)}
	}
	r.rep.Bookmarked++
	_, err := r.writeSnapshot(ctx, base, first)
	return err
}
