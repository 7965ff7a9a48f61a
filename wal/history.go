package wal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/celler/celler/blob"
)

// History is what a bucket still has of the past: the snapshots that were kept, and
// the log from the floor on. The state after a slot can be had if there is a snapshot
// of it, or one from which the log leads there.
//
// Every snapshot there is, is true, whether it was ever installed or not: see the
// package compact. Not every one is whole, because its tables may have been swept.
type History struct {
	Root      Root
	Snapshots []Kept // by slot, and by time within one
}

// Kept is a snapshot as a listing tells of it.
type Kept struct {
	Key    blob.Key
	Seq    Seq
	Stored time.Time // by the bucket's clock
}

// ReadHistory reads ROOT and lists the snapshots.
func ReadHistory(ctx context.Context, bucket blob.Bucket) (*History, error) {
	h := &History{}
	for info, err := range bucket.List(ctx, "snap/", "") {
		if err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		name := strings.TrimPrefix(string(info.Key), "snap/")
		if seq, err := ParseSeq(name[:min(16, len(name))]); err == nil && seq > 0 {
			h.Snapshots = append(h.Snapshots, Kept{info.Key, seq, info.ModTime})
		}
	}
	// ROOT last: the snapshot it names is there, listed or not.
	root, err := ReadRoot(ctx, bucket)
	if err != nil {
		return nil, err
	}
	h.under(root)
	named := func(k Kept) bool { return k.Key == h.Root.Snapshot.Key }
	if h.Root.Snapshot.Seq > 0 && !slices.ContainsFunc(h.Snapshots, named) {
		h.Snapshots = append(h.Snapshots, Kept{Key: h.Root.Snapshot.Key, Seq: h.Root.Snapshot.Seq})
	}
	slices.SortStableFunc(h.Snapshots, func(a, b Kept) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), a.Stored.Compare(b.Stored))
	})
	return h, nil
}

// under makes h what it is under another ROOT: snapshots that this one says are being
// deleted count as gone.
func (h *History) under(root Root) {
	h.Root = root
	h.Snapshots = slices.DeleteFunc(h.Snapshots, func(k Kept) bool { return slices.Contains(root.Doomed, k.Key) })
}

// Bases returns the snapshots from which the state after slot seq can be had, the best
// first. One without a key is the empty state before the first slot.
func (h *History) Bases(seq Seq) []Kept {
	var bases []Kept
	for _, k := range slices.Backward(h.Snapshots) {
		if k.Seq == seq || k.Seq < seq && k.Seq+1 >= h.Root.Floor {
			bases = append(bases, k)
		}
	}
	if h.Root.Floor <= 1 {
		bases = append(bases, Kept{})
	}
	return bases
}

// UnreachableError reports a slot whose state cannot be had: it is to come, or it is
// past and what led there has been deleted.
type UnreachableError struct {
	Seq, Tail Seq
	Since     Seq   // from which slot on each can be had
	Before    []Seq // and which earlier ones
}

func (e *UnreachableError) Error() string {
	if e.Seq > e.Tail {
		return fmt.Sprintf("slot %d is not there yet: the log ends at slot %d", uint64(e.Seq), uint64(e.Tail))
	}
	text := fmt.Sprintf("the state of slot %d is not kept any more; that of slots %d to %d is", uint64(e.Seq), uint64(e.Since), uint64(e.Tail))
	if n := len(e.Before); n > 0 {
		const most = 8
		var names []string
		for _, seq := range e.Before[max(0, n-most):] {
			names = append(names, fmt.Sprint(uint64(seq)))
		}
		more := ""
		if n > most {
			more = fmt.Sprintf(" and %d earlier ones", n-most)
		}
		text += ", and of slots " + strings.Join(names, ", ") + more
	}
	return text
}

