package chunkstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
)

// RewriteJob is a pack that is to be moved without what is dead of it.
type RewriteJob struct {
	Layout chunk.Layout  // as the index has it
	Dead   []chunk.Range // what is a hole already may be named or not
}

// RewrittenObject is an object that Rewrite has made. It is durable.
type RewrittenObject struct {
	ID      chunk.PackID
	Bytes   int64
	Layouts []chunk.Layout // of the packs moved into it
}

// RewriteFailure is a pack that was not moved, because what is to be kept of it cannot
// be read.
type RewriteFailure struct {
	Pack chunk.PackID
	Err  error // a *pack.CorruptError, or blob.ErrNotExist, or ErrGone
}

// RewriteResult tells what a Rewrite did.
type RewriteResult struct {
	Objects []RewrittenObject
	Empty   []chunk.PackID // packs of which nothing is alive
	Failed  []RewriteFailure

	ReadBytes    int64 // compressed bytes read, but for footers
	CopiedBytes  int64 // compressed bytes of frames that were copied as they were
	EncodedBytes int64 // compressed bytes of frames that were encoded again
}

const (
	// maxObjectChunks bounds the chunks that one object gathers, and so its footer.
	maxObjectChunks = 1 << 15

	// maxObjectPacks bounds the packs, whose rows change in one operation on the log.
	maxObjectPacks = 1 << 10
)

// Rewrite moves packs, without what is dead of them, into new objects of about the
// size of a pack, each of which holds one or more of the packs whole. Frames that are
// alive as they lie are copied after their checksum was compared; of the others each
// chunk that stays is compared with its id and encoded again. The served form of a NAR
// that uses none of the dead chunks stays the same byte for byte.
//
// Nothing becomes known by it: the caller puts the new layouts in the place of the
// ones it gave, if those still are the ones that count. After an error the result is
// right as far as it goes, and its objects are durable. One Rewrite runs at a time; it
// needs the memory of one object and a dozen MiB.
func (s *Store) Rewrite(ctx context.Context, jobs []RewriteJob) (RewriteResult, error) {
	w := &rewriter{s: s, walker: walker{s: s}}
	if err := s.rewrites.Acquire(ctx, 1); err != nil {
		return w.res, fmt.Errorf("rewrite packs: wait for another rewrite: %w", err)
	}
	defer s.rewrites.Release(1)
	err := w.run(ctx, jobs)
	w.res.ReadBytes = w.walker.read
	if err != nil {
		return w.res, fmt.Errorf("rewrite packs: %w", err)
	}
	return w.res, nil
}

// rewriter is one Rewrite.
type rewriter struct {
	s      *Store
	walker walker
	res    RewriteResult
	buf    []byte // memory of the object
	g      *pack.Gatherer
}

func (w *rewriter) run(ctx context.Context, jobs []RewriteJob) error {
	stored := int64(0)
	for i := range jobs {
		stored += jobs[i].Layout.Stored()
	}
	most := int64(w.s.o.PackBytes)
	w.buf = make([]byte, 0, min(stored, most)+most/16) // and room for a footer
	for i := range jobs {
		err := w.job(ctx, &jobs[i])
		switch {
		case err == nil:
		case ctx.Err() == nil && (damaged(err) || errors.Is(err, blob.ErrNotExist) || errors.Is(err, ErrGone)):
			w.res.Failed = append(w.res.Failed, RewriteFailure{Pack: jobs[i].Layout.ID, Err: err})
		default:
			return err
		}
	}
	return w.seal(ctx)
}

// move is a pack on its way.
type move struct {
	view *packView
	dead []bool     // by position; holes are dead
	ids  sectionIDs // of what is left; unknown if the footer is damaged
	bad  error      // what is wrong with the footer
}

func newMove(j *RewriteJob) (*move, error) {
	v, err := newPackView(j.Layout)
	if err != nil {
		return nil, err
	}
	m := &move{view: v, dead: make([]bool, len(v.Sizes))}
	for i, n := range v.Sizes {
		m.dead[i] = n == 0
	}
	for _, r := range j.Dead {
		if uint64(r.First)+uint64(r.Count) > uint64(len(m.dead)) {
			return nil, fmt.Errorf("chunks %d+%d of pack %v are said to be dead, it has %d", r.First, r.Count, v.ID, len(m.dead))
		}
		for i := range r.Count {
			m.dead[r.First+i] = true
		}
	}
	return m, nil
}

// live returns how many chunks of frame n stay, and whether these are all that is in
// the frame as it lies.
func (m *move) live(n int) (count int, all bool) {
	all = true
	first := m.view.firsts[n]
	for i := first; i < first+m.view.Frames[n].Chunks; i++ {
		if !m.dead[i] {
			count++
		} else if m.view.Sizes[i] != 0 {
			all = false
		}
	}
	return count, all
}

func (w *rewriter) job(ctx context.Context, j *RewriteJob) error {
	m, err := newMove(j)
	if err != nil {
		return err
	}
	var frames []*fetched
	bytes, chunks := int64(0), 0
	for n := range m.view.Frames {
		if count, _ := m.live(n); count > 0 {
			frames = append(frames, newFetched(m.view, n))
			bytes += m.view.Frames[n].Size
			chunks += count
		}
	}
	if len(frames) == 0 {
		w.res.Empty = append(w.res.Empty, m.view.ID)
		return nil
	}
	if m.ids, err = w.s.ids(ctx, m.view); err != nil {
		if !damaged(err) {
			return err
		}
		m.bad = err // also if the footer is cut off: the index has to know what is left
	}
	if w.full(bytes, chunks) {
		if err := w.seal(ctx); err != nil {
			return err
		}
	}
	if w.g == nil {
		w.g = pack.NewGatherer(w.buf)
	}
	w.g.Begin(m.view.ID, len(m.view.Sizes))
	was := w.res
	err = w.walker.walk(ctx, frames, func(f *fetched, data []byte, err error) error {
		if err != nil {
			return err
		}
		return w.frame(ctx, m, f.n, data)
	})
	if err != nil {
		w.g.Cut()
		w.res = was
	}
	return err
}

