package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/celler/celler/httpapi/wire"
)

// sendLinger is how long segments wait for more while another batch is under way.
const sendLinger = 50 * time.Millisecond

// send starts batches, as many as the server takes well.
func (d *delta) send(ctx context.Context, wg *sync.WaitGroup) {
	d.pending = slices.DeleteFunc(d.pending, func(seg *segment) bool {
		if seg.attempt.dead {
			d.lose(ctx, seg)
		}
		return seg.ended == segmentLost
	})
	for len(d.pending) > 0 && d.running < deltaBatches && d.p.limiter.admits(d.running, 0, 0) {
		n, bytes, chunks, referring := 0, int64(0), 0, 0
		for n < len(d.pending) && n < d.info.BatchSegments {
			seg := d.pending[n]
			if n > 0 && (bytes+int64(len(seg.body)) > d.batchBytes || chunks+len(seg.chunks) > d.info.BatchChunks || seg.refers && referring == mostReferring || seg.alone) {
				break
			}
			if seg.refers {
				referring++
			}
			bytes += int64(len(seg.body))
			chunks += len(seg.chunks)
			n++
			if seg.alone {
				break
			}
		}
		full := n < len(d.pending) || bytes > d.batchBytes/2 || n == d.info.BatchSegments
		lingered := d.running < 2 && d.p.c.now().Sub(d.pendingFor) >= sendLinger
		if !full && d.running > 0 && !lingered {
			return
		}
		segs := slices.Clone(d.pending[:n])
		d.pending = slices.Delete(d.pending, 0, n)
		d.pendingFor = d.p.c.now()
		d.running++
		wg.Go(func() { d.post(ctx, d.batch(ctx, segs)) })
	}
}

// batch sends segments.
func (d *delta) batch(ctx context.Context, segs []*segment) batchDone {
	done := batchDone{segs: segs}
	parts := [][]byte{wire.AppendBatch(nil)}
	for _, seg := range segs {
		parts = append(parts, seg.body)
		done.bytes += len(seg.body)
	}
	var answer wire.BatchResult
	done.err = d.p.c.retrying(ctx, &d.p.budget, d.retried(segs[0].attempt.parcel), func(ctx context.Context, _ int) error {
		text, err := d.p.c.binary(ctx, deltaPath(d.p.o.Cache, "chunks", d.query()), wire.DeltaContentType, parts...)
		if err != nil {
			return err
		}
		return decodeAnswer("chunks", text, &answer)
	})
	if done.err == nil && len(answer.Segments) != len(segs) {
		done.err = fmt.Errorf("push to cache %q: the server answered for %d segments of %d", d.p.o.Cache, len(answer.Segments), len(segs))
	}
	done.results = answer.Segments
	return done
}

// sent takes note of what became of a batch.
func (d *delta) sent(ctx context.Context, ev *batchDone) error {
	d.running--
	if ev.err != nil {
		return d.refused(ctx, ev)
	}
	d.p.limiter.succeeded()
	for i, seg := range ev.segs {
		seg.attempt.parcel.sent += int64(len(seg.body))
		switch res := ev.results[i]; {
		case len(res.Receipt) > 0:
			d.ack(seg, res.Receipt)
		default: // something of it has gone since it was asked about
			d.lose(ctx, seg)
			if !seg.attempt.dead {
				d.gone(ctx, seg.attempt.parcel)
			}
		}
	}
	return nil
}

// gone begins again with a path of which chunks are gone.
func (d *delta) gone(ctx context.Context, pc *parcel) {
	if pc.tries++; pc.tries >= deltaTries {
		d.fail(pc, fmt.Errorf("chunks of %s were collected while it was pushed, %d times", pc.path.storePath, pc.tries))
		return
	}
	d.again(ctx, pc)
}

// refused decides what to do about a batch that was not taken.
func (d *delta) refused(ctx context.Context, ev *batchDone) error {
	status, _ := errors.AsType[*StatusError](ev.err)
	switch {
	case ctx.Err() != nil:
		return ev.err
	case tooLarge(ev.err) && len(ev.segs) > 1 && d.batchBytes > leastBatch:
		d.batchBytes = max(leastBatch, min(d.batchBytes, int64(ev.bytes))/2)
		d.pending = append(ev.segs, d.pending...)
		return nil
	case tooLarge(ev.err) && len(ev.segs) == 1 && d.segmentBytes.Load() > max(leastSegment, int64(d.profile.Max)):
		// One segment is too long: cut anew.
		d.batchBytes = min(d.batchBytes, max(leastBatch, int64(ev.bytes)/2))
		d.segmentBytes.Store(max(leastSegment, int64(d.profile.Max), min(d.segmentBytes.Load(), ev.segs[0].size)/2))
		d.lose(ctx, ev.segs[0])
		if !ev.segs[0].attempt.dead {
			d.again(ctx, ev.segs[0].attempt.parcel)
		}
		return nil
	case status != nil && status.Final() && !status.hopeless() && len(ev.segs) > 1:
		for _, seg := range ev.segs { // which of them is it?
			seg.alone = true
		}
		d.pending = append(ev.segs, d.pending...)
		return nil
	}
	for _, seg := range ev.segs {
		d.lose(ctx, seg)
		if !seg.attempt.dead {
			d.fail(seg.attempt.parcel, ev.err)
		}
	}
	return ev.err
}
