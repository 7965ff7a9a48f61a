package catalog

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

func TestPublishKeepsTheFirstRecipe(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("a")
	n.mustCreate("b")
	first := mkPublication(t, "a", "x", mkPack(1, 1, 4))
	second := mkPublication(t, "b", "x", mkPack(1, 2, 4))
	second.Recipe.Served.Size = 12345
	second.Packs[0].IDs = slices.Clone(first.Packs[0].IDs)
	second.Packs[0].IDs[3] = chunk.ID{7} // one chunk that is new
	n.mustPublish(first)
	n.mustPublish(second)
	p, err := n.Path(t.Context(), "b", second.Path.StorePath.HashPart())
	if err != nil || p.FileSize != first.Recipe.Served.Size {
		t.Errorf("file size %d, %v; want that of the recipe which is kept, %d", p.FileSize, err, first.Recipe.Served.Size)
	}
	locations, found, err := n.LookupChunks(t.Context(), second.Packs[0].IDs)
	if err != nil || locations[0].Pack != first.Packs[0].Layout.ID || !found[3] || locations[3].Pack != second.Packs[0].Layout.ID {
		t.Errorf("chunks are at %v, %v, want the first copies and the new chunk", locations, err)
	}
	n.wantSound()
}

// TestPublishManyReferences publishes an environment with as many references as a
// row may have, of names as long as those of TeX packages.
func TestPublishManyReferences(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("a")
	p := mkPublication(t, "a", "env", mkPack(1, 1, 1))
	p.Path.References = nil
	for i := range keyspace.MaxReferences {
		p.Path.References = append(p.Path.References, mkStorePath(t, fmt.Sprintf("texlive-collection-%05d-2026.r12345-tex", i)))
	}
	n.mustPublish(p)
	got, err := n.Path(t.Context(), "a", p.Path.StorePath.HashPart())
	if err != nil || !slices.Equal(got.References, p.Path.References) {
		t.Errorf("%d references, %v; want those of the publication", len(got.References), err)
	}
}

// TestPublishRepairs finds a recipe of the NAR that cannot be served, which should
// not be but must not swallow a push either: the one that comes with it is kept.
func TestPublishRepairs(t *testing.T) {
	dead := keyspace.Condemned{Bytes: 1000, Ranges: []keyspace.Range{{First: 2, Count: 1}}}
	for name, damage := range map[string]func(chunk.PackID) wal.Entry{
		"a chunk is condemned": func(id chunk.PackID) wal.Entry {
			return set(keyspace.AppendCondemnedKey(nil, id), keyspace.AppendCondemned(nil, &dead))
		},
		"its pack is gone": func(id chunk.PackID) wal.Entry { return remove(keyspace.AppendPackKey(nil, id)) },
	} {
		t.Run(name, func(t *testing.T) {
			n := mkNode(t, mkBucket(t))
			n.mustCreate("a")
			first := mkPublication(t, "a", "x", mkPack(1, 1, 4))
			n.mustPublish(first)
			n.commit(damage(first.Packs[0].Layout.ID))
			again := first
			again.Packs = nil
			if _, err := n.Publish(t.Context(), again); !errors.Is(err, ErrChunksMissing) {
				t.Errorf("publishing the same recipe: %v, want %v", err, ErrChunksMissing)
			}
			second := mkPublication(t, "a", "x", mkPack(1, 2, 4))
			second.Recipe.Served.Size++
			n.mustPublish(second)
			r, err := n.Recipe(t.Context(), first.Path.NarHash)
			if err != nil || len(r.Runs) != 1 || r.Runs[0].Pack != second.Packs[0].Layout.ID {
				t.Errorf("recipe %+v, %v; want the new one", r, err)
			}
			if p, err := n.Path(t.Context(), "a", first.Path.StorePath.HashPart()); err != nil || p.FileSize != second.Recipe.Served.Size {
				t.Errorf("file size %d, %v; want that of the new recipe, %d", p.FileSize, err, second.Recipe.Served.Size)
			}
		})
	}
}