// Reach returns an *UnreachableError if the state after slot seq cannot be had.
func (h *History) Reach(ctx context.Context, bucket blob.Bucket, seq Seq) error {
	tail := h.Root.Snapshot.Seq
	if seq > tail {
		var err error
		if tail, err = FindTail(ctx, bucket); err != nil {
			return err
		}
	}
	if seq > 0 && seq <= tail && len(h.Bases(seq)) > 0 {
		return nil
	}
	if seq <= h.Root.Snapshot.Seq { // the tail was not asked for
		var err error
		if tail, err = FindTail(ctx, bucket); err != nil {
			return err
		}
	}
	e := &UnreachableError{Seq: seq, Tail: tail, Since: tail}
	for _, k := range slices.Backward(h.Snapshots) {
		if k.Seq+1 >= h.Root.Floor {
			e.Since = min(e.Since, k.Seq)
		} else if n := len(e.Before); n == 0 || e.Before[n-1] != k.Seq {
			e.Before = append(e.Before, k.Seq)
		}
	}
	if h.Root.Floor <= 1 {
		e.Since = 1
	}
	slices.Reverse(e.Before)
	return e
}

// FindTail returns the last slot of the log. Nothing is listed for it: the slots from
// the floor on are dense, so that it is found in a few questions whether there is one.
func FindTail(ctx context.Context, bucket blob.Bucket) (Seq, error) {
	for {
		root, err := ReadRoot(ctx, bucket)
		if err != nil {
			return 0, err
		}
		low := root.Snapshot.Seq // was there, and may be deleted by now
		high := low + 1
		for step := Seq(1); ; step *= 2 {
			there, err := hasSlot(ctx, bucket, high)
			if err != nil {
				return 0, err
			}
			if !there {
				break
			}
			low, high = high, high+step
		}
		for low+1 < high {
			mid := low + (high-low)/2
			there, err := hasSlot(ctx, bucket, mid)
			if err != nil {
				return 0, err
			}
			if there {
				low = mid
			} else {
				high = mid
			}
		}
		// What was seen of slots that have been truncated meanwhile means nothing (I1).
		now, err := ReadRoot(ctx, bucket)
		if err != nil {
			return 0, err
		}
		if now.Snapshot.Seq <= low {
			return low, nil
		}
	}
}

func hasSlot(ctx context.Context, bucket blob.Bucket, seq Seq) (bool, error) {
	body, err := bucket.GetRange(ctx, seq.Key(), 0, 1)
	if errors.Is(err, blob.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for slot %v: %w", seq, err)
	}
	_ = body.Close() // nothing was read
	return true, nil
}

// SlotTime returns when the object of a slot was stored, by the bucket's clock, which
// is the only one that all writers share. It is blob.ErrNotExist if there is no such
// object. It costs a listing of one name.
func SlotTime(ctx context.Context, bucket blob.Bucket, seq Seq) (time.Time, error) {
	info, err := nextSlot(ctx, bucket, seq)
	if err == nil && info.Key != seq.Key() {
		err = fmt.Errorf("list slot %v: %w", seq, blob.ErrNotExist)
	}
	return info.ModTime, err
}

// nextSlot lists the first object of the log from slot seq on; an empty Info if there
// is none.
func nextSlot(ctx context.Context, bucket blob.Bucket, seq Seq) (blob.Info, error) {
	for info, err := range bucket.List(ctx, "log/", (seq - 1).Key()) {
		if err != nil {
			return blob.Info{}, fmt.Errorf("list slot %v: %w", seq, err)
		}
		return info, nil
	}
	return blob.Info{}, nil
}

// NothingSoOldError reports a time before everything that is kept.
type NothingSoOldError struct {
	Time   time.Time
	Oldest time.Time // of the first slot that is kept
	Seq    Seq
}

