package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
)

// VerifyJob says what of an object is to be verified.
type VerifyJob struct {
	// Layouts are the packs that lie in the object, as the index has them; all must
	// name the same object.
	Layouts []chunk.Layout
	// Budget is called before so many bytes are read. It may wait, and its error ends
	// the Verify. Nil = no limit.
	Budget func(ctx context.Context, bytes int64) error
}

// Damage is a part of a pack that cannot be read any more, or reads as something else.
type Damage struct {
	Pack  chunk.PackID
	Range chunk.Range // the chunks that are lost; holes may be among them
	Err   error       // a *pack.CorruptError
}

// VerifyReport is what Verify found.
type VerifyReport struct {
	Damage []Damage
	// Footer says what is wrong with the footer, if anything. NARs that use parts of
	// frames cannot be served without it; Rewrite makes a new one.
	Footer error

	Bytes  int64 // compressed bytes of frames read
	Frames int
	Chunks int // whose SHA-256 is right
}

// Verify reads all frames of an object and its footer and compares them with the
// layouts: the checksum of every frame, the SHA-256 of every chunk. If the footer is
// damaged, the index must know the chunks by what their bytes hash to. What was found
// damaged was read several times. An error says nothing about the object, but
// blob.ErrNotExist that it was not there; Absent makes sure of that.
func (s *Store) Verify(ctx context.Context, job VerifyJob) (VerifyReport, error) {
	v := &verifier{s: s, walker: walker{s: s, budget: job.Budget}}
	err := v.run(ctx, job.Layouts)
	v.rep.Bytes = v.walker.read
	if err != nil {
		return v.rep, fmt.Errorf("verify pack: %w", err)
	}
	return v.rep, nil
}

// verifier is one Verify.
type verifier struct {
	s      *Store
	walker walker
	rep    VerifyReport
	ids    map[chunk.PackID]sectionIDs
	short  error // that the object is too short, once that is certain
	end    int64 // of it, then
}

func (v *verifier) run(ctx context.Context, layouts []chunk.Layout) error {
	var frames []*fetched
	for i := range layouts {
		if layouts[i].Where() != layouts[0].Where() {
			return fmt.Errorf("packs %v and %v lie in different objects", layouts[0].ID, layouts[i].ID)
		}
		view, err := newPackView(layouts[i])
		if err != nil {
			return err
		}
		for n, f := range view.Frames {
			if f.Size > 0 {
				frames = append(frames, newFetched(view, n))
			}
		}
	}
	if len(frames) == 0 {
		return nil
	}
	if err := v.footer(ctx, layouts); err != nil {
		return err
	}
	if v.short != nil { // what is beyond its end need not be asked for
		frames = slices.DeleteFunc(frames, func(f *fetched) bool {
			beyond := f.frame().Offset+f.frame().Size > v.end
			if beyond {
				v.rep.Frames++
				v.lost(f.view, f.n, v.short)
			}
			return beyond
		})
	}
	return v.walker.walk(ctx, frames, func(f *fetched, data []byte, err error) error {
		v.rep.Frames++
		if err != nil {
			return v.unread(ctx, f, err)
		}
		return v.frame(ctx, f.view, f.n, data)
	})
}

// footer reads the footer and compares it with the layouts.
func (v *verifier) footer(ctx context.Context, layouts []chunk.Layout) error {
	l := &layouts[0]
	if v.walker.budget != nil {
		if err := v.walker.budget(ctx, max(l.Bytes-l.FooterOffset(), 0)); err != nil {
			return err
		}
	}
	f, err := v.s.again(ctx, int64(len(l.Sizes))*40, func(ctx context.Context) (pack.Footer, error) {
		return pack.ReadFooterOf(ctx, v.s.bucket, l)
	})
	if err != nil && !damaged(err) {
		return err
	}
	if tooShort(err) {
		err = v.confirmShort(ctx, l, err)
		if v.short == nil {
			return err
		}
	}
	v.rep.Footer = err
	sections := sectionsOf(&f) // of one that disagrees, too: it may be right about others
	v.ids = make(map[chunk.PackID]sectionIDs, len(layouts))
	for i := range layouts {
		bad := err
		if f.Sections != nil {
			bad = f.Agrees(&layouts[i])
		}
		if bad == nil {
			v.ids[layouts[i].ID] = sections[layouts[i].ID]
		} else if v.rep.Footer == nil {
			v.rep.Footer = bad
		}
	}
	return nil
}

