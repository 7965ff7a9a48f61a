package sim

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/httpapi/wire"
)

// deltaClient speaks docs/protocol.md.
type deltaClient struct {
	caller
	cache   string
	info    wire.DeltaInfo
	profile chunk.Profile
	key     chunk.ProofKey
	enc     *zstd.Encoder
}

// deltaNar is a NAR as a client has cut it, with the receipts that it has of it.
type deltaNar struct {
	name string // of the path
	size int64
	hash [32]byte
	segs []*deltaSegment

	joined []byte // one receipt for all segments, or nil
}

// receipts are what a commit of the NAR brings.
func (n *deltaNar) receipts() (rs [][]byte) {
	if n.joined != nil {
		return [][]byte{n.joined}
	}
	for _, seg := range n.segs {
		rs = append(rs, seg.receipt)
	}
	return rs
}

// stale forgets a receipt that stands for chunks that have gone, and reports whether there
// is such a receipt.
func (n *deltaNar) stale(i int) bool {
	if i < 0 || i >= len(n.receipts()) {
		return false
	}
	for j, seg := range n.segs {
		if j == i || n.joined != nil {
			seg.receipt = nil
		}
	}
	n.joined = nil
	return true
}

// deltaSegment is a stretch of a NAR.
type deltaSegment struct {
	from    chunk.SHAState
	pieces  []deltaPiece
	receipt []byte // nil: there is none
}

// deltaPiece is a chunk.
type deltaPiece struct {
	data []byte
	ref  chunk.Ref
	id   chunk.ID
}

// deltaClient returns a client of one cache.
func (c *collecting) deltaClient(name, cache string, rng *rand.Rand) *deltaClient {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithZeroFrames(true))
	if err != nil {
		panic(err)
	}
	return &deltaClient{
		caller: caller{c: c, name: name, token: c.token(name, cache), rng: rng, careful: rng.IntN(3) > 0},
		cache:  cache, enc: enc,
	}
}

func (d *deltaClient) url(verb string) string {
	return fmt.Sprintf("/_api/v1/delta/%s/%s?version=1&key=%s", d.cache, verb, d.info.ProofKeyName)
}

// greet asks how to cut, until there is an answer.
func (d *deltaClient) greet(ctx context.Context) bool {
	if d.info.Version != 0 {
		return true
	}
	a := d.retrying(ctx, func() *answer { return d.call("GET", "/_api/v1/delta/"+d.cache+"?version=1", "", nil) })
	if a == nil || !d.decode(a, &d.info) {
		return false
	}
	var err error
	if d.profile, err = chunk.ParseProfile(d.info.Chunking); err != nil {
		d.c.violate("%s: %v", d.name, err)
	}
	d.key = chunk.ProofKey(d.info.ProofKey)
	return err == nil
}

// decode reads an answer that must be one.
func (d *deltaClient) decode(a *answer, to any) bool {
	if a.status != http.StatusOK {
		d.c.violate("%s is told %d: %.300s", d.name, a.status, a.body.Bytes())
		return false
	}
	if err := json.Unmarshal(a.body.Bytes(), to); err != nil {
		d.c.violate("%s is told %.300s: %v", d.name, a.body.Bytes(), err)
		return false
	}
	return true
}

// cut cuts the NAR of a path into segments of at most so many bytes.
func (d *deltaClient) cut(name string, most int) *deltaNar {
	rest := d.c.nar(name)
	n := &deltaNar{name: name, size: int64(len(rest)), hash: sha256.Sum256(rest)}
	h := sha256.New()
	for size := 0; len(rest) > 0; {
		k := d.profile.Cut(rest)
		if len(n.segs) == 0 || size+k > most {
			from, err := chunk.SHAStateOf(h)
			if err != nil {
				panic(err)
			}
			n.segs, size = append(n.segs, &deltaSegment{from: from}), 0
		}
		seg := n.segs[len(n.segs)-1]
		id, proof := d.key.Sum(rest[:k])
		seg.pieces = append(seg.pieces, deltaPiece{data: rest[:k], id: id, ref: chunk.Ref{Name: id.Name(), Proof: proof}})
		_, _ = h.Write(rest[:k])
		rest, size = rest[k:], size+k
	}
	return n
}

// ask asks which chunks of some segments are missing.
func (d *deltaClient) ask(ctx context.Context, segs []*deltaSegment) (lacks map[chunk.Ref]bool, ok bool) {
	var refs []chunk.Ref
	for _, seg := range segs {
		for _, p := range seg.pieces {
			refs = append(refs, p.ref)
		}
	}
	a := d.retrying(ctx, func() *answer {
		return d.call("POST", d.url("missing"), wire.DeltaContentType, wire.AppendRefs(nil, refs))
	})
	if a == nil {
		return nil, false
	}
	bits := wire.Bitmap(a.body.Bytes())
	if err := bits.Check(len(refs)); a.status != http.StatusOK || err != nil {
		d.c.violate("%s asks for %d chunks and is told %d: %.300s", d.name, len(refs), a.status, a.body.Bytes())
		return nil, false
	}
	lacks = make(map[chunk.Ref]bool, len(refs))
	for i, ref := range refs {
		lacks[ref] = bits.Has(i)
	}
	return lacks, true
}