func TestPublishRefuses(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("ci")
	n.setCounter(keyspace.UploadEpoch, 5)
	if e, err := n.UploadEpoch(ctx); e != 5 || err != nil {
		t.Fatalf("UploadEpoch is %d, %v", e, err)
	}
	known := mkPack(5, 1, 10)
	if err := n.CommitPacks(ctx, []chunk.NewPack{known}); err != nil {
		t.Fatal(err)
	}
	before := n.Seq()
	bad := func(why string, want error, change func(*Publication)) *ChunksMissingError {
		t.Helper()
		p := mkPublication(t, "ci", "x", mkPack(5, 2, 10))
		change(&p)
		_, err := n.Publish(ctx, p)
		wantErr(t, why, err, want)
		if n.Seq() != before {
			t.Fatalf("%s: something was committed", why)
		}
		missing, _ := errors.AsType[*ChunksMissingError](err)
		return missing
	}
	bad("another store dir", ErrInvalid, func(p *Publication) {
		p.Path.StorePath, _ = nix.ParseStorePath("/gnu/store/" + p.Path.StorePath.Base())
		p.Path.References = nil
	})
	bad("a reference elsewhere", ErrInvalid, func(p *Publication) {
		p.Path.References[0], _ = nix.ParseStorePath("/gnu/store/" + p.Path.StorePath.Base())
	})
	bad("recipe of another NAR", ErrInvalid, func(p *Publication) { p.Recipe.NarHash[0]++ })
	bad("recipe of another size", ErrInvalid, func(p *Publication) { p.Recipe.Size++ })
	bad("empty NAR", ErrInvalid, func(p *Publication) { p.Path.NarSize, p.Recipe.Size = 0, 0 })
	bad("bad cache name", ErrInvalid, func(p *Publication) { p.Path.Cache = "../x" })
	bad("too few ids", ErrInvalid, func(p *Publication) { p.Packs[0].IDs = p.Packs[0].IDs[1:] })
	bad("line break in deriver", ErrInvalid, func(p *Publication) { p.Path.Deriver = "x\ny" })

	missing := bad("pack of three epochs ago", ErrChunksMissing, func(p *Publication) { *p = mkPublication(t, "ci", "x", mkPack(3, 2, 10)) })
	if missing == nil || len(missing.Expired) != 1 {
		t.Errorf("expired packs are %+v", missing)
	}
	bad("pack from the future", ErrChunksMissing, func(p *Publication) { *p = mkPublication(t, "ci", "x", mkPack(6, 2, 10)) })
	missing = bad("pack nobody knows", ErrChunksMissing, func(p *Publication) { p.Packs = nil })
	if missing == nil || len(missing.Runs) != 1 || missing.Runs[0].Count != 10 {
		t.Errorf("missing runs are %+v", missing)
	}

	// What the collector of garbage will do: condemn a chunk of a known pack.
	dead := keyspace.Condemned{Pack: known.Layout.ID, Bytes: 1000, Ranges: []keyspace.Range{{First: 4, Count: 2}}}
	n.commit(
		set(keyspace.AppendCondemnedKey(nil, dead.Pack), keyspace.AppendCondemned(nil, &dead)),
		remove(keyspace.AppendChunkKey(nil, known.IDs[4])), remove(keyspace.AppendChunkKey(nil, known.IDs[5])),
	)
	before = n.Seq()
	runs := func(runs ...chunk.Run) func(*Publication) {
		return func(p *Publication) { p.Recipe.Runs, p.Packs = runs, nil }
	}
	missing = bad("a condemned chunk", ErrChunksMissing, runs(chunk.Run{Pack: dead.Pack, First: 0, Count: 4}, chunk.Run{Pack: dead.Pack, First: 3, Count: 2}))
	if missing == nil || len(missing.Runs) != 1 || missing.Runs[0].First != 3 {
		t.Errorf("missing runs are %+v", missing)
	}
	if err := n.CommitPacks(ctx, []chunk.NewPack{known}); err != nil {
		t.Errorf("committing a known pack again: %v", err)
	}
	if _, found, _ := n.LookupChunks(ctx, known.IDs[3:7]); fmt.Sprint(found) != "[true false false true]" {
		t.Errorf("committing a known pack again revived condemned chunks: %v", found)
	}
	ok := mkPublication(t, "ci", "alive", mkPack(5, 3, 10))
	ok.Packs, ok.Recipe.Runs = nil, []chunk.Run{{Pack: dead.Pack, First: 0, Count: 4}, {Pack: dead.Pack, First: 6, Count: 4}}
	n.mustPublish(ok)

	// The pack is gone, a retry of its commit comes late.
	n.commit(remove(keyspace.AppendPackKey(nil, dead.Pack)), remove(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: ok.Path.NarHash})),
		remove(keyspace.AppendPathKey(nil, 1, ok.Path.StorePath.HashPart())))
	wantErr(t, "a pack that was removed", n.CommitPacks(ctx, []chunk.NewPack{known}), ErrChunksMissing)
	if len(ok.Packs) != 0 {
		t.Error("Publish changed its argument")
	}
	n.mustPublish(mkPublication(t, "ci", "old-but-in-time", mkPack(4, 9, 3)))
}

