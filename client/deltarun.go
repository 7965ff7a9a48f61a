package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// run decides, until every path has its outcome or nothing more can be done. The error is
// why it stopped.
func (d *delta) run(ctx context.Context, wg *sync.WaitGroup, cancel context.CancelCauseFunc) error {
	linger := time.NewTicker(sendLinger)
	defer linger.Stop()
	var stop error
	for d.left > 0 && stop == nil {
		d.send(ctx, wg)
		d.commit(ctx, wg)
		var toCut chan *attempt
		var next *attempt
		if d.todo = slices.DeleteFunc(d.todo, func(a *attempt) bool { return a.dead }); len(d.todo) > 0 {
			next, toCut = d.todo[0], d.toCut
		} else if d.left > 0 && d.stuck() {
			return d.giveUp(errors.New("order the closure: its references go round in a circle"))
		}
		select {
		case <-ctx.Done():
			stop = context.Cause(ctx)
		case toCut <- next:
			d.todo = d.todo[1:]
			d.cutting++
			d.show(next.parcel)
		case <-linger.C:
		case ev := <-d.events:
			if err := d.handle(ctx, ev); err != nil {
				stop = d.p.mustStop(ctx, err)
			}
		}
	}
	if stop != nil {
		cancel(stop)
		return d.giveUp(stop)
	}
	return nil
}

// stuck reports whether nothing is under way that could end.
func (d *delta) stuck() bool {
	return d.cutting == 0 && d.came == d.went && len(d.pending) == 0 && d.running == 0 && !d.committing
}

// giveUp skips all that has no outcome, unless there is another run to give it one.
func (d *delta) giveUp(why error) error {
	for _, pc := range d.parcels {
		if pc.state < parcelDone && !errors.Is(why, errWithdrawn) {
			d.end(pc, Outcome{Kind: Skipped, Err: errGivenUp}, parcelFailed)
		}
	}
	return why
}

// show takes a line of the progress for a path, if there is one left.
func (d *delta) show(pc *parcel) {
	if pc.began.IsZero() {
		pc.began = d.p.c.now()
	}
	if n := len(d.idle); pc.worker < 0 && n > 0 && !d.p.o.DryRun {
		pc.worker, d.idle = d.idle[n-1], d.idle[:n-1]
		d.p.ev.start(pc.worker, pc.path.storePath, pc.path.narSize)
	}
}

// end gives a path its outcome.
func (d *delta) end(pc *parcel, o Outcome, state parcelState) {
	pc.state = state
	d.left--
	if pc.now != nil {
		pc.now.cancel()
	}
	o.Path, o.NarSize, o.Sent = pc.path.storePath, pc.path.narSize, pc.sent
	if !pc.began.IsZero() && o.Kind != Skipped {
		o.Took, o.Attempts = d.p.c.now().Sub(pc.began), pc.tries+1
	}
	d.p.outcome(pc.worker, o)
	if pc.worker >= 0 {
		d.idle = append(d.idle, pc.worker)
		pc.worker = -1
	}
}

// fail ends a path with an error, and all that refer to it.
func (d *delta) fail(pc *parcel, err error) {
	if pc.state >= parcelDone {
		return
	}
	if pc.now != nil {
		pc.now.dead = true
	}
	d.end(pc, Outcome{Kind: Failed, Err: err}, parcelFailed)
	for _, other := range d.parcels { // references come first, so one pass will do
		if other.state >= parcelDone {
			continue
		}
		for _, ref := range other.refs {
			if ref.state == parcelFailed {
				other.now.dead = true
				d.end(other, Outcome{Kind: Skipped, Err: fmt.Errorf("its reference %s was not pushed", ref.path.storePath.Base())}, parcelFailed)
				break
			}
		}
	}
}

// handle takes note of what a stage has done. The error is one that may concern the whole
// push; what it means for its path is settled.
func (d *delta) handle(ctx context.Context, ev any) error {
	switch ev := ev.(type) {
	case cutDone:
		d.cutting--
		d.came += ev.segments
		return d.cutEnded(&ev)
	case encoded:
		d.went++
		d.ready(ctx, ev.seg)
	case askFail:
		d.went += len(ev.segs)
		for _, seg := range ev.segs {
			d.lose(ctx, seg)
			if !seg.attempt.dead {
				d.fail(seg.attempt.parcel, ev.err)
			}
		}
		return ev.err
	case batchDone:
		return d.sent(ctx, &ev)
	case commitDone:
		return d.committed(ctx, &ev)
	}
	return nil
}

