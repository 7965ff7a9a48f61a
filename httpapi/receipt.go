package httpapi

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/catalog"
)

// A receipt says what the server has computed itself: from some state of SHA-256, over
// the bytes of chunks that lie at these places, to another state. See docs/protocol.md.
// A joined receipt says it of several segments, one after another.
//
// Numbers are unsigned varints in their shortest form.
//
//	flags                             1 B: 1 from the beginning of a NAR, 2 a whole NAR
//	SHA-256 of the state before       32 B, unless it is the beginning
//	state after                       as in a batch
//	encoder of the stretches          1 B
//	packs                             how many, and each: upload epoch, 8 B random, little-endian
//	segments                          how many, and each:
//	  plain bytes
//	  runs                            how many, and each: which pack, first chunk, how many chunks
//	  stretches                       how many, and the length of each
type receipt struct {
	begins bool     // before is that of the beginning
	whole  bool     // the bytes are a NAR as Nix would have it
	before [32]byte // hash of the state; zero if begins
	after  chunk.SHAState
	parts  []chunkstore.Segment // without their states
}

const (
	receiptBegins = 1 << iota
	receiptWhole
)

// receiptOf makes the receipt of a segment.
func receiptOf(seg *chunkstore.Segment, whole bool) receipt {
	r := receipt{begins: seg.From == chunk.SHAState{}, whole: whole, after: seg.To, parts: []chunkstore.Segment{*seg}}
	r.parts[0].From, r.parts[0].To = chunk.SHAState{}, chunk.SHAState{}
	if !r.begins {
		r.before = hashOfState(&seg.From)
	}
	return r
}

func hashOfState(s *chunk.SHAState) [32]byte {
	var buf [chunk.MaxSHAStateBytes]byte
	return sha256.Sum256(s.Append(buf[:0]))
}

// follows reports whether r begins where before ends.
func (r *receipt) follows(before *receipt) bool {
	return !r.begins && r.before == hashOfState(&before.after)
}

// plain is how many bytes of a NAR the receipt is for.
func (r *receipt) plain() (n int64) {
	for i := range r.parts {
		n += r.parts[i].Plain
	}
	return n
}

// joinReceipts makes one receipt of those that follow each other.
func joinReceipts(rs []receipt) (receipt, error) {
	all := rs[0]
	all.parts = slices.Clone(all.parts)
	for i := 1; i < len(rs); i++ {
		if !rs[i].follows(&rs[i-1]) {
			return receipt{}, fmt.Errorf("receipt %d does not begin where receipt %d ends", i, i-1)
		}
		if rs[i].parts[0].Encoder != all.parts[0].Encoder {
			return receipt{}, fmt.Errorf("receipts %d and 0 are of different times", i)
		}
		all.parts = append(all.parts, rs[i].parts...)
		all.after, all.whole = rs[i].after, false
	}
	return all, nil
}

// append appends the encoding of r.
func (r *receipt) append(dst []byte) []byte {
	flags := byte(0)
	if r.begins {
		flags |= receiptBegins
	}
	if r.whole {
		flags |= receiptWhole
	}
	dst = append(dst, flags)
	if !r.begins {
		dst = append(dst, r.before[:]...)
	}
	dst = r.after.Append(dst)
	dst = append(dst, r.parts[0].Encoder)
	var packs []chunk.PackID
	places := make(map[chunk.PackID]int)
	for i := range r.parts {
		for _, run := range r.parts[i].Runs {
			if _, ok := places[run.Pack]; !ok {
				places[run.Pack] = len(packs)
				packs = append(packs, run.Pack)
			}
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(packs)))
	for _, id := range packs {
		dst = binary.AppendUvarint(dst, uint64(id.Epoch))
		dst = binary.LittleEndian.AppendUint64(dst, id.Rand)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.parts)))
	for i := range r.parts {
		seg := &r.parts[i]
		dst = binary.AppendUvarint(dst, uint64(seg.Plain))
		dst = binary.AppendUvarint(dst, uint64(len(seg.Runs)))
		for _, run := range seg.Runs {
			dst = binary.AppendUvarint(dst, uint64(places[run.Pack]))
			dst = binary.AppendUvarint(dst, uint64(run.First))
			dst = binary.AppendUvarint(dst, uint64(run.Count))
		}
		dst = binary.AppendUvarint(dst, uint64(len(seg.Stretches)))
		for _, n := range seg.Stretches {
			dst = binary.AppendUvarint(dst, uint64(n))
		}
	}
	return dst
}

// errNoReceipt is all that anybody is told of a receipt that is not ours.
var errNoReceipt = errors.New("it is no receipt of this server for this cache and this token")

// decodeReceipt decodes what append wrote. What it accepts, append would write.
func decodeReceipt(src []byte) (receipt, error) {
	d := receiptDecoder{src: src}
	var r receipt
	flags := d.byte()
	r.begins, r.whole = flags&receiptBegins != 0, flags&receiptWhole != 0
	if !r.begins {
		copy(r.before[:], d.take(len(r.before)))
	}
	if !d.bad {
		var err error
		if r.after, d.src, err = chunk.DecodeSHAState(d.src); err != nil {
			return receipt{}, err
		}
	}
	encoder := d.byte()
	packs := make([]chunk.PackID, d.count(9))
	for i := range packs {
		packs[i].Epoch = uint32(d.upTo(math.MaxUint32))
		if b := d.take(8); len(b) == 8 {
			packs[i].Rand = binary.LittleEndian.Uint64(b)
		}
	}
	r.parts = make([]chunkstore.Segment, d.count(3))
	for i := range r.parts {
		d.segment(&r.parts[i], packs)
		r.parts[i].Encoder = encoder
	}
	if d.bad || len(d.src) != 0 || len(r.parts) == 0 {
		return receipt{}, errNoReceipt
	}
	if !bytes.Equal(r.append(nil), src) {
		return receipt{}, errNoReceipt // another spelling of it
	}
	return r, nil
}

