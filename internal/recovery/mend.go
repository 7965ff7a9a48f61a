package recovery

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// batchEntries is how many entries are applied at once.
const batchEntries = 20_000

// generationGap is how far a lost history's collections are outrun.
const generationGap = 1 << 16

// mend makes the numbers of a state that lacks slots outrun what the lost ones may have
// counted to, takes out what nothing leads to, and adopts packs.
func (s *state) mend(ctx context.Context, res *Result) error {
	b := &entries{state: s}
	if _, err := io.ReadFull(s.o.Env.Rand, b.writer[:]); err != nil {
		return fmt.Errorf("draw a writer id: %w", err)
	}
	objects, epoch, err := s.listPacks(ctx)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return s.mendCaches(b, res) },
		func() error { return s.mendMark(b) },
		func() error { return s.raise(b, keyspace.UploadEpoch, epoch+1) },
		func() error { return s.repoint(ctx, objects) },
		func() error { return s.adopt(ctx, b, objects, res) },
		b.flush,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// entries gathers what is to be applied.
type entries struct {
	*state
	writer wal.WriterID
	batch  uint64
	list   []wal.Entry
}

func (b *entries) set(key, value []byte) error {
	return b.add(wal.Entry{Kind: wal.Set, Key: key, Value: value})
}

func (b *entries) add(e wal.Entry) error {
	if b.list = append(b.list, e); len(b.list) < batchEntries {
		return nil
	}
	return b.flush()
}

func (b *entries) flush() error {
	if len(b.list) == 0 {
		return nil
	}
	b.batch++
	err := b.apply(b.writer, b.batch, b.list)
	b.list = nil
	return err
}

// mendCaches takes out the rows of caches of which there is no row any more, and makes
// sure that no new cache gets the number of one of them.
func (s *state) mendCaches(b *entries, res *Result) error {
	known := map[keyspace.CacheID]bool{}
	highest := keyspace.CacheID(0)
	for row, err := range s.db.Scan([]byte{keyspace.CachePrefix}, nil) {
		if err != nil {
			return err
		}
		c, err := keyspace.DecodeCache(row.Key, row.Value)
		if err != nil {
			return err
		}
		known[c.ID], highest = true, max(highest, c.ID)
	}
	for row, err := range s.db.Scan([]byte{keyspace.DestroyedPrefix}, nil) {
		if err != nil {
			return err
		}
		id, err := keyspace.DecodeDestroyedKey(row.Key)
		if err != nil {
			return err
		}
		known[id], highest = true, max(highest, id)
	}
	for _, prefix := range []byte{keyspace.PathPrefix, keyspace.LastUsePrefix, keyspace.UseOrderPrefix, keyspace.PinPrefix, keyspace.TotalsPrefix} {
		for row, err := range s.db.Scan([]byte{prefix}, nil) {
			if err != nil {
				return err
			}
			if len(row.Key) < 5 {
				continue
			}
			id := keyspace.CacheID(binary.BigEndian.Uint32(row.Key[1:]))
			if highest = max(highest, id); known[id] || id == 0 {
				continue
			}
			if prefix == keyspace.PathPrefix {
				res.Dropped++
			}
			if err := b.add(wal.Entry{Kind: wal.Delete, Key: row.Key}); err != nil {
				return err
			}
		}
	}
	return s.raise(b, keyspace.NextCacheID, uint32(highest)+1)
}

// raise makes a counter at least n.
func (s *state) raise(b *entries, which keyspace.Counter, n uint32) error {
	key := keyspace.AppendCounterKey(nil, which)
	value, ok, err := s.db.Get(key)
	if err != nil {
		return err
	}
	have := uint32(keyspace.FirstCount)
	if ok {
		if have, err = keyspace.DecodeCount(key, value); err != nil {
			return err
		}
	}
	if have >= n {
		return nil
	}
	return b.set(key, keyspace.AppendCount(nil, n))
}

// mendMark ends a collection that was running.
func (s *state) mendMark(b *entries) error {
	key := keyspace.AppendMarkKey(nil)
	value, ok, err := s.db.Get(key)
	if err != nil {
		return err
	}
	m := keyspace.Mark{}
	if ok {
		if m, err = keyspace.DecodeMark(key, value); err != nil {
			return err
		}
	}
	m = keyspace.Mark{Generation: min(m.Generation, math.MaxUint32-generationGap) + generationGap}
	return b.set(key, keyspace.AppendMark(nil, &m))
}

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

// repoint sees to packs that the state believes in objects that are not there: they may
// have been moved in lost slots. What it needs to know of other objects it leaves in
// objects, from which those that need no look are taken out.
func (s *state) repoint(ctx context.Context, objects map[chunk.PackID]int64) error {
	gone := map[chunk.PackID]bool{}
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
			gone[l.ID] = true
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
		known[o.Object] = true
	}
	for id := range known {
		delete(objects, id)
	}
	s.gone = gone
	return ctx.Err()
}

