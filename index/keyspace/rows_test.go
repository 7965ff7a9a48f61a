package keyspace

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/nix"
)

var update = flag.Bool("update", false, "rewrite testdata/golden.txt")

func TestRowsSurviveARoundTrip(t *testing.T) {
	for _, r := range rows(t) {
		t.Run(r.name, func(t *testing.T) {
			again, err := r.decode(r.key, r.value)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again.key, r.key) || !bytes.Equal(again.value, r.value) {
				t.Errorf("encoded again:\n%x %x\nwant\n%x %x", again.key, again.value, r.key, r.value)
			}
			if got, want := Kind(r.key), strings.Fields(r.name)[0]; got != want {
				t.Errorf("Kind is %q, want %q", got, want)
			}
		})
	}
	t.Run("fields", func(t *testing.T) {
		c, p := mkCache(), mkPath(t)
		gotCache, err := DecodeCache(AppendCacheKey(nil, c.Name), AppendCache(nil, &c))
		if diff := cmp.Diff(c, gotCache); diff != "" || err != nil {
			t.Errorf("cache: %v\n%s", err, diff)
		}
		gotPath, err := DecodePath(AppendPathKey(nil, 7, p.StorePath.HashPart()), AppendPath(nil, &p))
		if diff := cmp.Diff(p, gotPath, cmpStorePath); diff != "" || err != nil {
			t.Errorf("path: %v\n%s", err, diff)
		}
		d := Destroyed{ID: 9, Name: "old", At: mkTime()}
		gotDestroyed, err := DecodeDestroyed(AppendDestroyedKey(nil, 9), AppendDestroyed(nil, &d))
		if diff := cmp.Diff(d, gotDestroyed); diff != "" || err != nil {
			t.Errorf("destroyed: %v\n%s", err, diff)
		}
	})
}

// TestGolden pins the bytes: a node of tomorrow reads what one of today wrote.
func TestGolden(t *testing.T) {
	var b strings.Builder
	for _, r := range rows(t) {
		fmt.Fprintf(&b, "%s\n\t%x\n\t%x\n", r.name, r.key, r.value)
	}
	file := filepath.Join("testdata", "golden.txt")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("rows have other bytes than they used to; that needs a new version:\n%s", diff)
	}
}

// TestDamage flips and cuts every byte: a decoder either refuses, or what it
// returns encodes to exactly those bytes.
func TestDamage(t *testing.T) {
	for _, r := range rows(t) {
		t.Run(r.name, func(t *testing.T) {
			try := func(key, value []byte) {
				t.Helper()
				again, err := r.decode(key, value)
				if err == nil && (!bytes.Equal(again.key, key) || !bytes.Equal(again.value, value)) {
					t.Errorf("decoded\n%x %x\nto what encodes to\n%x %x", key, value, again.key, again.value)
				}
			}
			for i := range r.value {
				if _, err := r.decode(r.key, r.value[:i]); err == nil && !endless(r.name) {
					t.Errorf("cut at %d of %d: no error", i, len(r.value))
				}
				for bit := range 8 {
					v := bytes.Clone(r.value)
					v[i] ^= 1 << bit
					try(r.key, v)
				}
			}
			if _, err := r.decode(r.key, append(bytes.Clone(r.value), 0)); err == nil && !endless(r.name) {
				t.Error("one more byte: no error")
			}
			for i := range r.key {
				k := bytes.Clone(r.key)
				k[i] ^= 1
				try(k, r.value)
				if _, err := r.decode(r.key[:i], r.value); err == nil && r.name != "cache" && r.name != "secret" {
					t.Errorf("key cut at %d: no error", i)
				}
			}
			v := bytes.Clone(r.value)
			v[0] = 0x7f
			if _, err := r.decode(r.key, v); err == nil || !strings.Contains(err.Error(), "version") {
				t.Errorf("next version: %v, want an error about the version", err)
			}
		})
	}
}

// endless reports whether the last field of a row is as long as the row.
func endless(name string) bool {
	return name == "secret" || name == "round" || name == "listing" || name == "side" || name == "side empty"
}

