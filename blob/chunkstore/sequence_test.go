package chunkstore_test

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

// TestSequences writes NARs that are sequences of chunks from a small pool, so
// that parts of frames, whole frames, repetitions and returns of all kinds meet.
// A chunk that ends at a cut is cut there wherever it stands.
func TestSequences(t *testing.T) {
	profile := mustProfile(t, "fast2016-1k")
	var pool [][]byte
	for rest := text(11, 60_000); len(rest) > profile.Max; {
		n := profile.Cut(rest)
		pool = append(pool, rest[:n])
		rest = rest[n:]
	}
	rapid.Check(t, func(rt *rapid.T) {
		b, d := memblob.New(), newDirectory()
		s := mkStore(t, b, d, chunkstore.Options{
			Profile:      profile,
			FrameBytes:   rapid.SampledFrom([]int{1, 3 << 10, 8 << 10}).Draw(rt, "frame"),
			RestoreBytes: rapid.SampledFrom([]int{-1, 1 << 10, 4 << 10}).Draw(rt, "restore"),
			PackBytes:    rapid.SampledFrom([]int{4 << 10, 1 << 20}).Draw(rt, "pack"),
		})
		defer s.Close()
		for range rapid.IntRange(1, 4).Draw(rt, "nars") {
			var nar []byte
			var want []chunk.ID
			for range rapid.IntRange(1, 12).Draw(rt, "runs") {
				first := rapid.IntRange(0, len(pool)-1).Draw(rt, "first")
				count := rapid.IntRange(1, min(10, len(pool)-first)).Draw(rt, "count")
				for _, p := range pool[first : first+count] {
					nar = append(nar, p...)
					want = append(want, chunk.Sum(p))
				}
			}
			res, err := s.Write(t.Context(), bytes.NewReader(nar))
			if err != nil {
				rt.Fatalf("write: %v", err)
			}
			if err := d.CommitPacks(t.Context(), res.Packs); err != nil {
				rt.Fatal(err)
			}
			wantRecipe(rt, &res, nar)
			if got := recipeIDs(rt, d, &res.Recipe); !slices.Equal(got, want) {
				rt.Fatalf("recipe names %d chunks, want %d others", len(got), len(want))
			}
			wantServed(t, s, &res.Recipe, nar)
			wantPlain(t, s, &res.Recipe, nar)
		}
	})
}

// recipeIDs returns the ids of the chunks of a recipe.
func recipeIDs(t fataler, d *directory, r *chunk.Recipe) []chunk.ID {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []chunk.ID
	for _, run := range r.Runs {
		for i := run.First; i < run.First+run.Count; i++ {
			ids = append(ids, d.ids[run.Pack][i])
		}
	}
	return ids
}
