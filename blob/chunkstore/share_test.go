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

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

// slowPuts is a bucket in memory whose every call takes 100 ms, counted.
func slowPuts() (*blobtest.Counter, *memblob.Bucket) {
	mem := memblob.New()
	slow := blobtest.NewFaulty(mem, blobtest.FaultyOptions{Decide: blobtest.Seeded(1, 1, blobtest.Slow), Delay: 100 * time.Millisecond})
	return blobtest.Count(slow), mem
}

// TestSharedPacks writes a thousand small NARs at once: the first one is uploaded
// at once, and while it is, the others gather.
func TestSharedPacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, mem := slowPuts()
		d := newDirectory()
		s := mkStore(t, b, d, chunkstore.Options{})
		results := make([]chunkstore.Result, 1000)
		nars := make([][]byte, len(results))
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range results {
			nars[i] = text(uint64(i), 10_000)
			wg.Go(func() { results[i] = mustWrite(t, s, d, nars[i]) })
		}
		wg.Wait()
		if n, took := b.Calls()["put"], time.Since(begin); n > 4 || took > 400*time.Millisecond {
			t.Errorf("%d NARs took %d uploads and %v, want 3 (one pack gets full of chunks) and 300ms", len(results), n, took)
		}
		s.Close()
		fresh := mkStore(t, mem, d, chunkstore.Options{})
		defer fresh.Close()
		for i := range results {
			if i%50 == 0 {
				wantServed(t, fresh, &results[i].Recipe, nars[i])
			}
		}
	})
}

// TestPendingChunks writes a NAR while the same content is on its way up, and
// again when it is there but not yet known to the directory.
func TestPendingChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := slowPuts()
		d := newDirectory()
		s := mkStore(t, b, d, chunkstore.Options{})
		defer s.Close()
		nar := text(1, 60_000)
		results := make([]chunkstore.Result, 3)
		write := func(i int) {
			var err error
			if results[i], err = s.Write(t.Context(), bytes.NewReader(nar)); err != nil {
				t.Error(err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { write(0) })
		synctest.Wait() // it is being uploaded
		wg.Go(func() { write(1) })
		wg.Wait()
		write(2)
		if n := b.Calls()["put"]; n != 1 {
			t.Errorf("%d uploads, want 1", n)
		}
		for i, res := range results[1:] {
			if res.NewBytes != 0 || len(res.Packs) != 1 || res.Packs[0].Layout.ID != results[0].Packs[0].Layout.ID {
				t.Errorf("write %d: %d new bytes and %d packs, want 0 and the pack of the first", i+1, res.NewBytes, len(res.Packs))
			}
			if chunkstore.ETag(&res.Recipe) != chunkstore.ETag(&results[0].Recipe) {
				t.Errorf("write %d: another recipe", i+1)
			}
		}
		// A pack that may be swept before a new Write can commit it is not used.
		d.epoch++
		write(1)
		if results[1].NewBytes != int64(len(nar)) {
			t.Errorf("after a new upload epoch: %d new bytes, want %d", results[1].NewBytes, len(nar))
		}
	})
}

// TestPendingFails lets the upload fail on which another Write relies.
func TestPendingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		faulty := blobtest.NewFaulty(&late{mem}, blobtest.FaultyOptions{Decide: blobtest.FailAt(0, blobtest.LostResponse)})
		s := mkStore(t, faulty, d, chunkstore.Options{})
		defer s.Close()
		nar := text(1, 60_000)
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { _, errs[i] = s.Write(t.Context(), bytes.NewReader(nar)) })
			synctest.Wait()
		}
		wg.Wait()
		for i, err := range errs {
			if err == nil || !strings.Contains(err.Error(), "upload pack/") {
				t.Errorf("write %d: %v, want the error of the upload", i, err)
			}
		}
		res := mustWrite(t, s, d, nar)
		wantServed(t, s, &res.Recipe, nar)
	})
}

// late is a bucket whose uploads take a second.
type late struct{ blob.Bucket }

func (b *late) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	time.Sleep(time.Second)
	return b.Bucket.Put(ctx, key, body)
}

