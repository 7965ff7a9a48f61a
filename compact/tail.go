package compact

import (
	"context"
	"errors"
	"fmt"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// readBytes bounds what objects of the log hold in memory while they wait to be folded, if
// the next ones are like those before.
const readBytes = 8 << 20

// readSlots folds the segments after base, up to the tail, to slot last, or as many as
// one flush takes; more is false if it was the tail.
//
// Slots are read here as a replica reads them, but ROOT is not read after them. It
// is asked later, before the snapshot that comes of it is written: a floor that is not
// above the first of these slots says that none can have been truncated, and what
// was read from them is no phantom (I1).
func (r *round) readSlots(ctx context.Context, base *wal.Snapshot, last wal.Seq) (f *fold, more bool, err error) {
	f = newFold(base.Seq+1, base.Digest)
	window, largest := 1, 1
	for f.segments < r.o.FlushSegments && f.bytes < r.o.FlushBytes && f.last < last {
		n := int(min(wal.Seq(min(window, r.o.FlushSegments-f.segments)), last-f.last))
		bodies := make([][]byte, n)
		err := r.each(n, func(i int) error {
			err := r.retry(ctx, func(ctx context.Context) (err error) {
				bodies[i], _, err = r.bucket.Get(ctx, (f.last + 1 + wal.Seq(i)).Key())
				return err
			})
			if errors.Is(err, blob.ErrNotExist) {
				bodies[i], err = nil, nil
			}
			return err
		})
		if err != nil {
			return f, false, fmt.Errorf("read the log after slot %v: %w", f.last, err)
		}
		for _, body := range bodies {
			if body == nil {
				return f, false, nil
			}
			if err := r.foldObject(f, body); err != nil {
				return f, false, err
			}
			largest = max(largest, len(body))
		}
		window = min(2*window, r.o.Parallel, max(readBytes/largest, 1))
	}
	return f, true, nil
}

// foldObject checks the object of the next slot as a replica would, and folds it.
func (r *round) foldObject(f *fold, body []byte) error {
	seq := f.last + 1
	seg, digest, err := wal.DecodeSegment(body)
	switch {
	case err != nil:
		return fmt.Errorf("read slot %v: %w", seq, err)
	case seg.Store != r.root.Store:
		return &wal.ForeignError{Key: seq.Key(), Store: seg.Store, Own: r.root.Store}
	case seg.Seq != seq:
		return &wal.CorruptError{Key: seq.Key(), Offset: 24, What: "seq", Want: seq.String(), Got: seg.Seq.String()}
	case seg.Prev != f.digest:
		return &wal.ForkError{Seq: seq, Detail: fmt.Sprintf("it follows an object with digest %v, slot %v has %v", seg.Prev, f.last, f.digest)}
	}
	f.add(seg, digest, r.o.Mutants)
	return nil
}
