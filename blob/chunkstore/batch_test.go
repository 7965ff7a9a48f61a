package chunkstore_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

// TestBatchProperties pushes generations of a NAR by segments, mixed with whole ones, and
// reads all of them back.
func TestBatchProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := newDirectory()
		s := mkStore(t, memblob.New(), d, chunkstore.Options{
			ProofKey: testKey, FrameBytes: 16 << 10, RestoreBytes: rapid.SampledFrom([]int{-1, 2 << 10}).Draw(rt, "restore"),
			PackBytes: rapid.SampledFrom([]int{32 << 10, 1 << 20}).Draw(rt, "pack"),
		})
		p := mkPusher(t, s, d)
		p.cut = rapid.SampledFrom([]int{4 << 10, 30_000, 1 << 20}).Draw(rt, "segment")
		nar := text(rapid.Uint64Range(0, 1<<20).Draw(rt, "seed"), rapid.IntRange(0, 150_000).Draw(rt, "len"))
		var nars [][]byte
		var recipes []chunk.Recipe
		for range rapid.IntRange(1, 4).Draw(rt, "generations") {
			if rapid.IntRange(0, 3).Draw(rt, "whole") == 0 {
				res, err := s.Write(t.Context(), bytes.NewReader(nar))
				if err != nil {
					rt.Fatalf("write: %v", err)
				}
				if err := d.CommitPacks(t.Context(), res.Packs); err != nil {
					rt.Fatal(err)
				}
				recipes = append(recipes, res.Recipe)
			} else {
				recipes = append(recipes, p.push(rt, nar, rapid.Bool().Draw(rt, "apart")))
			}
			nars = append(nars, nar)
			nar = edit(rt, nar)
		}
		for i := range nars {
			wantServed(t, s, &recipes[i], nars[i])
			wantPlain(t, s, &recipes[i], nars[i])
		}
	})
}

// TestBatchStoresFramesAsTheyCame also counts what it takes to push and to push again.
func TestBatchStoresFramesAsTheyCame(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	counter := blobtest.Count(mem)
	s := mkStore(t, counter, d, chunkstore.Options{ProofKey: testKey, FrameBytes: 16 << 10})
	p := mkPusher(t, s, d)
	nar := text(3, 300_000)
	r := p.push(t, nar, false)
	if puts := counter.Calls()["put"]; puts != 1 {
		t.Errorf("one batch took %d PUTs", puts)
	}
	// Segments end frames too, so only the first frame is compared.
	var plain []byte
	for _, c := range p.pieces(t, nar) {
		if len(plain) > 0 && len(plain)+len(c.data) > p.frame {
			break
		}
		plain = append(plain, c.data...)
	}
	want := p.enc.EncodeAll(plain, nil)
	served := wantServed(t, s, &r, nar)
	if !bytes.HasPrefix(served, want) {
		t.Error("what is served does not begin with the first frame as it was sent")
	}
	if len(r.Breaks) > 0 || len(r.Served.Segments) > 0 {
		t.Errorf("all was new, and there are breaks %v and stretches %v", r.Breaks, r.Served.Segments)
	}
	before := counter.Calls()
	again := p.push(t, nar, true)
	if calls := counter.Calls(); calls["put"] != before["put"] || calls["get_range"] != before["get_range"] {
		t.Errorf("pushed again: %v, before %v: it was remembered and needs nothing of the bucket", calls, before)
	}
	if chunkstore.ETag(&again) != chunkstore.ETag(&r) {
		t.Error("pushed again, it is served otherwise")
	}
	// Another server remembers nothing, and reads.
	other := mkPusher(t, mkStore(t, counter, d, chunkstore.Options{ProofKey: testKey, FrameBytes: 16 << 10}), d)
	if got := other.push(t, nar, true); chunkstore.ETag(&got) != chunkstore.ETag(&r) {
		t.Error("pushed to another server, it is served otherwise")
	}
	if counter.Calls()["put"] != before["put"] {
		t.Error("pushed to another server, it is stored again")
	}
}

// TestBatchRepeated sends a batch whose answer was lost. What is new is not looked up
// chunk by chunk.
func TestBatchRepeated(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	s := mkStore(t, mem, d, chunkstore.Options{ProofKey: testKey, FrameBytes: 16 << 10})
	p := mkPusher(t, s, d)
	nar := text(4, 100_000)
	pieces := p.pieces(t, nar)
	for i := range 2 {
		b, err := s.Batch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.segment(t, b, sha256.New(), pieces, nil)
		if _, err := b.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.Close()
		if i == 0 && d.asked > len(pieces)/2 {
			t.Errorf("%d chunks were looked up for %d new ones", d.asked, len(pieces))
		}
	}
	if packs := len(d.packIDs()); packs != 1 {
		t.Errorf("sent twice, there are %d packs, want 1", packs)
	}
}

