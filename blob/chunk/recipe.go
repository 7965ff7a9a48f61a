package chunk

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Recipe is the ordered list of chunks that rebuilds a NAR, as runs of
// neighbouring chunks in packs, and the shape in which the NAR is served.
type Recipe struct {
	Size    int64    // length of the plain NAR in bytes
	NarHash [32]byte // SHA-256 of the plain NAR
	Runs    []Run
	Breaks  []uint32 // positions of chunks before which the served form breaks; see Served
	Served  Served
}

// Run is Count chunks of one pack in the order of the pack, beginning at First.
type Run struct {
	Pack  PackID
	First uint32
	Count uint32
}

// Served fixes the compressed form of a NAR for ever: which encoder makes the
// stretches that no stored frame provides, and how long each of them comes out. A
// stretch or a stored frame does not reach over one of the Recipe's Breaks: there, parts
// that were taken in independently were joined. They ascend, from 1 on.
type Served struct {
	Encoder  uint8    // version of the frozen encoder settings
	Size     int64    // length of the whole served form in bytes
	Segments []uint32 // compressed length of each re-encoded stretch, in order
	FileHash [32]byte // SHA-256 of the served form; zero = unknown
}

// Chunks returns the number of chunks of the NAR.
func (r *Recipe) Chunks() int {
	n := 0
	for _, run := range r.Runs {
		n += int(run.Count)
	}
	return n
}

// Packs returns the packs of the recipe in the order of their first use.
func (r *Recipe) Packs() []PackID {
	var packs []PackID
	seen := make(map[PackID]struct{})
	for _, run := range r.Runs {
		if _, ok := seen[run.Pack]; !ok {
			seen[run.Pack] = struct{}{}
			packs = append(packs, run.Pack)
		}
	}
	return packs
}

const (
	recipeVersion       = 1
	joinedRecipeVersion = 2
)

// AppendRecipe appends the encoding of r described in the package comment: version 2 if
// it has breaks, else version 1.
func AppendRecipe(dst []byte, r *Recipe) []byte {
	if len(r.Breaks) > 0 {
		dst = append(dst, joinedRecipeVersion)
	} else {
		dst = append(dst, recipeVersion)
	}
	dst = binary.AppendUvarint(dst, uint64(r.Size))
	dst = append(dst, r.NarHash[:]...)
	packs := r.Packs()
	places := make(map[PackID]int, len(packs))
	dst = binary.AppendUvarint(dst, uint64(len(packs)))
	for i, id := range packs {
		places[id] = i
		dst = appendPackID(dst, id)
	}
	after := make([]uint32, len(packs))
	dst = binary.AppendUvarint(dst, uint64(len(r.Runs)))
	for _, run := range r.Runs {
		p := places[run.Pack]
		dst = binary.AppendUvarint(dst, uint64(p))
		dst = binary.AppendVarint(dst, int64(run.First)-int64(after[p]))
		dst = binary.AppendUvarint(dst, uint64(run.Count))
		after[p] = run.First + run.Count
	}
	if len(r.Breaks) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(r.Breaks)))
		last := uint32(0)
		for _, at := range r.Breaks {
			dst = binary.AppendUvarint(dst, uint64(at-last))
			last = at
		}
	}
	return appendServed(dst, &r.Served)
}

// DecodeRecipe decodes one recipe and returns the bytes after it. What it
// accepts, [AppendRecipe] would have written.
func DecodeRecipe(src []byte) (Recipe, []byte, error) {
	d := decoder{what: "decode recipe", src: src}
	var r Recipe
	version := d.byte()
	if d.err == nil && version != recipeVersion && version != joinedRecipeVersion {
		d.fail("version is %d, want %d or %d", version, recipeVersion, joinedRecipeVersion)
	}
	r.Size = d.length()
	d.bytes(r.NarHash[:])
	packs := make([]PackID, d.count(9))
	seen := make(map[PackID]struct{}, len(packs))
	for i := range packs {
		packs[i] = d.packID()
		seen[packs[i]] = struct{}{}
	}
	if d.err == nil && len(seen) != len(packs) {
		d.fail("a pack stands in the table twice")
	}
	d.runs(&r, packs)
	if version == joinedRecipeVersion {
		d.breaks(&r)
	}
	d.served(&r.Served)
	if d.err != nil {
		return Recipe{}, nil, d.err
	}
	return r, d.src, nil
}

