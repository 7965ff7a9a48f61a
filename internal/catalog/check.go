package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// BadRow is a row that cannot be, whatever the others say.
type BadRow struct {
	Row     string // which, for people
	Problem string
}

// CheckRows decodes every row but those of chunks, for which there is AllChunks, and looks
// whether what it belongs to is there: the cache of a path, the pin of a revision. yield is
// told of each that is wrong until it returns false. It goes on after a row that does
// not decode, as nothing else here does. rows is how many it has looked at.
func (s *Snapshot) CheckRows(ctx context.Context, yield func(BadRow) bool) (rows int64, err error) {
	c := &rowCheck{s: s, caches: make(map[CacheID]string)}
	if c.day, err = counter(s.view, keyspace.OpenDay); err != nil {
		c.day = ^uint32(0) // told when the row's turn comes
	}
	for prefix := range 256 {
		if prefix == keyspace.ChunkPrefix {
			continue
		}
		for row, err := range s.view.Scan([]byte{byte(prefix)}, nil) {
			if err == nil && rows%1024 == 0 {
				err = ctx.Err()
			}
			if err != nil {
				return rows, err
			}
			rows++
			if err := c.check(row); err != nil && !yield(BadRow{Row: nameRow(row.Key), Problem: err.Error()}) {
				return rows, nil
			}
		}
	}
	return rows, nil
}

