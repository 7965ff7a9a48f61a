package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
)

// ErrGone reports that a recipe names chunks of which nothing is left.
var ErrGone = errors.New("chunks of this nar are gone")

// packView is the layout of a pack, with what is needed to find a chunk in it.
type packView struct {
	chunk.Layout
	firsts  []uint32 // position of the first chunk of every frame
	reduced []bool   // frames that lack some of their chunks; nil = none does
}

func newPackView(l chunk.Layout) (*packView, error) {
	v := &packView{Layout: l, firsts: make([]uint32, len(l.Frames))}
	next := 0
	for i, f := range l.Frames {
		v.firsts[i] = uint32(next)
		if int(f.Chunks) > len(l.Sizes)-next || f.Chunks == 0 {
			return nil, fmt.Errorf("layout of %s: frame %d has %d chunks, want some of %d", pack.Key(l.ID), i, f.Chunks, len(l.Sizes)-next)
		}
		plain, holes := int64(0), false
		for _, n := range l.Sizes[next : next+int(f.Chunks)] {
			plain += int64(n)
			holes = holes || n == 0
		}
		if plain > pack.MaxFramePlain || (plain == 0) != (f.Size == 0) || f.Size < 0 {
			return nil, fmt.Errorf("layout of %s: frame %d has %d plain and %d compressed bytes, want at most %d and at least 1", pack.Key(l.ID), i, plain, f.Size, pack.MaxFramePlain)
		}
		if holes {
			if v.reduced == nil {
				v.reduced = make([]bool, len(l.Frames))
			}
			v.reduced[i] = true
		}
		next += int(f.Chunks)
	}
	if next != len(l.Sizes) {
		return nil, fmt.Errorf("layout of %s: %d chunks in frames, %d sizes", pack.Key(l.ID), next, len(l.Sizes))
	}
	return v, nil
}

// frameOf returns the frame that holds the chunk at position i of the pack.
func (v *packView) frameOf(i uint32) int {
	n, found := slices.BinarySearch(v.firsts, i)
	if found {
		return n
	}
	return n - 1
}

// whole reports whether frame f is as it was pushed.
func (v *packView) whole(f int) bool { return v.reduced == nil || !v.reduced[f] }

// key returns the key of the object that holds the frames.
func (v *packView) key() blob.Key { return pack.Key(v.Where()) }

// plain returns the plain length of frame f.
func (v *packView) plain(f int) int {
	n := 0
	for _, size := range v.Sizes[v.firsts[f] : v.firsts[f]+v.Frames[f].Chunks] {
		n += int(size)
	}
	return n
}

// piece is a part of a served NAR: either neighbouring whole frames of a pack,
// copied as they are, or a stretch of chunks that is encoded anew.
type piece struct {
	off  int64 // of its first byte in the served NAR
	size int64

	view         *packView // whole frames first, first+1, ... of this pack
	first, count int

	runs  []viewRun // or, with view == nil, these chunks
	plain int       // their plain length
}

// viewRun is neighbouring chunks of a pack.
type viewRun struct {
	view         *packView
	first, count uint32
}

// plan is a served or plain NAR as pieces in order.
type plan struct {
	pieces  []piece
	size    int64
	encoder uint8 // version for the stretches; 0 = leave them plain
	trusted bool  // who reads it hashes the whole: chunks need not be compared with their ids
}

// layoutFunc finds the layout of a pack.
type layoutFunc func(context.Context, chunk.PackID) (*packView, error)

// newPlan takes r apart, as Write has done before. There is exactly one way to do
// that: walking the chunks in order, a sequence that is exactly one whole frame
// passes as it is; the chunks between such frames are gathered into stretches,
// cut at the last chunk boundary that keeps them within the encoder's stretch
// length.
func newPlan(ctx context.Context, layout layoutFunc, r *chunk.Recipe) (*plan, error) {
	p, err := newDraft(ctx, layout, r)
	if err != nil {
		return nil, err
	}
	if p.size != r.Served.Size {
		return nil, fmt.Errorf("plan nar %x: its packs give %d bytes, the recipe has %d", r.NarHash, p.size, r.Served.Size)
	}
	return p, nil
}

