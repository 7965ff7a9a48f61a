package keyspace

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/nix"
)

var update = flag.Bool("update", false, "rewrite testdata/golden.txt")

// row is one row as bytes, with a decoder that returns what encodes to it again.
type row struct {
	name       string
	key, value []byte
	decode     func(key, value []byte) (again row, err error)
}

var cmpStorePath = cmp.Comparer(func(a, b nix.StorePath) bool { return a == b })

func mkStorePath(t testing.TB, s string) nix.StorePath {
	t.Helper()
	p, err := nix.ParseStorePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mkTime() time.Time { return time.UnixMilli(1763884800123).UTC() }

func mkCache() Cache {
	retention := 30 * 24 * time.Hour
	return Cache{
		Name: "ci+x_Y-1", ID: 7, Created: mkTime(), SecretKey: "ci-1:c2VjcmV0", Public: true, StoreDir: "/nix/store",
		Priority: -3, UpstreamKeyNames: []string{"cache.nixos.org-1", "other-1"}, Retention: &retention,
	}
}

func mkPath(t testing.TB) Path {
	return Path{
		StorePath: mkStorePath(t, "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-hello-2.12"),
		NarHash:   [32]byte{1, 2, 3}, NarSize: 226560, FileSize: 50000,
		References: []nix.StorePath{
			mkStorePath(t, "/nix/store/1b9p07z77phvv2hf6gm9f28syp39f1ag-glibc-2.40"),
			mkStorePath(t, "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-hello-2.12"),
		},
		Deriver: "l1a7vsxl0fnqp8h2pxqy5j5vyv8kd1ss-hello-2.12.drv", System: "x86_64-linux", CA: "fixed:r:sha256:abc",
		Sigs: []string{"cache.nixos.org-1:AAAA"}, Sig: "ci-1:BBBB", SigKey: KeyID{9, 8, 7, 6, 5, 4, 3, 2}, By: "alice", Created: mkTime(),
	}
}

func mkLayout() chunk.Layout {
	return chunk.Layout{
		ID: chunk.PackID{Epoch: 3, Rand: 0x0123456789abcdef}, Bytes: 1000,
		Frames: []chunk.Frame{{Offset: 0, Size: 400, Checksum: 0xdeadbeef, Chunks: 2}, {Offset: 400, Size: 500, Checksum: 1, Chunks: 1}},
		Sizes:  []uint32{16384, 9000, 20000},
	}
}

func mkRecipe(runs int) chunk.Recipe {
	r := chunk.Recipe{NarHash: [32]byte{5, 6}, Size: 99, Served: chunk.Served{Encoder: 1, Size: 77, Segments: []uint32{5}}}
	for i := range runs {
		r.Runs = append(r.Runs, chunk.Run{Pack: chunk.PackID{Epoch: 1, Rand: uint64(i % 3)}, First: uint32(i*7919) % 60000, Count: 1})
	}
	return r
}

// rows returns one row of each type, of two shapes where there are two.
func rows(t testing.TB) []row {
	c, p, l, r := mkCache(), mkPath(t), mkLayout(), mkRecipe(2)
	plain := Cache{Name: "b", ID: 1, SecretKey: "b:eA==", StoreDir: "/gnu/store"}
	bare := Path{StorePath: mkStorePath(t, "/gnu/store/00bgd045z0d4icpbc2yyz4gx48ak44la-x"), NarSize: 1}
	cond := Condemned{Pack: l.ID, Bytes: 5, Ranges: []Range{{0, 2}, {5, 1}, {100, 60}}}
	recipe, _, err := EncodeRecipe(&r)
	if err != nil {
		t.Fatal(err)
	}
	return []row{
		cacheRow("cache", &c), cacheRow("cache plain", &plain),
		pathRow("path", 7, &p), pathRow("path bare", 1, &bare),
		chunkRow("chunk", Chunk{ID: chunk.Sum([]byte("x")), Location: chunk.Location{Pack: l.ID, Index: 300}}),
		chunkRow("chunk with its proof", Chunk{ID: chunk.Sum([]byte("x")), Location: chunk.Location{Pack: l.ID, Index: 300}, Proof: chunk.Proof{1, 2, 3, 4, 5, 6, 7, 8}}),
		packRow("pack", &l),
		{"recipe", AppendRecipeKey(nil, RecipeKey{NarHash: r.NarHash}), recipe[0], decodeRecipeRow},
		secretRow("secret", &Secret{Name: "token-hs256", Value: []byte("sesame"), Created: mkTime()}),
		counterRow("counter", UploadEpoch, 3), counterRow("counter 2", NextCacheID, 1<<32-1),
		condemnedRow("condemned", &cond),
		condemnedRow("condemned purge", &Condemned{Pack: l.ID, Bytes: 5, Ranges: []Range{{0, 2}}, Purge: true}),
		condemnedRow("condemned purge only", &Condemned{Pack: l.ID, Purge: true}),
		destroyedRow("destroyed", &Destroyed{ID: 9, Name: "old", At: mkTime()}),
		destroyedRow("destroyed building", &Destroyed{ID: 9, Name: "old", At: mkTime(), Building: 7}),
		counterRow("counter 3", OpenDay, 400), counterRow("counter 4", Ticks, 12), counterRow("counter 5", Recounts, 3),
		narRow(Nar{NarHash: r.NarHash, Paths: 3, NarSize: 226560, ServedSize: 50000}),
		unreferencedRow("unreferenced", Unreferenced{NarHash: r.NarHash, Day: 300}),
		unreferencedRow("unreferenced purge", Unreferenced{NarHash: r.NarHash, Day: 1, Purge: true, Now: true}),
		lastUseRow(Use{Cache: 7, HashPart: p.StorePath.HashPart(), Day: 300}),
		useRow(Use{Cache: 7, HashPart: p.StorePath.HashPart(), Day: 300}),
		totalsRow("totals", &Totals{Cache: 7, Paths: 3, NarBytes: 500, ServedBytes: 99, BroughtBytes: 300, BroughtStored: 80}),
		totalsRow("totals none", &Totals{Cache: 8}),
		totalsRow("totals store", &Totals{
			Paths: 3, NarBytes: 500, ServedBytes: 99, BroughtBytes: 300, BroughtStored: 80, Nars: 2, NarsBytes: 400, NarsServed: 70, Chunks: 1000, ChunkBytes: 300,
			Dead: 5, DeadBytes: 6, Packs: 3, Objects: 2, StoredBytes: 600, Buried: 1, BuriedBytes: 100, Unreferenced: 4,
		}),
		growthRow(&Growth{Day: 300, Cache: 7, AddedPaths: 4, AddedBytes: 5000, RemovedPaths: 1, RemovedBytes: 200}),
		dayRow("day", &Day{Number: 300, Ended: mkTime(), Slot: 12345, Epoch: 17}), dayRow("day open end", &Day{Number: 1, Epoch: 1}),
		markRow("mark", &Mark{Generation: 9, Running: true, Touches: 1000}), markRow("mark ended", &Mark{Generation: 9}),
		touchRow("touch", &Touch{Generation: 9, Serial: 1000, Cache: 7, HashPart: p.StorePath.HashPart(), Recipe: true, NarHash: r.NarHash}),
		touchRow("touch path", &Touch{Generation: 9, Serial: 1, Cache: 7, HashPart: p.StorePath.HashPart()}),
		objectRow("object", &Object{ID: l.ID, Bytes: 4096, Packs: []chunk.PackID{{Epoch: 1, Rand: 5}, {Epoch: 1, Rand: 6}, {Epoch: 2, Rand: 1}}}),
		objectRow("object empty", &Object{ID: l.ID, Bytes: 4096}),
		buriedRow(&Buried{Object: l.ID, Day: 300, Bytes: 4096}),
		pinRow("pin", &Pin{Cache: 7, Name: "release/24.05", Policy: PinPolicy{KeepRevisions: 5, KeepDays: 30}, Newest: 12, Created: mkTime()}),
		pinRow("pin forever", &Pin{Cache: 7, Name: "x", Policy: PinPolicy{KeepForever: true}}),
		revisionRow(&PinRevision{Cache: 7, Pin: "release/24.05", Number: 12, StorePath: p.StorePath, Day: 300, At: mkTime(), By: "alice"}),
		formerRow(&Former{NarHash: r.NarHash, Cache: 7, HashPart: p.StorePath.HashPart(), Day: 300}),
		roundRow(&Round{Ended: mkTime(), Summary: []byte(`{"paths":1}`)}),
		uploadRow("upload", &Upload{Cache: 7, FileHash: [32]byte{7}, Day: 300, NarHash: r.NarHash, NarSize: 226560, FileSize: 50000, Compression: "xz"}),
		uploadRow("upload claimed", &Upload{Cache: 7, FileHash: [32]byte{7}, Day: 1, NarHash: r.NarHash, NarSize: 1, FileSize: 1, Compression: "none", Claimed: true, HashPart: p.StorePath.HashPart()}),
		listingRow(&Listing{NarHash: r.NarHash, Zstd: []byte("zstd")}),
		sideRow("side", &Side{Cache: 7, Kind: SideLog, Name: p.StorePath.Base() + ".drv", Day: 300, Size: 5, Zstd: []byte("zstd")}),
		sideRow("side empty", &Side{Cache: 7, Kind: SideBuildTrace, Name: "x/out.doi", Day: 1, OwnerKind: OwnerPath, Owner: PathOwner(p.StorePath.HashPart())}),
		sideRow("side stored", &Side{Cache: 7, Kind: SideDebugInfo, Name: "ab", Day: 1, Size: 5000, OwnerKind: OwnerUpload, Owner: [32]byte{7}, Stored: true, TextSum: r.NarHash, Served: 900}),
		verifiedRow("verified", &Verified{Object: l.ID, At: mkTime()}), verifiedRow("verified damaged", &Verified{Object: l.ID, At: mkTime(), Damaged: true}),
	}
}

func uploadRow(name string, u *Upload) row {
	return row{name, AppendUploadKey(nil, u.Cache, u.FileHash), AppendUpload(nil, u), func(key, value []byte) (row, error) {
		u, err := DecodeUpload(key, value)
		return uploadRow(name, &u), err
	}}
}

func listingRow(l *Listing) row {
	return row{"listing", AppendListingKey(nil, l.NarHash), AppendListing(nil, l), func(key, value []byte) (row, error) {
		l, err := DecodeListing(key, value)
		return listingRow(&l), err
	}}
}

func sideRow(name string, v *Side) row {
	return row{name, AppendSideKey(nil, v.Cache, v.Kind, v.Name), AppendSide(nil, v), func(key, value []byte) (row, error) {
		v, err := DecodeSide(key, value)
		return sideRow(name, &v), err
	}}
}

func narRow(n Nar) row {
	return row{"nar", AppendNarKey(nil, n.NarHash), AppendNar(nil, &n), func(key, value []byte) (row, error) {
		n, err := DecodeNar(key, value)
		return narRow(n), err
	}}
}

func unreferencedRow(name string, u Unreferenced) row {
	return row{name, AppendUnreferencedKey(nil, u.NarHash), AppendUnreferenced(nil, &u), func(key, value []byte) (row, error) {
		u, err := DecodeUnreferenced(key, value)
		return unreferencedRow(name, u), err
	}}
}

func lastUseRow(u Use) row {
	return row{"last-use", AppendLastUseKey(nil, u.Cache, u.HashPart), AppendLastUse(nil, u.Day), func(key, value []byte) (row, error) {
		u, err := DecodeLastUse(key, value)
		return lastUseRow(u), err
	}}
}

func useRow(u Use) row {
	return row{"use", AppendUseOrderKey(nil, u), AppendUseOrder(nil), func(key, value []byte) (row, error) {
		u, err := DecodeUseOrder(key, value)
		return useRow(u), err
	}}
}

func totalsRow(name string, v *Totals) row {
	return row{name, AppendTotalsKey(nil, v.Cache), AppendTotals(nil, v), func(key, value []byte) (row, error) {
		v, err := DecodeTotals(key, value)
		return totalsRow(name, &v), err
	}}
}

func growthRow(g *Growth) row {
	return row{"growth", AppendGrowthKey(nil, g.Day, g.Cache), AppendGrowth(nil, g), func(key, value []byte) (row, error) {
		g, err := DecodeGrowth(key, value)
		return growthRow(&g), err
	}}
}

func dayRow(name string, y *Day) row {
	return row{name, AppendDayKey(nil, y.Number), AppendDay(nil, y), func(key, value []byte) (row, error) {
		y, err := DecodeDay(key, value)
		return dayRow(name, &y), err
	}}
}

func markRow(name string, m *Mark) row {
	return row{name, AppendMarkKey(nil), AppendMark(nil, m), func(key, value []byte) (row, error) {
		m, err := DecodeMark(key, value)
		return markRow(name, &m), err
	}}
}

func touchRow(name string, v *Touch) row {
	return row{name, AppendTouchKey(nil, v.Generation, v.Serial), AppendTouch(nil, v), func(key, value []byte) (row, error) {
		v, err := DecodeTouch(key, value)
		return touchRow(name, &v), err
	}}
}

func objectRow(name string, o *Object) row {
	return row{name, AppendObjectKey(nil, o.ID), AppendObject(nil, o), func(key, value []byte) (row, error) {
		o, err := DecodeObject(key, value)
		return objectRow(name, &o), err
	}}
}

func buriedRow(b *Buried) row {
	return row{"buried", AppendBuriedKey(nil, b.Object), AppendBuried(nil, b), func(key, value []byte) (row, error) {
		b, err := DecodeBuried(key, value)
		return buriedRow(&b), err
	}}
}

func pinRow(name string, p *Pin) row {
	return row{name, AppendPinKey(nil, p.Cache, p.Name), AppendPin(nil, p), func(key, value []byte) (row, error) {
		p, err := DecodePin(key, value)
		return pinRow(name, &p), err
	}}
}

func revisionRow(r *PinRevision) row {
	return row{"pin revision", AppendPinRevisionKey(nil, r.Cache, r.Pin, r.Number), AppendPinRevision(nil, r), func(key, value []byte) (row, error) {
		r, err := DecodePinRevision(key, value)
		if err != nil {
			return row{}, err
		}
		return revisionRow(&r), nil
	}}
}

func verifiedRow(name string, v *Verified) row {
	return row{name, AppendVerifiedKey(nil, v.Object), AppendVerified(nil, v), func(key, value []byte) (row, error) {
		v, err := DecodeVerified(key, value)
		return verifiedRow(name, &v), err
	}}
}

func formerRow(f *Former) row {
	return row{"former", AppendFormerKey(nil, f.NarHash, f.Cache, f.HashPart), AppendFormer(nil, f), func(key, value []byte) (row, error) {
		f, err := DecodeFormer(key, value)
		return formerRow(&f), err
	}}
}

func roundRow(r *Round) row {
	return row{"round", AppendRoundKey(nil), AppendRound(nil, r), func(key, value []byte) (row, error) {
		r, err := DecodeRound(key, value)
		return roundRow(&r), err
	}}
}

func cacheRow(name string, c *Cache) row {
	return row{name, AppendCacheKey(nil, c.Name), AppendCache(nil, c), func(key, value []byte) (row, error) {
		c, err := DecodeCache(key, value)
		if err != nil {
			return row{}, err
		}
		return cacheRow(name, &c), nil
	}}
}

func pathRow(name string, id CacheID, p *Path) row {
	return row{name, AppendPathKey(nil, id, p.StorePath.HashPart()), AppendPath(nil, p), func(key, value []byte) (row, error) {
		p, err := DecodePath(key, value)
		if err != nil {
			return row{}, err
		}
		id, _, _ := DecodePathKey(key)
		return pathRow(name, id, &p), nil
	}}
}

func chunkRow(name string, c Chunk) row {
	return row{name, AppendChunkKey(nil, c.ID), AppendChunk(nil, c.Location, c.Proof), func(key, value []byte) (row, error) {
		c, err := DecodeChunk(key, value)
		return chunkRow(name, c), err
	}}
}

func packRow(name string, l *chunk.Layout) row {
	return row{name, AppendPackKey(nil, l.ID), AppendPack(nil, l), func(key, value []byte) (row, error) {
		l, err := DecodePack(key, value)
		return packRow(name, &l), err
	}}
}

func decodeRecipeRow(key, value []byte) (row, error) {
	k, err := DecodeRecipeKey(key)
	if err != nil {
		return row{}, err
	}
	r, err := DecodeRecipe(k.NarHash, value, func(RecipeKey) ([]byte, error) { return nil, fmt.Errorf("no parts") })
	if err != nil {
		return row{}, err
	}
	values, _, err := EncodeRecipe(&r)
	return row{"recipe", AppendRecipeKey(nil, k), values[0], decodeRecipeRow}, err
}

func secretRow(name string, s *Secret) row {
	return row{name, AppendSecretKey(nil, s.Name), AppendSecret(nil, s), func(key, value []byte) (row, error) {
		s, err := DecodeSecret(key, value)
		return secretRow(name, &s), err
	}}
}

func counterRow(name string, c Counter, n uint32) row {
	return row{name, AppendCounterKey(nil, c), AppendCount(nil, n), func(key, value []byte) (row, error) {
		n, err := DecodeCount(key, value)
		if err != nil {
			return row{}, err
		}
		c, err := DecodeCounterKey(key)
		return counterRow(name, c, n), err
	}}
}

func condemnedRow(name string, c *Condemned) row {
	return row{name, AppendCondemnedKey(nil, c.Pack), AppendCondemned(nil, c), func(key, value []byte) (row, error) {
		c, err := DecodeCondemned(key, value)
		return condemnedRow(name, &c), err
	}}
}

func destroyedRow(name string, d *Destroyed) row {
	return row{name, AppendDestroyedKey(nil, d.ID), AppendDestroyed(nil, d), func(key, value []byte) (row, error) {
		d, err := DecodeDestroyed(key, value)
		return destroyedRow(name, &d), err
	}}
}

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

func FuzzRows(f *testing.F) {
	all := rows(f)
	for i, r := range all {
		f.Add(uint8(i), r.key, r.value)
	}
	f.Fuzz(func(t *testing.T, which uint8, key, value []byte) {
		r := all[int(which)%len(all)]
		again, err := r.decode(key, value)
		if err != nil {
			return
		}
		if !bytes.Equal(again.key, key) || !bytes.Equal(again.value, value) {
			t.Errorf("%s: decoded\n%s %s\nto what encodes to\n%s %s", r.name, hex.EncodeToString(key), hex.EncodeToString(value),
				hex.EncodeToString(again.key), hex.EncodeToString(again.value))
		}
	})
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

func TestDecodePathAllocs(t *testing.T) {
	p := mkPath(t)
	key, value := AppendPathKey(nil, 7, p.StorePath.HashPart()), AppendPath(nil, &p)
	got := testing.AllocsPerRun(100, func() { _, _ = DecodePath(key, value) })
	if got > 4 {
		t.Errorf("%v allocations to decode a path, want at most 4: text, base names, references, sigs", got)
	}
}

func BenchmarkDecodePath(b *testing.B) {
	p := mkPath(b)
	for len(p.References) < 12 {
		p.References = append(p.References, p.References[0])
	}
	key, value := AppendPathKey(nil, 7, p.StorePath.HashPart()), AppendPath(nil, &p)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodePath(key, value); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeChunk(b *testing.B) {
	r := chunkRow("", Chunk{Location: chunk.Location{Pack: chunk.PackID{Epoch: 10, Rand: 1 << 63}, Index: 2000}, Proof: chunk.Proof{7: 1}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeChunk(r.key, r.value); err != nil {
			b.Fatal(err)
		}
	}
}