func (e *NothingSoOldError) Error() string {
	if e.Seq == 0 {
		return fmt.Sprintf("nothing is kept of %s: the log is empty", e.Time.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("nothing is kept of %s: the oldest that is, slot %d, was stored at %s by the bucket's clock",
		e.Time.UTC().Format(time.RFC3339), uint64(e.Seq), e.Oldest.UTC().Format(time.RFC3339))
}

// SlotAt returns the last slot that had been stored at time t, by the bucket's clock,
// and when it was. Where the log has been truncated it is the last of which that is
// known, from a snapshot that had been stored by then or from a bookmark.
//
// Nothing depends on that clock but which slot a time is taken to mean. A bucket whose
// objects were copied has the times of the copy; slots are the same in every copy.
func (h *History) SlotAt(ctx context.Context, bucket blob.Bucket, t time.Time) (Seq, time.Time, error) {
	tail, err := FindTail(ctx, bucket)
	if err != nil {
		return 0, time.Time{}, err
	}
	var found Seq
	var when time.Time
	first := max(h.Root.Floor, 1)
	oldest := NothingSoOldError{Time: t}
	for low, high := first, tail+1; low < high; { // the answer, if it is in the log, lies in [low-1, high)
		mid := low + (high-low)/2
		if low == first && found == 0 && high == tail+1 {
			mid = low // the beginning first: most often there is nothing so old
		}
		info, err := nextSlot(ctx, bucket, mid)
		if err != nil {
			return 0, time.Time{}, err
		}
		switch {
		case info.Key == "": // nothing from here on, though the tail is further: a listing that lags
			high = mid
		case info.ModTime.After(t):
			if mid == first {
				oldest.Seq, oldest.Oldest = mid, info.ModTime
			}
			high = mid
		default:
			seq, err := ParseSeq(strings.TrimPrefix(string(info.Key), "log/"))
			if err != nil || seq > tail {
				high = mid
				continue
			}
			found, when, low = seq, info.ModTime, seq+1
		}
	}
	if found > 0 && len(h.Bases(found)) > 0 {
		return found, when, nil
	}
	found = 0
	for _, k := range h.Snapshots {
		switch {
		case k.Stored.IsZero(): // not listed
		case !k.Stored.After(t):
			found, when = k.Seq, k.Stored
		case oldest.Seq == 0 || k.Seq < oldest.Seq:
			oldest.Seq, oldest.Oldest = k.Seq, k.Stored
		}
	}
	// A snapshot is stored some time after its slot; a bookmark knows of its slot itself.
	marks, err := Bookmarks(ctx, bucket)
	if err != nil {
		return 0, time.Time{}, err
	}
	for _, b := range marks {
		if !b.Stored.IsZero() && !b.Stored.After(t) && b.Seq > found && len(h.Bases(b.Seq)) > 0 {
			found, when = b.Seq, b.Stored
		}
	}
	if found == 0 {
		return 0, time.Time{}, &oldest
	}
	return found, when, nil
}

// ReadKept returns what ROOT would say of a snapshot that was kept. The error is
// blob.ErrNotExist if it is gone.
func ReadKept(ctx context.Context, bucket blob.Bucket, store StoreID, k Kept) (SnapshotRef, error) {
	if k.Key == "" {
		return SnapshotRef{}, nil
	}
	body, _, err := bucket.Get(ctx, k.Key)
	if err != nil {
		return SnapshotRef{}, fmt.Errorf("read snapshot of slot %v: %w", k.Seq, err)
	}
	s, err := DecodeSnapshot(body)
	switch {
	case err != nil:
		return SnapshotRef{}, named(k.Key, err)
	case s.Store != store:
		return SnapshotRef{}, &ForeignError{Key: k.Key, Store: s.Store, Own: store}
	case s.Seq != k.Seq:
		return SnapshotRef{}, named(k.Key, corrupt(snapshotHeaderLen, "seq", k.Seq.String(), s.Seq))
	}
	return SnapshotRef{Seq: s.Seq, Digest: s.Digest, Key: k.Key, SHA256: DigestOf(body), Epoch: s.Epoch}, nil
}