// AllChunks yields where chunks lie, in the order of their ids, and passes over rows that
// do not decode after it has told bad.
func (s *Snapshot) AllChunks(bad func(BadRow)) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		for row, err := range s.view.Scan([]byte{keyspace.ChunkPrefix}, nil) {
			if err != nil {
				yield(Chunk{}, fmt.Errorf("read the chunks: %w", err))
				return
			}
			c, err := keyspace.DecodeChunk(row.Key, row.Value)
			if err != nil {
				bad(BadRow{Row: nameRow(row.Key), Problem: err.Error()})
				continue
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

func nameRow(key []byte) string {
	kind := keyspace.Kind(key)
	if kind == "" {
		kind = "unknown"
	}
	return fmt.Sprintf("%s row %.80x", kind, key)
}

// rowCheck is what a check has to remember from one row to the next.
type rowCheck struct {
	s      *Snapshot
	day    uint32
	caches map[CacheID]string // what has been met of caches, destroyed ones too
}

// check says what is wrong with a row, if anything. Rows come in the order of their keys,
// so that caches come before all that is keyed by their numbers.
func (c *rowCheck) check(row wal.KV) error {
	key, value := row.Key, row.Value
	switch key[0] {
	case keyspace.CachePrefix, keyspace.DestroyedPrefix:
		return c.cache(key, value)
	case keyspace.PathPrefix:
		cache, hashPart, err := keyspace.DecodePathKey(key)
		if err != nil {
			return err
		}
		p, err := keyspace.DecodePath(key, value)
		if err == nil && p.StorePath.HashPart() != hashPart {
			err = fmt.Errorf("the path is %v", p.StorePath)
		}
		return c.of(cache, err)
	case keyspace.LastUsePrefix:
		u, err := keyspace.DecodeLastUse(key, value)
		return c.of(u.Cache, err)
	case keyspace.UseOrderPrefix:
		u, err := keyspace.DecodeUseOrder(key, value)
		return c.of(u.Cache, err)
	case keyspace.TotalsPrefix:
		t, err := keyspace.DecodeTotals(key, value)
		if t.Cache == 0 {
			return err
		}
		return c.of(t.Cache, err)
	case keyspace.PinPrefix:
		return c.pin(key, value)
	case keyspace.DayPrefix:
		y, err := keyspace.DecodeDay(key, value)
		if err == nil && y.Number >= c.day {
			err = fmt.Errorf("day %d is over, and the open day is %d", y.Number, c.day)
		}
		return err
	case keyspace.CounterPrefix:
		_, err := keyspace.DecodeCount(key, value)
		return err
	case keyspace.RecipePrefix:
		k, err := keyspace.DecodeRecipeKey(key)
		if err == nil && k.Part == 0 {
			_, err = keyspace.DecodeRecipeHead(value)
		}
		return err
	}
	return decodeOther(key, value)
}

var errNoSuchRow = errors.New("this celler knows no such row")

// decodeOther decodes rows that stand for themselves.
func decodeOther(key, value []byte) (err error) {
	switch key[0] {
	case keyspace.BuriedPrefix:
		_, err = keyspace.DecodeBuried(key, value)
	case keyspace.FormerPrefix:
		_, err = keyspace.DecodeFormer(key, value)
	case keyspace.GrowthPrefix:
		_, err = keyspace.DecodeGrowth(key, value)
	case keyspace.TouchPrefix:
		_, err = keyspace.DecodeTouch(key, value)
	case keyspace.PackPrefix:
		_, err = keyspace.DecodePack(key, value)
	case keyspace.MarkPrefix:
		_, err = keyspace.DecodeMark(key, value)
	case keyspace.NarPrefix:
		_, err = keyspace.DecodeNar(key, value)
	case keyspace.ObjectPrefix:
		_, err = keyspace.DecodeObject(key, value)
	case keyspace.SecretPrefix:
		_, err = keyspace.DecodeSecret(key, value)
	case keyspace.VerifiedPrefix:
		_, err = keyspace.DecodeVerified(key, value)
	case keyspace.UnreferencedPrefix:
		_, err = keyspace.DecodeUnreferenced(key, value)
	case keyspace.CondemnedPrefix:
		_, err = keyspace.DecodeCondemned(key, value)
	case keyspace.RoundPrefix:
		_, err = keyspace.DecodeRound(key, value)
	case keyspace.UploadPrefix:
		_, err = keyspace.DecodeUpload(key, value)
	case keyspace.ListingPrefix:
		_, err = keyspace.DecodeListing(key, value)
	case keyspace.SidePrefix:
		_, err = keyspace.DecodeSide(key, value)
	case '!', '~': // the log's
	default:
		err = errNoSuchRow
	}
	return err
}

// cache checks that a number means one cache, or one that was destroyed.
func (c *rowCheck) cache(key, value []byte) error {
	var id CacheID
	var name string
	if key[0] == keyspace.CachePrefix {
		row, err := keyspace.DecodeCache(key, value)
		if err != nil {
			return err
		}
		id, name = row.ID, fmt.Sprintf("cache %q", string(row.Name))
	} else {
		row, err := keyspace.DecodeDestroyed(key, value)
		if err != nil {
			return err
		}
		id, name = row.ID, fmt.Sprintf("destroyed cache %q", string(row.Name))
	}
	next, err := counter(c.s.view, keyspace.NextCacheID)
	if err == nil && uint32(id) >= next {
		err = fmt.Errorf("its number is %d, and the next cache gets %d", id, next)
	}
	if before := c.caches[id]; before != "" && err == nil {
		err = fmt.Errorf("its number %d is that of %s, too", id, before)
	}
	c.caches[id] = name
	return err
}

// of checks that there is a cache of the number in a row.
func (c *rowCheck) of(id CacheID, err error) error {
	if err == nil && c.caches[id] == "" {
		err = fmt.Errorf("there is no cache %d", id)
	}
	return err
}

func (c *rowCheck) pin(key, value []byte) error {
	cache, name, number, err := keyspace.DecodePinKey(key)
	if err != nil {
		return err
	}
	if number == 0 {
		_, err = keyspace.DecodePin(key, value)
		return c.of(cache, err)
	}
	if _, err = keyspace.DecodePinRevision(key, value); err != nil {
		return err
	}
	pin, ok, err := read(c.s.view, keyspace.AppendPinKey(nil, cache, name), keyspace.DecodePin)
	switch {
	case err != nil:
		return nil // told when its turn came
	case !ok:
		return fmt.Errorf("there is no pin %q in cache %d", name, cache)
	case pin.Newest < number:
		return fmt.Errorf("it is revision %d, and the newest of pin %q is %d", number, name, pin.Newest)
	}
	return nil
}
