package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/internal/catalog"
)

// lookAtChunks reports whether this round compares all recipes with all chunks: if it has
// removed recipes, and else once an upload epoch, for chunks that came without one.
// A new Collector does so first, because the last one may have been broken off.
func (r *round) lookAtChunks() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.gone) > 0 || len(r.due.nars) > 0 || r.marked != r.due.epoch
}

func (c *Collector) setMarked(epoch uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marked = epoch
}

// maxCandidates bounds the chunks that are condemned with one look at the chunk rows:
// some 50 bytes each.
const maxCandidates = 4 << 20

// condemn makes dead what no recipe names.
func (r *round) condemn(ctx context.Context) error {
	r.setMarked(0)
	s := r.mark.Snapshot()
	if err := r.markLive(ctx, s); err != nil {
		return err
	}
	// Recipes that were written since are not in s, and what was absorbed before there
	// were marks has marked nothing.
	r.seen = r.mark.Seen()
	if r.rep.BadRecipes > 0 {
		// What they name is not marked, and may be all that is left of a NAR.
		r.o.Logger.Warn("nothing is condemned while recipes cannot be read", "chunks", r.rep.BadRecipes)
		return nil
	}
	c := &condemned{packs: map[chunk.PackID]*candidates{}}
	known := 0
	for p, err := range s.Packs() {
		if err != nil {
			return err
		}
		if pm := r.live.packs[p.Layout.ID]; pm != nil {
			known++
			if pm.chunks > len(p.Layout.Sizes) {
				r.rep.Strays++
			}
		}
		c.add(&p, r.deadOf(&p))
		if c.n >= maxCandidates {
			if err := r.condemnSome(ctx, s, c); err != nil {
				return err
			}
			c = &condemned{packs: map[chunk.PackID]*candidates{}}
		}
	}
	r.rep.Strays += len(r.live.packs) - known
	if err := r.condemnSome(ctx, s, c); err != nil {
		return err
	}
	r.setMarked(r.due.epoch)
	r.looked = r.mark
	return nil
}

