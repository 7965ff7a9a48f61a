package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/zstd"
)

// These constants are part of the wire format and must not be changed.
const (
	segmentMagic   = "CLS1"
	segmentVersion = 1

	flagZstd       = 1 << 0 // the body is one zstd frame
	flagAEAD       = 1 << 1 // the body is sealed; reserved
	knownFlags     = flagZstd
	headerLen      = 108
	trailerLen     = 32
	offCRC         = 104
	offPlainLen    = 96
	offBodyLen     = 100
	minEntryLen    = 4 // kind, two lengths of one byte, a key of one byte
	maxSegmentSize = headerLen + maxBodyBytes + trailerLen
)

// Bounds of what a reader accepts. A writer stays far below: see Options.
const (
	// maxPlainBytes bounds the memory one segment may unpack to. It is twice the
	// largest Options.MaxOpBytes.
	maxPlainBytes = 16 << 20
	// maxBodyBytes leaves room for a frame that does not compress.
	maxBodyBytes = maxPlainBytes + 64<<10
	// maxKeyBytes is far above any key of the schema, and what Pebble can take.
	maxKeyBytes = 64 << 10
)

// Kind says what an entry does. The numbers are part of the wire format.
//
// A reader that meets an unknown kind of 128 and above ignores the entry; an
// unknown kind below 128 stops it, because the state would be wrong without it.
type Kind uint8

const (
	// Set maps Key to Value.
	Set Kind = 1
	// Delete removes Key. Value is empty.
	Delete Kind = 2
	// DeleteRange removes every key in [Key, Value).
	DeleteRange Kind = 3
	// PushBoundary changes nothing. It marks where the entries of one operation
	// begin: Key is its name, Value is for people and metrics.
	PushBoundary Kind = 16
	// PeerAddress changes nothing. Key is where the writer of the segment hears from
	// its peers. Being of an optional kind, it may be ignored.
	PeerAddress Kind = 128
)

// firstOptionalKind is the first kind that a reader may ignore.
const firstOptionalKind Kind = 128

func (k Kind) known() bool {
	return k == Set || k == Delete || k == DeleteRange || k == PushBoundary || k == PeerAddress
}