// confirmShort asks the listing whether the object is shorter than it should be, and
// then notes that; else it returns why it could not be read.
func (v *verifier) confirmShort(ctx context.Context, l *chunk.Layout, err error) error {
	if v.short != nil {
		return v.short
	}
	o, found, listErr := v.s.listed(ctx, l.Where())
	switch {
	case listErr != nil:
		return errors.Join(err, listErr)
	case !found:
		return fmt.Errorf("%s: %w", pack.Key(l.Where()), blob.ErrNotExist)
	case o.Bytes >= l.Bytes:
		return err // it was a transfer that broke off
	}
	v.end = o.Bytes
	v.short = &pack.CorruptError{
		Key: pack.Key(l.Where()), Offset: o.Bytes, What: "length of the object", Expected: fmt.Sprint(l.Bytes), Found: fmt.Sprint(o.Bytes),
	}
	return v.short
}

// unread notes a frame that could not be read, if that is the object's fault.
func (v *verifier) unread(ctx context.Context, f *fetched, err error) error {
	if !damaged(err) {
		return err
	}
	if tooShort(err) {
		err = v.confirmShort(ctx, &f.view.Layout, err)
		if v.short == nil {
			return err
		}
	}
	v.lost(f.view, f.n, err)
	return nil
}

// lost notes that all chunks of a frame are.
func (v *verifier) lost(view *packView, n int, err error) {
	v.rep.Damage = append(v.rep.Damage, Damage{Pack: view.ID, Range: chunk.Range{First: view.firsts[n], Count: view.Frames[n].Chunks}, Err: err})
}

// frame compares the chunks of a frame with their ids.
func (v *verifier) frame(ctx context.Context, view *packView, n int, data []byte) error {
	plain, err := v.s.decodeFrame(view, n, data)
	if err != nil {
		v.lost(view, n, err)
		return nil
	}
	defer func() { v.s.buffers.put(plain) }()
	ids, known := v.ids[view.ID]
	var entries []pack.Entry // to be looked up
	at := 0
	for i := view.firsts[n]; i < view.firsts[n]+view.Frames[n].Chunks; i++ {
		size := int(view.Sizes[i])
		if size == 0 {
			continue
		}
		part := plain[at:][:size]
		at += size
		if !known {
			entries = append(entries, pack.Entry{Index: i, ID: chunk.Sum(part)})
			continue
		}
		id, _ := ids.id(i)
		if err := verify(view, n, i, part, id); err != nil {
			v.rep.Damage = append(v.rep.Damage, Damage{Pack: view.ID, Range: chunk.Range{First: i, Count: 1}, Err: err})
			continue
		}
		v.rep.Chunks++
	}
	if len(entries) == 0 {
		return nil
	}
	return v.lookup(ctx, view, n, entries)
}

// lookup asks the index about chunks whose footer does not tell what they should be.
func (v *verifier) lookup(ctx context.Context, view *packView, n int, entries []pack.Entry) error {
	for i, e := range entries {
		err := v.s.vouch(ctx, entries[i:i+1], v.rep.Footer)
		switch {
		case err == nil:
			v.rep.Chunks++
		case errors.Is(err, v.rep.Footer):
			v.rep.Damage = append(v.rep.Damage, Damage{
				Pack: view.ID, Range: chunk.Range{First: e.Index, Count: 1},
				Err: &pack.CorruptError{
					Key: view.key(), Offset: view.Frames[n].Offset, What: fmt.Sprintf("SHA-256 of chunk %d in frame %d", e.Index, n),
					Expected: "that of a chunk in the index", Found: e.ID.String(),
				},
			})
		default:
			return err
		}
	}
	return nil
}
