package keyspace

import (
	"encoding/binary"
	"math"
)

// Totals counts what there is in one cache, or in the whole store. It is written by
// the operations that change what it counts.
type Totals struct {
	Cache CacheID // of the key; 0 is the whole store

	Paths       int64 // paths of the cache, or of all caches that are not destroyed
	NarBytes    int64 // of the plain NARs of those paths, a NAR counted for each path
	ServedBytes int64 // of their served forms, likewise
	// What pushes to this cache have brought, since it was created: chunks that were
	// in no pack before, in plain bytes, and the objects they came in.
	BroughtBytes  int64
	BroughtStored int64

	// Of the whole store only.
	Nars         int64 // different NARs that paths name
	NarsBytes    int64 // their plain bytes, each once
	NarsServed   int64 // bytes of their served forms, each once
	Chunks       int64 // chunks in packs that are not condemned
	ChunkBytes   int64 // their plain bytes
	Dead         int64 // condemned chunks of packs that are still known
	DeadBytes    int64 // their plain bytes
	Packs        int64 // packs that are known
	Objects      int64 // objects that hold a living chunk
	StoredBytes  int64 // their length
	Buried       int64 // objects that hold none and are still to be deleted
	BuriedBytes  int64 // their length
	Unreferenced int64 // NARs that have a recipe and that no path names
}

// totalsFields is how many numbers a row may have.
const totalsFields = 18

func (t *Totals) fields() [totalsFields]*int64 {
	return [...]*int64{
		&t.Paths, &t.NarBytes, &t.ServedBytes, &t.BroughtBytes, &t.BroughtStored,
		&t.Nars, &t.NarsBytes, &t.NarsServed, &t.Chunks, &t.ChunkBytes, &t.Dead, &t.DeadBytes,
		&t.Packs, &t.Objects, &t.StoredBytes, &t.Buried, &t.BuriedBytes, &t.Unreferenced,
	}
}

// Add adds the numbers of u to those of t. What would be less than nothing is nothing.
func (t *Totals) Add(u *Totals) {
	t.Shift(u)
	for _, f := range t.fields() {
		*f = max(0, *f)
	}
}

// Shift adds the numbers of u, which may be negative, to those of t, which may become so.
func (t *Totals) Shift(u *Totals) {
	from := u.fields()
	for i, f := range t.fields() {
		*f += *from[i]
	}
}

// Negate turns all numbers around.
func (t *Totals) Negate() {
	for _, f := range t.fields() {
		*f = -*f
	}
}

// AppendTotalsKey appends the key of the row of a cache.
func AppendTotalsKey(dst []byte, cache CacheID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, TotalsPrefix), uint32(cache))
}

// DecodeTotalsKey returns the cache in the key.
func DecodeTotalsKey(key []byte) (CacheID, error) {
	rest, ok := cutPrefix(key, TotalsPrefix, 4)
	if !ok {
		return 0, keyError("totals", key)
	}
	return CacheID(binary.BigEndian.Uint32(rest)), nil
}

// AppendTotals appends the value of t, none of whose numbers may be negative. Zeros at
// the end are left out.
func AppendTotals(dst []byte, t *Totals) []byte {
	dst = append(dst, rowVersion)
	fields := t.fields()
	n := len(fields)
	for n > 0 && *fields[n-1] == 0 {
		n--
	}
	dst = append(dst, byte(n))
	for _, f := range fields[:n] {
		dst = binary.AppendUvarint(dst, uint64(*f))
	}
	return dst
}

// DecodeTotals decodes the row of one cache.
func DecodeTotals(key, value []byte) (Totals, error) {
	cache, err := DecodeTotalsKey(key)
	if err != nil {
		return Totals{}, err
	}
	t := Totals{Cache: cache}
	d := decoder[[]byte]{what: "totals", src: value}
	d.version()
	n := int(d.byte())
	fields := t.fields()
	if n > len(fields) {
		d.fail("%d numbers, want at most %d", n, len(fields))
		n = 0
	}
	for i, f := range fields[:n] {
		if *f = int64(d.upTo(math.MaxInt64, "a number")); i == n-1 && *f == 0 {
			d.fail("the last number is 0")
		}
	}
	if err := d.end(); err != nil {
		return Totals{}, err
	}
	return t, nil
}

// Growth is what came to a cache and went from it on one store day.
type Growth struct {
	Day   uint32  // of the key
	Cache CacheID // of the key

	AddedPaths, AddedBytes     int64 // plain bytes
	RemovedPaths, RemovedBytes int64
}

// Add adds the numbers of h to those of g.
func (g *Growth) Add(h *Growth) {
	g.AddedPaths += h.AddedPaths
	g.AddedBytes += h.AddedBytes
	g.RemovedPaths += h.RemovedPaths
	g.RemovedBytes += h.RemovedBytes
}

// AppendGrowthKey appends the key of the row of a day and cache.
func AppendGrowthKey(dst []byte, day uint32, cache CacheID) []byte {
	return binary.BigEndian.AppendUint32(AppendGrowthPrefix(dst, day), uint32(cache))
}

// AppendGrowthPrefix appends what the keys of a day begin with.
func AppendGrowthPrefix(dst []byte, day uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, GrowthPrefix), day)
}

// AppendGrowth appends the value of g, none of whose numbers may be negative.
func AppendGrowth(dst []byte, g *Growth) []byte {
	dst = append(dst, rowVersion)
	for _, n := range [...]int64{g.AddedPaths, g.AddedBytes, g.RemovedPaths, g.RemovedBytes} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

// DecodeGrowth decodes the row of one day and cache.
func DecodeGrowth(key, value []byte) (Growth, error) {
	rest, ok := cutPrefix(key, GrowthPrefix, 4+4)
	if !ok {
		return Growth{}, keyError("growth", key)
	}
	g := Growth{Day: binary.BigEndian.Uint32(rest), Cache: CacheID(binary.BigEndian.Uint32(rest[4:]))}
	d := decoder[[]byte]{what: "growth", src: value}
	d.version()
	for _, f := range [...]*int64{&g.AddedPaths, &g.AddedBytes, &g.RemovedPaths, &g.RemovedBytes} {
		*f = int64(d.upTo(math.MaxInt64, "a number"))
	}
	if g.Day == 0 || g.Cache == 0 {
		d.fail("there is no day 0 and no cache 0")
	}
	if err := d.end(); err != nil {
		return Growth{}, err
	}
	return g, nil
}
