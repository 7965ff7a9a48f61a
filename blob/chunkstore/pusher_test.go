package chunkstore_test

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
)

var testKey = chunk.ProofKey{7}

// pusher cuts NARs and sends them as a client does.
type pusher struct {
	s     *chunkstore.Store
	d     *directory
	p     chunk.Profile
	enc   *zstd.Encoder
	frame int // plain bytes
	cut   int // plain bytes of a segment
}

func mkPusher(t testing.TB, s *chunkstore.Store, d *directory) *pusher {
	t.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { enc.Close() })
	return &pusher{s: s, d: d, p: mustProfile(t, "fast2016-1k"), enc: enc, frame: 16 << 10, cut: 64 << 10}
}

// piece is what becomes of a chunk.
type piece struct {
	ref   chunk.Ref
	data  []byte
	known bool
}

// tContext returns a context of tests and of rapid's checks.
func tContext(t fataler) context.Context {
	if t, ok := t.(interface{ Context() context.Context }); ok {
		return t.Context()
	}
	return context.Background()
}

// pieces cuts nar and asks what is known.
func (p *pusher) pieces(t fataler, nar []byte) []piece {
	t.Helper()
	var out []piece
	var refs []chunk.Ref
	for len(nar) > 0 {
		n := p.p.Cut(nar)
		id, proof := testKey.Sum(nar[:n])
		refs = append(refs, chunk.Ref{Name: id.Name(), Proof: proof})
		out = append(out, piece{ref: refs[len(refs)-1], data: nar[:n]})
		nar = nar[n:]
	}
	_, known, err := p.d.LookupRefs(tContext(t), refs)
	if err != nil {
		t.Fatalf("look up: %v", err)
	}
	for i := range out {
		out[i].known = known[i]
	}
	return out
}

// segment sends the pieces as one segment from state h on.
func (p *pusher) segment(t fataler, b *chunkstore.Batch, h hash.Hash, pieces []piece, plain io.Writer) {
	t.Helper()
	ctx := tContext(t)
	state, err := chunk.SHAStateOf(h)
	if err != nil {
		t.Fatalf("state: %v", err)
	}
	if err := b.Begin(state, plain); err != nil {
		t.Fatalf("begin: %v", err)
	}
	for len(pieces) > 0 {
		n, size := 0, 0
		for n < len(pieces) && pieces[n].known == pieces[0].known && (n == 0 || pieces[0].known || size+len(pieces[n].data) <= p.frame) {
			size += len(pieces[n].data)
			n++
		}
		var refs []chunk.Ref
		var names []chunk.Name
		var sizes []uint32
		var data []byte
		for _, c := range pieces[:n] {
			h.Write(c.data)
			refs, names = append(refs, c.ref), append(names, c.ref.Name)
			sizes, data = append(sizes, uint32(len(c.data))), append(data, c.data...)
		}
		if pieces[0].known {
			err = b.Known(refs)
		} else {
			err = b.Frame(ctx, names, sizes, p.enc.EncodeAll(data, nil))
		}
		if err != nil {
			t.Fatalf("send: %v", err)
		}
		pieces = pieces[n:]
	}
	if err := b.End(ctx); err != nil {
		t.Fatalf("end: %v", err)
	}
}

// push sends a NAR in segments, every one in a batch of its own if apart says so.
func (p *pusher) push(t fataler, nar []byte, apart bool) chunk.Recipe {
	t.Helper()
	ctx := tContext(t)
	pieces := p.pieces(t, nar)
	h := sha256.New()
	var segs []chunkstore.Segment
	var b *chunkstore.Batch
	settle := func() {
		t.Helper()
		got, err := b.Settle(ctx)
		b.Close()
		if err != nil {
			t.Fatalf("settle: %v", err)
		}
		segs, b = append(segs, got...), nil
	}
	for len(pieces) > 0 || b == nil && len(segs) == 0 {
		n, size := 0, 0
		for n < len(pieces) && (n == 0 || size+len(pieces[n].data) <= p.cut) {
			size += len(pieces[n].data)
			n++
		}
		if b == nil {
			var err error
			if b, err = p.s.Batch(ctx); err != nil {
				t.Fatalf("batch: %v", err)
			}
		}
		p.segment(t, b, h, pieces[:n], nil)
		pieces = pieces[n:]
		if apart {
			settle()
		}
	}
	if b != nil {
		settle()
	}
	var state chunk.SHAState
	for i, seg := range segs {
		if len(seg.Missing) > 0 || seg.From != state {
			t.Fatalf("segment %d: misses %v, begins at %d, want %d", i, seg.Missing, seg.From.Length(), state.Length())
		}
		state = seg.To
	}
	if state.Sum() != sha256.Sum256(nar) {
		t.Fatalf("the segments' hashes end at %x, want %x", state.Sum(), sha256.Sum256(nar))
	}
	r, err := p.s.Join(ctx, state.Sum(), segs)
	if err != nil {
		t.Fatalf("join: %v", err)
	}
	if r.Size != int64(len(nar)) {
		t.Fatalf("joined %d bytes, want %d", r.Size, len(nar))
	}
	again, rest, err := chunk.DecodeRecipe(chunk.AppendRecipe(nil, &r))
	if err != nil || len(rest) > 0 {
		t.Fatalf("recipe does not survive its codec: %v", err)
	}
	return again
}
