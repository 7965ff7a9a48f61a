package pack

import (
	"encoding/binary"
	"fmt"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
)

// DecodeFooter decodes the footer of object id from tail, the last bytes of the
// object, which has size bytes in all. The error is a *CorruptError, or a
// *ShortError if tail begins after the footer does.
func DecodeFooter(id ID, tail []byte, size int64) (Footer, error) {
	d := decoder{key: Key(id), end: size}
	if size < int64(len(tail)) {
		return Footer{}, d.corrupt(0, "object", fmt.Sprintf("at least %d bytes", len(tail)), fmt.Sprint(size))
	}
	if len(tail) < TrailerBytes {
		if size < int64(TrailerBytes) {
			return Footer{}, d.corrupt(0, "object", fmt.Sprintf("at least %d bytes", TrailerBytes), fmt.Sprint(size))
		}
		return Footer{}, &ShortError{Need: int64(TrailerBytes)}
	}
	trailer := tail[len(tail)-TrailerBytes:]
	at := size - int64(TrailerBytes)
	if got := string(trailer[8:]); got != magic {
		return Footer{}, d.corrupt(at+8, "magic", fmt.Sprintf("%q", magic), fmt.Sprintf("%q", got))
	}
	n := int64(binary.LittleEndian.Uint32(trailer))
	if n > MaxFooterBytes || n > at {
		return Footer{}, d.corrupt(at, "footer length", fmt.Sprintf("at most %d", min(at, MaxFooterBytes)), fmt.Sprint(n))
	}
	if int64(len(tail)) < n+int64(TrailerBytes) {
		return Footer{}, &ShortError{Need: n + int64(TrailerBytes)}
	}
	body := tail[int64(len(tail)-TrailerBytes)-n : len(tail)-TrailerBytes]
	if want, got := binary.LittleEndian.Uint32(trailer[4:]), CRC(body); want != got {
		return Footer{}, d.corrupt(at-n, "footer checksum", fmt.Sprintf("%08x", want), fmt.Sprintf("%08x", got))
	}
	d.src, d.end = body, at
	return d.footer(id, at-n, size)
}

// ShortError reports that DecodeFooter needs more of the object's tail.
type ShortError struct{ Need int64 }

func (e *ShortError) Error() string { return fmt.Sprintf("the last %d bytes are needed", e.Need) }

// decoder reads the body of a footer that ends at offset end of its object.
type decoder struct {
	key blob.Key
	src []byte
	end int64
	err error
}

func (d *decoder) corrupt(off int64, what, expected, found string) error {
	return &CorruptError{Key: d.key, Offset: off, What: what, Expected: expected, Found: found}
}

func (d *decoder) fail(what, expected, found string) {
	if d.err == nil {
		d.err = d.corrupt(d.end-int64(len(d.src)), what, expected, found)
	}
}

func (d *decoder) take(what string, n int) []byte {
	if d.err == nil && len(d.src) < n {
		d.fail(what, fmt.Sprintf("%d bytes", n), fmt.Sprintf("%d left", len(d.src)))
	}
	if d.err != nil {
		return nil
	}
	p := d.src[:n]
	d.src = d.src[n:]
	return p
}

// number reads a minimal varint from 1 to most.
func (d *decoder) number(what string, most uint64) uint64 {
	v := d.upTo(what, most)
	if v == 0 {
		d.fail(what, fmt.Sprintf("1 to %d", most), "0")
	}
	return v
}

// upTo reads a minimal varint from 0 to most.
func (d *decoder) upTo(what string, most uint64) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.src)
	if n <= 0 || n > 1 && d.src[n-1] == 0 {
		d.fail(what, "a minimal varint", "none")
		return 0
	}
	if v > most {
		d.fail(what, fmt.Sprintf("at most %d", most), fmt.Sprint(v))
		return 0
	}
	d.src = d.src[n:]
	return v
}

// footer decodes the body; the frames end at offset end, where it begins.
func (d *decoder) footer(id ID, end, size int64) (Footer, error) {
	f := Footer{ID: id, Bytes: size}
	version := byte(0)
	if v := d.take("version", 1); v != nil {
		version = v[0]
	}
	if d.err == nil && version != footerVersion && version != movedFooterVersion {
		return Footer{}, d.corrupt(end, "version", fmt.Sprintf("%d or %d", footerVersion, movedFooterVersion), fmt.Sprint(version))
	}
	if got := d.id("pack id"); d.err == nil && got != id {
		return Footer{}, d.corrupt(end+1, "pack id", id.String(), got.String())
	}
	if version == footerVersion {
		d.frames(&f, end)
	} else {
		d.sections(&f, end)
	}
	if d.err == nil && len(d.src) > 0 {
		d.fail("footer", "its end", fmt.Sprintf("%d more bytes", len(d.src)))
	}
	if d.err == nil {
		d.checkPlain(&f, end)
	}
	if d.err != nil {
		return Footer{}, d.err
	}
	return f, nil
}

func (d *decoder) id(what string) ID {
	p := d.take(what, 12)
	if p == nil {
		return ID{}
	}
	return ID{Epoch: binary.LittleEndian.Uint32(p), Rand: binary.LittleEndian.Uint64(p[4:])}
}

