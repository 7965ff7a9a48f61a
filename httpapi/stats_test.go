package httpapi_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/compression"
	"github.com/celler/celler/nix/nixtest"
)

func (n *node) cacheStats(cache, token string) wire.CacheStats {
	n.t.Helper()
	var s wire.CacheStats
	n.call("GET", "/_api/v1/caches/"+cache+"/stats", token, nil).want(n.t, 200, "").json(n.t, &s)
	return s
}

func TestStats(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("a", false)
	n.mkCache("b", true)
	if s := n.cacheStats("a", n.root()); s.Paths != 0 || s.OldestUse != nil || s.Growth != nil || s.Uncounted {
		t.Errorf("an empty cache: %+v", s)
	}
	p, q := mkPath(t, "p", 1, 50_000), mkPath(t, "q", 2, 50_000)
	n.push("a", p, q)
	if _, err := n.cat.Tick(t.Context(), catalog.TickOptions{}); err != nil {
		t.Fatal(err)
	}
	n.push("b", p)
	n.call("DELETE", "/_api/v1/caches/a/paths/"+q.Info.StorePath.HashPart().String(), n.root(), nil).want(t, 200, "")

	size := int64(len(p.NAR))
	file := n.narInfo("a", p.Info.StorePath.HashPart(), n.root()).FileSize
	a := n.cacheStats("a", n.token("a: pull"))
	if a.OldestUse == nil || a.OldestUse.StorePath != pathOf(p) || a.OldestUse.Until == nil || a.NewBytes == 0 || a.NewStoredBytes == 0 {
		t.Errorf("a: %+v", a)
	}
	growth := a.Growth
	a.OldestUse, a.Growth, a.NewBytes, a.NewStoredBytes = nil, nil, 0, 0
	if diff := cmp.Diff(wire.CacheStats{Cache: "a", Paths: 1, NarBytes: size, FileBytes: file}, a); diff != "" {
		t.Errorf("a (-want +got):\n%s", diff)
	}
	if len(growth) != 2 || growth[0].RemovedPaths != 1 || growth[0].Ended != nil || growth[1].AddedPaths != 2 || growth[1].Ended == nil || growth[1].AddedBytes != size+int64(len(q.NAR)) {
		t.Errorf("growth: %+v", growth)
	}
	b := n.cacheStats("b", "")
	if b.Paths != 1 || b.NewBytes != 0 || b.OldestUse.Until != nil {
		t.Errorf("b, which got what was there: %+v", b)
	}

	var all wire.Stats
	n.call("GET", "/_api/v1/stats", n.token("*: pull"), nil).want(t, 200, "").json(t, &all)
	if len(all.Caches) != 2 || all.Store == nil {
		t.Fatalf("all: %+v", all)
	}
	if s := all.Store; s.Paths != 2 || s.NarBytes != 2*size || s.Nars != 1 || s.UniqueNars != size || s.SavedByDedup != s.NarBytes-s.UniqueBytes ||
		s.SavedByCompression != s.UniqueBytes-s.StoredBytes || s.StoredBytes == 0 || s.Unreferenced != 1 {
		t.Errorf("store: %+v", s)
	}
	both := all.Store.Growth
	if len(both) != 2 || both[0].AddedPaths != 1 || both[0].AddedBytes != size || both[0].RemovedPaths != 1 || both[0].Ended != nil ||
		both[1].AddedPaths != 2 || both[1].RemovedPaths != 0 || both[1].Ended == nil {
		t.Errorf("growth of the store, which is that of a and b: %+v", both)
	}
}

// TestStatsOfPushesByChunks: their packs are known before their paths are, and count for the
// cache all the same; what is there already counts for nobody.
func TestStatsOfPushesByChunks(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("a", false)
	n.mkCache("b", false)
	p := mkPath(t, "p", 1, 3<<20)
	sent := int64(n.deltaClient("a", n.token("a: push")).push(p))
	n.deltaClient("b", n.token("b: push")).push(p)
	size := int64(len(p.NAR))
	a, b := n.cacheStats("a", n.root()), n.cacheStats("b", n.root())
	if a.NewBytes < size*9/10 || a.NewBytes > size || a.NewStoredBytes < sent/2 || a.NewStoredBytes > sent*2 {
		t.Errorf("a: %d new bytes in %d of packs, want nearly the %d of the NAR in about the %d that were sent", a.NewBytes, a.NewStoredBytes, size, sent)
	}
	if b.NewBytes != 0 || b.NewStoredBytes != 0 {
		t.Errorf("b: %d new bytes in %d of packs, want none", b.NewBytes, b.NewStoredBytes)
	}
}

