package chunkstore_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text returns n bytes that compress about as well as programs do.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}))
	out := make([]byte, 0, n+64)
	for len(out) < n {
		if r.IntN(3) == 0 && len(out) > 100 {
			at := r.IntN(len(out) - 50)
			out = append(out, out[at:at+8+r.IntN(40)]...)
		} else {
			for range 4 + r.IntN(12) {
				out = append(out, byte(r.Uint32()))
			}
		}
	}
	return out[:n]
}

// noise returns n bytes that do not compress.
func noise(n int) []byte {
	out := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(out)
	return out
}

func mkStore(t testing.TB, b blob.Bucket, d chunkstore.Directory, o chunkstore.Options) *chunkstore.Store {
	t.Helper()
	if o.Profile == (chunk.Profile{}) {
		o.Profile = mustProfile(t, "fast2016-1k")
	}
	s, err := chunkstore.New(b, d, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustProfile(t testing.TB, name string) chunk.Profile {
	t.Helper()
	p, err := chunk.ParseProfile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func mustWrite(t testing.TB, s *chunkstore.Store, d *directory, nar []byte) chunkstore.Result {
	t.Helper()
	res, err := s.Write(t.Context(), bytes.NewReader(nar))
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	if err := d.CommitPacks(t.Context(), res.Packs); err != nil {
		t.Fatalf("commit: %v", err)
	}
	wantRecipe(t, &res, nar)
	return res
}

func wantRecipe(t fataler, res *chunkstore.Result, nar []byte) {
	t.Helper()
	r := &res.Recipe
	if r.Size != int64(len(nar)) || r.NarHash != sha256.Sum256(nar) || res.PlainBytes != r.Size || r.Chunks() != res.Chunks {
		t.Fatalf("recipe of %d bytes and %d chunks with hash %x, want %d, %d, %x", r.Size, r.Chunks(), r.NarHash, len(nar), res.Chunks, sha256.Sum256(nar))
	}
	again, rest, err := chunk.DecodeRecipe(chunk.AppendRecipe(nil, r))
	if err != nil || len(rest) > 0 {
		t.Fatalf("recipe does not survive its codec: %v", err)
	}
	*r = again
}

// wantServed reads the served form, whole, and compares what it decodes to.
func wantServed(t testing.TB, s *chunkstore.Store, r *chunk.Recipe, nar []byte) []byte {
	t.Helper()
	rd, err := s.Open(t.Context(), r)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer rd.Close()
	served, err := io.ReadAll(rd)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if int64(len(served)) != r.Served.Size {
		t.Fatalf("served %d bytes, want %d", len(served), r.Served.Size)
	}
	if r.Served.FileHash != ([32]byte{}) && r.Served.FileHash != sha256.Sum256(served) {
		t.Fatal("file hash is not that of the served bytes")
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(served, nil)
	if err != nil {
		t.Fatalf("decode what was served: %v", err)
	}
	if !bytes.Equal(plain, nar) {
		t.Fatalf("what was served decodes to %d other bytes, want %d", len(plain), len(nar))
	}
	return served
}

func wantPlain(t testing.TB, s *chunkstore.Store, r *chunk.Recipe, nar []byte) {
	t.Helper()
	rd, err := s.Plain(t.Context(), r)
	if err != nil {
		t.Fatalf("open plain: %v", err)
	}
	defer rd.Close()
	plain, err := io.ReadAll(rd)
	if err != nil {
		t.Fatalf("read plain: %v", err)
	}
	if !bytes.Equal(plain, nar) {
		t.Fatalf("plain has %d other bytes, want %d", len(plain), len(nar))
	}
}

func TestWriteOpenPlain(t *testing.T) {
	for _, n := range []int{0, 1, 100, 1024, 100_000, 3_000_000} {
		b, d := memblob.New(), newDirectory()
		s := mkStore(t, b, d, chunkstore.Options{FrameBytes: 16 << 10, PackBytes: 256 << 10})
		nar := text(uint64(n), n)
		res := mustWrite(t, s, d, nar)
		if res.NewBytes != int64(n) {
			t.Errorf("%d bytes: %d are new", n, res.NewBytes)
		}
		if n > 0 && res.Recipe.Served.FileHash == ([32]byte{}) {
			t.Errorf("%d bytes: all new, and no file hash", n)
		}
		wantServed(t, s, &res.Recipe, nar)
		wantPlain(t, s, &res.Recipe, nar)
	}
}

// edit changes a NAR the way versions of a package differ: some parts replaced,
// some inserted, some removed, some moved, some repeated.
func edit(t *rapid.T, nar []byte) []byte {
	out := bytes.Clone(nar)
	for range rapid.IntRange(0, 6).Draw(t, "edits") {
		at := rapid.IntRange(0, len(out)).Draw(t, "at")
		n := min(rapid.IntRange(0, 20_000).Draw(t, "n"), len(out)-at)
		fresh := text(rapid.Uint64Range(0, 1<<20).Draw(t, "seed"), n)
		switch rapid.IntRange(0, 4).Draw(t, "how") {
		case 0:
			copy(out[at:], fresh)
		case 1:
			out = append(out[:at:at], append(fresh, out[at:]...)...)
		case 2:
			out = append(out[:at:at], out[at+n:]...)
		case 3:
			out = append(out, out[at:at+n]...)
		case 4:
			out = append(out[:at:at], append(make([]byte, n), out[at:]...)...)
		}
	}
	return out
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b, d := memblob.New(), newDirectory()
		s := mkStore(t, b, d, chunkstore.Options{
			FrameBytes:   rapid.SampledFrom([]int{1, 4 << 10, 16 << 10}).Draw(rt, "frame"),
			RestoreBytes: rapid.SampledFrom([]int{-1, 2 << 10, 8 << 10}).Draw(rt, "restore"),
			PackBytes:    rapid.SampledFrom([]int{8 << 10, 1 << 20}).Draw(rt, "pack"),
		})
		nar := text(rapid.Uint64Range(0, 1<<20).Draw(rt, "seed"), rapid.IntRange(0, 200_000).Draw(rt, "len"))
		var nars [][]byte
		var results []chunkstore.Result
		for range rapid.IntRange(1, 4).Draw(rt, "generations") {
			res, err := s.Write(t.Context(), bytes.NewReader(nar))
			if err != nil {
				rt.Fatalf("write: %v", err)
			}
			if rapid.Bool().Draw(rt, "commit at once") {
				d.CommitPacks(t.Context(), res.Packs)
			}
			wantRecipe(rt, &res, nar)
			nars, results = append(nars, nar), append(results, res)
			nar = edit(rt, nar)
		}
		for _, res := range results {
			d.CommitPacks(t.Context(), res.Packs)
		}
		for i, res := range results {
			served := wantServed(t, s, &res.Recipe, nars[i])
			wantPlain(t, s, &res.Recipe, nars[i])
			rd, err := s.Open(t.Context(), &res.Recipe)
			if err != nil {
				rt.Fatal(err)
			}
			for range 4 {
				from := rapid.IntRange(0, len(served)).Draw(rt, "from")
				to := rapid.IntRange(from, len(served)).Draw(rt, "to")
				got := make([]byte, to-from)
				if _, err := rd.Seek(int64(from), io.SeekStart); err != nil {
					rt.Fatal(err)
				}
				if _, err := io.ReadFull(rd, got); err != nil {
					rt.Fatalf("read %d to %d of %d: %v", from, to, len(served), err)
				}
				if !bytes.Equal(got, served[from:to]) {
					rt.Fatalf("bytes %d to %d differ from those of the whole", from, to)
				}
			}
			rd.Close()
		}
	})
}