// markLive marks what the recipes name that this round has left.
func (r *round) markLive(ctx context.Context, s *catalog.Snapshot) error {
	r.live = mkMarks()
	n := 0
	for recipe, err := range s.Recipes() {
		if bad, ok := errors.AsType[*catalog.BadRecipeError](err); ok {
			if !r.gone[bad.NarHash] {
				r.rep.BadRecipes++
			}
			continue
		}
		if err != nil {
			return err
		}
		if n++; n%1024 == 0 {
			r.o.Progress(Progress{Phase: "mark chunks", Done: n})
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if !r.gone[recipe.NarHash] {
			r.live.stretch(&recipe)
			r.live.recipe(&recipe, nil)
		}
	}
	return nil
}

// deadOf returns which chunks of a pack are to be condemned. Chunks of a pack that was
// uploaded a short while ago may be those of a push that has not ended yet: they are
// left alone, unless this round has removed a recipe that named them, or somebody wants
// to be rid of something in the pack. (A push that refers to one that is condemned is
// told to upload it again; that is safe, but no pleasure for who pushes 100 GB.)
func (r *round) deadOf(p *catalog.PackState) bitset {
	n := len(p.Layout.Sizes)
	alive := mkBits(n)
	if pm := r.live.packs[p.Layout.ID]; pm != nil {
		copy(alive, pm.live)
	}
	for _, x := range p.Condemned.Ranges {
		alive.setRange(int(x.First), min(int(x.Count), n-int(x.First)), nil)
	}
	dead := mkBits(n)
	settled := uint64(p.Layout.ID.Epoch)+1 < uint64(r.due.epoch) || p.Condemned.Purge || r.copies[p.Layout.ID]
	hot := r.hot.packs[p.Layout.ID]
	if !settled && hot == nil {
		return nil
	}
	any := false
	for first, count := range alive.clears(n) {
		for i := first; i < first+count; i++ {
			if settled || i < hot.chunks && hot.live.has(i) {
				dead.set(i)
				any = true
			}
		}
	}
	if !any {
		return nil
	}
	return dead
}

// condemned are the chunks that one look at the chunk rows finds the ids of.
type condemned struct {
	packs map[chunk.PackID]*candidates
	order []chunk.PackID
	n     int
}

// candidates are those of one pack.
type candidates struct {
	chunks []catalog.DeadChunk // ascending
	purge  bool
}

func (c *condemned) add(p *catalog.PackState, dead bitset) {
	if dead == nil {
		return
	}
	cand := &candidates{purge: p.Condemned.Purge}
	for i := range p.Layout.Sizes {
		if dead.has(i) {
			cand.chunks = append(cand.chunks, catalog.DeadChunk{Index: uint32(i)})
		}
	}
	c.packs[p.Layout.ID] = cand
	c.order = append(c.order, p.Layout.ID)
	c.n += len(cand.chunks)
}

// name finds the ids of the candidates: those that have a chunk row at their place.
func (c *condemned) name(row catalog.Chunk) {
	cand := c.packs[row.Location.Pack]
	if cand == nil {
		return
	}
	i := sort.Search(len(cand.chunks), func(i int) bool { return cand.chunks[i].Index >= row.Location.Index })
	if i < len(cand.chunks) && cand.chunks[i].Index == row.Location.Index {
		cand.chunks[i].ID = row.ID
	}
}

// condemnSome condemns candidates, in as many operations as it takes.
func (r *round) condemnSome(ctx context.Context, s *catalog.Snapshot, c *condemned) error {
	if c.n == 0 {
		return nil
	}
	for row, err := range s.Chunks() {
		if err != nil {
			return err
		}
		c.name(row)
	}
	done, size := 0, 0
	var batch []catalog.DeadChunks
	flush := func() error {
		r.o.Progress(Progress{Phase: "condemn chunks", Done: done, Total: c.n})
		done += size
		err := r.condemnBatch(ctx, c, batch)
		batch, size = nil, 0
		return err
	}
	for _, id := range c.order {
		for part := range slices.Chunk(c.packs[id].chunks, r.o.Batch) {
			if size > 0 && size+len(part) > r.o.Batch {
				if err := flush(); err != nil {
					return err
				}
			}
			batch = append(batch, catalog.DeadChunks{Pack: id, Chunks: part})
			size += len(part)
		}
	}
	return flush()
}

func (r *round) condemnBatch(ctx context.Context, c *condemned, batch []catalog.DeadChunks) error {
	for {
		batch = r.stillDead(batch)
		if len(batch) == 0 {
			return nil
		}
		x, err := r.mark.Condemn(ctx, r.seen, batch)
		r.rep.Commits++
		r.rep.Condemned += int(x.Chunks)
		r.rep.Dead += x.Bytes
		if len(x.Objects) > 0 {
			r.purged = r.purged || r.purge
			for _, d := range batch {
				r.purged = r.purged || c.packs[d.Pack].purge
			}
		}
		switch {
		case errors.Is(err, catalog.ErrTouched):
			if err := r.absorb(ctx, nil); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("condemn chunks that no recipe names: %w", err)
		default:
			return nil
		}
	}
}

// stillDead leaves out what was named by recipes that came meanwhile.
func (r *round) stillDead(batch []catalog.DeadChunks) []catalog.DeadChunks {
	out := batch[:0]
	for _, d := range batch {
		pm := r.live.packs[d.Pack]
		if pm != nil {
			d.Chunks = slices.DeleteFunc(d.Chunks, func(ch catalog.DeadChunk) bool {
				return int(ch.Index) < pm.chunks && pm.live.has(int(ch.Index))
			})
		}
		if len(d.Chunks) > 0 {
			out = append(out, d)
		}
	}
	return out
}
