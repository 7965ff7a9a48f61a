package chunkstore

import (
	"context"

	"github.com/celler/celler/blob/chunk"
)

// place says where a chunk lies: in a frame that this process has made and the
// directory does not know yet, or else in a known pack.
type place struct {
	frame *frame
	view  *packView
	index uint32 // within the frame, or within the known pack
}

// slot is a place seen as a position within a frame.
type slot struct {
	frame *frame
	view  *packView
	n     int    // number of the frame in the known pack
	pos   uint32 // of the chunk in the frame
	count uint32 // chunks of the frame
}

func (p place) slot() slot {
	if p.frame != nil {
		return slot{frame: p.frame, pos: p.index, count: p.frame.chunks()}
	}
	n := p.view.frameOf(p.index)
	return slot{view: p.view, n: n, pos: p.index - p.view.firsts[n], count: p.view.Frames[n].Chunks}
}

// sameFrame compares frames by what they are once they are stored: a frame that was
// still on its way when its first chunk was looked up may be found through the
// directory when the next one is, and one pack may have several views.
func (a slot) sameFrame(b slot) bool {
	if a.frame != nil && b.frame != nil {
		return a.frame == b.frame
	}
	packA, firstA := a.stored()
	packB, firstB := b.stored()
	return packA != nil && packB != nil && *packA == *packB && firstA == firstB
}

// stored returns the pack of the slot's frame and the frame's first chunk there, or
// nil while the pack has no name. The directory knows only packs that have one.
func (a slot) stored() (*chunk.PackID, uint32) {
	if a.frame == nil {
		return &a.view.ID, a.view.firsts[a.n]
	}
	if a.frame.pack == nil {
		return nil, 0
	}
	return a.frame.pack.name.Load(), a.frame.first
}

// piecePart is one chunk of the NAR on its way through the splitter.
type piecePart struct {
	id    chunk.ID
	proof chunk.Proof
	data  []byte // plain
	at    place  // if it is known
}

// splitter decides for every chunk of a NAR, in order, how it is stored and how
// it will be served: new, in a frame of this NAR; known, in a whole frame that
// passes as it is; known, in a stretch that is encoded anew whenever it is
// served; or known but stored again, because that costs less than the stretch.
//
// A new frame holds neighbouring chunks of this NAR only, so it always passes.
type splitter struct {
	s   *Store
	out *output
	own map[chunk.ID]place // of new chunks whose frames are not in a pack yet

	open *frame // the frame being filled, or nil
	data []byte // its plain bytes

	held      []piecePart // known chunks after the open frame, which may be stored again
	heldBytes int
	copies    []byte // memory of held

	match     []piecePart // known chunks that are the beginning of a frame
	matched   slot        // of the first of them
	matchCopy []byte      // memory of match
	stretch   []byte      // plain bytes of known chunks that are in no whole frame
}

func (sp *splitter) chunk(ctx context.Context, c piecePart, known bool) error {
	if !known {
		c.at, known = sp.own[c.id]
	}
	if !known {
		return sp.fresh(ctx, c)
	}
	if sp.open == nil {
		return sp.pass(ctx, c)
	}
	// Known, after new ones: what comes next decides.
	sp.held = append(sp.held, piecePart{id: c.id, proof: c.proof, data: sp.copyTo(&sp.copies, c.data), at: c.at})
	sp.heldBytes += len(c.data)
	if sp.heldBytes <= sp.s.o.RestoreBytes {
		return nil
	}
	return sp.passHeld(ctx)
}

// copyTo keeps a copy of p, which is only lent, in the memory of buf.
func (sp *splitter) copyTo(buf *[]byte, p []byte) []byte {
	n := len(*buf)
	*buf = append(*buf, p...) // older copies keep the memory they are in
	return (*buf)[n:len(*buf):len(*buf)]
}

// fresh handles a new chunk.
func (sp *splitter) fresh(ctx context.Context, c piecePart) error {
	if sp.open == nil {
		if err := sp.endPass(ctx); err != nil {
			return err
		}
	} else if len(sp.held) > 0 {
		if wholeFrames(sp.held) {
			if err := sp.passHeld(ctx); err != nil {
				return err
			}
			if err := sp.endPass(ctx); err != nil {
				return err
			}
		} else {
			for _, h := range sp.held {
				if err := sp.add(ctx, h); err != nil {
					return err
				}
			}
			sp.dropHeld()
		}
	}
	w := sp.out.w
	w.res.NewBytes += int64(len(c.data))
	w.res.NewChunks++
	return sp.add(ctx, c)
}