// TestStatsOfLargePaths: what a push brings is counted, though most of its packs are known
// before its path is, whichever way it comes.
func TestStatsOfLargePaths(t *testing.T) {
	n := mkNode(t, nil, withDelta, func(o *nodeOptions) { o.chunks.FrameBytes, o.chunks.PackBytes = 16<<10, 64<<10 })
	attic, copied, delta := mkPath(t, "attic", 1, 600_000), mkPath(t, "copied", 2, 600_000), mkPath(t, "delta", 3, 600_000)
	for cache, push := range map[string]func(){
		"attic": func() { n.upload(n.root(), infoOf("attic", attic), attic.NAR).want(t, 200, "") },
		"nix":   func() { copyTo(t, "nix", copied, mkFile(t, compression.Xz, copied.NAR), n) },
		"delta": func() { n.deltaClient("delta", n.root()).push(delta) },
	} {
		n.mkCache(cache, false)
		push()
		if s := n.cacheStats(cache, n.root()); s.NewBytes < s.NarBytes*9/10 || s.NewBytes > s.NarBytes {
			t.Errorf("%s: %d bytes of %d count as brought", cache, s.NewBytes, s.NarBytes)
		}
	}
}

// TestStatsPermissions: nobody learns of caches, or of the sum of them, that are none of
// their business.
func TestStatsPermissions(t *testing.T) {
	n := mkNode(t, nil)
	for cache, p := range map[string]nixtest.Path{"shut": mkPath(t, "p", 1, 500), "mine": mkPath(t, "q", 2, 500)} {
		n.mkCache(cache, false)
		n.push(cache, p)
	}
	n.mkCache("open", true)
	check := func(token string, store bool, want ...string) {
		t.Helper()
		var all wire.Stats
		n.call("GET", "/_api/v1/stats", token, nil).want(t, 200, "").json(t, &all)
		var got []string
		for _, c := range all.Caches {
			got = append(got, c.Cache)
		}
		if diff := cmp.Diff(want, got); diff != "" || (all.Store != nil) != store {
			t.Errorf("store %v, caches (-want +got):\n%s", all.Store, diff)
		}
	}
	check("", false, "open")
	check(n.token("mine: pull"), false, "mine", "open")
	check(n.token("mine: push", "shut: delete"), false, "open")
	check(n.token("*: pull"), true, "mine", "open", "shut")
	check(n.token("shut: push", "*: pull"), false, "mine", "open") // one exception is one too many
	path := "/_api/v1/caches/shut/stats"
	n.call("GET", path, "", nil).want(t, 401, wire.ErrorUnauthorized)
	n.call("GET", path, n.token("mine: pull"), nil).want(t, 401, wire.ErrorUnauthorized)
	n.call("GET", path, n.token("shut: push pin"), nil).want(t, 403, wire.ErrorAccess)
	n.call("GET", "/_api/v1/caches/absent/stats", n.token("mine: pull"), nil).want(t, 401, wire.ErrorUnauthorized)
	n.call("GET", "/_api/v1/caches/absent/stats", n.root(), nil).want(t, 404, wire.ErrorNoSuchCache)
}

// TestTrustHashes: told to, the server takes an uploader's word for a NAR that it has, and
// never for one that it has not.
func TestTrustHashes(t *testing.T) {
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.TrustHashes = true })
	n.mkCache("a", false)
	n.mkCache("b", false)
	p, q := mkPath(t, "p", 1, 600_000), mkPath(t, "q", 2, 5000)
	n.push("a", p)
	var result wire.UploadResult
	n.upload(n.root(), infoOf("b", p), nil).want(t, 200, "").json(t, &result)
	if result.Kind != wire.KindDeduplicated {
		t.Errorf("%+v", result)
	}
	n.narInfo("b", p.Info.StorePath.HashPart(), n.root())
	n.upload(n.root(), infoOf("b", p), p.NAR).want(t, 200, "") // sent all the same
	n.push("b", p)
	n.upload(n.root(), infoOf("b", q), nil).want(t, 400, wire.ErrorRequest)
	wrong := infoOf("b", q)
	wrong.NarHash = infoOf("a", p).NarHash // the hash of one, the size of another
	n.upload(n.root(), wrong, nil).want(t, 400, wire.ErrorRequest)
	n.absent("b", q.Info.StorePath.HashPart())
}