func (k Kind) String() string {
	switch k {
	case Set:
		return "set"
	case Delete:
		return "delete"
	case DeleteRange:
		return "delete-range"
	case PushBoundary:
		return "push-boundary"
	case PeerAddress:
		return "peer-address"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Entry is one effect: what a segment does to one key, or to a range of keys.
type Entry struct {
	Kind       Kind
	Key, Value []byte
}

// size is what the entry takes in a body, at most.
func (e *Entry) size() int { return 1 + 2*binary.MaxVarintLen32 + len(e.Key) + len(e.Value) }

// check returns what is wrong with the entry, or an empty string.
func (e *Entry) check() string {
	switch {
	case len(e.Key) == 0:
		return "the key is empty"
	case len(e.Key) > maxKeyBytes:
		return fmt.Sprintf("the key has %d bytes, more than %d", len(e.Key), maxKeyBytes)
	case e.Kind == Delete && len(e.Value) != 0:
		return "a delete has a value"
	case e.Kind == DeleteRange && string(e.Value) <= string(e.Key):
		return "the range is empty"
	case !e.Kind.known() && e.Kind < firstOptionalKind:
		return "unknown kind " + e.Kind.String()
	}
	return ""
}

// Segment is the content of one slot.
type Segment struct {
	Store   StoreID
	Seq     Seq
	Prev    Digest    // of the object in slot Seq-1
	Writer  WriterID  // who claimed the slot
	Batch   uint64    // which batch of the writer this is: 1, 2, 3…
	Time    time.Time // the writer's clock, milliseconds; information only
	Entries []Entry
}

// codec keeps the compressor's tables between segments. The zero codec is ready; it
// is not safe for concurrent use.
type codec struct {
	enc  *zstd.Encoder // made by the first append
	dec  *zstd.Decoder // made by the first decode
	body []byte
}

func (c *codec) encoder() (_ *zstd.Encoder, err error) {
	if c.enc == nil {
		c.enc, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	}
	return c.enc, err
}

func (c *codec) decoder() (_ *zstd.Decoder, err error) {
	if c.dec == nil {
		c.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(maxPlainBytes))
	}
	return c.dec, err
}

func (c *codec) close() {
	if c.dec != nil {
		c.dec.Close()
	}
}

// AppendSegment appends the object that represents s. The package comment shows
// its bytes.
func AppendSegment(dst []byte, s *Segment) ([]byte, error) {
	var c codec
	defer c.close()
	return c.append(dst, s)
}

// DecodeSegment reads a whole object and returns its digest as well. The entries
// share one freshly allocated buffer.
//
// Errors are a *CorruptError or a *TooNewError.
func DecodeSegment(src []byte) (*Segment, Digest, error) {
	var c codec
	defer c.close()
	return c.decode(src)
}

func (c *codec) append(dst []byte, s *Segment) ([]byte, error) {
	if s.Seq == 0 || s.Batch == 0 {
		return dst, fmt.Errorf("append segment %v: seq and batch start at 1", s.Seq)
	}
	plain := binary.AppendUvarint(c.body[:0], uint64(len(s.Entries)))
	for i := range s.Entries {
		e := &s.Entries[i]
		if why := e.check(); why != "" {
			return dst, fmt.Errorf("append segment %v: entry %d: %s", s.Seq, i, why)
		}
		plain = append(plain, byte(e.Kind))
		plain = binary.AppendUvarint(plain, uint64(len(e.Key)))
		plain = append(plain, e.Key...)
		plain = binary.AppendUvarint(plain, uint64(len(e.Value)))
		plain = append(plain, e.Value...)
	}
	c.body = plain
	if len(plain) > maxPlainBytes {
		return dst, fmt.Errorf("append segment %v: body has %d bytes, more than %d", s.Seq, len(plain), maxPlainBytes)
	}

	enc, err := c.encoder()
	if err != nil {
		return dst, fmt.Errorf("append segment %v: %w", s.Seq, err)
	}

	start := len(dst)
	dst = append(dst, segmentMagic...)
	dst = binary.BigEndian.AppendUint16(dst, segmentVersion)
	dst = binary.BigEndian.AppendUint16(dst, flagZstd)
	dst = append(dst, s.Store[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Seq))
	dst = append(dst, s.Prev[:]...)
	dst = append(dst, s.Writer[:]...)
	dst = binary.BigEndian.AppendUint64(dst, s.Batch)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Time.UnixMilli()))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(plain)))
	dst = append(dst, make([]byte, 8)...) // body length and CRC, once they are known
	dst = enc.EncodeAll(plain, dst)

	header := dst[start:]
	binary.BigEndian.PutUint32(header[offBodyLen:], uint32(len(header)-headerLen))
	binary.BigEndian.PutUint32(header[offCRC:], crc32.Checksum(header[:offCRC], crc32.MakeTable(crc32.Castagnoli)))
	sum := DigestOf(dst[start:])
	return append(dst, sum[:]...), nil
}

func (c *codec) decode(src []byte) (*Segment, Digest, error) {
	body, plainLen, s, err := decodeHeader(src)
	if err != nil {
		return nil, Digest{}, err
	}
	end := len(src) - trailerLen
	if sum := DigestOf(src[:end]); sum != Digest(src[end:]) {
		return nil, Digest{}, corrupt(end, "trailer", sum.String(), Digest(src[end:]))
	}
	dec, err := c.decoder()
	if err != nil {
		return nil, Digest{}, fmt.Errorf("decode segment %v: %w", s.Seq, err)
	}
	plain, err := dec.DecodeAll(body, nil)
	if err != nil {
		return nil, Digest{}, corrupt(headerLen, "body", "a zstd frame", err)
	}
	if len(plain) != plainLen {
		return nil, Digest{}, corrupt(offPlainLen, "plain length", fmt.Sprint(plainLen), len(plain))
	}
	if s.Entries, err = decodeEntries(plain); err != nil {
		return nil, Digest{}, err
	}
	return s, DigestOf(src), nil
}

