package fsck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/catalog"
)

type listed = chunkstore.Object

const (
	// maxUnread is how many objects in a row may be unreadable before it is the bucket
	// that is, and not they.
	maxUnread = 16
	// noteObjects and noteBytes are after how much reading it is noted.
	noteObjects = 256
	noteBytes   = 4 << 30
)

// notRead notes that nothing is known about something.
func (k *check) notRead(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if k.unread++; k.unread > maxUnread {
		return err
	}
	return k.found(Finding{Kind: Unread, What: what, Problem: err.Error()})
}

// verdict says what came of reading an object.
type verdict int

const (
	unknown verdict = iota // nothing, or something else is there by now
	sound
	damaged
)

// read reads objects, those first that were not read for longest.
func (k *check) read(ctx context.Context) error {
	n := &notes{c: k.Checker}
	if err := n.before(ctx); err != nil && ctx.Err() != nil {
		return err
	}
	chosen, err := k.choose(ctx, n.at)
	if err != nil {
		return err
	}
	for i, o := range chosen {
		k.o.Progress(Progress{Phase: "bytes", Done: int64(i), Total: int64(len(chosen))})
		if err := n.before(ctx); err != nil && ctx.Err() != nil {
			return err
		}
		v, err := k.verify(ctx, o.id)
		if err != nil {
			return errors.Join(err, n.flush(ctx))
		}
		if v == damaged {
			k.damaged = append(k.damaged, o)
		}
		if err := n.add(ctx, o, v); err != nil && ctx.Err() != nil {
			return err
		}
	}
	if err := n.flush(ctx); err != nil && ctx.Err() != nil {
		return err
	}
	if n.failed != nil {
		k.rep.NotNoted = n.failed.Error()
	}
	return nil
}

// choose picks what is to be read at a time, which may not be known.
func (k *check) choose(ctx context.Context, now time.Time) ([]object, error) {
	s, err := k.look(ctx)
	if err != nil {
		return nil, err
	}
	q, err := k.queue(ctx, s, k.objects)
	if err := joinClose(err, s); err != nil {
		return nil, err
	}
	if now.After(q.now) {
		q.now = now
	}
	limit, older := k.rep.ObjectBytes, q.due(k.mode.Read.Older)
	switch r := &k.mode.Read; {
	case r.All:
	case r.Percent > 0:
		limit = int64(float64(limit) * r.Percent / 100)
	default:
		limit = r.Bytes
	}
	var chosen []object
	for _, o := range older {
		if limit <= 0 {
			break
		}
		limit -= o.bytes
		chosen = append(chosen, o.object)
	}
	slices.SortFunc(chosen, func(a, b object) int { return a.id.Compare(b.id) })
	return chosen, nil
}

// queue is what was read when.
type queue struct {
	now     time.Time // by the bucket's clock; zero if not known
	waiting []waiting // what was not read for longest comes first
	gone    []catalog.Verified
}

type waiting struct {
	object
	at      time.Time // when it was read last; zero: never
	damaged bool      // then
}

// queue puts objects in the order in which they are to be read.
func (c *Checker) queue(ctx context.Context, s *catalog.Snapshot, objects []object) (q queue, err error) {
	clock, err := s.Clock()
	if err != nil {
		return q, err
	}
	q.now = clock.Now
	if c.o.Clock != nil {
		at, err := c.o.Clock(ctx)
		if err != nil {
			return q, err
		}
		if at.After(q.now) {
			q.now = at
		}
	}
	for _, o := range objects {
		if !o.buried {
			q.waiting = append(q.waiting, waiting{object: o})
		}
	}
	next := 0
	for v, err := range s.Verified() {
		if err != nil {
			return q, err
		}
		for next < len(q.waiting) && q.waiting[next].id.Compare(v.Object) < 0 {
			next++
		}
		if next == len(q.waiting) || q.waiting[next].id != v.Object {
			q.gone = append(q.gone, v)
			continue
		}
		q.waiting[next].at, q.waiting[next].damaged = v.At, v.Damaged
		if v.At.After(q.now) {
			q.now = v.At
		}
	}
	slices.SortStableFunc(q.waiting, func(a, b waiting) int { return a.at.Compare(b.at) })
	return q, nil
}

// due returns those that were not read within a span.
func (q *queue) due(within time.Duration) []waiting {
	if within <= 0 {
		return q.waiting
	}
	for i := range q.waiting {
		if w := &q.waiting[i]; !w.at.IsZero() && q.now.Sub(w.at) < within {
			return q.waiting[:i]
		}
	}
	return q.waiting
}

