package keyspace

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/nix"
)

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