// decodeHeader checks everything that can be checked before the body is looked at.
func decodeHeader(src []byte) (body []byte, plainLen int, s *Segment, err error) {
	if len(src) < headerLen+trailerLen || len(src) > maxSegmentSize {
		return nil, 0, nil, corrupt(0, "size", fmt.Sprintf("%d to %d bytes", headerLen+trailerLen, maxSegmentSize), len(src))
	}
	if string(src[:4]) != segmentMagic {
		return nil, 0, nil, corrupt(0, "magic", fmt.Sprintf("%q", segmentMagic), fmt.Sprintf("%q", src[:4]))
	}
	// The version is looked at before the checksum: another version may place it elsewhere.
	if v := binary.BigEndian.Uint16(src[4:]); v != segmentVersion {
		return nil, 0, nil, &TooNewError{What: "segment version", Found: fmt.Sprint(v), Known: fmt.Sprint(segmentVersion)}
	}
	crc := crc32.Checksum(src[:offCRC], crc32.MakeTable(crc32.Castagnoli))
	if got := binary.BigEndian.Uint32(src[offCRC:]); got != crc {
		return nil, 0, nil, corrupt(offCRC, "header checksum", fmt.Sprintf("%08x", crc), fmt.Sprintf("%08x", got))
	}
	if flags := binary.BigEndian.Uint16(src[6:]); flags&^knownFlags != 0 {
		return nil, 0, nil, &TooNewError{What: "segment flags", Found: fmt.Sprintf("%#x", flags), Known: fmt.Sprintf("%#x", knownFlags)}
	} else if flags&flagZstd == 0 {
		return nil, 0, nil, corrupt(6, "flags", "zstd", fmt.Sprintf("%#x", flags))
	}
	s = &Segment{
		Store:  StoreID(src[8:24]),
		Seq:    Seq(binary.BigEndian.Uint64(src[24:])),
		Prev:   Digest(src[32:64]),
		Writer: WriterID(src[64:80]),
		Batch:  binary.BigEndian.Uint64(src[80:]),
		Time:   time.UnixMilli(int64(binary.BigEndian.Uint64(src[88:]))).UTC(),
	}
	if s.Seq == 0 || s.Batch == 0 {
		return nil, 0, nil, corrupt(24, "seq and batch", "numbers from 1", fmt.Sprintf("%d and %d", s.Seq, s.Batch))
	}
	plain, bodyLen := binary.BigEndian.Uint32(src[offPlainLen:]), binary.BigEndian.Uint32(src[offBodyLen:])
	if plain > maxPlainBytes {
		return nil, 0, nil, corrupt(offPlainLen, "plain length", fmt.Sprintf("at most %d", maxPlainBytes), plain)
	}
	if int64(bodyLen) != int64(len(src)-headerLen-trailerLen) {
		return nil, 0, nil, corrupt(offBodyLen, "body length", fmt.Sprint(len(src)-headerLen-trailerLen), bodyLen)
	}
	return src[headerLen : len(src)-trailerLen], int(plain), s, nil
}

var errShort = errors.New("ends too early")

func decodeEntries(plain []byte) ([]Entry, error) {
	rest := plain
	at := func() int { return len(plain) - len(rest) }
	count, n := binary.Uvarint(rest)
	if n <= 0 || count > uint64(len(rest)/minEntryLen) {
		return nil, corrupt(0, "number of entries", fmt.Sprintf("at most %d", len(rest)/minEntryLen), count)
	}
	rest = rest[n:]
	entries := make([]Entry, 0, count)
	for range count {
		start := at()
		if len(rest) == 0 {
			return nil, corrupt(start, "entry", "a kind", errShort)
		}
		e := Entry{Kind: Kind(rest[0])}
		var err error
		if e.Key, rest, err = decodeBytes(rest[1:]); err != nil {
			return nil, corrupt(start, "key", "its length and bytes", err)
		}
		if e.Value, rest, err = decodeBytes(rest); err != nil {
			return nil, corrupt(start, "value", "its length and bytes", err)
		}
		if !e.Kind.known() {
			if e.Kind < firstOptionalKind {
				return nil, &TooNewError{What: "entry kind", Found: fmt.Sprint(uint8(e.Kind)), Known: "1, 2, 3 and 16"}
			}
			continue
		}
		if why := e.check(); why != "" {
			return nil, corrupt(start, e.Kind.String(), "a well-formed entry", why)
		}
		entries = append(entries, e)
	}
	if len(rest) != 0 {
		return nil, corrupt(at(), "body", "its end", fmt.Sprintf("%d bytes more", len(rest)))
	}
	return entries, nil
}

func decodeBytes(src []byte) (b, rest []byte, err error) {
	size, n := binary.Uvarint(src)
	if n <= 0 || size > uint64(len(src)-n) {
		return nil, src, errShort
	}
	if size == 0 {
		return nil, src[n:], nil
	}
	end := n + int(size)
	return src[n:end:end], src[end:], nil
}