// TestBatchProvesOldChunks sends a frame that is there, but was stored before there were
// proofs: from then on it can be referred to.
func TestBatchProvesOldChunks(t *testing.T) {
	d := newDirectory()
	s := mkStore(t, memblob.New(), d, chunkstore.Options{ProofKey: testKey, FrameBytes: 16 << 10})
	p := mkPusher(t, s, d)
	nar := text(9, 40_000)
	p.push(t, nar, false)
	clear(d.refs)
	p.push(t, nar, false)
	for i, c := range p.pieces(t, nar) {
		if !c.known {
			t.Fatalf("chunk %d cannot be referred to", i)
		}
	}
	if packs := len(d.packIDs()); packs != 1 {
		t.Errorf("%d packs, want that nothing was stored again", packs)
	}
}

func TestBatchMissing(t *testing.T) {
	d := newDirectory()
	s := mkStore(t, memblob.New(), d, chunkstore.Options{ProofKey: testKey, FrameBytes: 16 << 10})
	p := mkPusher(t, s, d)
	nar := text(5, 50_000)
	pieces := p.pieces(t, nar)
	pieces[1].known, pieces[2].known, pieces[len(pieces)-1].known = true, true, true // a lie
	b, err := s.Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p.segment(t, b, sha256.New(), pieces, nil)
	segs, err := b.Settle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := segs[0].Missing; len(got) != 3 || got[2] != 2 || segs[0].Runs != nil {
		t.Errorf("missing %v with runs %v, want [0 1 2] and none", got, segs[0].Runs)
	}
	left := 0
	for _, c := range p.pieces(t, nar) {
		if !c.known {
			left++
		}
	}
	if left != 3 {
		t.Errorf("%d chunks are still to be sent, want the 3 that were missing", left)
	}
	r := p.push(t, nar, false)
	wantServed(t, s, &r, nar)
	stranger := pieces[0].ref
	stranger.Proof[0]++
	if _, known, err := d.LookupRefs(t.Context(), []chunk.Ref{stranger}); err != nil || known[0] {
		t.Errorf("known without a proof: %v", err)
	}
}

