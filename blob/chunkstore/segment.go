package chunkstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/celler/celler/blob/chunk"
)

// Segment is a stretch of a NAR that is in the store.
type Segment struct {
	From, To  chunk.SHAState // of SHA-256 over the NAR, before and after it
	Plain     int64          // its bytes
	Runs      []chunk.Run    // its chunks
	Stretches []uint32       // what Served.Segments is to have of it
	Encoder   uint8          // and Served.Encoder

	// Missing are the chunks of Known that are not there, counted from the first of the
	// segment. If there are any, only From is set besides.
	Missing []int
}

// find returns where the chunks of all references of the segment lie, or notes which
// of them are missing.
func (s *Store) find(ctx context.Context, seg *segment) ([]place, error) {
	if seg.known == 0 {
		return nil, nil
	}
	refs := make([]chunk.Ref, 0, seg.known)
	for i := range seg.next {
		refs = append(refs, seg.next[i].refs...)
	}
	locations, known, err := s.dir.LookupRefs(ctx, refs)
	if err != nil {
		return nil, fmt.Errorf("look up %d references: %w", len(refs), err)
	}
	if len(locations) != len(refs) || len(known) != len(refs) {
		return nil, fmt.Errorf("look up %d references: got %d and %d answers", len(refs), len(locations), len(known))
	}
	places := make([]place, len(refs))
	for i, at := range locations {
		ok := known[i]
		if ok {
			v, err := s.layout(ctx, at.Pack)
			switch {
			case errors.Is(err, chunk.ErrNoPack):
				ok = false // collected since we asked
			case err != nil:
				return nil, err
			case int(at.Index) >= len(v.Sizes):
				return nil, fmt.Errorf("a chunk is said to be number %d of pack %v, which has %d", at.Index, at.Pack, len(v.Sizes))
			default:
				places[i] = place{view: v, index: at.Index}
				ok = v.Sizes[at.Index] != 0 // else likewise
			}
		}
		if !ok {
			seg.res.Missing = append(seg.res.Missing, i)
		}
	}
	return places, nil
}

// runsOf returns chunks as runs.
func runsOf(places []place) (runs []chunk.Run, bytes int64) {
	for _, at := range places {
		bytes += int64(at.view.Sizes[at.index])
		if n := len(runs); n > 0 {
			if last := &runs[n-1]; last.Pack == at.view.ID && last.First+last.Count == at.index {
				last.Count++
				continue
			}
		}
		runs = append(runs, chunk.Run{Pack: at.view.ID, First: at.index, Count: 1})
	}
	return runs, bytes
}

// chunks reads known chunks one after another. They are not compared with their ids: the
// hash of the NAR, which is what they are read for, finds out.
func (s *Store) chunks(ctx context.Context, places []place) (io.ReadCloser, error) {
	r := &chunk.Recipe{}
	r.Runs, r.Size = runsOf(places)
	planner := func(ctx context.Context, layout layoutFunc, r *chunk.Recipe) (*plan, error) {
		p, err := newPlainPlan(ctx, layout, r)
		if err == nil {
			p.trusted = true
		}
		return p, err
	}
	p, err := planner(ctx, s.layout, r)
	if err != nil {
		return nil, err
	}
	return &reader{ctx: ctx, s: s, plan: p, recipe: r, planner: planner}, nil
}

// segmentKey is under which a segment is remembered.
func segmentKey(from *chunk.SHAState, runs []chunk.Run) [32]byte {
	b := from.Append(nil)
	for _, r := range runs {
		b = binary.LittleEndian.AppendUint32(b, r.Pack.Epoch)
		b = binary.LittleEndian.AppendUint64(b, r.Pack.Rand)
		b = binary.LittleEndian.AppendUint32(b, r.First)
		b = binary.LittleEndian.AppendUint32(b, r.Count)
	}
	return sha256.Sum256(b)
}

// remembered returns what came out when the same chunks were taken in from the same state.
func (b *Batch) remembered(seg *segment, places []place) (Segment, bool) {
	if seg.items != len(seg.next) || seg.plain != nil {
		return Segment{}, false // something else was there
	}
	for i := range seg.next {
		if seg.next[i].data != nil {
			return Segment{}, false
		}
	}
	runs, _ := runsOf(places)
	return b.s.segments.get(segmentKey(&seg.res.From, runs))
}

// settle completes the result.
func (seg *segment) settle(ctx context.Context) error {
	w := &seg.w
	runs, err := w.out.settle(ctx)
	if err != nil {
		return err
	}
	w.res.PlainBytes = seg.size
	w.count()
	if len(seg.res.Missing) > 0 {
		return nil
	}
	w.res.Recipe.Runs, w.res.Recipe.Size = runs, seg.size
	if err := w.check(ctx); err != nil {
		return err
	}
	seg.res.Plain, seg.res.Runs = seg.size, runs
	seg.res.Stretches, seg.res.Encoder = w.res.Recipe.Served.Segments, w.res.Recipe.Served.Encoder
	seg.res.To = seg.hash
	return nil
}

// Join returns the recipe of a NAR whose segments these are, one after another; who calls
// it knows that their hash states form a chain. ErrGone and chunk.ErrNoPack in the error
// say that some of it was collected.
func (s *Store) Join(ctx context.Context, narHash [32]byte, segs []Segment) (chunk.Recipe, error) {
	r := chunk.Recipe{NarHash: narHash, Served: chunk.Served{Encoder: s.o.ServedEncoder}}
	chunks := uint32(0)
	for i := range segs {
		seg := &segs[i]
		if i == 0 {
			r.Served.Encoder = seg.Encoder
		}
		if seg.Encoder != r.Served.Encoder {
			return r, fmt.Errorf("join nar %x: segments were taken in for encoders %d and %d", narHash, r.Served.Encoder, seg.Encoder)
		}
		if chunks > 0 && len(seg.Runs) > 0 {
			r.Breaks = append(r.Breaks, chunks)
		}
		for _, run := range seg.Runs {
			chunks += run.Count
			if n := len(r.Runs); n > 0 {
				if last := &r.Runs[n-1]; last.Pack == run.Pack && last.First+last.Count == run.First {
					last.Count += run.Count
					continue
				}
			}
			r.Runs = append(r.Runs, run)
		}
		r.Size += seg.Plain
		r.Served.Segments = append(r.Served.Segments, seg.Stretches...)
	}
	enc, ok := servedEncoders(r.Served.Encoder)
	if !ok {
		return r, fmt.Errorf("join nar %x: encoder %d does not exist", narHash, r.Served.Encoder)
	}
	b := planner{stretch: enc.stretch}
	if err := b.walk(ctx, s.layout, &r); err != nil {
		return r, err
	}
	r.Breaks = b.needed
	p, err := newDraft(ctx, s.layout, &r)
	if err != nil {
		return r, err
	}
	r.Served.Size = p.size
	return r, nil
}
