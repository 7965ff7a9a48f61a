package gc

import (
	"fmt"
	"sort"

	"github.com/celler/celler/blob/chunk"
)

// weight is what some chunks take.
type weight struct {
	chunks int
	plain  int64 // before compression
	stored int64 // in the bucket: their share of the frames they lie in
}

func (w *weight) add(o weight) {
	w.chunks += o.chunks
	w.plain += o.plain
	w.stored += o.stored
}

// scale weighs chunks of one pack. The shares of the chunks of a frame add up to the
// frame, to the byte, however they are asked for.
type scale struct {
	l      *chunk.Layout
	starts []uint32 // first chunk of each frame, and one past the last
	sums   []int64  // plain bytes before each chunk, and of all
}

func newScale(l *chunk.Layout) *scale {
	s := &scale{l: l, starts: make([]uint32, len(l.Frames)+1), sums: make([]int64, len(l.Sizes)+1)}
	for i, f := range l.Frames {
		s.starts[i+1] = s.starts[i] + f.Chunks
	}
	for i, n := range l.Sizes {
		s.sums[i+1] = s.sums[i] + int64(n)
	}
	return s
}

// of weighs count chunks from first on, all of which the pack has.
func (s *scale) of(first, count uint32) (w weight) {
	end := first + count
	w.chunks, w.plain = int(count), s.sums[end]-s.sums[first]
	f := sort.Search(len(s.l.Frames), func(f int) bool { return s.starts[f+1] > first })
	for ; f < len(s.l.Frames) && s.starts[f] < end; f++ {
		w.stored += s.upTo(f, min(end, s.starts[f+1])) - s.upTo(f, max(first, s.starts[f]))
	}
	return w
}

// upTo returns the share of frame f of its chunks before end.
func (s *scale) upTo(f int, end uint32) int64 {
	base, whole := s.sums[s.starts[f]], s.sums[s.starts[f+1]]-s.sums[s.starts[f]]
	if whole == 0 {
		return 0
	}
	size, part := s.l.Frames[f].Size, s.sums[end]-base
	return size/whole*part + size%whole*part/whole // both below 2^32: no overflow
}

// scales keeps those of the packs that were used last.
type scales struct {
	layout func(chunk.PackID) (*chunk.Layout, error)
	new    map[chunk.PackID]*scale
	old    map[chunk.PackID]*scale
}

// scalesKept packs, some 60 KB each, are at hand at once, twice over.
const scalesKept = 1024

func newScales(layout func(chunk.PackID) (*chunk.Layout, error)) *scales {
	return &scales{layout: layout, new: make(map[chunk.PackID]*scale)}
}

// of weighs the chunks of a run.
func (s *scales) of(run chunk.Run) (weight, error) {
	sc := s.new[run.Pack]
	if sc == nil {
		if sc = s.old[run.Pack]; sc == nil {
			l, err := s.layout(run.Pack)
			if err != nil {
				return weight{}, fmt.Errorf("weigh chunks of pack %v: %w", run.Pack, err)
			}
			sc = newScale(l)
		}
		if len(s.new) == scalesKept {
			s.old, s.new = s.new, make(map[chunk.PackID]*scale)
		}
		s.new[run.Pack] = sc
	}
	if int64(run.First)+int64(run.Count) > int64(len(sc.l.Sizes)) {
		return weight{}, fmt.Errorf("weigh chunks %d+%d of pack %v: it has %d", run.First, run.Count, run.Pack, len(sc.l.Sizes))
	}
	return sc.of(run.First, run.Count), nil
}
