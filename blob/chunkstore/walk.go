package chunkstore

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/pack"
)

// walker reads many frames once, in the order in which they lie, with one GET ahead
// of the one whose frames are being looked at.
type walker struct {
	s      *Store
	budget func(ctx context.Context, bytes int64) error // nil = no limit
	read   int64                                        // compressed bytes asked for
}

// walk calls each for every frame, with its bytes or with the error that kept them
// away, until each returns an error. The bytes are valid until each returns. Damage of
// one frame does not keep the others away.
func (w *walker) walk(ctx context.Context, frames []*fetched, each func(f *fetched, data []byte, err error) error) error {
	all := make(map[frameKey]*fetched, len(frames))
	for _, f := range frames {
		f.users.Store(1)
		all[frameKey{f.view, f.n}] = f
	}
	extents := w.s.extents(all)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	start := func(e *extent) error {
		if err := w.spend(ctx, e); err != nil {
			return err
		}
		wg.Go(func() { e.run(ctx) })
		return nil
	}
	for i, e := range extents {
		if i == 0 {
			if err := start(e); err != nil {
				return err
			}
		}
		if i+1 < len(extents) {
			if err := start(extents[i+1]); err != nil {
				return err
			}
		}
		for _, f := range e.frames {
			data, err := f.wait(ctx)
			if err != nil && damaged(err) && len(e.frames) > 1 {
				f, data, err = w.alone(ctx, f) // the damage may be in another frame
			}
			if err := each(f, data, err); err != nil {
				return err
			}
			f.release(&w.s.buffers)
		}
	}
	return nil
}

func (w *walker) spend(ctx context.Context, e *extent) error {
	first, last := e.frames[0].frame(), e.frames[len(e.frames)-1].frame()
	n := last.Offset + last.Size - first.Offset
	w.read += n
	if w.budget == nil {
		return nil
	}
	return w.budget(ctx, n)
}

// alone fetches a frame by itself.
func (w *walker) alone(ctx context.Context, f *fetched) (*fetched, []byte, error) {
	again := newFetched(f.view, f.n)
	again.users.Store(1)
	e := &extent{s: w.s, frames: []*fetched{again}}
	if err := w.spend(ctx, e); err != nil {
		return again, nil, err
	}
	e.run(ctx)
	data, err := again.wait(ctx)
	return again, data, err
}

// damaged reports whether err says that the object is not what it was, and not only
// that it could not be read.
func damaged(err error) bool {
	if _, ok := errors.AsType[*pack.CorruptError](err); ok {
		return true
	}
	return tooShort(err)
}

// tooShort reports whether err says that an object ends before it should.
func tooShort(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) && blob.KindOf(err) == blob.KindOther
}
