package httpapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix/nar"
)

// deltaChunks answers POST /_api/v1/delta/{cache}/chunks.
func (s *server) deltaChunks(x *exchange) error {
	cache, err := x.admitDelta(true)
	if err != nil {
		return err
	}
	if err := x.wantBinary(); err != nil {
		return err
	}
	body, err := x.limitedBody(deltaBatchBytes)
	if err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(x.r.Context(), deltaMemoryWait)
	defer cancel()
	batch, err := s.chunks.Batch(soon)
	if err != nil && soon.Err() != nil && x.r.Context().Err() == nil {
		return errBusy.because(err)
	}
	if err != nil {
		return err
	}
	defer batch.Close()
	t := &taking{x: x, s: s, batch: batch, in: wire.NewBatchReader(body, s.delta.batchLimits())}
	if err := t.run(x.r.Context()); err != nil {
		return t.failed(err)
	}

	// All of it has arrived and is what it should be. Should the client go away now, what
	// it has sent is not lost: it is told so when it asks again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), s.opts.PublishTimeout)
	defer cancel()
	segs, err := batch.Settle(ctx)
	if err != nil {
		return notStored(err)
	}
	result := wire.BatchResult{Segments: make([]wire.SegmentResult, len(segs))}
	for i := range segs {
		if len(segs[i].Missing) > 0 {
			missing := wire.MakeBitmap(t.segments[i].known)
			for _, at := range segs[i].Missing {
				missing.Set(at)
			}
			result.Segments[i].Missing = missing
			continue
		}
		r := receiptOf(&segs[i], t.segments[i].whole)
		if r.whole {
			s.delta.lists.put(r.after.Sum(), t.segments[i].listing)
		}
		result.Segments[i].Receipt = s.delta.sealer.seal(&r, cache.Name, x.grant.Subject)
	}
	s.metrics.deltaSent.Add(t.sent)
	s.metrics.deltaKnown.Add(t.known)
	s.metrics.deltaSegments.Add(len(segs))
	x.note(slog.Int("segments", len(segs)), slog.Int("chunks", t.sent), slog.Int("known", t.known))
	x.setSeq(s.cat.Seq())
	x.sendJSON(result)
	return nil
}

// taking is a batch that is being taken in.
type taking struct {
	x        *exchange
	s        *server
	batch    *chunkstore.Batch
	in       *wire.BatchReader
	segments []taken
	judge    *grammar // of the segment that is open; nil if it does not begin a NAR
	sent     int      // chunks in frames
	known    int      // chunks that were only named
	broke    bool     // it ended because of what came from the client, or did not
}

// taken is what is remembered of a segment.
type taken struct {
	known   int    // chunks of its K items
	whole   bool   // it is a whole NAR
	listing []byte // of that, as it is kept
}

func (t *taking) run(ctx context.Context) error {
	for {
		item, err := t.in.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			t.broke = true
			return err
		}
		if err := t.item(ctx, &item); err != nil {
			return err
		}
	}
}

func (t *taking) item(ctx context.Context, item *wire.BatchItem) error {
	switch item.Kind {
	case wire.BatchSegment:
		t.segments = append(t.segments, taken{})
		t.judge = nil
		if item.State == (chunk.SHAState{}) {
			t.judge = &grammar{nar: nar.NewVerifier()}
			t.judge.nar.OnEntry = t.judge.list.entry
			return t.batch.Begin(item.State, t.judge)
		}
		return t.batch.Begin(item.State, nil)
	case wire.BatchFrame:
		t.sent += len(item.Names)
		return t.batch.Frame(ctx, slices.Clone(item.Names), item.Sizes, item.Frame)
	case wire.BatchKnown:
		t.known += len(item.Refs)
		t.segments[len(t.segments)-1].known += len(item.Refs)
		return t.batch.Known(item.Refs)
	case wire.BatchEnd:
		if err := t.batch.End(ctx); err != nil {
			return err
		}
		if t.judge != nil && t.judge.nar.Close() == nil {
			seg := &t.segments[len(t.segments)-1]
			seg.whole, seg.listing = true, t.judge.list.pack(t.s)
		}
	}
	return nil
}

// failed gives what ended a batch its answer.
func (t *taking) failed(err error) error {
	if bad, ok := errors.AsType[*chunkstore.BadChunkError](err); ok {
		return badChunk(bad)
	}
	if errors.Is(err, wire.ErrBatchChunks) {
		return tooLarge("The batch has more than %d chunks. Send less at a time.", deltaBatchChunks)
	}
	if bad, ok := errors.AsType[*wire.BatchError](err); ok {
		if errors.Is(bad, io.ErrUnexpectedEOF) {
			// The client has sent more than this, or it would not be a client. Whatever
			// lost the rest, it is worth another try, unless there was none to lose.
			if t.x.r.ContentLength == t.x.body.read {
				return requestError("%v, and the body has not a byte more", bad)
			}
			return errCutOff.because(err)
		}
		return requestError("%v", bad)
	}
	if errors.Is(err, catalog.ErrChunksMissing) || errors.Is(err, chunkstore.ErrGone) || errors.Is(err, chunk.ErrNoPack) {
		return unavailable("chunks were removed while they were read", err)
	}
	if t.broke {
		return bodyError(err)
	}
	return notStored(err)
}

// grammar judges a NAR on the side: what it finds is a remark and no error.
type grammar struct {
	nar  *nar.Verifier
	list lister
}

func (g *grammar) Write(p []byte) (int, error) {
	_, _ = g.nar.Write(p) // it remembers
	return len(p), nil
}
