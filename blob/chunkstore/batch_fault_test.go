package chunkstore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

// TestBatchOfTinyFrames: what a batch keeps in memory is about what was sent, however many
// frames that is, whether they wait for the end of their segment or not.
func TestBatchOfTinyFrames(t *testing.T) {
	const frames = 4000
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	for _, waits := range []bool{false, true} {
		s := mkStore(t, memblob.New(), newDirectory(), chunkstore.Options{ProofKey: testKey})
		b, err := s.Batch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Begin(chunk.SHAState{}, nil); err != nil {
			t.Fatal(err)
		}
		if waits {
			if err := b.Known(nil); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		runtime.GC() // and the pool is empty
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range frames {
			data := []byte{byte(i), byte(i >> 8)}
			id, _ := testKey.Sum(data)
			if err := b.Frame(t.Context(), []chunk.Name{id.Name()}, []uint32{2}, enc.EncodeAll(data, nil)); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if took := int64(after.HeapAlloc) - int64(before.HeapAlloc); took > 32<<20 {
			t.Errorf("waiting %v: %d frames of 2 bytes take %d MiB, want at most 32", waits, frames, took>>20)
		}
		if err := b.End(t.Context()); err != nil {
			t.Fatal(err)
		}
		if segs, err := b.Settle(t.Context()); err != nil || segs[0].Plain != 2*frames {
			t.Errorf("settled %+v: %v", segs, err)
		}
	}
}

// pushOnce pushes a NAR in batches of a segment each, and calls between before each of
// them and before the commit. It returns false if chunks are gone.
func (p *pusher) pushOnce(t fataler, nar []byte, between func()) (chunk.Recipe, bool) {
	t.Helper()
	ctx := tContext(t)
	stale := func(err error) bool {
		if err != nil && !errors.Is(err, chunkstore.ErrGone) && !errors.Is(err, chunk.ErrNoPack) {
			t.Fatalf("push: %v", err)
		}
		return err != nil
	}
	var segs []chunkstore.Segment
	h := sha256.New()
	for pieces := p.pieces(t, nar); len(pieces) > 0; {
		n, size := 0, 0
		for n < len(pieces) && (n == 0 || size+len(pieces[n].data) <= p.cut) {
			size += len(pieces[n].data)
			n++
		}
		between()
		b, err := p.s.Batch(ctx)
		if err != nil {
			t.Fatalf("batch: %v", err)
		}
		var got []chunkstore.Segment
		if err = p.trySegment(ctx, b, h, pieces[:n]); err == nil {
			between()
			got, err = b.Settle(ctx)
		}
		b.Close()
		if stale(err) || len(got[0].Missing) > 0 {
			return chunk.Recipe{}, false
		}
		segs, pieces = append(segs, got...), pieces[n:]
	}
	between()
	r, err := p.s.Join(ctx, sha256.Sum256(nar), segs)
	if stale(err) {
		return r, false
	}
	ok, err := p.d.publish(&chunkstore.Result{Recipe: r})
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	if !ok {
		p.s.Refused(&r)
	}
	return r, ok
}

// trySegment is segment for chunks that may have gone since they were asked for.
func (p *pusher) trySegment(ctx context.Context, b *chunkstore.Batch, h hash.Hash, pieces []piece) error {
	state, err := chunk.SHAStateOf(h)
	if err == nil {
		err = b.Begin(state, nil)
	}
	for i := 0; i < len(pieces) && err == nil; i++ {
		c := &pieces[i]
		h.Write(c.data)
		if c.known {
			err = b.Known([]chunk.Ref{c.ref})
		} else {
			err = b.Frame(ctx, []chunk.Name{c.ref.Name}, []uint32{uint32(len(c.data))}, p.enc.EncodeAll(c.data, nil))
		}
	}
	if err == nil {
		err = b.End(ctx)
	}
	return err
}

// TestBatchCollectedMeanwhile collects, moves and thins out packs at any moment of a push.
// What is committed then is served as it was planned, by this server and by others; and
// what is not costs one more try.
func TestBatchCollectedMeanwhile(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b, d := memblob.New(), newDirectory()
		o := chunkstore.Options{
			ProofKey: testKey, FrameBytes: 16 << 10, RestoreBytes: -1,
			PackBytes: rapid.SampledFrom([]int{8 << 10, 64 << 10}).Draw(rt, "pack"),
		}
		s := mkStore(t, b, d, o)
		defer s.Close()
		p := mkPusher(t, s, d)
		p.cut = rapid.SampledFrom([]int{4 << 10, 30_000, 1 << 20}).Draw(rt, "segment")
		nar := text(rapid.Uint64Range(0, 1<<20).Draw(rt, "seed"), rapid.IntRange(1, 60_000).Draw(rt, "len"))
		var kept []*served
		collect := func() {
			var recipes []*chunk.Recipe
			for _, n := range kept {
				recipes = append(recipes, &n.recipe)
			}
			mover := mkStore(t, b, d, o)
			defer mover.Close()
			res := mustRewrite(rt, mover, d.jobs(d.condemn(recipes)))
			d.move(rt, b, &res)
		}
		now := func() {
			if rapid.IntRange(0, 9).Draw(rt, "collect") == 0 {
				collect()
			}
		}
		for range rapid.IntRange(1, 4).Draw(rt, "generations") {
			recipe, ok := p.pushOnce(rt, nar, now)
			for range 2 {
				if !ok {
					recipe, ok = p.pushOnce(rt, nar, func() {})
				}
			}
			if !ok {
				rt.Fatal("chunks are gone although nothing was collected since")
			}
			kept = append(kept, &served{nar: nar, recipe: recipe, bytes: wantServed(t, s, &recipe, nar)})
			if nar = edit(rt, nar); len(nar) == 0 {
				nar = []byte{1}
			}
			kept = slices.DeleteFunc(kept, func(*served) bool { return rapid.IntRange(0, 3).Draw(rt, "forget") == 0 })
			now()
		}
		fresh := mkStore(t, b, d, o)
		defer fresh.Close()
		for _, n := range kept {
			for _, s := range []*chunkstore.Store{s, fresh} {
				if got := wantServed(t, s, &n.recipe, n.nar); !bytes.Equal(got, n.bytes) {
					rt.Fatalf("%d other bytes are served than at first", len(got))
				}
			}
		}
	})
}