func appendServed(dst []byte, s *Served) []byte {
	dst = append(dst, s.Encoder)
	dst = binary.AppendUvarint(dst, uint64(s.Size))
	dst = binary.AppendUvarint(dst, uint64(len(s.Segments)))
	for _, n := range s.Segments {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	if s.FileHash == ([32]byte{}) {
		return append(dst, 0)
	}
	return append(append(dst, 1), s.FileHash[:]...)
}

func (d *decoder) runs(r *Recipe, packs []PackID) {
	n := d.count(3)
	if n == 0 {
		if d.err == nil && len(packs) != 0 {
			d.fail("%d packs and no run", len(packs))
		}
		return
	}
	r.Runs = make([]Run, n)
	after := make([]uint32, len(packs))
	next := 0 // packs must appear in the order of first use
	for i := range r.Runs {
		p := d.uvarint()
		first := d.varint()
		count := d.uvarint()
		if d.err != nil {
			return
		}
		if p > uint64(next) || p >= uint64(len(packs)) {
			d.fail("run %d names pack %d of %d, want at most %d", i, p, len(packs), next)
			return
		}
		if p == uint64(next) {
			next++
		}
		first += int64(after[p])
		if first < 0 || first > MaxPackChunks || count == 0 || count > uint64(MaxPackChunks-first) {
			d.fail("run %d has chunks %d+%d, want some within 0..%d", i, first, count, MaxPackChunks)
			return
		}
		r.Runs[i] = Run{Pack: packs[p], First: uint32(first), Count: uint32(count)}
		after[p] = uint32(first) + uint32(count)
	}
	if next != len(packs) {
		d.fail("%d packs in the table, %d in use", len(packs), next)
	}
}

func (d *decoder) breaks(r *Recipe) {
	n := d.count(1)
	if n == 0 {
		d.fail("no breaks, want some")
		return
	}
	r.Breaks = make([]uint32, n)
	last, chunks := uint64(0), uint64(r.Chunks())
	for i := range r.Breaks {
		step := d.uvarint()
		if d.err == nil && (step == 0 || step >= min(chunks, math.MaxUint32)-last) {
			d.fail("break %d is %d chunks after chunk %d of %d", i, step, last, chunks)
		}
		if d.err != nil {
			return
		}
		last += step
		r.Breaks[i] = uint32(last)
	}
}

func (d *decoder) served(s *Served) {
	s.Encoder = d.byte()
	s.Size = d.length()
	if n := d.count(1); n > 0 {
		s.Segments = make([]uint32, n)
		for i := range s.Segments {
			s.Segments[i] = d.uint32()
		}
	}
	switch known := d.byte(); {
	case d.err != nil:
	case known == 1:
		d.bytes(s.FileHash[:])
		if d.err == nil && s.FileHash == ([32]byte{}) {
			d.fail("file hash is said to be known and is zero")
		}
	case known != 0:
		d.fail("file hash marker is %d, want 0 or 1", known)
	}
}

func appendPackID(dst []byte, id PackID) []byte {
	dst = binary.AppendUvarint(dst, uint64(id.Epoch))
	return binary.LittleEndian.AppendUint64(dst, id.Rand)
}

// decoder reads the little encodings of this package. After the first error it
// answers zeros, so that callers check once, at the end.
type decoder struct {
	what string
	src  []byte
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(d.what+": "+format, args...)
	}
}

func (d *decoder) byte() byte {
	if d.err != nil {
		return 0
	}
	if len(d.src) == 0 {
		d.fail("unexpected end")
		return 0
	}
	b := d.src[0]
	d.src = d.src[1:]
	return b
}

func (d *decoder) bytes(dst []byte) {
	if d.err != nil {
		return
	}
	if len(d.src) < len(dst) {
		d.fail("unexpected end, %d bytes left, want %d", len(d.src), len(dst))
		return
	}
	copy(dst, d.src)
	d.src = d.src[len(dst):]
}

// uvarint reads a varint and refuses longer spellings of the same number, so
// that there is one encoding of every value.
func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.src)
	if n <= 0 || n > 1 && d.src[n-1] == 0 {
		d.fail("malformed varint, %d bytes left", len(d.src))
		return 0
	}
	d.src = d.src[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	if v > MaxPackChunks || v < -MaxPackChunks {
		d.fail("difference %d, want one within %d", v, MaxPackChunks)
		return 0
	}
	return v
}

// length reads a number of bytes.
func (d *decoder) length() int64 {
	v := d.uvarint()
	if v > maxLength {
		d.fail("length %d, want at most %d", v, int64(maxLength))
		return 0
	}
	return int64(v)
}

func (d *decoder) uint32() uint32 {
	v := d.uvarint()
	if v > 1<<32-1 {
		d.fail("number %d does not fit 32 bits", v)
		return 0
	}
	return uint32(v)
}

// count reads how many elements of at least size bytes follow. What it returns
// may be allocated: the input is at least that long.
func (d *decoder) count(size int) int {
	v := d.uvarint()
	if v > uint64(len(d.src)/size) {
		d.fail("%d elements of at least %d bytes said to be in %d bytes", v, size, len(d.src))
		return 0
	}
	return int(v)
}

func (d *decoder) packID() PackID {
	epoch := d.uint32()
	var b [8]byte
	d.bytes(b[:])
	return PackID{Epoch: epoch, Rand: binary.LittleEndian.Uint64(b[:])}
}
