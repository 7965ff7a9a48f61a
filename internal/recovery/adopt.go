package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
	"github.com/celler/celler/index/keyspace"
)

// footersAtOnce is how many footers are in memory at once, but for those of packs that
// were moved.
const footersAtOnce = 256

// listPacks returns the objects that hold packs, with their lengths, and the highest
// upload epoch in their names.
func (s *state) listPacks(ctx context.Context) (objects map[chunk.PackID]int64, epoch uint32, err error) {
	s.o.Progress("listing packs")
	objects = map[chunk.PackID]int64{}
	for info, err := range s.data.List(ctx, pack.Prefix, "") {
		if err != nil {
			return nil, 0, fmt.Errorf("list packs: %w", err)
		}
		if id, err := pack.ParseKey(info.Key); err == nil {
			objects[id] = info.Size
			epoch = max(epoch, id.Epoch)
		}
	}
	return objects, epoch, nil
}

// repoint finds packs that the state believes in objects that are not there: they may
// have been moved in lost slots. Objects that need no look are taken out of objects.
func (s *state) repoint(ctx context.Context, objects map[chunk.PackID]int64) error {
	s.gone = map[chunk.PackID]bool{}
	known := map[chunk.PackID]bool{}
	for row, err := range s.db.Scan([]byte{keyspace.PackPrefix}, nil) {
		if err != nil {
			return err
		}
		l, err := keyspace.DecodePack(row.Key, row.Value)
		if err != nil {
			return err
		}
		if _, there := objects[l.Where()]; !there {
			s.gone[l.ID] = true
		} else if !l.Moved() { // what else lies in an object that packs were moved into is looked up
			known[l.Where()] = true
		}
	}
	for row, err := range s.db.Scan([]byte{keyspace.BuriedPrefix}, nil) {
		if err != nil {
			return err
		}
		o, err := keyspace.DecodeBuried(row.Key, row.Value)
		if err != nil {
			return err
		}
		delete(objects, o.Object) // nothing in it is wanted
	}
	if s.lacksRows() {
		return ctx.Err() // chunks of known packs may be missing
	}
	for id := range known {
		delete(objects, id)
	}
	return ctx.Err()
}

// lacksRows reports whether rows of any kind may be missing, because tables are.
func (s *state) lacksRows() bool { return s.base.snapshot != nil && !s.complete(&s.base) }

// adopt reads the footers of objects that the state does not know, and makes their
// packs known. A pack in an object of its own has all its chunks, so that one comes
// first, and of several objects that it was moved into the one with most of it.
func (s *state) adopt(ctx context.Context, b *entries, objects map[chunk.PackID]int64, res *Result) error {
	s.o.Progress("reading the footers of packs")
	ids := make([]chunk.PackID, 0, len(objects))
	for id := range objects {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, chunk.PackID.Compare)
	moved := map[chunk.PackID]chunk.NewPack{}
	for part := range slices.Chunk(ids, footersAtOnce) {
		footers := make([]pack.Footer, len(part))
		err := each(ctx, len(part), func(ctx context.Context, i int) (err error) {
			footers[i], err = s.footer(ctx, part[i], objects[part[i]])
			return err
		})
		if err != nil {
			return err
		}
		for i := range footers {
			if len(footers[i].Sections) == 0 {
				res.Unreadable++
			}
			for j := range footers[i].Sections {
				p := footers[i].NewPack(&footers[i].Sections[j])
				if !p.Layout.Moved() {
					if err := s.bring(ctx, b, &p, res); err != nil {
						return err
					}
				} else if old, ok := moved[p.Layout.ID]; !ok || live(&p) > live(&old) {
					moved[p.Layout.ID] = p
				}
			}
		}
	}
	if err := b.flush(); err != nil {
		return err
	}
	ids = ids[:0]
	for id := range moved {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, chunk.PackID.Compare)
	for _, id := range ids {
		p := moved[id]
		if err := s.bring(ctx, b, &p, res); err != nil {
			return err
		}
	}
	return nil
}

// footer reads a footer; that of an object whose footer cannot be read has no sections.
func (s *state) footer(ctx context.Context, id chunk.PackID, size int64) (f pack.Footer, err error) {
	for range readAttempts {
		if f, err = pack.ReadFooter(ctx, s.data, id, size); err == nil {
			return f, nil
		}
		if errors.Is(err, blob.ErrNotExist) {
			_, err = absent(ctx, s.data, pack.Key(id))
			return pack.Footer{}, err // deleted since it was listed
		}
		var corrupt *pack.CorruptError
		if !errors.As(err, &corrupt) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return f, err
		}
	}
	s.o.Logger.Warn("a pack cannot be adopted", "pack", id.String(), "err", err)
	return pack.Footer{}, nil
}