// TestFullPacks checks who makes which packs known.
func TestFullPacks(t *testing.T) {
	b, d := memblob.New(), newDirectory()
	s := mkStore(t, b, d, chunkstore.Options{FrameBytes: 8 << 10, PackBytes: 64 << 10})
	nar := text(2, 400_000)
	res, err := s.Write(t.Context(), bytes.NewReader(nar))
	if err != nil {
		t.Fatal(err)
	}
	known, packs := d.packIDs(), res.Recipe.Packs()
	if len(packs) < 4 || len(known) != len(packs)-1 || len(res.Packs) != 1 || res.Packs[0].Layout.ID != packs[len(packs)-1] {
		t.Errorf("%d packs, %d known, %d returned; want all but the last known, and that one returned", len(packs), len(known), len(res.Packs))
	}
	if res.StoredBytes < 200_000 || res.StoredBytes > 400_000 {
		t.Errorf("stored %d bytes", res.StoredBytes)
	}
	d.CommitPacks(t.Context(), res.Packs)
	again := mustWrite(t, s, d, nar)
	if again.NewBytes != 0 || again.StoredBytes != 0 || len(again.Packs) != 0 || len(again.Recipe.Served.Segments) != 0 {
		t.Errorf("written again: %d new bytes, %d packs, %d stretches; want none", again.NewBytes, len(again.Packs), len(again.Recipe.Served.Segments))
	}
	wantServed(t, s, &again.Recipe, nar)
}

// TestReadAhead reads a NAR from a bucket that is 50 ms away but as wide as can
// be: what counts is how much is asked for at a time.
func TestReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		s := mkStore(t, mem, d, chunkstore.Options{Profile: mustProfile(t, "fast2016-64k")})
		size, want := 32<<20, 100.0
		if testing.Short() {
			size, want = 8<<20, 50 // the first moments are slower
		}
		nar := noise(size)
		res := mustWrite(t, s, d, nar)
		s.Close()
		far := blobtest.NewFaulty(mem, blobtest.FaultyOptions{Decide: blobtest.Seeded(1, 1, blobtest.Slow), Delay: 50 * time.Millisecond})
		counted := blobtest.Count(far)
		s = mkStore(t, counted, d, chunkstore.Options{Profile: mustProfile(t, "fast2016-64k")})
		defer s.Close()
		begin := time.Now()
		served := wantServed(t, s, &res.Recipe, nar)
		took := time.Since(begin)
		if rate := float64(len(served)) / 1e6 / took.Seconds(); rate < want {
			t.Errorf("%d MB served in %v: %.0f MB/s, want %.0f", len(served)/1e6, took, rate, want)
		}
		if n := counted.Calls()["get_range"]; n > len(served)/(2<<20)+8 {
			t.Errorf("%d GETs for %d MB, want one for every 2 MiB or more", n, len(served)/1e6)
		}
	})
}

// TestReadBudget opens more readers than memory allows to read ahead at once, and
// lets most of them stand still.
func TestReadBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		o := chunkstore.Options{Profile: mustProfile(t, "fast2016-64k"), ReadBytes: 6 << 20}
		s := mkStore(t, mem, d, o)
		defer s.Close()
		nar := noise(12 << 20)
		res := mustWrite(t, s, d, nar)
		for range 30 {
			rd, err := s.Open(t.Context(), &res.Recipe)
			if err != nil {
				t.Fatal(err)
			}
			defer rd.Close()
			if _, err := rd.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		wantServed(t, s, &res.Recipe, nar)
	})
}

func TestETag(t *testing.T) {
	b, d := memblob.New(), newDirectory()
	s := mkStore(t, b, d, chunkstore.Options{})
	one, two := mustWrite(t, s, d, text(1, 5000)), mustWrite(t, s, d, text(2, 5000))
	etag := chunkstore.ETag(&one.Recipe)
	if len(etag) != 34 || etag[0] != '"' || etag[33] != '"' {
		t.Errorf("etag %s", etag)
	}
	if etag == chunkstore.ETag(&two.Recipe) {
		t.Error("two NARs have the same etag")
	}
	r := one.Recipe
	r.Served.FileHash = [32]byte{}
	if chunkstore.ETag(&r) != etag {
		t.Error("the etag depends on whether the file hash is known")
	}
}