// verify reads an object and notes what is damaged of it. What is not there any more,
// or not what it was, because somebody moved or deleted it, is no damage.
func (k *check) verify(ctx context.Context, id objectID) (verdict, error) {
	packs, err := k.packsIn(ctx, id)
	if err != nil {
		return unknown, err
	}
	packs = slices.DeleteFunc(packs, func(p catalog.PackState) bool { return p.Condemned.Chunks() >= int64(len(p.Layout.Sizes)) })
	if len(packs) == 0 {
		return unknown, nil
	}
	var job chunkstore.VerifyJob
	for i := range packs {
		job.Layouts = append(job.Layouts, packs[i].Layout)
	}
	rep, err := k.chunks.Verify(ctx, job)
	k.rep.ReadBytes += rep.Bytes
	k.rep.ReadChunks += int64(rep.Chunks)
	k.m.read(rep.Bytes)
	switch {
	case errors.Is(err, blob.ErrNotExist):
		before := k.rep.Found[Missing]
		if err := k.notListed(ctx, object{id: id}); err != nil {
			return unknown, err
		}
		if k.rep.Found[Missing] > before {
			return damaged, nil
		}
		return unknown, nil
	case err != nil:
		return unknown, k.notRead(ctx, fmt.Sprintf("object %v", id), err)
	}
	k.unread = 0
	k.rep.Read++
	if len(rep.Damage) == 0 && rep.Footer == nil {
		return sound, nil
	}
	return k.judge(ctx, id, &rep)
}

// judge notes what a Verify found damaged, if a state that is read now still needs it.
func (k *check) judge(ctx context.Context, id objectID, rep *chunkstore.VerifyReport) (verdict, error) {
	packs, err := k.packsIn(ctx, id)
	if err != nil || len(packs) == 0 {
		return unknown, err
	}
	v := sound
	for _, d := range rep.Damage {
		i := slices.IndexFunc(packs, func(p catalog.PackState) bool { return p.Layout.ID == d.Pack })
		if i < 0 {
			continue
		}
		lost := k.lost.add(&packs[i], d.Range)
		if lost == 0 {
			continue // dead, or known
		}
		v = damaged
		if err := k.found(Finding{
			Kind: Damaged, What: fmt.Sprintf("chunks %d+%d of pack %v", d.Range.First, d.Range.Count, d.Pack), Problem: d.Err.Error(), Chunks: lost,
		}); err != nil {
			return v, err
		}
	}
	if rep.Footer != nil {
		v = damaged
		k.refoot[id] = true
		if err := k.found(Finding{Kind: BadFooter, What: fmt.Sprintf("object %v", id), Problem: rep.Footer.Error()}); err != nil {
			return v, err
		}
	}
	return v, nil
}

// notes collects what was read, until it is worth a commit.
type notes struct {
	c       *Checker
	at      time.Time // by the bucket's clock; not later than when the first of them was read
	objects []catalog.Verified
	bytes   int64
	failed  error // nothing is noted from then on
}

// before asks for the time, if it is not known.
func (n *notes) before(ctx context.Context) error {
	if n.failed != nil || !n.at.IsZero() {
		return n.failed
	}
	n.at, n.failed = n.c.cat.BucketTime(ctx)
	if n.failed != nil {
		n.c.o.Logger.Warn("it cannot be noted what is read", "err", n.failed)
	}
	return n.failed
}

func (n *notes) add(ctx context.Context, o object, v verdict) error {
	if v == unknown || n.failed != nil {
		return n.failed
	}
	n.objects = append(n.objects, catalog.Verified{Object: o.id, At: n.at, Damaged: v == damaged})
	n.bytes += o.bytes
	if len(n.objects) < noteObjects && n.bytes < noteBytes {
		return nil
	}
	return n.flush(ctx)
}

func (n *notes) flush(ctx context.Context) error {
	if len(n.objects) == 0 || n.failed != nil {
		return n.failed
	}
	if n.failed = n.c.cat.NoteVerified(ctx, n.objects); n.failed != nil {
		n.c.o.Logger.Warn("it could not be noted what was read", "err", n.failed)
	}
	n.objects, n.bytes, n.at = nil, 0, time.Time{}
	return n.failed
}

// deadChunks returns what is lost in the form in which it is condemned.
func (l lostChunks) deadChunks() (dead []catalog.DeadChunks) {
	for pack, ranges := range l {
		d := catalog.DeadChunks{Pack: pack}
		slices.SortFunc(ranges, func(a, b chunk.Range) int { return int(int64(a.First) - int64(b.First)) })
		for _, r := range ranges {
			for i := r.First; i < r.First+r.Count; i++ {
				d.Chunks = append(d.Chunks, catalog.DeadChunk{Index: i})
			}
		}
		dead = append(dead, d)
	}
	slices.SortFunc(dead, func(a, b catalog.DeadChunks) int { return a.Pack.Compare(b.Pack) })
	return dead
}
