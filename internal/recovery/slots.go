package recovery

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/celler/celler/wal"
)

// slot is what was found in one slot.
type slot struct {
	object
	seg    *wal.Segment // nil unless it is sound
	digest wal.Digest
}

// readSlot reads one slot. One that is of another store, or says that it is another
// slot, is damaged.
func (x *examiner) readSlot(ctx context.Context, seq wal.Seq) (slot, error) {
	var s slot
	var err error
	s.object, err = x.read(ctx, seq.Key(), func(body []byte) error {
		seg, digest, err := wal.DecodeSegment(body)
		if err != nil {
			return err
		}
		if seg.Seq != seq {
			return fmt.Errorf("it says that it is slot %d", uint64(seg.Seq))
		}
		if seg.Store != x.store {
			return &wal.ForeignError{Key: seq.Key(), Store: seg.Store, Own: x.store}
		}
		s.seg, s.digest = seg, digest
		return nil
	})
	s.body = nil // a log may be long
	return s, err
}

// readSlots reads slots first to last.
func (x *examiner) readSlots(ctx context.Context, first, last wal.Seq) ([]slot, error) {
	slots := make([]slot, last-first+1)
	err := each(ctx, len(slots), func(ctx context.Context, i int) (err error) {
		slots[i], err = x.readSlot(ctx, first+wal.Seq(i))
		return err
	})
	return slots, err
}

// chain is a run of slots that follow each other.
type chain struct {
	last   wal.Seq
	digest wal.Digest // of the object in slot last
	stop   string     // why it is not longer; "" if there is nothing in the next slot
}

// follow walks the slots behind one with a digest for as long as each follows the one
// before. use, if not nil, is given each of them.
func (x *examiner) follow(ctx context.Context, after wal.Seq, digest wal.Digest, use func(*wal.Segment, wal.Digest) error) (chain, error) {
	c := chain{last: after, digest: digest}
	for {
		// As many as there seem to be, and one: what is not listed is asked for, too.
		n := wal.Seq(1)
		for n < parallel && x.listed.slots[c.last+n].Key != "" {
			n++
		}
		slots, err := x.readSlots(ctx, c.last+1, c.last+n)
		if err != nil {
			return c, err
		}
		for i := range slots {
			s := &slots[i]
			switch {
			case s.absent:
				return c, nil
			case s.damage != nil:
				c.stop = fmt.Sprintf("damaged: %v", s.damage)
				return c, nil
			case s.seg.Prev != c.digest:
				c.stop = fmt.Sprintf("does not follow slot %d: it is of another history", uint64(c.last))
				return c, nil
			}
			if use != nil {
				if err := use(s.seg, s.digest); err != nil {
					return c, err
				}
			}
			c.last, c.digest = c.last+1, s.digest
		}
	}
}

// lead walks back from a slot with a digest for as long as each slot is the one that
// the next one follows, and returns the first of them; after+1 if not even the slot
// itself is there.
func (x *examiner) lead(ctx context.Context, from wal.Seq, digest wal.Digest) (wal.Seq, error) {
	first := from + 1
	for first > 1 {
		n := wal.Seq(1)
		for n < parallel && n < first-1 && x.listed.slots[first-1-n].Key != "" {
			n++
		}
		slots, err := x.readSlots(ctx, first-n, first-1)
		if err != nil {
			return first, err
		}
		for i := len(slots) - 1; i >= 0; i-- {
			if !slots[i].sound() || slots[i].digest != digest {
				return first, nil
			}
			first, digest = first-1, slots[i].seg.Prev
		}
	}
	return first, nil
}

// hash returns the SHA-256 of a table.
func (x *examiner) hash(ctx context.Context, t *wal.Table) (wal.Digest, error) {
	body, err := x.log.GetRange(ctx, t.Key, 0, t.Size)
	if err != nil {
		return wal.Digest{}, err
	}
	defer func() { _ = body.Close() }() // only read from
	h := sha256.New()
	n, err := io.Copy(h, body)
	x.bytes.Add(n)
	return wal.Digest(h.Sum(nil)), err
}
