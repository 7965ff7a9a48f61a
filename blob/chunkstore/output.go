package chunkstore

import (
	"context"

	"github.com/celler/celler/blob/chunk"
)

// frame is a frame made by this process. A frame is filled by one Write; once it
// is in a pack, other Writes may refer to its chunks.
type frame struct {
	ids    []chunk.ID
	proofs []chunk.Proof
	sizes  []uint32
	n      uint32 // chunks
	data   []byte // compressed; nil once it is in the pack

	pack  *openPack // set together with first when it is put into a pack
	first uint32    // position of its first chunk there
}

func (f *frame) chunks() uint32 { return f.n }

// job is a frame or a stretch that is being compressed.
type job struct {
	frame *frame // nil for a stretch
	data  []byte // compressed; valid when done is closed
	done  chan struct{}
}

// output is the end of a Write: it compresses, puts frames into packs in order,
// and keeps the recipe.
type output struct {
	w     *writer
	queue []*job // being compressed, in order

	group      []*frame // compressed, not yet in a pack
	groupBytes int

	plains []int // lengths of the stretches, in order

	runs []packRun // the recipe so far, as far as packs are known
	tail []frameRun
	used []*openPack // packs of this process that the recipe refers to
	seen map[*openPack]struct{}
}

// packRun is a run of the recipe; its pack is named at last when it is uploaded.
type packRun struct {
	open         *openPack // or nil
	id           chunk.PackID
	first, count uint32
}

// frameRun is a run whose chunks lie in a frame that may not be in a pack yet.
type frameRun struct {
	at    place
	count uint32
}

// frame takes a filled frame with its plain bytes.
func (o *output) frame(ctx context.Context, f *frame, plain []byte) error {
	o.refs(place{frame: f}, f.n)
	return o.enqueue(ctx, &job{frame: f}, plain)
}