const (
	leastFrame   = 6  // bytes of a frame in version 1
	leastChunk   = 34 // bytes of a chunk
	leastSection = 12 + 1 + 1 + leastSectionFrame
	// leastSectionFrame is the bytes of a frame in version 2, with its one chunk.
	leastSectionFrame = 1 + 1 + 1 + 4 + 1 + 1 + leastChunk
)

// frames decodes the tables of version 1.
func (d *decoder) frames(f *Footer, end int64) {
	n := d.number("number of frames", uint64(len(d.src)/leastFrame))
	section := Section{Pack: f.ID}
	off, chunks := int64(0), uint64(0)
	for i := uint64(0); i < n && d.err == nil; i++ {
		fr := Frame{First: uint32(chunks)}
		fr.Offset, fr.Size = off, int64(d.number("frame length", maxFrameSize))
		fr.Checksum = d.checksum()
		count := d.number("chunks of a frame", chunk.MaxPackChunks)
		if chunks += count; d.err == nil && chunks > chunk.MaxPackChunks {
			d.fail("number of chunks", fmt.Sprintf("at most %d", chunk.MaxPackChunks), fmt.Sprint(chunks))
		}
		fr.Chunks = uint32(count)
		off += fr.Size
		section.Frames = append(section.Frames, fr)
	}
	d.checkEnd(off, end)
	if d.err == nil && chunks > uint64(len(d.src)/leastChunk) {
		d.fail("number of chunks", fmt.Sprintf("at most %d", len(d.src)/leastChunk), fmt.Sprint(chunks))
	}
	if d.err != nil {
		return
	}
	section.Chunks = uint32(chunks)
	entries := make([]Entry, chunks)
	for i := range entries {
		d.entry(&entries[i])
		entries[i].Index = uint32(i)
	}
	for i := range section.Frames {
		fr := &section.Frames[i]
		fr.Entries = entries[fr.First : fr.First+fr.Chunks : fr.First+fr.Chunks]
	}
	f.Sections = []Section{section}
}

func (d *decoder) checksum() uint32 {
	if p := d.take("frame checksum", 4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) checkEnd(off, end int64) {
	if d.err == nil && off != end {
		d.fail("total length of the frames", fmt.Sprint(end), fmt.Sprint(off))
	}
}

func (d *decoder) entry(e *Entry) {
	if k := d.take("chunk kind", 1); k != nil && Kind(k[0]) != KindPlain {
		d.fail("chunk kind", fmt.Sprint(KindPlain), fmt.Sprint(k[0]))
	}
	e.Size = uint32(d.number("chunk length", MaxFramePlain))
	if p := d.take("chunk id", len(chunk.ID{})); p != nil {
		e.ID = chunk.ID(p)
	}
}

// sections decodes the table of version 2.
func (d *decoder) sections(f *Footer, end int64) {
	n := d.number("number of packs", uint64(len(d.src)/leastSection))
	seen := make(map[ID]struct{})
	off := int64(0)
	for i := uint64(0); i < n && d.err == nil; i++ {
		p := Section{Pack: d.id("id of a pack in it")}
		if _, twice := seen[p.Pack]; d.err == nil && (twice || p.Pack == f.ID) {
			d.fail("id of a pack in it", "each one once, and not that of the object", p.Pack.String())
		}
		seen[p.Pack] = struct{}{}
		d.section(&p, &off)
		f.Sections = append(f.Sections, p)
	}
	d.checkEnd(off, end)
}

func (d *decoder) section(p *Section, off *int64) {
	p.Chunks = uint32(d.number("number of chunks", chunk.MaxPackChunks))
	frames := d.number("number of frames", uint64(len(d.src)/leastSectionFrame))
	next := uint32(0)
	for i := uint64(0); i < frames && d.err == nil; i++ {
		fr := Frame{First: next + uint32(d.upTo("chunks before a frame", uint64(p.Chunks-next)))}
		fr.Chunks = uint32(d.number("chunks of a frame", uint64(p.Chunks-fr.First)))
		fr.Offset, fr.Size = *off, int64(d.number("frame length", maxFrameSize))
		fr.Checksum = d.checksum()
		count := d.number("chunks in a frame", min(uint64(fr.Chunks), uint64(len(d.src)/(leastChunk+1))))
		if d.err != nil {
			return
		}
		next = fr.First + fr.Chunks
		*off += fr.Size
		fr.Entries = make([]Entry, count)
		at := fr.First
		for k := range fr.Entries {
			e := &fr.Entries[k]
			left := uint64(next-at) - min(uint64(next-at), count-uint64(k)) // holes there may be
			e.Index = at + uint32(d.upTo("holes", left))
			d.entry(e)
			at = e.Index + 1
		}
		p.Frames = append(p.Frames, fr)
	}
}

// checkPlain checks that every frame may be decoded in bounded memory.
func (d *decoder) checkPlain(f *Footer, at int64) {
	for i := range f.Sections {
		for k, fr := range f.Sections[i].Frames {
			plain := int64(0)
			for _, e := range fr.Entries {
				plain += int64(e.Size)
			}
			if plain > MaxFramePlain {
				d.err = d.corrupt(at, fmt.Sprintf("plain length of frame %d of pack %v", k, f.Sections[i].Pack), fmt.Sprintf("at most %d", MaxFramePlain), fmt.Sprint(plain))
				return
			}
		}
	}
}