// receiptDecoder reads the parts of a receipt. After the first that is wrong it answers
// zeros.
type receiptDecoder struct {
	src []byte
	bad bool
}

func (d *receiptDecoder) segment(seg *chunkstore.Segment, packs []chunk.PackID) {
	seg.Plain = int64(d.upTo(1 << 56))
	if n := d.count(3); n > 0 {
		seg.Runs = make([]chunk.Run, n)
	}
	for i := range seg.Runs {
		pack := d.upTo(uint64(max(len(packs)-1, 0)))
		if d.bad || len(packs) == 0 {
			d.bad = true
			return
		}
		first := d.upTo(chunk.MaxPackChunks - 1)
		seg.Runs[i] = chunk.Run{Pack: packs[pack], First: uint32(first), Count: uint32(d.upTo(chunk.MaxPackChunks - first))}
		d.bad = d.bad || seg.Runs[i].Count == 0
	}
	if n := d.count(1); n > 0 {
		seg.Stretches = make([]uint32, n)
	}
	for i := range seg.Stretches {
		seg.Stretches[i] = uint32(d.upTo(math.MaxUint32))
	}
}

func (d *receiptDecoder) take(n int) []byte {
	if d.bad = d.bad || len(d.src) < n; d.bad {
		return nil
	}
	b := d.src[:n]
	d.src = d.src[n:]
	return b
}

func (d *receiptDecoder) byte() byte {
	if b := d.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *receiptDecoder) upTo(limit uint64) uint64 {
	v, n := binary.Uvarint(d.src)
	if d.bad = d.bad || n <= 0 || v > limit; d.bad {
		return 0
	}
	d.src = d.src[n:]
	return v
}

// count reads a number of things of at least size bytes, which the rest has room for.
func (d *receiptDecoder) count(size int) int { return int(d.upTo(uint64(len(d.src) / size))) }

// sealer seals receipts for those who get them. Sealing is deterministic (the construction
// called SIV: the authenticator of the content is the nonce of its encryption), so it
// needs no randomness, can be done any number of times with one key, and gives a client
// that asks twice the same receipt.
//
//	version  1 B: 1
//	MAC      16 B: HMAC-SHA-256 over cache, subject and content
//	content  AES-256 in counter mode, from the MAC on
type sealer struct {
	mac     []byte
	enc     cipher.Block
	mutants Mutants
}

const (
	receiptVersion = 1
	receiptMAC     = aes.BlockSize
)

func newSealer(key []byte) *sealer {
	derive := func(use string) []byte {
		h := hmac.New(sha256.New, key)
		_, _ = io.WriteString(h, "celler receipt "+use) // a hash takes everything
		return h.Sum(nil)
	}
	enc, err := aes.NewCipher(derive("content"))
	if err != nil {
		panic(fmt.Sprintf("httpapi: AES refuses a key of 32 bytes: %v", err))
	}
	return &sealer{mac: derive("authenticator"), enc: enc}
}

// authenticate returns the MAC of a content for somebody.
func (s *sealer) authenticate(cache catalog.CacheName, subject string, content []byte) []byte {
	if s.mutants.anybodysReceipts() {
		cache, subject = "", ""
	}
	h := hmac.New(sha256.New, s.mac)
	var buf [binary.MaxVarintLen64]byte
	for _, text := range []string{string(cache), subject} {
		h.Write(binary.AppendUvarint(buf[:0], uint64(len(text))))
		_, _ = io.WriteString(h, text) // a hash takes everything
	}
	h.Write(content)
	return h.Sum(nil)[:receiptMAC]
}

// seal seals a receipt for a cache and the subject of a token.
func (s *sealer) seal(r *receipt, cache catalog.CacheName, subject string) []byte {
	content := r.append(nil)
	mac := s.authenticate(cache, subject, content)
	out := append(append(make([]byte, 0, 1+receiptMAC+len(content)), receiptVersion), mac...)
	cipher.NewCTR(s.enc, mac).XORKeyStream(content, content)
	return append(out, content...)
}

// open returns a receipt that was sealed for the cache and the subject.
func (s *sealer) open(sealed []byte, cache catalog.CacheName, subject string) (receipt, error) {
	if len(sealed) < 1+receiptMAC || sealed[0] != receiptVersion {
		return receipt{}, errNoReceipt
	}
	mac := sealed[1 : 1+receiptMAC]
	content := bytes.Clone(sealed[1+receiptMAC:])
	cipher.NewCTR(s.enc, mac).XORKeyStream(content, content)
	if !hmac.Equal(mac, s.authenticate(cache, subject, content)) {
		return receipt{}, errNoReceipt
	}
	return decodeReceipt(content)
}
