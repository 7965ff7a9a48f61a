package wal

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/celler/celler/blob"
)

// ReadSegments yields the segments of slots first to last, both inclusive, for
// people and tools that look at a log without being a replica. A zero first means
// the oldest slot that may be read, a zero last the tail. It ends after the first
// error; a slot that is missing because the log ends there is none.
func ReadSegments(ctx context.Context, bucket blob.Bucket, first, last Seq) iter.Seq2[*Segment, error] {
	return func(yield func(*Segment, error) bool) {
		root, err := ReadRoot(ctx, bucket)
		if err != nil {
			yield(nil, err)
			return
		}
		if first == 0 {
			first = max(root.Floor, 1)
		}
		if first < root.Floor {
			yield(nil, fmt.Errorf("read slot %v: the log begins at slot %v", first, root.Floor))
			return
		}
		var prev Digest
		for seq := first; last == 0 || seq <= last; seq++ {
			seg, digest, err := readSegment(ctx, bucket, root.Store, seq)
			if errors.Is(err, blob.ErrNotExist) {
				if now, rerr := ReadRoot(ctx, bucket); rerr == nil && now.Floor <= seq {
					return // the tail, and not a slot truncated under us
				}
			}
			if err == nil && seq > first && seg.Prev != prev {
				err = &ForkError{Seq: seq, Detail: fmt.Sprintf("it follows an object with digest %v, slot %v has %v", seg.Prev, seq-1, prev)}
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(seg, nil) {
				return
			}
			prev = digest
		}
	}
}

func readSegment(ctx context.Context, bucket blob.Bucket, store StoreID, seq Seq) (*Segment, Digest, error) {
	body, _, err := bucket.Get(ctx, seq.Key())
	if err != nil {
		return nil, Digest{}, fmt.Errorf("read slot %v: %w", seq, err)
	}
	seg, digest, err := DecodeSegment(body)
	switch {
	case err != nil:
		return nil, Digest{}, named(seq.Key(), err)
	case seg.Store != store:
		return nil, Digest{}, &ForeignError{Key: seq.Key(), Store: seg.Store, Own: store}
	case seg.Seq != seq:
		return nil, Digest{}, named(seq.Key(), corrupt(24, "seq", seq.String(), seg.Seq))
	}
	return seg, digest, nil
}