// TestMissingEncoder checks what a reader says of a recipe from the future.
func TestMissingEncoder(t *testing.T) {
	b, d := memblob.New(), newDirectory()
	s := mkStore(t, b, d, chunkstore.Options{})
	res := mustWrite(t, s, d, text(1, 5000))
	res.Recipe.Served.Encoder = 200
	if _, err := s.Open(t.Context(), &res.Recipe); err == nil || !strings.Contains(err.Error(), "encoder 200") {
		t.Errorf("open: %v, want an error that names encoder 200", err)
	}
	wantPlain(t, s, &res.Recipe, text(1, 5000))
}

// TestDamagedRecipe checks that recipes which do not fit their packs are refused
// before anything is served.
func TestDamagedRecipe(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	_, good := mkGenerations(t, mem, d)
	s := mkStore(t, mem, d, chunkstore.Options{})
	for name, damage := range map[string]func(r *chunk.Recipe){
		"a chunk too many": func(r *chunk.Recipe) {
			r.Runs = append(r.Runs, chunk.Run{Pack: r.Runs[0].Pack, First: 60_000, Count: 1})
		},
		"a pack nobody knows": func(r *chunk.Recipe) { r.Runs[0].Pack.Rand++ },
		"a run too few":       func(r *chunk.Recipe) { r.Runs = r.Runs[:len(r.Runs)-1] },
		"a stretch too few":   func(r *chunk.Recipe) { r.Served.Segments = r.Served.Segments[1:] },
		"a stretch too many":  func(r *chunk.Recipe) { r.Served.Segments = append(r.Served.Segments, 5) },
		"another length":      func(r *chunk.Recipe) { r.Served.Size++ },
	} {
		r := good
		r.Runs, r.Served.Segments = clone(good.Runs), clone(good.Served.Segments)
		damage(&r)
		if rd, err := s.Open(t.Context(), &r); err == nil {
			rd.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

func clone[T any](s []T) []T { return append([]T(nil), s...) }

// TestSlowWriters lets more clients than there is memory for stand still in the
// middle of a NAR, and writes another one.
func TestSlowWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		s := mkStore(t, mem, d, chunkstore.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 60 {
			n := 10_000
			if i < 10 {
				n = 300_000
			}
			r := io.MultiReader(bytes.NewReader(text(uint64(i), n)), blocked{ctx})
			wg.Go(func() {
				if _, err := s.Write(ctx, r); err == nil {
					t.Error("written without an end")
				}
			})
		}
		synctest.Wait()
		nar := text(99, 300_000)
		begin := time.Now()
		res := mustWrite(t, s, d, nar)
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("a Write waited %v for slow ones", took)
		}
		wantServed(t, s, &res.Recipe, nar)
		cancel()
		wg.Wait()
		s.Close()
	})
}

// blocked never gives a byte.
type blocked struct{ ctx context.Context } //nolint:containedctx // a fake

func (b blocked) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, b.ctx.Err() }

// gated holds back packs until its gate opens.
type gated struct {
	blob.Bucket
	gate chan struct{}
}

func (b gated) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	select {
	case <-b.gate:
		return b.Bucket.Put(ctx, key, body)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// TestPackOutlivesItsOpener: who has begun a pack goes while it is uploaded, and others have
// chunks in it.
func TestPackOutlivesItsOpener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gated{memblob.New(), make(chan struct{})}
		s := mkStore(t, b, newDirectory(), chunkstore.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		nar := text(1, 10_000)
		var opened, shared error
		var wg sync.WaitGroup
		wg.Go(func() { _, opened = s.Write(ctx, bytes.NewReader(nar)) })
		synctest.Wait()
		wg.Go(func() { _, shared = s.Write(t.Context(), bytes.NewReader(nar)) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(b.gate)
		wg.Wait()
		if !errors.Is(opened, context.Canceled) || shared != nil {
			t.Errorf("the one who went got %v, the other %v", opened, shared)
		}
		s.Close()
	})
}
