package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/semaphore"

	"github.com/celler/celler/blob/chunk"
)

// Batch takes in segments of NARs that come as frames which somebody else has
// compressed, and as references to chunks that are known. See docs/protocol.md.
//
// Begin, then Frame and Known in the order of the NAR, then End, for every segment; at
// last Settle. It belongs to one goroutine. Whatever happens, Close must be called.
type Batch struct {
	s     *Store
	epoch uint32
	held  *semaphore.Weighted
	segs  []*segment
	open  *segment

	ids    []chunk.ID // of frames that were there already
	proofs []chunk.Proof
}

// BadChunkError reports that what was sent is not what it was said to be.
type BadChunkError struct {
	Segment int // number in the batch
	Item    int // number in the segment: of the Frame or Known
	Problem string
}

func (e *BadChunkError) Error() string {
	return fmt.Sprintf("segment %d, item %d: %s", e.Segment, e.Item, e.Problem)
}

// segment is one that is being taken in.
type segment struct {
	n     int // number in the batch
	w     writer
	hash  chunk.SHAState // of the NAR so far
	items int
	size  int64     // plain bytes so far
	plain io.Writer // that gets them too, or nil
	next  []item    // not taken in yet: from the first reference on
	known int       // chunks of all references
	res   Segment
}

// item is a frame or references.
type item struct {
	n     int
	names []chunk.Name
	sizes []uint32
	data  []byte // compressed, in a buffer of the pool
	refs  []chunk.Ref
}

// Batch begins one. It waits for memory.
func (s *Store) Batch(ctx context.Context) (*Batch, error) {
	b := &Batch{s: s}
	soon, cancel := context.WithTimeout(ctx, extraAfter)
	defer cancel()
	b.held = s.large
	if err := s.large.Acquire(soon, 1); err != nil {
		b.held = s.extra
		if err := s.extra.Acquire(ctx, 1); err != nil {
			return nil, fmt.Errorf("take in a batch: wait for memory: %w", err)
		}
	}
	var err error
	if b.epoch, err = s.dir.UploadEpoch(ctx); err != nil {
		b.held.Release(1)
		return nil, fmt.Errorf("take in a batch: look up upload epoch: %w", err)
	}
	return b, nil
}

// Close ends the batch. What was not settled may be stored or not.
func (b *Batch) Close() {
	for _, seg := range b.segs {
		seg.w.out.drop()
		seg.forget(b.s)
	}
	b.segs, b.open = nil, nil
	if b.held != nil {
		b.held.Release(1)
		b.held = nil
	}
}

// forget gives back the frames that were not taken in.
func (seg *segment) forget(s *Store) {
	for i := range seg.next {
		s.buffers.put(seg.next[i].data)
	}
	seg.next = nil
}

// Begin begins a segment, before which the hash of the NAR was in the state from. All
// plain bytes of the segment are written to plain as well, unless it is nil; an error of
// that ends the batch.
func (b *Batch) Begin(from chunk.SHAState, plain io.Writer) error {
	if b.open != nil {
		return errors.New("take in a segment: the one before has not ended")
	}
	seg := &segment{n: len(b.segs), w: writer{s: b.s, epoch: b.epoch}, hash: from, plain: plain, res: Segment{From: from}}
	seg.w.out = output{w: &seg.w}
	seg.w.split = splitter{s: b.s, out: &seg.w.out, own: make(map[chunk.ID]place)}
	b.segs, b.open = append(b.segs, seg), seg
	return nil
}

// Frame takes a zstd frame whose content is the chunks names of the given lengths. It
// keeps nothing of data and sizes. A *BadChunkError says what is wrong with it.
func (b *Batch) Frame(ctx context.Context, names []chunk.Name, sizes []uint32, data []byte) error {
	seg := b.open
	if seg == nil {
		return errors.New("take in a frame: no segment has begun")
	}
	it := item{n: seg.items, names: names, sizes: slices.Clone(sizes)}
	seg.items++
	if err := b.s.checkFrame(it.names, it.sizes, data); err != nil {
		return b.bad(seg, it.n, err)
	}
	it.data = b.s.buffers.copy(data)
	if len(seg.next) > 0 {
		seg.next = append(seg.next, it)
		return nil
	}
	return b.frame(ctx, seg, &it)
}

// Known takes references to chunks that are in the store, if they still are.
func (b *Batch) Known(refs []chunk.Ref) error {
	seg := b.open
	if seg == nil {
		return errors.New("take in references: no segment has begun")
	}
	seg.next = append(seg.next, item{n: seg.items, refs: slices.Clone(refs)})
	seg.items++
	seg.known += len(refs)
	return nil
}

func (b *Batch) bad(seg *segment, item int, err error) error {
	if problem, ok := errors.AsType[*badFrameError](err); ok {
		return &BadChunkError{Segment: seg.n, Item: item, Problem: problem.problem}
	}
	return fmt.Errorf("take in segment %d, item %d: %w", seg.n, item, err)
}

// End ends the segment.
func (b *Batch) End(ctx context.Context) error {
	seg := b.open
	if seg == nil {
		return errors.New("end a segment: none has begun")
	}
	b.open = nil
	places, err := b.s.find(ctx, seg)
	if err != nil {
		return fmt.Errorf("take in segment %d: %w", seg.n, err)
	}
	if err := b.rest(ctx, seg, places); err != nil {
		return err
	}
	if err := seg.w.split.endPass(ctx); err != nil {
		return err
	}
	return seg.w.out.finish(ctx)
}

