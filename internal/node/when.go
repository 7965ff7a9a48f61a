package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/wal"
)

// When is a point in the history of a bucket as a person names it: the number of a
// slot, the name of a bookmark, or a time.
type When struct {
	seq  wal.Seq
	name string
	time time.Time
}

// Moment is what a When comes to in one bucket.
type Moment struct {
	Seq uint64 `json:"seq"`
	// Time is when the slot was stored, by the bucket's clock; zero if that is not known.
	Time time.Time `json:"time,omitzero"`
	// Bookmark is the name it was called by.
	Bookmark string `json:"bookmark,omitempty"`
}

// String says it to people.
func (m Moment) String() string {
	text := fmt.Sprintf("slot %d", m.Seq)
	if m.Bookmark != "" {
		text += fmt.Sprintf(" (bookmark %s)", m.Bookmark)
	}
	if !m.Time.IsZero() {
		text += ", stored at " + m.Time.UTC().Format(time.RFC3339)
	}
	return text
}

// WhenError reports a text that names no point in a history.
type WhenError struct{ Text string }

func (e *WhenError) Error() string {
	return fmt.Sprintf("%q is no slot, bookmark or time", e.Text)
}

// ParseWhen reads the number of a slot, the name of a bookmark, or a time: 2026-03-01,
// with a time of day behind it or without, in the zone it names or else in that of
// now; or a span and "ago", counted back from now.
func ParseWhen(text string, now time.Time) (When, error) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseUint(text, 10, 63); err == nil && n > 0 {
		return When{seq: wal.Seq(n)}, nil
	}
	if span, ok := strings.CutSuffix(text, " ago"); ok {
		if d, err := config.ParseSpan(span); err == nil {
			return When{time: now.Add(-time.Duration(d))}, nil
		}
		return When{}, &WhenError{text}
	}
	if wal.CheckBookmarkName(text) == nil {
		return When{name: text}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return When{time: t}, nil
		}
	}
	return When{}, &WhenError{text}
}

// resolve finds the slot that w means in a bucket. A time is compared with when the
// bucket stored the slots, by its own clock: servers' clocks may differ, and the slot
// that is found is said before anything is done.
func (w When) resolve(ctx context.Context, bucket blob.Bucket) (Moment, error) {
	h, err := wal.ReadHistory(ctx, bucket)
	if err != nil {
		return Moment{}, err
	}
	if !w.time.IsZero() {
		seq, stored, err := h.SlotAt(ctx, bucket, w.time)
		return Moment{Seq: uint64(seq), Time: stored}, err
	}
	m := Moment{Seq: uint64(w.seq), Bookmark: w.name}
	if w.name != "" {
		seq, ok := h.Root.Bookmarks[w.name]
		if !ok {
			return m, &wal.NoBookmarkError{Name: w.name, Known: slices.Sorted(maps.Keys(h.Root.Bookmarks))}
		}
		m.Seq = uint64(seq)
	}
	if err := h.Reach(ctx, bucket, wal.Seq(m.Seq)); err != nil {
		return m, err
	}
	m.Time, err = storedAt(ctx, bucket, h, wal.Seq(m.Seq))
	return m, err
}

// storedAt says when a slot was stored: its object, a bookmark, or else, a little late,
// a snapshot of it knows.
func storedAt(ctx context.Context, bucket blob.Bucket, h *wal.History, seq wal.Seq) (time.Time, error) {
	if stored, err := wal.SlotTime(ctx, bucket, seq); !errors.Is(err, blob.ErrNotExist) {
		return stored, err
	}
	marks, err := wal.Bookmarks(ctx, bucket)
	if err != nil {
		return time.Time{}, err
	}
	for _, b := range marks {
		if b.Seq == seq && !b.Stored.IsZero() {
			return b.Stored, nil
		}
	}
	for _, k := range h.Snapshots {
		if k.Seq == seq {
			return k.Stored, nil
		}
	}
	return time.Time{}, nil
}