func (d *delta) cutEnded(ev *cutDone) error {
	a := ev.attempt
	switch {
	case a.dead:
	case ev.err != nil:
		d.fail(a.parcel, ev.err)
		return ev.err
	default:
		a.total = ev.segments
		d.complete(a)
	}
	return nil
}

// ready puts a segment among those that are to be sent, unless it has to wait for others.
func (d *delta) ready(ctx context.Context, seg *segment) {
	if seg.attempt.dead {
		d.lose(ctx, seg)
		return
	}
	seg.attempt.parcel.sent += int64(len(seg.chunks) * 16)
	for _, dep := range seg.deps {
		switch dep.ended {
		case segmentLost:
			d.lose(ctx, seg)
			d.again(ctx, seg.attempt.parcel)
			return
		case segmentUnder:
			dep.waiting = append(dep.waiting, seg)
			seg.waits++
		case segmentAcked:
		}
	}
	seg.deps = nil
	if seg.waits == 0 {
		d.enqueue(seg)
	}
}

func (d *delta) enqueue(seg *segment) {
	if d.p.o.DryRun {
		d.ack(seg, nil)
		return
	}
	if len(d.pending) == 0 {
		d.pendingFor = d.p.c.now()
	}
	d.pending = append(d.pending, seg)
}

// lose ends a segment that the server does not get.
func (d *delta) lose(ctx context.Context, seg *segment) {
	if seg.ended != segmentUnder {
		return
	}
	seg.ended = segmentLost
	d.release(seg)
	for _, other := range seg.waiting {
		if other.ended == segmentUnder {
			d.lose(ctx, other)
			if !other.attempt.dead {
				d.again(ctx, other.attempt.parcel)
			}
		}
	}
	seg.waiting = nil
}

func (d *delta) release(seg *segment) {
	if brought := seg.ended == segmentAcked; !brought || !d.p.o.DryRun { // in a dry run the server never has it
		d.claims.drop(seg, brought)
	}
	d.memory.Release(seg.held)
	seg.held, seg.body, seg.chunks = 0, nil, nil
}

// ack ends a segment that the server has.
func (d *delta) ack(seg *segment, receipt []byte) {
	seg.ended = segmentAcked
	d.release(seg)
	for _, other := range seg.waiting {
		if other.waits--; other.waits == 0 && other.ended == segmentUnder {
			d.enqueue(other)
		}
	}
	seg.waiting = nil
	a := seg.attempt
	if a.dead {
		return
	}
	for len(a.receipts) <= seg.n {
		a.receipts = append(a.receipts, nil)
	}
	a.receipts[seg.n] = receipt
	a.have++
	a.fresh += seg.fresh
	a.packed += seg.packed
	if pc := a.parcel; pc.worker >= 0 {
		pc.shown += seg.size
		d.p.ev.sent(pc.worker, seg.size)
	}
	d.complete(a)
}

// complete notes that all segments of a path are there.
func (d *delta) complete(a *attempt) {
	if a.have != a.total || a.dead {
		return
	}
	if d.p.o.DryRun {
		d.end(a.parcel, Outcome{Kind: Planned, Deduplicated: share(a), Counted: true, New: a.fresh}, parcelDone)
		return
	}
	a.parcel.state = parcelComplete
}

// share is the part of a NAR that the server had.
func share(a *attempt) float64 {
	return 1 - float64(a.fresh)/float64(max(a.parcel.path.narSize, 1))
}

// noteAbsent says which references the cache lacks.
func (d *delta) noteAbsent() {
	if len(d.absent) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(d.absent))
	d.p.ev.note(lacking(names))
}

// lacking says what is missing from a cache.
func lacking(names []string) string {
	if len(names) == 1 {
		return fmt.Sprintf("the cache lacks %s, to which a pushed path refers: who substitutes needs another cache for it", names[0])
	}
	return fmt.Sprintf("the cache lacks %d paths that pushed ones refer to, such as %s: who substitutes needs another cache for them", len(names), names[0])
}
