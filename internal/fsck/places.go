package fsck

import (
	"fmt"
	"sort"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/internal/catalog"
)

// places says of each position in each pack whether there is a chunk that lives, and
// whether the row of a chunk names it: two bits for each, so that 300 million chunks take
// 75 MB.
type places struct {
	packs []packPlace // by id
	live  bits
	named bits
	next  int

	sizes     map[chunk.PackID][]uint32 // of packs that were asked for lately
	remembers int                       // how many sizes that are
}

type packPlace struct {
	id    chunk.PackID
	first int // its first bit
	count uint32
}

type bits []uint64

func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bits) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bits) clear(i int)    { b[i/64] &^= 1 << (i % 64) }

func (b bits) grow(n int) bits {
	for len(b)*64 < n {
		b = append(b, 0)
	}
	return b
}

// add makes a pack known. Packs come in the order of their ids.
func (p *places) add(s *catalog.PackState) {
	n := len(s.Layout.Sizes)
	p.packs = append(p.packs, packPlace{id: s.Layout.ID, first: p.next, count: uint32(n)})
	p.live, p.named = p.live.grow(p.next+n), p.named.grow(p.next+n)
	for i, size := range s.Layout.Sizes {
		if size > 0 {
			p.live.set(p.next + i)
		}
	}
	for _, r := range s.Condemned.Ranges {
		for i := int(r.First); i < min(int(r.First)+int(r.Count), n); i++ {
			p.live.clear(p.next + i)
		}
	}
	p.next += n
}

func (p *places) find(id chunk.PackID) *packPlace {
	i := sort.Search(len(p.packs), func(i int) bool { return p.packs[i].id.Compare(id) >= 0 })
	if i < len(p.packs) && p.packs[i].id == id {
		return &p.packs[i]
	}
	return nil
}

// check says why a recipe cannot be used, if so.
func (p *places) check(s *catalog.Snapshot, r *chunk.Recipe) (problem, err error) {
	size := int64(0)
	for _, run := range r.Runs {
		pack := p.find(run.Pack)
		switch {
		case pack == nil:
			return fmt.Errorf("pack %v is not known", run.Pack), nil
		case uint64(run.First)+uint64(run.Count) > uint64(pack.count):
			return fmt.Errorf("it needs chunks %d+%d of pack %v, which has %d", run.First, run.Count, run.Pack, pack.count), nil
		}
		sizes, err := p.sizesOf(s, run.Pack)
		if err != nil {
			return nil, err
		}
		for i := run.First; i < run.First+run.Count; i++ {
			if !p.live.has(pack.first + int(i)) {
				return fmt.Errorf("chunk %d of pack %v is dead", i, run.Pack), nil
			}
			size += int64(sizes[i])
		}
	}
	if size != r.Size {
		return fmt.Errorf("its chunks have %d bytes and the NAR has %d", size, r.Size), nil
	}
	return nil, nil
}

// maxSizes bounds what is remembered of packs: 32 MB.
const maxSizes = 8 << 20

func (p *places) sizesOf(s *catalog.Snapshot, id chunk.PackID) ([]uint32, error) {
	if sizes, ok := p.sizes[id]; ok {
		return sizes, nil
	}
	state, _, err := s.Pack(id)
	if err != nil {
		return nil, err
	}
	if p.sizes == nil || p.remembers > maxSizes {
		p.sizes, p.remembers = make(map[chunk.PackID][]uint32), 0
	}
	p.sizes[id] = state.Layout.Sizes
	p.remembers += len(state.Layout.Sizes)
	return state.Layout.Sizes, nil
}

// where says what lies at the place that the row of a chunk names.
type where int

const (
	alive where = iota
	nowhere
	taken // a row of another chunk names it, too
)

// name notes that the row of a chunk names a place.
func (p *places) name(l chunk.Location) where {
	pack := p.find(l.Pack)
	if pack == nil || l.Index >= pack.count || !p.live.has(pack.first+int(l.Index)) {
		return nowhere
	}
	at := pack.first + int(l.Index)
	if p.named.has(at) {
		return taken
	}
	p.named.set(at)
	return alive
}