func TestKeysSortAsNumbers(t *testing.T) {
	var hp nix.HashPart
	hp[19] = 1
	asc := [][]byte{
		AppendGrowthKey(nil, 1, 2), AppendGrowthKey(nil, 1, 256), AppendGrowthKey(nil, 2, 1), AppendGrowthKey(nil, 256, 1),
		AppendTouchKey(nil, 1, 1), AppendTouchKey(nil, 1, 256), AppendTouchKey(nil, 2, 1),
		AppendPinKey(nil, 1, "a"), AppendPinRevisionKey(nil, 1, "a", 1), AppendPinRevisionKey(nil, 1, "a", 256), AppendPinKey(nil, 1, "a.b"), AppendPinKey(nil, 1, "b"),
		AppendUseOrderKey(nil, Use{Cache: 1, Day: 2, HashPart: hp}), AppendUseOrderKey(nil, Use{Cache: 1, Day: 256}), AppendUseOrderKey(nil, Use{Cache: 2, Day: 1}),
		AppendPathKey(nil, 1, nix.HashPart{}), AppendPathKey(nil, 1, hp), AppendPathKey(nil, 2, nix.HashPart{}), AppendPathKey(nil, 256, nix.HashPart{}),
		AppendRecipeKey(nil, RecipeKey{}), AppendRecipeKey(nil, RecipeKey{Part: 1}), AppendRecipeKey(nil, RecipeKey{Part: 2}), AppendRecipeKey(nil, RecipeKey{NarHash: [32]byte{31: 1}}),
	}
	for i := 1; i < len(asc); i++ {
		if bytes.Compare(asc[i-1], asc[i]) >= 0 {
			t.Errorf("key %d %x does not sort before %x", i-1, asc[i-1], asc[i])
		}
	}
	for prefix, of := range map[string][]byte{
		string(AppendPathPrefix(nil, 2)):          AppendPathKey(nil, 2, hp),
		string(AppendPinPrefix(nil, 2)):           AppendPinKey(nil, 2, "a"),
		string(AppendPinKey(nil, 2, "a")):         AppendPinRevisionKey(nil, 2, "a", 1),
		string(AppendGrowthPrefix(nil, 2)):        AppendGrowthKey(nil, 2, 1),
		string(AppendTouchPrefix(nil, 2)):         AppendTouchKey(nil, 2, 1),
		string(AppendLastUsePrefix(nil, 2)):       AppendLastUseKey(nil, 2, hp),
		string(AppendUseOrderPrefix(nil, 2)):      AppendUseOrderKey(nil, Use{Cache: 2, Day: 1}),
		string(AppendRecipeKey(nil, RecipeKey{})): AppendRecipeKey(nil, RecipeKey{Part: 1}),
	} {
		if !bytes.HasPrefix(of, []byte(prefix)) {
			t.Errorf("%x is not a prefix of %x", prefix, of)
		}
	}
}

func TestSizes(t *testing.T) {
	r := chunkRow("", Chunk{Location: chunk.Location{Pack: chunk.PackID{Epoch: 10, Rand: 1 << 63}, Index: 2000}, Proof: chunk.Proof{7: 1}})
	if len(r.key) != 33 || len(r.value) > 22 {
		t.Errorf("a chunk takes %d and %d bytes, want 33 and at most 22", len(r.key), len(r.value))
	}
}

func TestRecipeParts(t *testing.T) {
	r := mkRecipe(200_000)
	values, tag, err := EncodeRecipe(&r)
	if err != nil {
		t.Fatal(err)
	}
	if len(values) < 3 {
		t.Fatalf("%d parts, want a few", len(values))
	}
	parts := map[string][]byte{}
	for i, v := range values {
		if len(v) > RecipePartBytes+32 {
			t.Errorf("part %d has %d bytes", i, len(v))
		}
		k := RecipeKey{NarHash: r.NarHash, Tag: tag, Part: i}
		key := AppendRecipeKey(nil, k)
		parts[string(key)] = v
		if back, err := DecodeRecipeKey(key); err != nil || i > 0 && back != k {
			t.Errorf("key of part %d: %v, %v", i, back, err)
		}
	}
	get := func(k RecipeKey) ([]byte, error) { return parts[string(AppendRecipeKey(nil, k))], nil }
	got, err := DecodeRecipe(r.NarHash, values[0], get)
	if diff := cmp.Diff(r, got); err != nil || diff != "" {
		t.Fatalf("%v\n%.500s", err, diff)
	}
	h, err := DecodeRecipeHead(values[0])
	if err != nil || h.ServedSize != 77 || h.Parts != len(values) || h.Tag != tag {
		t.Errorf("head: %v, %+v", err, h.Tag)
	}
	bad := func(why string, f func()) {
		t.Helper()
		saved := parts[string(AppendRecipeKey(nil, RecipeKey{NarHash: r.NarHash, Tag: tag, Part: 1}))]
		parts[string(AppendRecipeKey(nil, RecipeKey{NarHash: r.NarHash, Tag: tag, Part: 1}))] = bytes.Clone(saved)
		f()
		if _, err := DecodeRecipe(r.NarHash, values[0], get); err == nil {
			t.Errorf("%s: no error", why)
		}
		parts[string(AppendRecipeKey(nil, RecipeKey{NarHash: r.NarHash, Tag: tag, Part: 1}))] = saved
	}
	one := func() []byte {
		return parts[string(AppendRecipeKey(nil, RecipeKey{NarHash: r.NarHash, Tag: tag, Part: 1}))]
	}
	bad("a byte of a part is changed", func() { one()[100]++ })
	bad("a part is missing", func() { clear(parts) })
	if _, err := DecodeRecipe([32]byte{1}, values[0], get); err == nil {
		t.Error("recipe of another NAR: no error")
	}
}