// newDraft is newPlan while r.Served.Size is not yet known.
func newDraft(ctx context.Context, layout layoutFunc, r *chunk.Recipe) (*plan, error) {
	enc, ok := servedEncoders(r.Served.Encoder)
	if !ok {
		return nil, fmt.Errorf("plan nar %x: it was pushed for encoder %d, which this version of celler does not have", r.NarHash, r.Served.Encoder)
	}
	b := planner{plan: plan{encoder: r.Served.Encoder}, stretch: enc.stretch}
	if err := b.walk(ctx, layout, r); err != nil {
		return nil, err
	}
	return b.served(r)
}

// newPlainPlan plans the decoded form: every chunk in stretches left plain.
func newPlainPlan(ctx context.Context, layout layoutFunc, r *chunk.Recipe) (*plan, error) {
	b := planner{stretch: plainStretch, allLoose: true}
	if err := b.walk(ctx, layout, r); err != nil {
		return nil, err
	}
	off := int64(0)
	for i := range b.pieces {
		p := &b.pieces[i]
		p.off, p.size = off, int64(p.plain)
		off += p.size
	}
	if off != r.Size {
		return nil, fmt.Errorf("plan nar %x: its chunks have %d bytes, want %d", r.NarHash, off, r.Size)
	}
	b.size = off
	return &b.plan, nil
}

// plainStretch is how much Plain decodes at a time.
const plainStretch = 512 << 10

// planner walks a recipe.
type planner struct {
	plan
	stretch  int
	allLoose bool
	pending  piece // the stretch being gathered, if it has runs

	at     uint32   // how many chunks there were so far
	broke  bool     // a stretch ended at a break, and nothing came after it yet
	needed []uint32 // the breaks without which the plan would be another
}

func (b *planner) walk(ctx context.Context, layout layoutFunc, r *chunk.Recipe) error {
	views := make(map[chunk.PackID]*packView)
	breaks := r.Breaks
	for i := 0; i < len(r.Runs); {
		// Neighbouring runs of one pack are one run.
		run := r.Runs[i]
		for i++; i < len(r.Runs) && r.Runs[i].Pack == run.Pack && r.Runs[i].First == run.First+run.Count; i++ {
			run.Count += r.Runs[i].Count
		}
		v := views[run.Pack]
		if v == nil {
			var err error
			if v, err = layout(ctx, run.Pack); err != nil {
				return fmt.Errorf("plan nar %x: %w", r.NarHash, err)
			}
			views[run.Pack] = v
		}
		if uint64(run.First)+uint64(run.Count) > uint64(len(v.Sizes)) {
			return fmt.Errorf("plan nar %x: it uses chunks %d+%d of %s, which has %d", r.NarHash, run.First, run.Count, pack.Key(run.Pack), len(v.Sizes))
		}
		for rest := run; rest.Count > 0; {
			part := rest.Count
			if len(breaks) > 0 {
				if breaks[0] == b.at {
					b.flushAtBreak()
					breaks = breaks[1:]
					continue
				}
				part = min(part, breaks[0]-b.at)
			}
			if err := b.run(v, rest.First, rest.First+part); err != nil {
				return fmt.Errorf("plan nar %x: %w", r.NarHash, err)
			}
			b.at += part
			rest.First, rest.Count = rest.First+part, rest.Count-part
		}
	}
	b.flush()
	return nil
}

// flushAtBreak ends what must not reach over a break.
func (b *planner) flushAtBreak() {
	b.broke = len(b.pending.runs) > 0
	b.flush()
}

// run adds the chunks from up to to of v, which the NAR has one after another. A frame
// that was reduced since is none that could pass: it is not what was pushed.
func (b *planner) run(v *packView, from, to uint32) error {
	for from < to {
		f := v.frameOf(from)
		end := v.firsts[f] + v.Frames[f].Chunks
		if v.firsts[f] == from && end <= to && !b.allLoose && v.whole(f) {
			b.whole(v, f)
			from = end
			continue
		}
		for end = min(end, to); from < end; from++ {
			if v.Sizes[from] == 0 {
				return fmt.Errorf("chunk %d of %s: %w", from, pack.Key(v.ID), ErrGone)
			}
			b.loose(v, from)
		}
	}
	return nil
}

