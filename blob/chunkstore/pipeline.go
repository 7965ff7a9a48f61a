package chunkstore

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
)

const (
	// batchBytes is what a pipeline fetches at a time: compressed bytes of frames,
	// or plain bytes of stretches. It is the size of the largest GET.
	batchBytes = 4 << 20

	// leastBatch is the first batch, whose bytes somebody is waiting for.
	leastBatch = 512 << 10

	// firstAhead is how far a pipeline reads ahead at first; it grows with what
	// was consumed, so that a short range costs little.
	firstAhead = 4 << 20
)

// pipeline produces the units of a plan in order, from some offset on, while it
// fetches later ones. It belongs to one goroutine; those it starts end before
// close returns.
type pipeline struct {
	s      *Store
	ctx    context.Context //nolint:containedctx // the life of the reader, given to Open
	cancel context.CancelFunc
	wg     sync.WaitGroup

	cur     cursor
	ended   bool // cur has no more units
	batches []*batch
	ahead   int64 // compressed bytes in batches
	eaten   int64 // bytes produced

	last     *pending // the unit returned last, and its bytes
	lastData []byte
}

// batch is some units with the frames they need.
type batch struct {
	units   []*pending
	next    int
	cost    int64 // taken from the read budget
	weight  int64 // counted against the read-ahead of the pipeline
	extents []*extent
}

// pending is a unit in the making.
type pending struct {
	unit
	frames []*fetched    // one for a whole frame, in order of use for a stretch
	done   chan struct{} // of a stretch; closed when data or err is set
	data   []byte
	err    error
}

