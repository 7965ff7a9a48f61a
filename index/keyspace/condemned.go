package keyspace

import (
	"encoding/binary"
	"fmt"
	"sort"

	"github.com/celler/celler/blob/chunk"
)

// Condemned marks what is dead in a pack. A push that found a chunk alive when
// it looked is refused if the row says otherwise by the time it commits: that is
// what makes removal a check and not a race.
type Condemned struct {
	Pack   chunk.PackID // of the key
	Bytes  int64        // plain bytes of the dead chunks
	Ranges []Range      // ascending, disjoint, not touching
	// Purge: what is dead here is to be gone from the bucket, however little it is.
	Purge bool
}

// purgeVersion is that of a row with Purge.
const purgeVersion = 2

// Range is Count chunks of a pack from position First on.
type Range struct{ First, Count uint32 }

// Overlaps reports whether any of count chunks from first on is dead.
func (c *Condemned) Overlaps(first, count uint32) bool {
	i := sort.Search(len(c.Ranges), func(i int) bool {
		return uint64(c.Ranges[i].First)+uint64(c.Ranges[i].Count) > uint64(first)
	})
	return i < len(c.Ranges) && uint64(c.Ranges[i].First) < uint64(first)+uint64(count)
}

// Valid reports what is wrong with the row, if anything.
func (c *Condemned) Valid() error {
	if c.Bytes < 0 || c.Bytes > maxSize {
		return fmt.Errorf("condemned of pack %v: %d dead bytes, want 0..%d", c.Pack, c.Bytes, int64(maxSize))
	}
	if len(c.Ranges) == 0 && !c.Purge {
		return fmt.Errorf("condemned of pack %v: no range", c.Pack)
	}
	end := uint64(0)
	for i, r := range c.Ranges {
		if r.Count == 0 || i > 0 && uint64(r.First) <= end || uint64(r.First)+uint64(r.Count) > chunk.MaxPackChunks {
			return fmt.Errorf("condemned of pack %v: range %d is %d+%d after %d, want some apart and up to %d", c.Pack, i, r.First, r.Count, end, chunk.MaxPackChunks)
		}
		end = uint64(r.First) + uint64(r.Count)
	}
	return nil
}

// Chunks returns how many chunks are dead.
func (c *Condemned) Chunks() (n int64) {
	for _, r := range c.Ranges {
		n += int64(r.Count)
	}
	return n
}

// AppendCondemnedKey appends the key of the row for a pack.
func AppendCondemnedKey(dst []byte, id chunk.PackID) []byte {
	return appendPackID(append(dst, CondemnedPrefix), id)
}

// DecodeCondemnedKey returns the pack in the key.
func DecodeCondemnedKey(key []byte) (chunk.PackID, error) {
	rest, ok := cutPrefix(key, CondemnedPrefix, packIDLen)
	if !ok {
		return chunk.PackID{}, keyError("condemned", key)
	}
	return decodePackID(rest), nil
}

// AppendCondemned appends the value of c, which must be valid.
func AppendCondemned(dst []byte, c *Condemned) []byte {
	if c.Purge {
		dst = append(dst, purgeVersion)
	} else {
		dst = append(dst, rowVersion)
	}
	dst = binary.AppendUvarint(dst, uint64(c.Bytes))
	dst = binary.AppendUvarint(dst, uint64(len(c.Ranges)))
	end := uint32(0)
	for _, r := range c.Ranges {
		dst = binary.AppendUvarint(dst, uint64(r.First-end))
		dst = binary.AppendUvarint(dst, uint64(r.Count))
		end = r.First + r.Count
	}
	return dst
}

// DecodeCondemned decodes the row of one pack.
func DecodeCondemned(key, value []byte) (Condemned, error) {
	id, err := DecodeCondemnedKey(key)
	if err != nil {
		return Condemned{}, err
	}
	d := decoder[[]byte]{what: "condemned", src: value}
	c := Condemned{Pack: id, Purge: d.versionUpTo(purgeVersion) == purgeVersion, Bytes: int64(d.upTo(maxSize, "dead bytes"))}
	if n := d.count(2); n > 0 {
		c.Ranges = make([]Range, n)
	}
	end := uint32(0)
	for i := range c.Ranges {
		c.Ranges[i].First = end + uint32(d.upTo(chunk.MaxPackChunks, "gap"))
		c.Ranges[i].Count = uint32(d.upTo(chunk.MaxPackChunks, "length of a range"))
		end = c.Ranges[i].First + c.Ranges[i].Count
	}
	if err := d.end(); err != nil {
		return Condemned{}, err
	}
	if err := c.Valid(); err != nil {
		return Condemned{}, fmt.Errorf("decode condemned row: %w", err)
	}
	return c, nil
}