func (b *planner) whole(v *packView, f int) {
	b.flush()
	b.broke = false
	if n := len(b.pieces); n > 0 {
		last := &b.pieces[n-1]
		next := last.first + last.count
		if last.view == v && next == f && v.Frames[f-1].Offset+v.Frames[f-1].Size == v.Frames[f].Offset {
			last.count++
			last.size += v.Frames[f].Size
			return
		}
	}
	b.pieces = append(b.pieces, piece{view: v, first: f, count: 1, size: v.Frames[f].Size})
}

func (b *planner) loose(v *packView, i uint32) {
	size := int(v.Sizes[i])
	if b.broke {
		b.needed = append(b.needed, b.at)
		b.broke = false
	}
	if b.pending.plain+size > b.stretch && len(b.pending.runs) > 0 {
		b.flush()
	}
	b.pending.plain += size
	if n := len(b.pending.runs); n > 0 {
		if last := &b.pending.runs[n-1]; last.view == v && last.first+last.count == i {
			last.count++
			return
		}
	}
	b.pending.runs = append(b.pending.runs, viewRun{view: v, first: i, count: 1})
}

func (b *planner) flush() {
	if len(b.pending.runs) == 0 {
		return
	}
	b.pieces = append(b.pieces, b.pending)
	b.pending = piece{}
}

// served gives every piece its place, with the lengths the recipe promises.
func (b *planner) served(r *chunk.Recipe) (*plan, error) {
	segments := r.Served.Segments
	off, next := int64(0), 0
	for i := range b.pieces {
		p := &b.pieces[i]
		if p.view == nil {
			if next == len(segments) {
				return nil, fmt.Errorf("plan nar %x: the recipe has the lengths of %d stretches, which are not enough", r.NarHash, next)
			}
			p.size = int64(segments[next])
			next++
		}
		p.off = off
		off += p.size
	}
	if next != len(segments) {
		return nil, fmt.Errorf("plan nar %x: its packs give %d stretches, the recipe has the lengths of %d", r.NarHash, next, len(segments))
	}
	b.size = off
	return &b.plan, nil
}

// views returns the packs of the plan.
func (p *plan) views() map[*packView]struct{} {
	views := make(map[*packView]struct{})
	for i := range p.pieces {
		if v := p.pieces[i].view; v != nil {
			views[v] = struct{}{}
		}
		for _, r := range p.pieces[i].runs {
			views[r.view] = struct{}{}
		}
	}
	return views
}

// unit is what a reader waits for at a time: one whole frame, or one stretch.
type unit struct {
	piece *piece
	frame int // if piece.view != nil
}

// cursor steps through the units of a plan.
type cursor struct {
	plan  *plan
	piece int
	frame int // within the piece
}

// seek returns a cursor at the unit that holds offset off, and where in the NAR
// that unit begins.
func (p *plan) seek(off int64) (cursor, int64) {
	i := sort.Search(len(p.pieces), func(i int) bool { return p.pieces[i].off+p.pieces[i].size > off })
	c := cursor{plan: p, piece: i}
	if i == len(p.pieces) {
		return c, p.size
	}
	pc := &p.pieces[i]
	if pc.view == nil {
		return c, pc.off
	}
	frames := pc.view.Frames[pc.first : pc.first+pc.count]
	base := frames[0].Offset - pc.off
	c.frame = sort.Search(len(frames), func(i int) bool { return frames[i].Offset+frames[i].Size > off+base })
	return c, frames[c.frame].Offset - base
}

// next returns the unit at the cursor and moves on.
func (c *cursor) next() (unit, bool) {
	if c.piece >= len(c.plan.pieces) {
		return unit{}, false
	}
	p := &c.plan.pieces[c.piece]
	if p.view == nil {
		c.piece++
		return unit{piece: p}, true
	}
	u := unit{piece: p, frame: p.first + c.frame}
	if c.frame++; c.frame == p.count {
		c.piece, c.frame = c.piece+1, 0
	}
	return u, true
}