func live(p *chunk.NewPack) (n int) {
	for _, size := range p.Layout.Sizes {
		if size > 0 {
			n++
		}
	}
	return n
}

// bring writes the rows of a pack that is not known, or known to lie where nothing is.
func (s *state) bring(ctx context.Context, b *entries, p *chunk.NewPack, res *Result) error {
	id := p.Layout.ID
	value, known, err := s.db.Get(keyspace.AppendPackKey(nil, id))
	switch {
	case err != nil:
		return err
	case known && !s.gone[id]:
		if !s.lacksRows() {
			return nil
		}
		if p.Layout, err = keyspace.DecodePack(keyspace.AppendPackKey(nil, id), value); err != nil || len(p.Layout.Sizes) != len(p.IDs) {
			return err
		}
		return s.bringChunks(b, p)
	case known:
		l, err := keyspace.DecodePack(keyspace.AppendPackKey(nil, id), value)
		if err != nil {
			return err
		}
		if _, err := absent(ctx, s.data, pack.Key(l.Where())); err != nil {
			return err
		}
		delete(s.gone, id)
		res.Moved++
	default:
		res.Packs++
	}
	if err := b.set(keyspace.AppendPackKey(nil, id), keyspace.AppendPack(nil, &p.Layout)); err != nil {
		return err
	}
	if p.Layout.Moved() {
		if err := s.bringObject(b, &p.Layout); err != nil {
			return err
		}
	}
	return s.bringChunks(b, p)
}

// bringObject adds a pack to the row of the object that it was moved into.
func (s *state) bringObject(b *entries, l *chunk.Layout) error {
	if err := b.flush(); err != nil { // it may be in there already with another pack
		return err
	}
	key := keyspace.AppendObjectKey(nil, l.Object)
	o := keyspace.Object{ID: l.Object}
	value, ok, err := s.db.Get(key)
	if err != nil {
		return err
	}
	if ok {
		if o, err = keyspace.DecodeObject(key, value); err != nil {
			return err
		}
	}
	o.Bytes = l.Bytes
	if i, found := slices.BinarySearchFunc(o.Packs, l.ID, chunk.PackID.Compare); !found {
		o.Packs = slices.Insert(o.Packs, i, l.ID)
	}
	return b.set(key, keyspace.AppendObject(nil, &o))
}

// bringChunks makes the chunks of a pack known of which there is no row. What is a hole
// of a moved pack is condemned: recipes that name it are found to be broken. What was
// condemned already stays so.
func (s *state) bringChunks(b *entries, p *chunk.NewPack) error {
	key := keyspace.AppendCondemnedKey(nil, p.Layout.ID)
	c := keyspace.Condemned{Pack: p.Layout.ID}
	value, ok, err := s.db.Get(key)
	if err != nil {
		return err
	}
	if ok {
		if c, err = keyspace.DecodeCondemned(key, value); err != nil {
			return err
		}
	}
	for i, id := range p.IDs {
		if p.Layout.Sizes[i] == 0 || c.Overlaps(uint32(i), 1) {
			continue
		}
		key := keyspace.AppendChunkKey(nil, id)
		if _, ok, err := s.db.Get(key); err != nil {
			return err
		} else if ok {
			continue
		}
		if err := b.set(key, keyspace.AppendChunk(nil, chunk.Location{Pack: p.Layout.ID, Index: uint32(i)}, chunk.Proof{})); err != nil {
			return err
		}
	}
	holes := p.Layout.Holes()
	if len(holes) == 0 {
		return nil
	}
	c.Ranges = union(c.Ranges, holes)
	return b.set(key, keyspace.AppendCondemned(nil, &c))
}

// union returns ranges that neither overlap nor touch.
func union(a []keyspace.Range, b []chunk.Range) []keyspace.Range {
	all := slices.Clone(a)
	for _, r := range b {
		all = append(all, keyspace.Range(r))
	}
	slices.SortFunc(all, func(x, y keyspace.Range) int { return cmp.Compare(x.First, y.First) })
	var out []keyspace.Range
	for _, r := range all {
		if n := len(out); n > 0 && r.First <= out[n-1].First+out[n-1].Count {
			out[n-1].Count = max(out[n-1].First+out[n-1].Count, r.First+r.Count) - out[n-1].First
			continue
		}
		out = append(out, r)
	}
	return out
}
