package fsck

import (
	"context"
	"time"
)

// ScrubMode says how much is to be read back.
type ScrubMode struct {
	// PerDay is how many bytes may be read of a store a day, by whomever; AtOnce how many
	// of them now.
	PerDay, AtOnce int64
	// Older is for how long an object is left alone after it was read.
	Older time.Duration
	// Now is what somebody takes for the time. It can only make a sitting ask the bucket in
	// vain, or wait longer.
	Now time.Time
}

// ScrubReport is what came of a sitting.
type ScrubReport struct {
	Objects int64 // that were read
	Bytes   int64
	Found   map[Kind]int64
	Status  Status
}

// Scrub reads back some of what was not read for longest, and notes that. What it finds is
// told to the log and to metrics; it repairs nothing.
func (c *Checker) Scrub(ctx context.Context, mode ScrubMode) (rep ScrubReport, err error) {
	defer func() {
		if err != nil && ctx.Err() == nil {
			c.m.failures.Inc()
		}
	}()
	s, err := c.look(ctx)
	if err != nil {
		return rep, err
	}
	q, err := c.whole(ctx, s)
	if err := joinClose(err, s); err != nil {
		return rep, err
	}
	rep.Status = q.status()
	c.m.status(&rep.Status)
	if mode.Now.After(q.now) {
		q.now = mode.Now
	}
	if len(q.due(mode.Older)) == 0 {
		return rep, nil
	}
	n := &notes{c: c}
	if err := n.before(ctx); err != nil {
		return rep, err // who cannot note what was read would read the same for ever
	}
	q.now = n.at
	due := q.due(mode.Older)
	left := min(mode.AtOnce, mode.PerDay-q.lately(24*time.Hour))
	k := &check{Checker: c, lost: lostChunks{}, refoot: map[objectID]bool{}}
	k.rep.Found = map[Kind]int64{}
	k.mode.Each = func(f Finding) error {
		c.o.Logger.Error("what was read back is not what it must be", "kind", string(f.Kind), "what", f.What, "problem", f.Problem, "chunks", f.Chunks)
		return nil
	}
	err = k.sit(ctx, n, due, left)
	rep.Objects, rep.Bytes, rep.Found = k.rep.Read, k.rep.ReadBytes, k.rep.Found
	if err != nil || rep.Objects == 0 {
		return rep, err
	}
	if rep.Status, err = c.Status(ctx); err == nil {
		c.m.status(&rep.Status)
	}
	return rep, err
}

// sit reads objects until as many bytes were read as may be.
func (k *check) sit(ctx context.Context, n *notes, due []waiting, left int64) error {
	for _, o := range due {
		if left <= 0 {
			break
		}
		v, err := k.verify(ctx, o.id)
		if err != nil {
			_ = n.flush(ctx) // what was read was; the error is what counts
			return err
		}
		left -= o.bytes
		k.m.objects.Inc()
		if err := n.add(ctx, o.object, v); err != nil {
			return err
		}
		if err := n.before(ctx); err != nil {
			return err
		}
	}
	return n.flush(ctx)
}

// lately returns how many bytes were read within a span.
func (q *queue) lately(within time.Duration) (bytes int64) {
	for i := range q.waiting {
		if w := &q.waiting[i]; !w.at.IsZero() && q.now.Sub(w.at) < within {
			bytes += w.bytes
		}
	}
	return bytes
}