func TestCondemnedOverlaps(t *testing.T) {
	c := Condemned{Ranges: []Range{{2, 3}, {10, 1}}}
	for _, x := range []struct {
		first, count uint32
		want         bool
	}{{0, 2, false}, {0, 3, true}, {4, 1, true}, {5, 5, false}, {5, 6, true}, {11, 60000, false}, {0, 60000, true}, {3, 1, true}} {
		if got := c.Overlaps(x.first, x.count); got != x.want {
			t.Errorf("Overlaps(%d, %d) = %v, want %v", x.first, x.count, got, x.want)
		}
	}
}

func TestCacheName(t *testing.T) {
	for _, s := range []string{"a", "A9", "x-_+", strings.Repeat("n", 50)} {
		if _, err := ParseCacheName(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "_api", "-x", "+x", "a b", "a/b", "..", "é", "a\n", strings.Repeat("n", 51)} {
		if _, err := ParseCacheName(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
	if _, err := ParseCacheName("naïf"); err == nil || !strings.Contains(err.Error(), "'ï' at 2") {
		t.Errorf("got %v, want an error that names the letter", err)
	}
}

func FuzzCacheName(f *testing.F) {
	for _, s := range []string{"", "ci", "a-_+", "-a", "naïf", strings.Repeat("n", 51)} {
		f.Add(s)
	}
	good := regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_+-]{0,49}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseCacheName(s)
		if (err == nil) != good.MatchString(s) || err == nil && string(n) != s {
			t.Errorf("%q became %q, %v", s, n, err)
		}
	})
}

func TestInvalidRows(t *testing.T) {
	p := func(why string, change func(*Path)) {
		t.Helper()
		row := mkPath(t)
		if err := row.Valid(); err != nil {
			t.Fatal(err)
		}
		change(&row)
		if row.Valid() == nil {
			t.Errorf("path with %s is valid", why)
		}
	}
	p("no store path", func(p *Path) { p.StorePath = nix.StorePath{} })
	p("a reference to another store", func(p *Path) {
		p.References[0] = mkStorePath(t, "/gnu/store/00bgd045z0d4icpbc2yyz4gx48ak44la-x")
	})
	p("a line break in CA", func(p *Path) { p.CA = "x\nSig: y" })
	p("a line break in a signature", func(p *Path) { p.Sigs[0] = "x\ny" })
	p("a negative size", func(p *Path) { p.NarSize = -1 })
	p("a signature by nobody", func(p *Path) { p.SigKey = KeyID{} })
	p("a time before 1970", func(p *Path) { p.Created = time.Unix(-5, 0) })
	p("a long system", func(p *Path) { p.System = strings.Repeat("x", maxText+1) })

	c := func(why string, change func(*Cache)) {
		t.Helper()
		row := mkCache()
		if err := row.Valid(); err != nil {
			t.Fatal(err)
		}
		change(&row)
		if row.Valid() == nil {
			t.Errorf("cache with %s is valid", why)
		}
	}
	c("no id", func(c *Cache) { c.ID = 0 })
	c("no key", func(c *Cache) { c.SecretKey = "" })
	c("a relative store dir", func(c *Cache) { c.StoreDir = "nix/store" })
	c("half a second of retention", func(c *Cache) { d := time.Second / 2; c.Retention = &d })
	c("an empty upstream key name", func(c *Cache) { c.UpstreamKeyNames[0] = "" })
}

// TestDecodersAllocateWithinReason puts counts into rows that promise far more
// than follows.
func TestDecodersAllocateWithinReason(t *testing.T) {
	var before, after runtime.MemStats
	for _, r := range rows(t) {
		runtime.ReadMemStats(&before)
		n := 0
		for i := range r.value {
			v := append(bytes.Clone(r.value[:i]), 0xff, 0xff, 0xff, 0xff, 0x7f)
			_, _ = r.decode(r.key, append(v, r.value[i:]...))
			n++
		}
		runtime.ReadMemStats(&after)
		if got := int(after.TotalAlloc-before.TotalAlloc) / n; got > 16<<10 {
			t.Errorf("%s: %d bytes allocated for a damaged row, want less than 16 KiB", r.name, got)
		}
	}
}