// batch makes a batch: what is missing in frames, the rest by reference.
func (d *deltaClient) batch(segs []*deltaSegment, lacks map[chunk.Ref]bool) []byte {
	body := wire.AppendBatch(nil)
	for _, seg := range segs {
		body = wire.AppendSegment(body, seg.from)
		for rest := seg.pieces; len(rest) > 0; {
			fresh, n, size := lacks[rest[0].ref], 0, 0
			for n < len(rest) && lacks[rest[n].ref] == fresh && (!fresh || size+len(rest[n].data) <= d.info.FrameBytes) {
				size += len(rest[n].data)
				n++
			}
			if fresh {
				body = d.frame(body, rest[:n])
			} else {
				refs := make([]chunk.Ref, n)
				for i := range refs {
					refs[i] = rest[i].ref
				}
				body = wire.AppendKnown(body, refs)
			}
			rest = rest[n:]
		}
		body = wire.AppendSegmentEnd(body)
	}
	return body
}

func (d *deltaClient) frame(body []byte, pieces []deltaPiece) []byte {
	names, sizes := make([]chunk.Name, len(pieces)), make([]uint32, len(pieces))
	var plain []byte
	for i, p := range pieces {
		names[i], sizes[i], plain = p.ref.Name, uint32(len(p.data)), append(plain, p.data...)
	}
	return wire.AppendFrame(body, names, sizes, d.enc.EncodeAll(plain, nil))
}

// send sends segments and takes their receipts. Those that are incomplete get none.
func (d *deltaClient) send(ctx context.Context, segs []*deltaSegment, lacks map[chunk.Ref]bool) bool {
	body := d.batch(segs, lacks)
	a := d.retrying(ctx, func() *answer { return d.call("POST", d.url("chunks"), wire.DeltaContentType, body) })
	var result wire.BatchResult
	if a == nil || !d.decode(a, &result) {
		return false
	}
	if len(result.Segments) != len(segs) {
		d.c.violate("%s sends %d segments and is told of %d", d.name, len(segs), len(result.Segments))
		return false
	}
	for i, seg := range segs {
		known := 0
		for _, p := range seg.pieces {
			if !lacks[p.ref] {
				known++
			}
		}
		r := &result.Segments[i]
		if err := r.Missing.Check(known); r.Receipt == nil && err != nil {
			d.c.violate("%s gets neither a receipt nor a list of what is missing: %v", d.name, err)
			return false
		}
		seg.receipt = r.Receipt
	}
	return true
}

// open returns the segments of which there is no receipt.
func open(nars []*deltaNar) (segs []*deltaSegment) {
	for _, n := range nars {
		for _, seg := range n.segs {
			if seg.receipt == nil {
				segs = append(segs, seg)
			}
		}
	}
	return segs
}

// fill gets receipts of all segments. between is called between two requests, and ends it
// by returning false.
func (d *deltaClient) fill(ctx context.Context, nars []*deltaNar, between func() bool) bool {
	began := d.c.w.time()
	for range 2 * simPatience {
		segs := open(nars)
		if len(segs) == 0 {
			return true
		}
		lacks, ok := d.ask(ctx, segs)
		if !ok || !between() {
			return false
		}
		d.rng.Shuffle(len(segs), func(i, j int) { segs[i], segs[j] = segs[j], segs[i] })
		for len(segs) > 0 {
			n := 1 + d.rng.IntN(min(3, len(segs)))
			if !d.send(ctx, segs[:n], lacks) || !between() {
				return false
			}
			segs = segs[n:]
		}
		if len(open(nars)) > 0 {
			d.c.w.Pause(d.name, "asks again")
		}
	}
	if took := d.c.w.time().Sub(began); took < simCircle {
		d.c.violate("%s has sent everything %d times in %v, and there is always something missing", d.name, 2*simPatience, took)
	}
	return false
}

// join makes one receipt of all of a NAR.
func (d *deltaClient) join(ctx context.Context, n *deltaNar) bool {
	if len(n.receipts()) == 1 {
		return true
	}
	body, err := json.Marshal(wire.JoinRequest{Receipts: n.receipts()})
	if err != nil {
		panic(err)
	}
	a := d.retrying(ctx, func() *answer { return d.call("POST", d.url("join"), "application/json", body) })
	var result wire.JoinResult
	if a == nil || !d.decode(a, &result) {
		return false
	}
	n.joined = result.Receipt
	d.c.counted(func(r *DeltaResult) { r.Joined++ })
	return true
}

const (
	// simPatience is how often a client is told that chunks are missing before it gives up.
	simPatience = 8
	// simCircle is in how little time that must not happen: what was sent is there for a day.
	simCircle = 20 * time.Hour
)
