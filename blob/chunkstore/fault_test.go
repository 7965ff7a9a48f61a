package chunkstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/blob/pack"
)

// mkGenerations writes three versions of a NAR, so that the last one is served
// from whole frames of several packs and from stretches.
func mkGenerations(t *testing.T, b blob.Bucket, d *directory) ([]byte, chunk.Recipe) {
	t.Helper()
	s := mkStore(t, b, d, chunkstore.Options{FrameBytes: 8 << 10, PackBytes: 64 << 10, RestoreBytes: -1})
	defer s.Close()
	nar := text(4, 300_000)
	mustWrite(t, s, d, nar)
	var res chunkstore.Result
	for i := range 2 {
		for at := 1000 * i; at < len(nar); at += 40_000 {
			copy(nar[at:], text(uint64(at+i), 700))
		}
		res = mustWrite(t, s, d, nar)
	}
	if len(res.Recipe.Served.Segments) < 5 || len(res.Recipe.Packs()) < 3 {
		t.Fatalf("%d stretches and %d packs make no good test", len(res.Recipe.Served.Segments), len(res.Recipe.Packs()))
	}
	return nar, res.Recipe
}

// TestReadFaults lets every request of a read fail in every way once. The time
// is that of a bubble, so the pauses between tries take none.
func TestReadFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		nar, recipe := mkGenerations(t, mem, d)
		for _, fault := range []blobtest.Fault{
			blobtest.LostRequest, blobtest.ShortBody, blobtest.Throttled, blobtest.Unavailable, blobtest.Slow,
		} {
			faulty := blobtest.NewFaulty(mem, blobtest.FaultyOptions{Delay: 10 * time.Second})
			for k := 0; ; k++ {
				faulty.Set(blobtest.FailAt(k, fault))
				s := mkStore(t, faulty, d, chunkstore.Options{})
				wantServed(t, s, &recipe, nar)
				wantPlain(t, s, &recipe, nar)
				s.Close()
				if faulty.Calls() <= k {
					break
				}
			}
		}
	})
}

// TestReadManyFaults breaks a third of all requests, of several readers at once
// that share buffers. Some of them stop in the middle.
func TestReadManyFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		nar, recipe := mkGenerations(t, mem, d)
		clean := mkStore(t, mem, d, chunkstore.Options{})
		want := wantServed(t, clean, &recipe, nar)
		clean.Close()
		whole := 0
		for seed := range uint64(20) {
			faulty := blobtest.NewFaulty(mem, blobtest.FaultyOptions{Decide: blobtest.Seeded(seed, 0.3, blobtest.LostRequest, blobtest.ShortBody, blobtest.Slow)})
			s := mkStore(t, faulty, d, chunkstore.Options{})
			var wg sync.WaitGroup
			var mu sync.Mutex // guards whole
			for i := range int64(4) {
				wg.Go(func() {
					rd, err := s.Open(t.Context(), &recipe)
					if err != nil {
						t.Error(err)
						return
					}
					defer rd.Close()
					most := int64(len(want))
					if i == 3 {
						most = most * int64(seed) / 20
					}
					got, err := io.ReadAll(io.LimitReader(rd, most))
					// It may give up, but never in silence, and never with other bytes.
					if !bytes.Equal(got, want[:len(got)]) || err == nil && int64(len(got)) != most {
						t.Errorf("seed %d: %d bytes, error %v; want %d, or an error, and the right bytes", seed, len(got), err, most)
					}
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						whole++
					}
				})
			}
			wg.Wait()
			s.Close()
		}
		if whole < 40 {
			t.Errorf("%d of 80 reads succeeded, want more than half", whole)
		}
	})
}

func TestReadGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		_, recipe := mkGenerations(t, mem, d)
		faulty := blobtest.NewFaulty(mem, blobtest.FaultyOptions{Decide: blobtest.Seeded(1, 1, blobtest.ShortBody)})
		s := mkStore(t, faulty, d, chunkstore.Options{})
		for name, open := range map[string]func() (io.ReadCloser, error){
			"served": func() (io.ReadCloser, error) { return s.Open(t.Context(), &recipe) },
			"plain":  func() (io.ReadCloser, error) { return s.Plain(t.Context(), &recipe) },
		} {
			rd, err := open()
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadAll(rd)
			if err == nil || !strings.Contains(err.Error(), "pack/") || !errors.Is(err, blobtest.ErrInjected) {
				t.Errorf("%s: %v, want an error that names the object", name, err)
			}
			if _, again := rd.Read(make([]byte, 1)); again == nil || errors.Is(again, io.EOF) {
				t.Errorf("%s: reading on gives %v, want the error again", name, again)
			}
			rd.Close()
		}
	})
}

func TestReadGone(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	_, recipe := mkGenerations(t, mem, d)
	for _, id := range d.packIDs() {
		if err := mem.Delete(t.Context(), pack.Key(id)); err != nil {
			t.Fatal(err)
		}
	}
	s := mkStore(t, mem, d, chunkstore.Options{})
	rd, err := s.Open(t.Context(), &recipe)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if _, err := io.ReadAll(rd); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("all packs deleted: %v, want blob.ErrNotExist", err)
	}
}