// add puts a chunk into the open frame.
func (sp *splitter) add(ctx context.Context, c piecePart) error {
	if sp.open != nil && len(sp.data)+len(c.data) > sp.s.o.FrameBytes {
		if err := sp.closeFrame(ctx); err != nil {
			return err
		}
	}
	if sp.open == nil {
		sp.open, sp.data = &frame{}, sp.s.buffers.get(min(sp.s.o.FrameBytes, smallNar))
	}
	f := sp.open
	if _, ok := sp.own[c.id]; !ok {
		sp.own[c.id] = place{frame: f, index: uint32(len(f.ids))}
	}
	f.ids = append(f.ids, c.id)
	f.proofs = append(f.proofs, c.proof)
	f.sizes = append(f.sizes, uint32(len(c.data)))
	f.n = uint32(len(f.ids))
	sp.data = sp.s.buffers.append(sp.data, c.data, sp.s.o.FrameBytes)
	return nil
}

func (sp *splitter) closeFrame(ctx context.Context) error {
	f, data := sp.open, sp.data
	if f == nil {
		return nil
	}
	sp.open, sp.data = nil, nil
	return sp.out.frame(ctx, f, data)
}

// passHeld gives up storing the held chunks again.
func (sp *splitter) passHeld(ctx context.Context) error {
	if err := sp.closeFrame(ctx); err != nil {
		return err
	}
	for _, h := range sp.held {
		if err := sp.pass(ctx, h); err != nil {
			return err
		}
	}
	sp.dropHeld()
	return nil
}

func (sp *splitter) dropHeld() {
	clear(sp.held)
	sp.held, sp.heldBytes, sp.copies = sp.held[:0], 0, sp.copies[:0]
}

// wholeFrames reports whether the chunks are whole frames and nothing else, so
// that referring to them costs the reader nothing.
func wholeFrames(chunks []piecePart) bool {
	for i := 0; i < len(chunks); {
		first := chunks[i].at.slot()
		if first.pos != 0 || int(first.count) > len(chunks)-i {
			return false
		}
		for k := range first.count {
			if at := chunks[i+int(k)].at.slot(); !at.sameFrame(first) || at.pos != k {
				return false
			}
		}
		i += int(first.count)
	}
	return true
}

// pass handles a known chunk that stays where it is. No frame is open. It makes
// exactly the distinctions that the planner makes later from the recipe alone.
func (sp *splitter) pass(ctx context.Context, c piecePart) error {
	at := c.at.slot()
	if len(sp.match) > 0 {
		if at.sameFrame(sp.matched) && int(at.pos) == len(sp.match) {
			return sp.extend(ctx, c, at)
		}
		if err := sp.failMatch(ctx); err != nil {
			return err
		}
	}
	if at.pos != 0 {
		return sp.loose(ctx, c)
	}
	sp.matched = at
	return sp.extend(ctx, c, at)
}

// extend adds the next chunk of the frame that is being matched.
func (sp *splitter) extend(ctx context.Context, c piecePart, at slot) error {
	if at.pos+1 < at.count {
		sp.match = append(sp.match, piecePart{id: c.id, data: sp.copyTo(&sp.matchCopy, c.data), at: c.at})
		return nil
	}
	if err := sp.flushStretch(ctx); err != nil {
		return err
	}
	for _, m := range sp.match {
		sp.out.ref(m.at)
	}
	sp.out.ref(c.at)
	sp.dropMatch()
	sp.out.passed()
	return nil
}

func (sp *splitter) failMatch(ctx context.Context) error {
	for _, m := range sp.match {
		if err := sp.loose(ctx, m); err != nil {
			return err
		}
	}
	sp.dropMatch()
	return nil
}

func (sp *splitter) dropMatch() {
	clear(sp.match)
	sp.match, sp.matchCopy = sp.match[:0], sp.matchCopy[:0]
}

func (sp *splitter) loose(ctx context.Context, c piecePart) error {
	enc, _ := servedEncoders(sp.s.o.ServedEncoder)
	if len(sp.stretch) > 0 && len(sp.stretch)+len(c.data) > enc.stretch {
		if err := sp.flushStretch(ctx); err != nil {
			return err
		}
	}
	if sp.stretch == nil {
		sp.stretch = sp.s.buffers.get(min(enc.stretch, smallNar))
	}
	sp.stretch = sp.s.buffers.append(sp.stretch, c.data, enc.stretch)
	sp.out.ref(c.at)
	return nil
}

func (sp *splitter) flushStretch(ctx context.Context) error {
	data := sp.stretch
	if len(data) == 0 {
		return nil
	}
	sp.stretch = nil
	return sp.out.stretch(ctx, data)
}

// endPass ends a sequence of known chunks: no frame can be completed any more.
func (sp *splitter) endPass(ctx context.Context) error {
	if err := sp.failMatch(ctx); err != nil {
		return err
	}
	return sp.flushStretch(ctx)
}

// end handles the end of the NAR.
func (sp *splitter) end(ctx context.Context) error {
	if err := sp.passHeld(ctx); err != nil {
		return err
	}
	return sp.endPass(ctx)
}