// rest takes in what waited for the end of the segment.
func (b *Batch) rest(ctx context.Context, seg *segment, places []place) error {
	defer seg.forget(b.s)
	var read io.Reader
	if len(seg.res.Missing) == 0 && seg.known > 0 {
		if res, ok := b.remembered(seg, places); ok {
			seg.res = res
			return nil
		}
		rd, err := b.s.chunks(ctx, places)
		if err != nil {
			return fmt.Errorf("take in segment %d: %w", seg.n, err)
		}
		defer rd.Close()
		read = rd
	}
	var buf []byte
	for i := range seg.next {
		it := &seg.next[i]
		if it.data != nil {
			if err := b.frame(ctx, seg, it); err != nil {
				return err
			}
			continue
		}
		for _, at := range places[:len(it.refs)] {
			if read == nil {
				break // it is incomplete anyway
			}
			n := int(at.view.Sizes[at.index])
			buf = slices.Grow(buf[:0], n)[:n]
			if _, err := io.ReadFull(read, buf); err != nil {
				return fmt.Errorf("take in segment %d: read a known chunk: %w", seg.n, err)
			}
			_, _ = seg.hash.Write(buf) // it takes everything
			if err := seg.passOn(buf); err != nil {
				return err
			}
			if err := seg.w.split.chunk(ctx, piecePart{data: buf, at: at}, true); err != nil {
				return err
			}
		}
		places = places[len(it.refs):]
	}
	return nil
}

// passOn counts plain bytes that were hashed, and passes them on.
func (seg *segment) passOn(p []byte) error {
	seg.size += int64(len(p))
	if seg.plain == nil {
		return nil
	}
	_, err := seg.plain.Write(p)
	return err
}

// frame takes in a frame: as it is, unless exactly such a frame is there already.
func (b *Batch) frame(ctx context.Context, seg *segment, it *item) error {
	plain, err := b.s.openFrame(it)
	if err != nil {
		return b.bad(seg, it.n, err)
	}
	defer b.s.buffers.put(plain)
	f := &frame{n: uint32(len(it.sizes)), sizes: it.sizes}
	parts := make([][]byte, len(it.sizes))
	rest := plain
	for i, n := range it.sizes {
		parts[i], rest = rest[:n], rest[n:]
	}
	f.ids, f.proofs = b.s.o.ProofKey.SumAll(parts, &seg.hash)
	for i, id := range f.ids {
		if id.Name() != it.names[i] {
			return b.bad(seg, it.n, badFrame("chunk %d hashes to %x…, its name is %x", i, id.Name(), it.names[i]))
		}
	}
	if err := seg.passOn(plain); err != nil {
		return err
	}
	w := &seg.w
	there, err := w.there(ctx, f, parts)
	if err != nil {
		return err
	}
	if there != nil {
		b.ids, b.proofs = append(b.ids, f.ids...), append(b.proofs, f.proofs...)
		for _, p := range there {
			if err := w.split.chunk(ctx, p, true); err != nil {
				return err
			}
		}
		return nil
	}
	if err := w.split.endPass(ctx); err != nil {
		return err
	}
	w.res.NewBytes += int64(len(plain))
	data := it.data
	it.data = nil
	return w.out.adopt(ctx, f, data)
}

// there returns the chunks of a frame where they lie, if that is exactly such a frame, or
// nil. Who sends a frame was told that its chunks are missing, so that its first chunk is
// there is rare, and the others are not looked up without it.
func (w *writer) there(ctx context.Context, f *frame, parts [][]byte) ([]piecePart, error) {
	var places []place
	for _, n := range []int{1, len(parts)} {
		var known []bool
		var err error
		if places, known, err = w.lookup(ctx, f.ids[:n], parts[:n]); err != nil {
			return nil, err
		}
		if slices.Contains(known, false) {
			return nil, nil
		}
	}
	pieces := make([]piecePart, len(parts))
	for i := range parts {
		pieces[i] = piecePart{id: f.ids[i], proof: f.proofs[i], data: parts[i], at: places[i]}
	}
	if !wholeFrames(pieces) {
		return nil, nil
	}
	return pieces, nil
}

// Settle waits until everything is durable and known, and returns the segments in order.
func (b *Batch) Settle(ctx context.Context) ([]Segment, error) {
	if b.open != nil {
		return nil, errors.New("settle a batch: a segment has not ended")
	}
	out := make([]Segment, len(b.segs))
	var packs []chunk.NewPack
	seen := make(map[chunk.PackID]struct{})
	for i, seg := range b.segs {
		if seg.res.Plain == 0 { // not remembered
			if err := seg.settle(ctx); err != nil {
				return nil, fmt.Errorf("settle segment %d: %w", i, err)
			}
		}
		for _, p := range seg.w.out.newPacks() {
			if _, ok := seen[p.Layout.ID]; !ok {
				seen[p.Layout.ID] = struct{}{}
				packs = append(packs, p)
			}
		}
		out[i] = seg.res
	}
	if len(packs) > 0 {
		ids := make([]chunk.PackID, len(packs))
		for i := range packs {
			ids[i] = packs[i].Layout.ID
		}
		err := b.s.dir.CommitPacks(ctx, packs)
		b.s.packer.drop(ids) // from now on the directory knows what is there of them
		if err != nil {
			return nil, fmt.Errorf("commit %d packs: %w", len(packs), err)
		}
		b.s.m.commits.Inc()
	}
	if len(b.ids) > 0 {
		// Perhaps they are of an older version, which knew no proofs, and were said to be missing.
		if err := b.s.dir.ProveChunks(ctx, b.ids, b.proofs); err != nil {
			return nil, fmt.Errorf("prove %d chunks: %w", len(b.ids), err)
		}
	}
	for i := range out {
		if len(out[i].Missing) == 0 {
			b.s.segments.put(segmentKey(&out[i].From, out[i].Runs), out[i])
		}
	}
	return out, nil
}
