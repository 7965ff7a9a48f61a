package chunkstore

import (
	"context"
	"fmt"

	"github.com/celler/celler/blob/pack"
)

// maker makes the stretches of one batch.
type maker struct {
	s       *Store
	plan    *plan
	uses    map[*fetched]int    // stretches still to be made that need the frame
	decoded map[*fetched][]byte // frames that are needed again
}

// stretch decodes the frames of a stretch, checks the chunks it uses against
// their ids, and encodes them anew, or leaves them plain if the plan says so.
func (m *maker) stretch(ctx context.Context, u *pending) ([]byte, error) {
	plain := m.s.buffers.get(u.piece.plain)
	frames := make(map[frameKey][]byte, len(u.frames))
	for _, f := range u.frames {
		data, err := m.decode(ctx, f)
		if err != nil {
			return nil, err
		}
		frames[frameKey{f.view, f.n}] = data
	}
	for _, r := range u.piece.runs {
		var ids sectionIDs
		if !m.plan.trusted {
			var err error
			if ids, err = m.s.ids(ctx, r.view); err != nil {
				return nil, err
			}
		}
		for i := r.first; i < r.first+r.count; {
			n := r.view.frameOf(i)
			from := 0
			for _, size := range r.view.Sizes[r.view.firsts[n]:i] {
				from += int(size)
			}
			for end := min(r.first+r.count, r.view.firsts[n]+r.view.Frames[n].Chunks); i < end; i++ {
				part := frames[frameKey{r.view, n}][from:][:r.view.Sizes[i]]
				if err := m.verify(&ids, r.view, n, i, part); err != nil {
					return nil, err
				}
				plain = append(plain, part...)
				from += len(part)
			}
		}
	}
	for _, f := range u.frames {
		m.done(f)
	}
	if m.plan.encoder == 0 {
		return plain, nil
	}
	enc := m.s.codec.served[m.plan.encoder]
	out := enc.EncodeAll(plain, m.s.buffers.get(int(u.piece.size)+64))
	m.s.buffers.put(plain)
	m.s.m.encoded.AddInt64(int64(u.piece.plain))
	if int64(len(out)) != u.piece.size {
		return nil, fmt.Errorf("encode a stretch of %d bytes again: encoder %d gave %d bytes, %d when it was pushed", u.piece.plain, m.plan.encoder, len(out), u.piece.size)
	}
	return out, nil
}

// verify compares a chunk with its id.
func (m *maker) verify(ids *sectionIDs, v *packView, n int, i uint32, part []byte) error {
	if m.plan.trusted {
		return nil
	}
	id, ok := ids.id(i)
	if !ok {
		return fmt.Errorf("read footer of %s: it has no chunk %d of pack %v", v.key(), i, v.ID)
	}
	return verify(v, n, i, part, id)
}

// decode returns the plain bytes of a frame.
func (m *maker) decode(ctx context.Context, f *fetched) ([]byte, error) {
	if plain, ok := m.decoded[f]; ok {
		return plain, nil
	}
	data, err := f.wait(ctx)
	if err != nil {
		return nil, err
	}
	plain, err := m.s.decodeFrame(f.view, f.n, data)
	if err != nil {
		return nil, err
	}
	m.decoded[f] = plain
	return plain, nil
}

// decodeFrame returns the plain bytes of frame n, in a buffer of the pool.
func (s *Store) decodeFrame(v *packView, n int, data []byte) ([]byte, error) {
	size := v.plain(n)
	plain, err := s.codec.decode(data, s.buffers.get(size+64), size)
	if err != nil {
		return nil, &pack.CorruptError{
			Key: v.key(), Offset: v.Frames[n].Offset, What: fmt.Sprintf("frame %d", n),
			Expected: fmt.Sprintf("a zstd frame of %d plain bytes", size), Found: err.Error(),
		}
	}
	return plain, nil
}

// done gives back a decoded frame that no later stretch needs.
func (m *maker) done(f *fetched) {
	f.release(&m.s.buffers)
	if m.uses[f]--; m.uses[f] == 0 {
		m.s.buffers.put(m.decoded[f])
		delete(m.decoded, f)
	}
}