// TestSharedPackIsWrittenOnce publishes many paths that bring the same pack along.
func TestSharedPackIsWrittenOnce(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("ci")
	const paths = 50
	pack := mkPack(1, 1, paths)
	before := n.Seq()
	var wg sync.WaitGroup
	for i := range uint32(paths) {
		pub := mkPublication(t, "ci", fmt.Sprint("x", i), pack)
		pub.Recipe.Runs = []chunk.Run{{Pack: pack.Layout.ID, First: i, Count: 1}}
		wg.Go(func() { n.mustPublish(pub) })
	}
	wg.Wait()
	written := map[string]int{}
	for s, err := range wal.ReadSegments(t.Context(), n.bucket, before+1, n.Seq()) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range s.Entries {
			if e.Kind == wal.Set {
				written[keyspace.Kind(e.Key)]++
			}
		}
	}
	if written["pack"] != 1 || written["chunk"] != paths || written["path"] != paths {
		t.Errorf("rows written: %v; want the pack once, each chunk once, each path once", written)
	}
	if len(n.carried.n) != 0 {
		t.Errorf("%d packs are still carried", len(n.carried.n))
	}
	n.wantSound()
}

func TestLargePublicationIsCut(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("ci")
	const chunks = 20_000
	big := mkPack(1, 1, chunks)
	pub := mkPublication(t, "ci", "big", big)
	pub.Recipe.Runs = nil
	for i := range uint32(chunks) { // backwards, so that no two are one run
		pub.Recipe.Runs = append(pub.Recipe.Runs, chunk.Run{Pack: big.Layout.ID, First: chunks - 1 - i, Count: 1})
	}
	for range 4 {
		pub.Recipe.Runs = append(pub.Recipe.Runs, pub.Recipe.Runs...)
	}
	seen := n.Seq()
	n.mustPublish(pub)
	for s, err := range wal.ReadSegments(ctx, n.bucket, seen+1, n.Seq()) {
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, e := range s.Entries {
			size += len(e.Key) + len(e.Value)
		}
		if size > 2*opBytes {
			t.Errorf("slot %v has %d bytes of entries", s.Seq, size)
		}
	}
	r, err := n.Recipe(ctx, pub.Path.NarHash)
	if err != nil || len(r.Runs) != len(pub.Recipe.Runs) {
		t.Errorf("recipe has %d runs, %v; want %d", len(r.Runs), err, len(pub.Recipe.Runs))
	}
	_, found, err := n.LookupChunks(ctx, big.IDs)
	if err != nil || slices.Contains(found, false) {
		t.Errorf("not all chunks are known, %v", err)
	}
	n.wantSound()
	n.wipe()
	n.wantSound()
}

// Rows are in their order in a segment, in which they are found and inserted soonest, and a pack
// may name a chunk twice.
func TestRowsOfAPackAreInOrder(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("ci")
	pack := mkPack(0, 1, 40)
	pack.IDs[30] = pack.IDs[5]
	if err := n.CommitPacks(t.Context(), []chunk.NewPack{pack}); err != nil {
		t.Fatal(err)
	}
	locations, found, err := n.LookupChunks(t.Context(), pack.IDs)
	if err != nil || slices.Contains(found, false) || locations[5] != locations[30] || locations[5].Index != 30 {
		t.Errorf("the chunk lies at %v and %v, %v, want where it comes last", locations[5], locations[30], err)
	}
	object, _, err := n.bucket.Get(t.Context(), n.Seq().Key())
	if err != nil {
		t.Fatal(err)
	}
	seg, _, err := wal.DecodeSegment(object)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for i := range seg.Entries {
		if e := &seg.Entries[i]; e.Kind == wal.Set && keyspace.Kind(e.Key) == "chunk" {
			keys = append(keys, string(e.Key))
		}
	}
	if len(keys) != len(pack.IDs) || !slices.IsSorted(keys) {
		t.Errorf("%d rows of chunks, in order: %v; want %d", len(keys), slices.IsSorted(keys), len(pack.IDs))
	}
}
