package recovery

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"

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
		func() error { return s.forgetTimes(b) },
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
	for _, prefix := range []byte{keyspace.PathPrefix, keyspace.LastUsePrefix, keyspace.UseOrderPrefix, keyspace.PinPrefix} {
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
	if err := s.forgetTotals(b); err != nil {
		return err
	}
	return s.raise(b, keyspace.NextCacheID, uint32(highest)+1)
}

// forgetTotals takes out the totals of all caches. Until they were counted again nothing
// is collected: counts of a NAR's paths may be too low.
func (s *state) forgetTotals(b *entries) error {
	for row, err := range s.db.Scan([]byte{keyspace.TotalsPrefix}, nil) {
		if err != nil {
			return err
		}
		if id, err := keyspace.DecodeTotalsKey(row.Key); err != nil {
			return err
		} else if id == 0 {
			continue // the store's are only shown
		}
		if err := b.add(wal.Entry{Kind: wal.Delete, Key: row.Key}); err != nil {
			return err
		}
	}
	return nil
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

// forgetTimes takes out when the days of the store ended: what was used in lost slots
// would look as if it was not. Everything is as if used today.
func (s *state) forgetTimes(b *entries) error {
	for row, err := range s.db.Scan([]byte{keyspace.DayPrefix}, nil) {
		if err == nil {
			err = b.add(wal.Entry{Kind: wal.Delete, Key: row.Key})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