// TestCorruption changes bytes of every pack, one at a time. A read that needs
// the byte fails and says where; one that does not is right.
func TestCorruption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		nar, recipe := mkGenerations(t, mem, d)
		step := 331
		if testing.Short() {
			step = 2711
		}
		used := recipe.Packs()
		for _, id := range used {
			object, _, err := mem.Get(t.Context(), pack.Key(id))
			if err != nil {
				t.Fatal(err)
			}
			detected := 0
			for at := 0; at < len(object); at += step {
				bad := bytes.Clone(object)
				bad[at] ^= 0x40
				if _, err := mem.Put(t.Context(), pack.Key(id), bad); err != nil {
					t.Fatal(err)
				}
				s := mkStore(t, mem, d, chunkstore.Options{})
				for range 2 {
					rd, err := s.Plain(t.Context(), &recipe)
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(rd)
					rd.Close()
					var corrupt *pack.CorruptError
					switch {
					case err == nil && bytes.Equal(got, nar):
					case err == nil:
						t.Fatalf("byte %d of %v changed: the NAR is wrong and nobody noticed", at, id)
					case !errors.As(err, &corrupt):
						t.Fatalf("byte %d of %v changed: %v, want a CorruptError", at, id, err)
					case corrupt.Key != pack.Key(id) || corrupt.Offset > int64(at) || corrupt.Expected == corrupt.Found:
						t.Fatalf("byte %d of %v changed: %v", at, id, err)
					default:
						detected++
					}
				}
				s.Close()
			}
			if detected == 0 {
				t.Errorf("no change of %v was ever detected", id)
			}
			if _, err := mem.Put(t.Context(), pack.Key(id), object); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestWrongChunk gives a frame other bytes with a checksum that fits: only the
// ids of the chunks can tell.
func TestWrongChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		s := mkStore(t, mem, d, chunkstore.Options{FrameBytes: 1})
		nar := text(5, 20_000)
		res := mustWrite(t, s, d, nar)
		id := res.Recipe.Runs[0].Pack
		object, _, err := mem.Get(t.Context(), pack.Key(id))
		if err != nil {
			t.Fatal(err)
		}
		f, err := pack.DecodeFooter(id, object, int64(len(object)))
		if err != nil {
			t.Fatal(err)
		}
		f.Sections[0].Frames[3].Entries[0].ID[0] ^= 1
		object = pack.AppendFooter(bytes.Clone(object[:f.Offset()]), &f)
		if _, err := mem.Put(t.Context(), pack.Key(id), object); err != nil {
			t.Fatal(err)
		}
		fresh := mkStore(t, mem, d, chunkstore.Options{})
		rd, err := fresh.Plain(t.Context(), &res.Recipe)
		if err != nil {
			t.Fatal(err)
		}
		defer rd.Close()
		if _, err := io.ReadAll(rd); err == nil || !strings.Contains(err.Error(), "SHA-256 of chunk 3") {
			t.Errorf("chunk 3 has another id: %v", err)
		}
	})
}

// stalled blocks every n-th range for ever.
type stalled struct {
	blob.Bucket
	every int
	mu    sync.Mutex // guards calls
	calls int
}

type hanging struct {
	ctx context.Context //nolint:containedctx // a fake
}

func (h hanging) Read([]byte) (int, error) { <-h.ctx.Done(); return 0, h.ctx.Err() }
func (h hanging) Close() error             { return nil }

func (b *stalled) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	b.mu.Lock()
	b.calls++
	stall := b.calls%b.every == 0
	b.mu.Unlock()
	if stall {
		return hanging{ctx}, nil
	}
	return b.Bucket.GetRange(ctx, key, off, n)
}

// TestHedge checks that a GET which never answers is overtaken by another one.
func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		nar, recipe := mkGenerations(t, mem, d)
		set := metrics.NewSet()
		s := mkStore(t, &stalled{Bucket: mem, every: 4}, d, chunkstore.Options{Metrics: set})
		begin := time.Now()
		wantServed(t, s, &recipe, nar)
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("took %v, want little more than the patience with one GET", took)
		}
		if n := set.GetOrCreateCounter("celler_chunkstore_fetch_hedges_total").Get(); n == 0 {
			t.Error("no GET was sent beside one that stands still")
		}
		s.Close()
	})
}

// TestResume breaks a long GET in the middle: what had arrived is not fetched again.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		o := chunkstore.Options{Profile: mustProfile(t, "fast2016-16k"), FrameBytes: 64 << 10}
		s := mkStore(t, mem, d, o)
		nar := noise(6 << 20)
		res := mustWrite(t, s, d, nar)
		s.Close()
		faulty := blobtest.NewFaulty(mem, blobtest.FaultyOptions{})
		for k := range 3 {
			faulty.Set(blobtest.FailAt(k, blobtest.ShortBody))
			count := blobtest.Count(faulty)
			s := mkStore(t, count, d, o)
			wantServed(t, s, &res.Recipe, nar)
			s.Close()
			if extra := count.Bytes("get_range") - res.Recipe.Served.Size; extra > 100_000 {
				t.Errorf("GET %d broken: %d bytes were fetched twice, want one frame at most", k, extra)
			}
		}
	})
}

// TestPlainHash checks that Plain does not end well if the whole is not what the
// recipe says, although every chunk is.
func TestPlainHash(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	_, recipe := mkGenerations(t, mem, d)
	recipe.NarHash[5] ^= 1
	s := mkStore(t, mem, d, chunkstore.Options{})
	rd, err := s.Plain(t.Context(), &recipe)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if _, err := io.ReadAll(rd); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("NAR hash is wrong: %v", err)
	}
}