// TestBatchRefuses sends frames that are not what they are said to be.
func TestBatchRefuses(t *testing.T) {
	data := text(6, 3000)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	good := enc.EncodeAll(data, nil)
	id, _ := testKey.Sum(data)
	bomb := enc.EncodeAll(make([]byte, 2<<20), nil)
	small, _ := testKey.Sum([]byte("x"))
	var stream bytes.Buffer // without a content size
	w, err := zstd.NewWriter(&stream, zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	w.Write(make([]byte, 3000))
	w.Flush()
	w.Close()
	for name, c := range map[string]struct {
		names []chunk.Name
		sizes []uint32
		data  []byte
		want  string
	}{
		"another name":           {[]chunk.Name{{1}}, []uint32{3000}, good, "hashes to"},
		"a chunk too many":       {[]chunk.Name{id.Name(), id.Name()}, []uint32{3000, 3000}, good, "content of 3000 bytes, its chunks have 6000"},
		"a chunk too short":      {[]chunk.Name{id.Name(), id.Name()}, []uint32{10, 2990}, good, "chunk 0 has 10 bytes"},
		"a chunk too long":       {[]chunk.Name{id.Name()}, []uint32{1 << 20}, good, "has 1048576 bytes"},
		"no chunk":               {nil, nil, good, "0 chunks"},
		"names without lengths":  {[]chunk.Name{id.Name(), {}}, []uint32{3000}, good, "2 names"},
		"a bomb":                 {[]chunk.Name{id.Name()}, []uint32{3000}, bomb, "content of 2097152 bytes"},
		"a bomb that lies":       {[]chunk.Name{id.Name()}, []uint32{3000}, lie(bomb, good), "zstd frame"},
		"two frames":             {[]chunk.Name{id.Name()}, []uint32{3000}, append(bytes.Clone(good), enc.EncodeAll(nil, nil)...), "not exactly one"},
		"bytes after it":         {[]chunk.Name{id.Name()}, []uint32{3000}, append(bytes.Clone(good), 0), "not exactly one"},
		"cut off":                {[]chunk.Name{id.Name()}, []uint32{3000}, good[:len(good)-1], "not exactly one"},
		"no frame":               {[]chunk.Name{id.Name()}, []uint32{3000}, data[:1000], "do not begin a zstd frame"},
		"nothing":                {[]chunk.Name{id.Name()}, []uint32{3000}, nil, "do not begin a zstd frame"},
		"longer than its plain":  {[]chunk.Name{id.Name()}, []uint32{3000}, append(bytes.Clone(good), make([]byte, 4000)...), "for 3000 plain ones"},
		"more than it is said":   {[]chunk.Name{small.Name()}, []uint32{1000}, stream.Bytes(), "said to have 1000 plain ones"},
		"damaged":                {[]chunk.Name{id.Name()}, []uint32{3000}, flip(good, len(good)/2), ""},
		"more than a frame has":  {names(40, id.Name()), sizes(40, 3000), good, "120000 bytes together"},
		"a skippable frame":      {[]chunk.Name{id.Name()}, []uint32{3000}, []byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0}, "do not begin"},
		"a window of 128 MiB":    {[]chunk.Name{id.Name()}, []uint32{3000}, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x40, 0x88, 0xb8, 0x0a, 1, 0, 0}, "window"},
		"a dictionary, as it is": {[]chunk.Name{id.Name()}, []uint32{3000}, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x61, 5, 0xb8, 0x0a, 1, 0, 0}, "dictionary"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDirectory()
			s := mkStore(t, memblob.New(), d, chunkstore.Options{ProofKey: testKey, FrameBytes: 64 << 10})
			b, err := s.Batch(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := b.Begin(chunk.SHAState{}, nil); err != nil {
				t.Fatal(err)
			}
			if err := b.Known(nil); err != nil {
				t.Fatal(err)
			}
			err = b.Frame(t.Context(), c.names, c.sizes, c.data)
			if err == nil {
				err = b.End(t.Context()) // it waited for the end
			}
			bad, ok := errors.AsType[*chunkstore.BadChunkError](err)
			if !ok || bad.Item != 1 || !strings.Contains(bad.Problem, c.want) {
				t.Errorf("%v, want a BadChunkError of item 1 that says %q", err, c.want)
			}
		})
	}
}

// lie returns the blocks of bomb under the header of good.
func lie(bomb, good []byte) []byte {
	var from, to zstd.Header
	if from.Decode(bomb) != nil || to.Decode(good) != nil {
		panic("test frames have no headers")
	}
	return append(bytes.Clone(good[:to.HeaderSize]), bomb[from.HeaderSize:]...)
}

func flip(p []byte, at int) []byte {
	p = bytes.Clone(p)
	p[at] ^= 0x55
	return p
}

func names(n int, name chunk.Name) []chunk.Name {
	out := make([]chunk.Name, n)
	for i := range out {
		out[i] = name
	}
	return out
}

func sizes(n int, size uint32) []uint32 {
	out := make([]uint32, n)
	for i := range out {
		out[i] = size
	}
	return out
}

// TestBatchHandsOutPlain: whoever takes in a segment sees its bytes in order.
func TestBatchHandsOutPlain(t *testing.T) {
	d := newDirectory()
	s := mkStore(t, memblob.New(), d, chunkstore.Options{ProofKey: testKey, FrameBytes: 16 << 10})
	p := mkPusher(t, s, d)
	nar := text(8, 60_000)
	p.push(t, nar[:30_000], false)
	b, err := s.Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var got bytes.Buffer
	p.segment(t, b, sha256.New(), p.pieces(t, nar), &got)
	if !bytes.Equal(got.Bytes(), nar) {
		t.Errorf("%d other bytes than the %d of the NAR", got.Len(), len(nar))
	}
	if _, err := b.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestNoProofs: without a key no proofs are made, for nobody could ever give one that is
// equal, and nobody would replace it.
func TestNoProofs(t *testing.T) {
	for _, key := range []chunk.ProofKey{{}, testKey} {
		s := mkStore(t, memblob.New(), newDirectory(), chunkstore.Options{ProofKey: key})
		res, err := s.Write(t.Context(), strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if has := len(res.Packs) == 1 && res.Packs[0].Proofs != nil; has != (key == testKey) {
			t.Errorf("key %x: packs %+v", key, res.Packs)
		}
	}
}