func newPipeline(ctx context.Context, s *Store, cur cursor) *pipeline {
	p := &pipeline{s: s, cur: cur}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

func (p *pipeline) close() {
	p.cancel()
	p.wg.Wait()
	for _, b := range p.batches {
		p.s.readers.free(b.cost)
	}
	p.batches = nil
}

// next returns the bytes of the next unit, which are valid until the next call.
func (p *pipeline) next() ([]byte, error) {
	p.recycle()
	if len(p.batches) > 0 && p.batches[0].next == len(p.batches[0].units) {
		p.s.readers.free(p.batches[0].cost)
		p.ahead -= p.batches[0].weight
		p.batches = slices.Delete(p.batches, 0, 1)
	}
	if err := p.fill(); err != nil {
		return nil, err
	}
	if len(p.batches) == 0 {
		return nil, io.EOF
	}
	b := p.batches[0]
	u := b.units[b.next]
	b.next++
	data, err := u.wait(p.ctx)
	if err != nil {
		return nil, err
	}
	if u.piece.view != nil {
		p.s.m.passed.AddInt64(int64(len(data)))
	}
	b.units[b.next-1] = nil
	p.last, p.lastData = u, data
	p.eaten += int64(len(data))
	return data, nil
}

// recycle gives back the buffer of the unit that was returned last.
func (p *pipeline) recycle() {
	switch u := p.last; {
	case u == nil:
	case u.piece.view != nil:
		u.frames[0].release(&p.s.buffers)
	default:
		p.s.buffers.put(p.lastData)
	}
	p.last, p.lastData = nil, nil
}

func (u *pending) wait(ctx context.Context) ([]byte, error) {
	if u.piece.view != nil {
		return u.frames[0].wait(ctx)
	}
	select {
	case <-u.done:
		return u.data, u.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fill starts batches until enough is under way.
func (p *pipeline) fill() error {
	for !p.ended {
		first := len(p.batches) == 0
		window := min(p.s.o.ReadAhead, firstAhead+2*p.eaten)
		if !first && p.ahead >= window {
			return nil
		}
		most := int64(batchBytes)
		switch {
		case p.s.readers.scarce():
			most = 1 // the next unit and no more
		case p.eaten == 0 && first:
			most = leastBatch
		}
		if !first && !p.s.readers.ahead(0) {
			return nil
		}
		was := p.cur
		b := p.batch(most)
		if b == nil {
			p.ended = true
			return nil
		}
		if first {
			cost, err := p.s.readers.need(p.ctx, b.cost)
			if err != nil {
				return fmt.Errorf("wait for memory: %w", err)
			}
			if cost == 0 {
				p.s.m.overcommits.Inc()
			}
			b.cost = cost
		} else if !p.s.readers.ahead(b.cost) {
			p.cur = was
			return nil
		}
		p.start(b)
	}
	return nil
}

type frameKey struct {
	view *packView
	n    int
}

// batch gathers units for about most bytes, at least one.
func (p *pipeline) batch(most int64) *batch {
	b := &batch{}
	frames := make(map[frameKey]*fetched)
	for b.weight < most {
		was := p.cur
		u, ok := p.cur.next()
		if !ok {
			break
		}
		need := u.frames()
		var weight, cost int64
		for _, k := range need {
			if frames[k] == nil {
				weight += k.view.Frames[k.n].Size
			}
			if u.piece.view == nil {
				cost += int64(k.view.plain(k.n)) // decoded one after another, but not always freed at once
			}
		}
		if u.piece.view == nil {
			cost += 2 * int64(u.piece.plain)
		}
		if len(b.units) > 0 && b.cost+weight+cost > 3*max(most, leastBatch) {
			p.cur = was
			break
		}
		pu := &pending{unit: u}
		for _, k := range need {
			f := frames[k]
			if f == nil {
				f = newFetched(k.view, k.n)
				frames[k] = f
			}
			f.users.Add(1)
			pu.frames = append(pu.frames, f)
		}
		if u.piece.view == nil {
			pu.done = make(chan struct{})
			weight += int64(u.piece.plain) / 4 // so that many stretches of few frames end a batch
		}
		b.units = append(b.units, pu)
		b.weight += weight
		b.cost += weight + cost
	}
	if len(b.units) == 0 {
		return nil
	}
	b.extents = p.s.extents(frames)
	return b
}

// frames returns the frames that a unit needs, in the order of their use.
func (u unit) frames() []frameKey {
	if u.piece.view != nil {
		return []frameKey{{u.piece.view, u.frame}}
	}
	var keys []frameKey
	for _, r := range u.piece.runs {
		for i, end := r.first, r.first+r.count; i < end; {
			n := r.view.frameOf(i)
			if k := (frameKey{r.view, n}); !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
			i = min(end, r.view.firsts[n]+r.view.Frames[n].Chunks)
		}
	}
	return keys
}

// extents joins neighbouring frames of an object to GETs.
func (s *Store) extents(frames map[frameKey]*fetched) []*extent {
	all := make([]*fetched, 0, len(frames))
	for _, f := range frames {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *fetched) int {
		return cmp.Or(a.view.Where().Compare(b.view.Where()), cmp.Compare(a.frame().Offset, b.frame().Offset))
	})
	var extents []*extent
	var first, end int64
	for _, f := range all {
		fr := f.frame()
		if n := len(extents); n > 0 {
			last := extents[n-1]
			if last.frames[0].view.Where() == f.view.Where() && fr.Offset >= end && fr.Offset-end <= gapBytes && fr.Offset+fr.Size-first <= batchBytes {
				last.frames = append(last.frames, f)
				end = fr.Offset + fr.Size
				continue
			}
		}
		extents = append(extents, &extent{s: s, frames: []*fetched{f}})
		first, end = fr.Offset, fr.Offset+fr.Size
	}
	return extents
}

// start lets a batch be fetched and its stretches be made.
func (p *pipeline) start(b *batch) {
	p.batches = append(p.batches, b)
	p.ahead += b.weight
	for _, e := range b.extents {
		p.wg.Go(func() { e.run(p.ctx) })
	}
	b.extents = nil
	var stretches []*pending
	for _, u := range b.units {
		if u.done != nil {
			stretches = append(stretches, u)
		}
	}
	if len(stretches) > 0 {
		plan := p.cur.plan
		p.wg.Go(func() { p.make(plan, stretches) })
	}
}

// make makes the stretches of a batch, one after another.
func (p *pipeline) make(plan *plan, stretches []*pending) {
	uses := make(map[*fetched]int)
	for _, u := range stretches {
		for _, f := range u.frames {
			uses[f]++
		}
	}
	m := &maker{s: p.s, plan: plan, uses: uses, decoded: make(map[*fetched][]byte)}
	for _, u := range stretches {
		u.data, u.err = m.stretch(p.ctx, u)
		close(u.done)
	}
}
