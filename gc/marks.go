package gc

import (
	"iter"

	"github.com/celler/celler/blob/chunk"
)

// marks says which chunks of which packs recipes name: one bit a chunk, so that 300
// million chunks take 40 MB.
type marks struct {
	packs map[chunk.PackID]*packMarks
}

// packMarks are the marks of one pack.
type packMarks struct {
	live   bitset
	chunks int
}

func mkMarks() *marks { return &marks{packs: make(map[chunk.PackID]*packMarks)} }

// add makes a pack known, with nothing in it marked.
func (m *marks) add(id chunk.PackID, chunks int) {
	if m.packs[id] == nil {
		m.packs[id] = &packMarks{live: mkBits(chunks), chunks: chunks}
	}
}

// recipe marks all that r names and returns how many of its runs lie in packs that are
// not known, or beyond their ends. fresh, which may be nil, is called with each stretch
// of chunks that was not marked before.
func (m *marks) recipe(r *chunk.Recipe, fresh func(chunk.Run)) (strays int) {
	for _, run := range r.Runs {
		p := m.packs[run.Pack]
		if p == nil || int(run.First)+int(run.Count) > p.chunks {
			strays++
			continue
		}
		var each func(first, count int)
		if fresh != nil {
			each = func(first, count int) {
				fresh(chunk.Run{Pack: run.Pack, First: uint32(first), Count: uint32(count)})
			}
		}
		p.live.setRange(int(run.First), int(run.Count), each)
	}
	return strays
}

// stretch makes the packs that r names known as far as it names them.
func (m *marks) stretch(r *chunk.Recipe) {
	for _, run := range r.Runs {
		end := int(run.First) + int(run.Count)
		p := m.packs[run.Pack]
		if p == nil {
			p = &packMarks{}
			m.packs[run.Pack] = p
		}
		if end > p.chunks {
			p.chunks = end
			p.live = append(p.live, mkBits(max(0, end-64*len(p.live)))...)
		}
	}
}

// dead yields the stretches of chunks of a pack that nothing has marked.
func (m *marks) dead(id chunk.PackID) iter.Seq[chunk.Run] {
	return func(yield func(chunk.Run) bool) {
		p := m.packs[id]
		if p == nil {
			return // never seen: no word about it
		}
		for first, count := range p.live.clears(p.chunks) {
			if !yield(chunk.Run{Pack: id, First: uint32(first), Count: uint32(count)}) {
				return
			}
		}
	}
}

// overlaps reports whether any chunk of run is marked.
func (m *marks) overlaps(run chunk.Run) bool {
	p := m.packs[run.Pack]
	if p == nil {
		return false
	}
	for i := int(run.First); i < int(run.First+run.Count) && i < p.chunks; i++ {
		if p.live.has(i) {
			return true
		}
	}
	return false
}
