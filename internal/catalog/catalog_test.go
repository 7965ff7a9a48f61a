package catalog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

var cmpStorePath = cmp.Comparer(func(a, b nix.StorePath) bool { return a == b })

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want one that is %q", what, err, want)
	}
}

func TestCacheFromCradleToGrave(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	_, err := n.Cache(ctx, "ci")
	wantErr(t, "Cache", err, ErrNoCache)
	_, err = n.ConfigureCache(ctx, "ci", func(*Cache) error { return nil })
	wantErr(t, "ConfigureCache", err, ErrNoCache)
	_, err = n.DestroyCache(ctx, "ci")
	wantErr(t, "DestroyCache", err, ErrNoCache)
	_, err = n.Withdraw(ctx, "ci", nix.HashPart{})
	wantErr(t, "Withdraw", err, ErrNoCache)
	_, err = n.MissingPaths(ctx, "ci", make([]nix.HashPart, 1))
	wantErr(t, "MissingPaths", err, ErrNoCache)
	_, err = n.MissingPaths(ctx, "ci", nil)
	wantErr(t, "MissingPaths of none", err, ErrNoCache)
	_, err = n.Paths(ctx, "ci", nil, 10)
	wantErr(t, "Paths", err, ErrNoCache)
	_, err = n.Publish(ctx, mkPublication(t, "ci", "x", mkPack(1, 1, 1)))
	wantErr(t, "Publish", err, ErrNoCache)

	n.mustCreate("ci")
	_, err = n.CreateCache(ctx, Cache{Name: "ci"})
	wantErr(t, "CreateCache again", err, ErrCacheExists)
	c, err := n.Cache(ctx, "ci")
	if err != nil {
		t.Fatal(err)
	}
	key, err := nix.ParseSecretKey(c.SecretKey)
	if err != nil || key.Name() != "ci" {
		t.Errorf("key %v, %v; want a new one called ci", key, err)
	}
	want := Cache{Name: "ci", ID: 1, Created: mkTime(), SecretKey: c.SecretKey, Public: true, StoreDir: "/nix/store", Priority: 40}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}

	retention := time.Hour
	_, err = n.ConfigureCache(ctx, "ci", func(c *Cache) error {
		c.Public, c.Retention, c.UpstreamKeyNames = false, &retention, []string{"up-1"}
		c.ID, c.Name, c.Created = 9, "other", time.Time{}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want.Public, want.Retention, want.UpstreamKeyNames = false, &retention, []string{"up-1"}
	if c, err = n.Cache(ctx, "ci"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	seq := n.Seq()
	if _, err := n.ConfigureCache(ctx, "ci", func(*Cache) error { return nil }); err != nil || n.Seq() != seq {
		t.Errorf("changing nothing: %v, and slot %v after %v", err, n.Seq(), seq)
	}
	mine := errors.New("mine")
	_, err = n.ConfigureCache(ctx, "ci", func(*Cache) error { return mine })
	wantErr(t, "change fails", err, mine)
	_, err = n.ConfigureCache(ctx, "ci", func(c *Cache) error { c.StoreDir = "x"; return nil })
	wantErr(t, "bad store dir", err, ErrInvalid)
	_, err = n.ConfigureCache(ctx, "ci", func(c *Cache) error { c.SecretKey = "x:y"; return nil })
	wantErr(t, "bad key", err, ErrInvalid)

	n.mustCreate("a-first")
	caches, err := n.Caches(ctx)
	if err != nil || len(caches) != 2 || caches[0].Name != "a-first" || caches[0].ID != 2 || caches[1].Name != "ci" {
		t.Errorf("Caches: %v, %v", caches, err)
	}
	if _, err := n.DestroyCache(ctx, "ci"); err != nil {
		t.Fatal(err)
	}
	_, err = n.Cache(ctx, "ci")
	wantErr(t, "Cache, destroyed", err, ErrNoCache)
	n.mustCreate("ci")
	if c, err := n.Cache(ctx, "ci"); err != nil || c.ID != 3 {
		t.Errorf("id %d, %v; want a new one", c.ID, err)
	}
	for _, bad := range []Cache{{}, {Name: "_api"}, {Name: "a", StoreDir: "rel"}, {Name: "a", SecretKey: "nonsense"}, {Name: "a", UpstreamKeyNames: []string{""}}} {
		_, err := n.CreateCache(ctx, bad)
		wantErr(t, fmt.Sprintf("CreateCache %+v", bad), err, ErrInvalid)
	}
	n.wantSound()
}

func TestPublishThenRead(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("ci")
	pub := mkPublication(t, "ci", "hello", mkPack(1, 1, 5))
	hp := pub.Path.StorePath.HashPart()
	_, err := n.Path(ctx, "ci", hp)
	wantErr(t, "Path, before", err, ErrNoPath)
	_, err = n.Recipe(ctx, pub.Path.NarHash)
	wantErr(t, "Recipe, before", err, ErrNoRecipe)
	_, err = n.PackLayout(ctx, pub.Packs[0].Layout.ID)
	wantErr(t, "PackLayout, before", err, ErrNoPack)

	n.mustPublish(pub)
	got, err := n.Path(ctx, "ci", hp)
	if err != nil {
		t.Fatal(err)
	}
	want := pub.Path
	want.FileSize, want.Created, want.Sig, want.SigKey = 2500, mkTime(), got.Sig, got.SigKey
	if diff := cmp.Diff(want, got, cmpStorePath); diff != "" {
		t.Error(diff)
	}
	c, _ := n.Cache(ctx, "ci")
	key, _ := nix.ParseSecretKey(c.SecretKey)
	fp, _ := fingerprint(&got)
	if sig, err := nix.ParseSignature(got.Sig); err != nil || !key.Public().Verify(string(fp), sig) {
		t.Errorf("signature %q: %v, or it does not verify", got.Sig, err)
	}
	r, err := n.Recipe(ctx, pub.Path.NarHash)
	if diff := cmp.Diff(pub.Recipe, r); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	l, err := n.PackLayout(ctx, pub.Packs[0].Layout.ID)
	if diff := cmp.Diff(pub.Packs[0].Layout, l); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	ids := append(slices.Clone(pub.Packs[0].IDs), chunk.ID{1})
	locations, found, err := n.LookupChunks(ctx, ids)
	if err != nil || found[5] || !found[4] || locations[4] != (chunk.Location{Pack: pub.Packs[0].Layout.ID, Index: 4}) {
		t.Errorf("LookupChunks: %v %v %v", locations, found, err)
	}

	if _, err := n.Withdraw(ctx, "ci", hp); err != nil {
		t.Fatal(err)
	}
	_, err = n.Path(ctx, "ci", hp)
	wantErr(t, "Path, withdrawn", err, ErrNoPath)
	_, err = n.Withdraw(ctx, "ci", hp)
	wantErr(t, "Withdraw again", err, ErrNoPath)
	n.wantSound()
}

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

func TestNewKeySignsOldPaths(t *testing.T) {
	bucket := mkBucket(t)
	a, b := mkNode(t, bucket), mkNode(t, bucket)
	ctx := t.Context()
	a.mustCreate("ci")
	pub := mkPublication(t, "ci", "x", mkPack(1, 1, 2))
	a.mustPublish(pub)
	hp := pub.Path.StorePath.HashPart()
	old, err := b.Path(ctx, "ci", hp)
	if err != nil {
		t.Fatal(err)
	}
	key, err := nix.GenerateSecretKey("ci-2", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	seq, err := a.ConfigureCache(ctx, "ci", func(c *Cache) error { c.SecretKey = key.Secret(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Wait(ctx, seq); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p, err := b.Path(ctx, "ci", hp)
		if err != nil {
			t.Fatal(err)
		}
		fp, _ := fingerprint(&p)
		sig, err := nix.ParseSignature(p.Sig)
		if err != nil || !key.Public().Verify(string(fp), sig) || p.Sig == old.Sig {
			t.Errorf("signature %q is not by the new key: %v", p.Sig, err)
		}
	}
	if got := b.metrics.resigned.Get(); got != 1 {
		t.Errorf("signed %d times, want once", got)
	}
	b.mustPublish(pub)
	if p, err := b.Path(ctx, "ci", hp); err != nil || p.SigKey != keyIDOf(key) || b.metrics.resigned.Get() != 1 {
		t.Errorf("published again: key %x, %v", p.SigKey, err)
	}
	a.wantSound()
}

// TestReplicasNeverDeny publishes through one node and asks another at once.
func TestReplicasNeverDeny(t *testing.T) {
	bucket := mkBucket(t)
	nodes := []*node{mkNode(t, bucket), mkNode(t, bucket), mkNode(t, bucket)}
	ctx := t.Context()
	for i := range 30 {
		w, r := nodes[i%3], nodes[(i+1)%3]
		name := CacheName(fmt.Sprintf("c%d", i%4))
		if _, err := w.Cache(ctx, name); errors.Is(err, ErrNoCache) {
			w.mustCreate(name)
			if _, err := r.Cache(ctx, name); err != nil {
				t.Fatalf("%d: cache: %v", i, err)
			}
		}
		pub := mkPublication(t, name, fmt.Sprintf("x%d", i), mkPack(1, uint64(i), 3))
		hp := pub.Path.StorePath.HashPart()
		if m, err := r.MissingPaths(ctx, name, []nix.HashPart{hp, hp}); err != nil || len(m) != 1 || m[0] != hp {
			t.Fatalf("%d: missing before: %v, %v", i, m, err)
		}
		w.mustPublish(pub)
		switch i % 4 {
		case 0:
			if _, err := r.Path(ctx, name, hp); err != nil {
				t.Fatalf("%d: path: %v", i, err)
			}
		case 1:
			if m, err := r.MissingPaths(ctx, name, []nix.HashPart{hp}); err != nil || len(m) != 0 {
				t.Fatalf("%d: missing after: %v, %v", i, m, err)
			}
		case 2:
			if _, err := r.Recipe(ctx, pub.Path.NarHash); err != nil {
				t.Fatalf("%d: recipe: %v", i, err)
			}
		case 3:
			if _, err := r.PackLayout(ctx, pub.Packs[0].Layout.ID); err != nil {
				t.Fatalf("%d: pack: %v", i, err)
			}
		}
	}
	var want [32]byte
	for i, n := range nodes {
		if _, err := n.log.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
		got, err := n.db.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && got != want {
			t.Errorf("node %d has another state", i)
		}
		want = got
	}
	nodes[0].wantSound()
}

func TestHitsAreLocal(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("ci")
	pub := mkPublication(t, "ci", "x", mkPack(1, 1, 2))
	n.mustPublish(pub)
	before := n.metrics.catchUps.Get()
	hp := pub.Path.StorePath.HashPart()
	_, err1 := n.Path(ctx, "ci", hp)
	_, err2 := n.Cache(ctx, "ci")
	_, err3 := n.MissingPaths(ctx, "ci", []nix.HashPart{hp})
	_, err4 := n.Recipe(ctx, pub.Path.NarHash)
	_, err5 := n.PackLayout(ctx, pub.Packs[0].Layout.ID)
	_, _, err6 := n.LookupChunks(ctx, []chunk.ID{{1}})
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	if got := n.metrics.catchUps.Get(); got != before {
		t.Errorf("%d catch-ups for hits, want none", got-before)
	}
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

func TestDestroyCacheLeavesNothing(t *testing.T) {
	bucket := mkBucket(t)
	n, other := mkNode(t, bucket), mkNode(t, bucket)
	ctx := t.Context()
	n.mustCreate("ci")
	pub := mkPublication(t, "ci", "x", mkPack(1, 1, 2))
	n.mustPublish(pub)
	hp := pub.Path.StorePath.HashPart()
	row, _, err := n.db.Get(keyspace.AppendPathKey(nil, 1, hp))
	if err != nil {
		t.Fatal(err)
	}
	var many []wal.Entry
	for i := range 2*sweepPaths + 10 {
		many = append(many, set(keyspace.AppendPathKey(nil, 1, mkStorePath(t, fmt.Sprint("p", i)).HashPart()), row))
	}
	n.commit(many...)

	// Destroyed, and nobody gets around to sweeping.
	key := keyspace.AppendCacheKey(nil, "ci")
	mark := keyspace.Destroyed{ID: 1, Name: "ci", At: mkTime()}
	n.commit(remove(key), set(keyspace.AppendDestroyedKey(nil, 1), keyspace.AppendDestroyed(nil, &mark)))
	if _, err := other.log.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = other.Path(ctx, "ci", hp)
	wantErr(t, "Path", err, ErrNoCache)
	other.mustCreate("ci")
	_, err = other.Path(ctx, "ci", hp)
	wantErr(t, "Path in the new cache", err, ErrNoPath)
	if paths, err := other.Paths(ctx, "ci", nil, 10); err != nil || len(paths) != 0 {
		t.Errorf("the new cache has %d paths, %v", len(paths), err)
	}

	// Both sweep at once; a new cache of the same name keeps its own.
	other.mustPublish(pub)
	var wg sync.WaitGroup
	for _, n := range []*node{n, other} {
		wg.Go(func() {
			if err := n.Sweep(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for kv, err := range other.db.Scan(keyspace.AppendPathPrefix(nil, 1), nil) {
		t.Fatalf("left of the destroyed cache: %x, %v", kv.Key, err)
	}
	for kv := range other.db.Scan([]byte{keyspace.DestroyedPrefix}, nil) {
		t.Errorf("marker left: %x", kv.Key)
	}
	if _, err := other.Path(ctx, "ci", hp); err != nil {
		t.Errorf("the new cache's own path: %v", err)
	}
	if _, err := other.DestroyCache(ctx, "ci"); err != nil {
		t.Fatal(err)
	}
	for kv := range other.db.Scan([]byte{keyspace.PathPrefix}, nil) {
		t.Errorf("left: %x", kv.Key)
	}
	other.wantSound()
}

func TestPathsInPages(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("a")
	n.mustCreate("b")
	var want []string
	for i := range 25 {
		pub := mkPublication(t, "a", fmt.Sprint("x", i), mkPack(1, uint64(i), 1))
		n.mustPublish(pub)
		want = append(want, pub.Path.StorePath.Base())
	}
	n.mustPublish(mkPublication(t, "b", "y", mkPack(1, 99, 1)))
	slices.Sort(want)
	var got []string
	var after *nix.HashPart
	for {
		page, err := n.Paths(ctx, "a", after, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, p := range page {
			got = append(got, p.StorePath.Base())
			if p.Cache != "a" || p.Sig == "" {
				t.Errorf("path %+v is not complete", p)
			}
		}
		last := page[len(page)-1].StorePath.HashPart()
		after = &last
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestPagesAcrossReplicas asks other replicas than the first for the later pages,
// as a client behind a load balancer does: what was acknowledged before is there.
func TestPagesAcrossReplicas(t *testing.T) {
	bucket := mkBucket(t)
	a, b := mkNode(t, bucket), mkNode(t, bucket)
	ctx := t.Context()
	a.mustCreate("a")
	want := map[nix.HashPart]bool{}
	for i := range 10 {
		pub := mkPublication(t, "a", fmt.Sprint("x", i), mkPack(1, uint64(i), 1))
		a.mustPublish(pub)
		want[pub.Path.StorePath.HashPart()] = true
	}
	var after *nix.HashPart
	for _, n := range []*node{a, b, b} {
		page, err := n.Paths(ctx, "a", after, 5)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page {
			hashPart := p.StorePath.HashPart()
			delete(want, hashPart)
			after = &hashPart
		}
	}
	if len(want) != 0 {
		t.Errorf("%d of 10 acknowledged paths were not listed", len(want))
	}
}

func TestSecretIsMadeOnce(t *testing.T) {
	bucket := mkBucket(t)
	nodes := []*node{mkNode(t, bucket), mkNode(t, bucket), mkNode(t, bucket)}
	var mu sync.Mutex
	var values []string
	made := 0
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			v, created, err := n.Secret(t.Context(), "token-hs256", func() ([]byte, error) { return fmt.Appendf(nil, "secret %d", i), nil })
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if values = append(values, string(v)); created {
				made++
			}
		})
	}
	wg.Wait()
	if made != 1 || values[0] != values[1] || values[1] != values[2] {
		t.Errorf("made %d times, %q; want one for all", made, values)
	}
	mine := errors.New("mine")
	_, _, err := nodes[0].Secret(t.Context(), "other", func() ([]byte, error) { return nil, mine })
	wantErr(t, "mk fails", err, mine)
	_, _, err = nodes[0].Secret(t.Context(), "No Name", func() ([]byte, error) { return []byte("x"), nil })
	wantErr(t, "bad name", err, ErrInvalid)
}

func TestClosedLog(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("ci")
	if err := n.log.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Cache(t.Context(), "ci"); err != nil {
		t.Errorf("a hit: %v, want it served", err)
	}
	_, err := n.Cache(t.Context(), "other")
	wantErr(t, "a miss", err, ErrClosed)
	if errors.Is(err, ErrNoCache) {
		t.Error("denied without proof")
	}
	_, err = n.CreateCache(t.Context(), Cache{Name: "x"})
	wantErr(t, "a write", err, ErrClosed)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = n.CreateCache(ctx, Cache{Name: "x"})
	wantErr(t, "cancelled", err, context.Canceled)
}

func FuzzParseCacheName(f *testing.F) {
	f.Add("ci")
	f.Add("_api")
	f.Fuzz(func(t *testing.T, s string) {
		if name, err := ParseCacheName(s); err == nil && string(name) != s {
			t.Errorf("%q became %q", s, name)
		}
	})
}
