package chunkstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
)

// packer gathers the frames of all Writes into packs and uploads them.
//
// # Group upload
//
// There is one open pack. It is sealed when it is full, and when a Write waits
// for what is in it; but as long as any upload is under way, such a wait is only
// noted, and the pack goes on gathering until that upload has ended. So a lone
// small Write is uploaded at once, and a thousand of them in parallel share a
// few packs: the upload itself is the time to gather. Only one that takes longer
// than gatherFor is not waited for: it may be stuck.
type packer struct {
	s     *Store
	slots chan []byte // memory for packs; a pack takes one and its upload gives it back

	mu      sync.Mutex    // guards the fields below, and those of packs marked so
	open    *openPack     // nil if no pack gathers
	opened  chan struct{} // closed, and replaced, when open is set
	uploads int           // under way
	pending map[chunk.ID]place
	recent  []*openPack // uploaded partial packs, oldest first; see keepRecent
	chunks  int         // in recent
}

// openPack is a pack from its first frame until it is known to the directory.
type openPack struct {
	builder *pack.Builder // packer.mu until it is sealed
	buf     []byte
	wanted  bool            // packer.mu: a Write waits for it
	sealed  bool            // packer.mu
	full    bool            // committed by the packer itself; set when sealed
	opener  context.Context // never done; who it is uploaded for
	ids     []chunk.ID
	proofs  []chunk.Proof // until it is uploaded

	name atomic.Pointer[chunk.PackID] // set when the upload starts

	done chan struct{} // closed by upload; the fields below are set before
	np   chunk.NewPack
	view *packView
	at   time.Time
	err  error
}

func newPacker(s *Store, slots int) *packer {
	p := &packer{s: s, slots: make(chan []byte, slots), pending: make(map[chunk.ID]place), opened: make(chan struct{})}
	for range slots {
		p.slots <- nil
	}
	return p
}

// add appends frames of one Write, in order, to the open pack, or to several if
// it gets full. It blocks while all packs that fit the memory are on their way.
func (p *packer) add(ctx context.Context, frames []*frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range frames {
		if o := p.open; o != nil && (o.builder.Size()+len(f.data) > p.s.o.PackBytes || o.builder.Chunks()+len(f.ids) > maxPackChunks) {
			p.seal(true)
		}
		for p.open == nil {
			if err := p.begin(ctx); err != nil {
				return err
			}
		}
		o := p.open
		f.first = o.builder.Add(f.data, f.ids, f.sizes)
		p.s.buffers.put(f.data)
		f.pack, f.data = o, nil
		o.ids = append(o.ids, f.ids...)
		o.proofs = append(o.proofs, f.proofs...)
		for i, id := range f.ids {
			if _, ok := p.pending[id]; !ok {
				p.pending[id] = place{frame: f, index: uint32(i)}
			}
		}
	}
	return nil
}

// begin opens a pack, unless somebody else has while it waited for memory. It
// gives up the lock for that time.
func (p *packer) begin(ctx context.Context) error {
	opened := p.opened
	p.mu.Unlock()
	var buf []byte
	select {
	case buf = <-p.slots:
	case <-opened:
		p.mu.Lock()
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		return ctx.Err()
	}
	p.mu.Lock()
	if p.open != nil {
		p.slots <- buf
		return nil
	}
	p.open = &openPack{builder: pack.NewBuilder(buf), done: make(chan struct{}), opener: context.WithoutCancel(ctx)}
	close(p.opened)
	p.opened = make(chan struct{})
	return nil
}

// seal ends the open pack and starts its upload. The caller holds the lock.
func (p *packer) seal(full bool) {
	o := p.open
	p.open = nil
	o.sealed, o.full = true, full
	p.uploads++
	p.s.wg.Go(func() { p.upload(o) })
}

// gatherFor is how long a pack may gather that a Write waits for.
const gatherFor = time.Second

// wait returns when o is durable. A full pack is then known to the directory.
func (p *packer) wait(ctx context.Context, o *openPack) error {
	var late <-chan time.Time
	p.mu.Lock()
	if !o.sealed {
		o.wanted = true
		if p.uploads == 0 {
			p.seal(false)
		} else {
			timer := time.NewTimer(gatherFor)
			defer timer.Stop()
			late = timer.C
		}
	}
	p.mu.Unlock()
	for {
		select {
		case <-o.done:
			return o.err
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			p.mu.Lock()
			if !o.sealed {
				p.seal(false)
			}
			p.mu.Unlock()
		}
	}
}

