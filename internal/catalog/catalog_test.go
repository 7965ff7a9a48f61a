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
	"github.com/celler/celler/nix"
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
	_, err4 := n.Recipe(ctx, pub.Path.NarHash)
	_, err5 := n.PackLayout(ctx, pub.Packs[0].Layout.ID)
	_, _, err6 := n.LookupChunks(ctx, []chunk.ID{{1}})
	if err := errors.Join(err1, err2, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	if got := n.metrics.catchUps.Get(); got != before {
		t.Errorf("%d catch-ups for hits, want none", got-before)
	}
}

// TestMissingAfterWithdrawal asks another node than the one that withdrew a path, or
// destroyed its cache and made a new one, what is to be pushed. Who hears "nothing"
// pushes nothing, and believes that the path is there.
func TestMissingAfterWithdrawal(t *testing.T) {
	bucket := mkBucket(t)
	a, b := mkNode(t, bucket), mkNode(t, bucket)
	ctx := t.Context()
	a.mustCreate("ci")
	pub := mkPublication(t, "ci", "x", mkPack(1, 1, 2))
	hp := pub.Path.StorePath.HashPart()
	for name, remove := range map[string]func() error{
		"withdrawn": func() error { _, err := a.Withdraw(ctx, "ci", hp); return err },
		"destroyed": func() error {
			_, err := a.DestroyCache(ctx, "ci")
			a.mustCreate("ci")
			return err
		},
	} {
		a.mustPublish(pub)
		if _, err := b.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		if m, err := b.MissingPaths(ctx, "ci", []nix.HashPart{hp}); err != nil || len(m) != 1 {
			t.Errorf("%s: missing %v, %v; want the path", name, m, err)
		}
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
