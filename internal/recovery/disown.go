package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// disown puts away the snapshots of recoveries that were broken off: ROOT does not name
// them and nothing was written behind them, so they never were anybody's state.
func (x *examiner) disown(ctx context.Context) error {
	for _, n := range slices.Sorted(maps.Keys(x.listed.reports)) {
		if x.listed.reports[n] {
			continue
		}
		left, err := x.leftBy(ctx, n)
		if err != nil {
			return err
		}
		for _, info := range x.listed.snapshots {
			if seq, _ := snapshotSeq(info.Key); seq != left || left == 0 || x.root.sound() && info.Key == x.rootSays.Snapshot.Key {
				continue
			}
			if err := x.disownOne(ctx, info.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// leftBy returns the slot whose snapshot a recovery meant to write, 0 if the log has
// gone on behind it.
func (x *examiner) leftBy(ctx context.Context, n uint32) (wal.Seq, error) {
	var p Plan
	body, _, err := x.log.Get(ctx, reportKey(n))
	if errors.Is(err, blob.ErrNotExist) {
		_, err = absent(ctx, x.log, reportKey(n))
		return 0, err
	}
	if err != nil || json.Unmarshal(body, &p) != nil || p.Next == 0 {
		return 0, err
	}
	next := wal.Seq(p.Next)
	for seq := range x.listed.slots {
		if seq >= next {
			return 0, nil
		}
	}
	s, err := x.readSlot(ctx, next)
	if err != nil || s.found() {
		return 0, err
	}
	return next - 1, nil
}

// disownOne puts a snapshot away if it was written by a recovery: in the slot before the
// next may also be one that a compactor wrote.
func (x *examiner) disownOne(ctx context.Context, key blob.Key) error {
	var s *wal.Snapshot
	o, err := x.read(ctx, key, func(body []byte) (err error) {
		s, err = wal.DecodeSnapshot(body)
		return err
	})
	if err != nil || !o.sound() || s.By != snapshotBy {
		return err
	}
	x.left = append(x.left, key)
	return nil
}

// snapshotBy stands in the snapshots of recoveries, whoever runs them.
const snapshotBy = "celler recover"

func reportKey(n uint32) blob.Key { return evidenceKey(n, reportName) }