// adopt takes a filled frame that somebody else has compressed, in a buffer of the pool.
func (o *output) adopt(ctx context.Context, f *frame, data []byte) error {
	o.refs(place{frame: f}, f.n)
	j := &job{frame: f, data: data, done: make(chan struct{})}
	close(j.done)
	o.queue = append(o.queue, j)
	for len(o.queue) > encodesAhead() {
		if err := o.collect(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stretch takes the plain bytes of chunks whose references went before.
func (o *output) stretch(ctx context.Context, plain []byte) error {
	o.plains = append(o.plains, len(plain))
	return o.enqueue(ctx, &job{}, plain)
}

func (o *output) enqueue(ctx context.Context, j *job, plain []byte) error {
	for len(o.queue) >= encodesAhead() {
		if err := o.collect(ctx); err != nil {
			return err
		}
	}
	s := o.w.s
	if err := s.encodes.Acquire(ctx, 1); err != nil {
		return err
	}
	j.done = make(chan struct{})
	enc := s.codec.frames
	if j.frame == nil {
		enc = s.codec.served[s.o.ServedEncoder]
	}
	// The store waits for it, and so does drop.
	s.wg.Go(func() {
		defer close(j.done)
		defer s.encodes.Release(1)
		j.data = enc.EncodeAll(plain, s.buffers.get(len(plain)/2+64))
		s.buffers.put(plain)
	})
	o.queue = append(o.queue, j)
	return nil
}

// collect takes the oldest job off the queue.
func (o *output) collect(ctx context.Context) error {
	j := o.queue[0]
	<-j.done
	o.queue = o.queue[1:]
	w := o.w
	served := &w.res.Recipe.Served
	served.Encoder = w.s.o.ServedEncoder
	if w.fileHash != nil {
		w.fileHash.Write(j.data)
	}
	if w.tee != nil && !w.tee.write(j.data) {
		w.tee = nil
	}
	if j.frame == nil {
		served.Segments = append(served.Segments, uint32(len(j.data)))
		w.s.buffers.put(j.data)
		return nil
	}
	w.res.StoredBytes += int64(len(j.data))
	j.frame.data = j.data
	o.group = append(o.group, j.frame)
	o.groupBytes += len(j.data)
	if o.groupBytes < min(groupBytes, w.s.o.PackBytes/2) {
		return nil
	}
	return o.flushGroup(ctx)
}

func (o *output) flushGroup(ctx context.Context) error {
	if len(o.group) == 0 {
		return nil
	}
	if err := o.w.s.packer.add(ctx, o.group); err != nil {
		return err
	}
	for _, f := range o.group {
		// From here on the packer knows them.
		for _, id := range f.ids {
			if o.w.split.own[id].frame == f {
				delete(o.w.split.own, id)
			}
		}
		f.ids, f.proofs, f.sizes = nil, nil, nil
	}
	clear(o.group)
	o.group, o.groupBytes = o.group[:0], 0
	o.compact()
	return nil
}

// passed notes that the served form continues with bytes that are not at hand.
func (o *output) passed() {
	o.w.fileHash = nil
	if o.w.tee != nil {
		o.w.tee.drop()
		o.w.tee = nil
	}
}

func (o *output) ref(at place) { o.refs(at, 1) }

// refs adds count neighbouring chunks to the recipe.
func (o *output) refs(at place, count uint32) {
	if at.frame == nil && at.view != nil && len(o.tail) == 0 {
		o.run(packRun{id: at.view.ID, first: at.index, count: count})
		return
	}
	if n := len(o.tail); n > 0 {
		last := &o.tail[n-1]
		if last.at.frame == at.frame && last.at.view == at.view && last.at.index+last.count == at.index {
			last.count += count
			return
		}
	}
	o.tail = append(o.tail, frameRun{at: at, count: count})
}

// compact moves what lies in a pack by now from tail to runs.
func (o *output) compact() {
	done := 0
	for _, r := range o.tail {
		f := r.at.frame
		if f == nil {
			o.run(packRun{id: r.at.view.ID, first: r.at.index, count: r.count})
		} else if f.pack != nil {
			o.run(packRun{open: f.pack, first: f.first + r.at.index, count: r.count})
		} else {
			break
		}
		done++
	}
	clear(o.tail[:done])
	o.tail = append(o.tail[:0], o.tail[done:]...)
}

func (o *output) run(r packRun) {
	if r.open != nil {
		if _, ok := o.seen[r.open]; !ok {
			if o.seen == nil {
				o.seen = make(map[*openPack]struct{})
			}
			o.seen[r.open] = struct{}{}
			o.used = append(o.used, r.open)
		}
	}
	if n := len(o.runs); n > 0 {
		last := &o.runs[n-1]
		if last.open == r.open && last.id == r.id && last.first+last.count == r.first {
			last.count += r.count
			return
		}
	}
	o.runs = append(o.runs, r)
}

// finish waits for the encoders and puts the last frames into a pack.
func (o *output) finish(ctx context.Context) error {
	for len(o.queue) > 0 {
		if err := o.collect(ctx); err != nil {
			return err
		}
	}
	if err := o.flushGroup(ctx); err != nil {
		return err
	}
	o.compact()
	o.w.res.Recipe.Served.Encoder = o.w.s.o.ServedEncoder
	return nil
}

// drop waits for the encoders of a Write that ends, be it early.
func (o *output) drop() {
	for _, j := range o.queue {
		<-j.done
	}
	o.queue = nil
}

// settle waits until all packs of the recipe are durable and names them.
func (o *output) settle(ctx context.Context) ([]chunk.Run, error) {
	// The last one first: if it is still open, its upload is to start now.
	for i := len(o.used) - 1; i >= 0; i-- {
		if err := o.w.s.packer.wait(ctx, o.used[i]); err != nil {
			return nil, err
		}
	}
	runs := make([]chunk.Run, 0, len(o.runs))
	for _, r := range o.runs {
		if r.open != nil {
			r.id = r.open.np.Layout.ID
		}
		runs = append(runs, chunk.Run{Pack: r.id, First: r.first, Count: r.count})
	}
	return runs, nil
}

// newPacks returns the packs of the recipe that are durable but not yet known.
func (o *output) newPacks() []chunk.NewPack {
	var packs []chunk.NewPack
	for _, p := range o.used {
		if !p.full {
			packs = append(packs, p.np)
		}
	}
	return packs
}