// adopt reads the footers of objects that the state does not know, and makes their
// packs known.
func (s *state) adopt(ctx context.Context, b *entries, objects map[chunk.PackID]int64, res *Result) error {
	s.o.Progress("reading the footers of packs")
	ids := make([]chunk.PackID, 0, len(objects))
	for id := range objects {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, chunk.PackID.Compare)
	best := map[chunk.PackID]chunk.NewPack{}
	for part := range slices.Chunk(ids, 256) {
		footers := make([]pack.Footer, len(part))
		err := each(ctx, len(part), func(ctx context.Context, i int) (err error) {
			footers[i], err = s.footer(ctx, part[i], objects[part[i]])
			return err
		})
		if err != nil {
			return err
		}
		for i := range footers {
			for j := range footers[i].Sections {
				p := footers[i].NewPack(&footers[i].Sections[j])
				if old, ok := best[p.Layout.ID]; !ok || live(&p) > live(&old) {
					best[p.Layout.ID] = p
				}
			}
		}
	}
	return s.bring(b, best, res)
}

// footer reads a footer; an object whose footer cannot be read is left alone.
func (s *state) footer(ctx context.Context, id chunk.PackID, size int64) (f pack.Footer, err error) {
	for range readAttempts {
		if f, err = pack.ReadFooter(ctx, s.data, id, size); err == nil {
			return f, nil
		}
		var corrupt *pack.CorruptError
		if !errors.As(err, &corrupt) && !errors.Is(err, blob.ErrNotExist) && !errors.Is(err, io.ErrUnexpectedEOF) {
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

// bring writes the rows of packs that are not known, or known to lie where nothing is.
func (s *state) bring(b *entries, packs map[chunk.PackID]chunk.NewPack, res *Result) error {
	ids := make([]chunk.PackID, 0, len(packs))
	for id := range packs {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, chunk.PackID.Compare)
	objects := map[chunk.PackID]*keyspace.Object{}
	for _, id := range ids {
		p := packs[id]
		_, known, err := s.db.Get(keyspace.AppendPackKey(nil, id))
		if err != nil {
			return err
		}
		switch {
		case known && !s.gone[id]:
			continue
		case known:
			res.Moved++
		default:
			res.Packs++
		}
		if err := b.set(keyspace.AppendPackKey(nil, id), keyspace.AppendPack(nil, &p.Layout)); err != nil {
			return err
		}
		if p.Layout.Moved() {
			o := objects[p.Layout.Object]
			if o == nil {
				o = &keyspace.Object{ID: p.Layout.Object, Bytes: p.Layout.Bytes}
				objects[p.Layout.Object] = o
			}
			o.Packs = append(o.Packs, id)
		}
		if err := s.bringChunks(b, &p); err != nil {
			return err
		}
	}
	for _, o := range objects {
		if err := s.bringObject(b, o); err != nil {
			return err
		}
	}
	return nil
}

// bringObject writes the row of an object that packs were moved into, with those that it
// is known to hold already.
func (s *state) bringObject(b *entries, o *keyspace.Object) error {
	key := keyspace.AppendObjectKey(nil, o.ID)
	value, ok, err := s.db.Get(key)
	if err != nil {
		return err
	}
	if ok {
		old, err := keyspace.DecodeObject(key, value)
		if err != nil {
			return err
		}
		o.Packs = append(o.Packs, old.Packs...)
		slices.SortFunc(o.Packs, chunk.PackID.Compare)
		o.Packs = slices.Compact(o.Packs)
	}
	return b.set(key, keyspace.AppendObject(nil, o))
}

// bringChunks makes the chunks of a pack known of which there is no row. What is a hole
// of a moved pack is condemned: recipes that name it are found to be broken.
func (s *state) bringChunks(b *entries, p *chunk.NewPack) error {
	for i, id := range p.IDs {
		if p.Layout.Sizes[i] == 0 {
			continue
		}
		key := keyspace.AppendChunkKey(nil, id)
		if _, ok, err := s.db.Get(key); err != nil {
			return err
		} else if ok {
			continue
		}
		if err := b.set(key, keyspace.AppendChunk(nil, chunk.Location{Pack: p.Layout.ID, Index: uint32(i)})); err != nil {
			return err
		}
	}
	holes := p.Layout.Holes()
	if len(holes) == 0 {
		return nil
	}
	key := keyspace.AppendCondemnedKey(nil, p.Layout.ID)
	c := keyspace.Condemned{Pack: p.Layout.ID}
	if value, ok, err := s.db.Get(key); err != nil {
		return err
	} else if ok {
		if c, err = keyspace.DecodeCondemned(key, value); err != nil {
			return err
		}
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
