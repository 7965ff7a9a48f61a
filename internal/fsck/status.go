package fsck

import (
	"context"
	"time"

	"github.com/celler/celler/internal/catalog"
)

// Status says when what there is was last read back.
type Status struct {
	Now     time.Time `json:"now"` // by the bucket's clock, as far as the log tells
	Objects int64     `json:"objects"`
	Bytes   int64     `json:"bytes"`
	// Unread were never read back since they were written.
	Unread      int64 `json:"unread_objects"`
	UnreadBytes int64 `json:"unread_bytes"`
	// Oldest is when the one was read that was read longest ago; zero if none was.
	Oldest time.Time `json:"oldest,omitzero"`
	// Damaged were not what they must be when they were read last.
	Damaged []string `json:"damaged,omitempty"`
}

// Within returns the time within which everything that was ever read was, and whether that
// is everything.
func (s *Status) Within() (span time.Duration, all bool) {
	if s.Oldest.IsZero() {
		return 0, s.Objects == 0
	}
	return max(0, s.Now.Sub(s.Oldest)), s.Unread == 0
}

// Status looks at the index, after a catch-up.
func (c *Checker) Status(ctx context.Context) (st Status, err error) {
	s, err := c.look(ctx)
	if err != nil {
		return st, err
	}
	q, err := c.whole(ctx, s)
	if err := joinClose(err, s); err != nil {
		return st, err
	}
	return q.status(), nil
}

// whole returns the queue of all objects.
func (c *Checker) whole(ctx context.Context, s *catalog.Snapshot) (queue, error) {
	objects, err := listObjects(s)
	if err != nil {
		return queue{}, err
	}
	return c.queue(ctx, s, objects)
}

// maxDamaged bounds what a status names.
const maxDamaged = 1000

func (q *queue) status() (st Status) {
	st.Now = q.now
	for i := range q.waiting {
		w := &q.waiting[i]
		st.Objects++
		st.Bytes += w.bytes
		switch {
		case w.at.IsZero():
			st.Unread++
			st.UnreadBytes += w.bytes
		case st.Oldest.IsZero():
			st.Oldest = w.at
		}
		if w.damaged && len(st.Damaged) < maxDamaged {
			st.Damaged = append(st.Damaged, w.id.String())
		}
	}
	return st
}