// full reports whether a pack of so many bytes and chunks is to begin another object.
func (w *rewriter) full(bytes int64, chunks int) bool {
	return w.g != nil && (int64(w.g.Size())+bytes > int64(w.s.o.PackBytes) || w.g.Chunks()+chunks > maxObjectChunks || w.g.Packs() >= maxObjectPacks)
}

// frame puts what stays of a frame into the object.
func (w *rewriter) frame(ctx context.Context, m *move, n int, data []byte) error {
	_, all := m.live(n)
	var plain []byte
	if !all || m.bad != nil {
		var err error
		if plain, err = w.s.decodeFrame(m.view, n, data); err != nil {
			return err
		}
		defer func() { w.s.buffers.put(plain) }()
	}
	entries, kept, err := w.keep(ctx, m, n, plain)
	if err != nil {
		return err
	}
	v := m.view
	if all {
		w.g.Add(data, v.firsts[n], v.Frames[n].Chunks, entries)
		w.res.CopiedBytes += int64(len(data))
		return nil
	}
	out := w.s.codec.frames.EncodeAll(kept, w.s.buffers.get(len(kept)/2+64))
	w.g.Add(out, v.firsts[n], v.Frames[n].Chunks, entries)
	w.res.EncodedBytes += int64(len(out))
	w.s.buffers.put(out)
	w.s.buffers.put(kept)
	return nil
}

// keep returns the entries of the chunks that stay of a frame and, if its plain bytes
// are at hand, theirs, compared with their ids.
func (w *rewriter) keep(ctx context.Context, m *move, n int, plain []byte) ([]pack.Entry, []byte, error) {
	v := m.view
	var entries []pack.Entry
	var kept []byte
	if plain != nil {
		kept = w.s.buffers.get(len(plain))
	}
	for i, at := v.firsts[n], 0; i < v.firsts[n]+v.Frames[n].Chunks; i++ {
		size := v.Sizes[i]
		if !m.dead[i] {
			e := pack.Entry{Index: i, Size: size}
			var known bool
			if e.ID, known = m.ids.id(i); !known && m.bad == nil {
				return nil, nil, fmt.Errorf("chunk %d of pack %v: %w", i, v.ID, ErrGone)
			}
			if plain != nil {
				part := plain[at:][:size]
				if m.bad != nil {
					e.ID = chunk.Sum(part)
				} else if err := verify(v, n, i, part, e.ID); err != nil {
					return nil, nil, err
				}
				kept = append(kept, part...)
			}
			entries = append(entries, e)
		}
		at += int(size)
	}
	if m.bad != nil {
		return entries, kept, w.s.vouch(ctx, entries, m.bad)
	}
	return entries, kept, nil
}

// vouch returns nil if the index knows all chunks, whose ids were made from their
// bytes because the footer that should have them is damaged: then the bytes are those
// of chunks that were pushed. Else it returns what is wrong with the footer.
func (s *Store) vouch(ctx context.Context, entries []pack.Entry, bad error) error {
	ids := make([]chunk.ID, len(entries))
	for i, e := range entries {
		ids[i] = e.ID
	}
	_, known, err := s.dir.LookupChunks(ctx, ids)
	if err != nil {
		return fmt.Errorf("look up %d chunks: %w", len(ids), err)
	}
	for i := range ids {
		if i >= len(known) || !known[i] {
			return bad
		}
	}
	return nil
}

// seal names the object and uploads it, if there is anything in it.
func (w *rewriter) seal(ctx context.Context) error {
	g := w.g
	if w.g = nil; g == nil || g.Chunks() == 0 {
		return nil
	}
	id, err := w.s.newName(ctx)
	if err != nil {
		return err
	}
	object, f := g.Seal(id)
	if _, err := w.s.bucket.Put(ctx, pack.Key(id), object); err != nil {
		return fmt.Errorf("upload %s: %w", pack.Key(id), err)
	}
	w.buf = object[:0] // but not after an error: a request that was given up may still be reading it
	made := RewrittenObject{ID: id, Bytes: f.Bytes}
	for i := range f.Sections {
		made.Layouts = append(made.Layouts, f.NewPack(&f.Sections[i]).Layout)
	}
	w.res.Objects = append(w.res.Objects, made)
	w.s.m.rewritten.Inc()
	w.s.m.rewrittenPacks.Add(len(f.Sections))
	return nil
}

// newName returns a name that no object has had, in the upload epoch of this moment.
func (s *Store) newName(ctx context.Context) (pack.ID, error) {
	epoch, err := s.dir.UploadEpoch(ctx)
	if err != nil {
		return pack.ID{}, fmt.Errorf("name a new pack: %w", err)
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return pack.ID{}, fmt.Errorf("name a new pack: %w", err)
	}
	return pack.ID{Epoch: epoch, Rand: binary.LittleEndian.Uint64(random[:])}, nil
}