// upload makes a sealed pack durable, and if it is full also known.
func (p *packer) upload(o *openPack) {
	ctx, cancel := context.WithCancel(o.opener)
	defer cancel()
	defer context.AfterFunc(p.s.ctx, cancel)()
	o.opener = nil
	o.np, o.err = p.put(ctx, o)
	if o.err == nil {
		o.view, o.err = newPackView(o.np.Layout)
	}
	if o.err == nil && o.full {
		if err := p.s.dir.CommitPacks(ctx, []chunk.NewPack{o.np}); err != nil {
			o.err = fmt.Errorf("commit %s: %w", pack.Key(o.np.Layout.ID), err)
		} else {
			p.s.m.commits.Inc()
			o.np.IDs, o.np.Proofs = nil, nil // known by now, and a large NAR has many packs
		}
	}
	o.builder = nil
	o.at = p.s.o.Now()

	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots <- o.buf
	o.buf = nil
	if o.err != nil || o.full {
		p.forget(o)
	} else {
		p.keepRecent(o)
	}
	close(o.done) // not before: who has waited for it may drop it
	p.uploads--
	if p.uploads == 0 && p.open != nil && p.open.wanted {
		p.seal(false)
	}
}

func (p *packer) put(ctx context.Context, o *openPack) (chunk.NewPack, error) {
	id, err := p.s.newName(ctx)
	if err != nil {
		return chunk.NewPack{}, err
	}
	o.name.Store(&id)
	object, np := o.builder.Seal(id)
	if p.s.o.ProofKey != (chunk.ProofKey{}) {
		np.Proofs = o.proofs
	}
	o.proofs = nil
	o.buf = object[:0]
	if _, err := p.s.bucket.Put(ctx, pack.Key(id), object); err != nil {
		o.buf = nil // a request that was given up may still be reading it
		return chunk.NewPack{}, fmt.Errorf("upload %s: %w", pack.Key(id), err)
	}
	p.s.m.packs.Inc()
	return np, nil
}

// recentPacks and recentChunks bound the uploaded packs that are remembered
// because the directory may not know them yet: their Writes commit them with their
// paths, within moments. A pack of one chunk costs about 1 KiB here.
const (
	recentPacks  = 1 << 10
	recentChunks = 64 << 10
)

// recentFor is how long they are remembered. What the directory does not know of a
// pack that was committed long ago is not new but condemned, and a recipe that names
// it would be refused again and again. See also Store.Refused.
const recentFor = time.Minute

// keepRecent remembers a durable pack that its Writes have still to make known,
// so that Writes of the same content in the meantime find it.
func (p *packer) keepRecent(o *openPack) {
	p.recent = append(p.recent, o)
	p.chunks += len(o.ids)
	for len(p.recent) > recentPacks || p.chunks > recentChunks && len(p.recent) > 1 {
		old := p.recent[0]
		p.recent = p.recent[1:]
		p.chunks -= len(old.ids)
		p.forget(old)
	}
}

// drop ends the use of uploaded packs, because it turned out that the directory does
// not take them, or knew them and does so no more.
func (p *packer) drop(packs []chunk.PackID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recent = slices.DeleteFunc(p.recent, func(o *openPack) bool {
		if !slices.Contains(packs, o.np.Layout.ID) {
			return false
		}
		p.chunks -= len(o.ids)
		p.forget(o)
		return true
	})
}

// forget ends the use of o's chunks by other Writes.
func (p *packer) forget(o *openPack) {
	for _, id := range o.ids {
		if at, ok := p.pending[id]; ok && at.frame.pack == o {
			delete(p.pending, id)
		}
	}
	o.ids = nil
}

// find fills in the places of those of the ids that lie in packs of this process
// which the directory does not know yet, if those packs may still be committed by
// a Write that began in epoch.
func (p *packer) find(ids []chunk.ID, known []bool, places []place, epoch uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, id := range ids {
		if known[i] {
			continue
		}
		at, ok := p.pending[id]
		if !ok {
			continue
		}
		// A pack is named when its upload starts, so one that has no name yet will
		// get one of this epoch or a later one.
		select {
		case <-at.frame.pack.done:
			o := at.frame.pack
			if o.err != nil || o.np.Layout.ID.Epoch < epoch || p.s.o.Now().Sub(o.at) > recentFor {
				continue
			}
		default:
		}
		places[i], known[i] = at, true
	}
}