// TestBatchGivesBack ends batches in every way there is, beside Writes. None may keep the
// memory that was set aside for it.
func TestBatchGivesBack(t *testing.T) {
	d := newDirectory()
	s := mkStore(t, memblob.New(), d, chunkstore.Options{ProofKey: testKey, FrameBytes: 16 << 10, PackBytes: 32 << 10, WriteBytes: 1 << 20})
	p := mkPusher(t, s, d)
	shared := text(7, 40_000)
	p.push(t, shared, false)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	var wg sync.WaitGroup
	for i := range uint64(48) {
		wg.Go(func() {
			nar := append(text(i, 30_000), shared...)
			if i%6 == 0 {
				if _, err := s.Write(t.Context(), bytes.NewReader(nar)); err != nil {
					t.Errorf("write: %v", err)
				}
				return
			}
			b, err := s.Batch(t.Context())
			if err != nil {
				t.Errorf("batch: %v", err)
				return
			}
			defer b.Close()
			pieces := p.pieces(t, nar)
			h := sha256.New()
			switch i % 6 {
			case 1: // it is closed before it is settled, in the middle of a segment
				if err := b.Begin(chunk.SHAState{}, nil); err != nil {
					t.Errorf("begin: %v", err)
				}
			case 2:
				_ = p.trySegment(cancelled, b, h, pieces) // it may have been quick
			case 3:
				if err = p.trySegment(t.Context(), b, h, pieces); err == nil {
					_, _ = b.Settle(cancelled) // likewise
				} else {
					t.Errorf("take in a segment: %v", err)
				}
			case 4:
				pieces[len(pieces)/2].ref.Name[0]++
				_ = p.trySegment(t.Context(), b, h, pieces) // an error, or a reference to nothing
			default:
				if err = p.trySegment(t.Context(), b, h, pieces); err == nil {
					_, err = b.Settle(t.Context())
				}
				if err != nil {
					t.Errorf("batch: %v", err)
				}
				b.Close() // and again
			}
		})
	}
	wg.Wait()
	for range 6 { // as many as there is memory for: two, and twice as many beyond
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		b, err := s.Batch(ctx)
		cancel()
		if err != nil {
			t.Fatalf("after all have ended: %v", err)
		}
		defer b.Close()
	}
	nar := append(text(3, 30_000), shared...)
	res := mustPush(t, s, d, nar)
	wantServed(t, s, &res.Recipe, nar)
}
