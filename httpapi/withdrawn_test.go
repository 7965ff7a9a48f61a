package httpapi_test

import (
	"bytes"
	"testing"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// TestNarURLOfWithdrawnPath: clients remember the URL of a NAR for a month. It answers
// while the NAR is there, to those who may read the cache that gave it out; and to nobody
// by way of a cache that never had the path, whoever else has it.
func TestNarURLOfWithdrawnPath(t *testing.T) {
	n := mkNode(t, nil)
	for _, cache := range []string{"a", "b", "never"} {
		n.mkCache(cache, false)
	}
	p := mkPath(t, "p", 1, 50_000)
	n.push("a", p)
	n.push("b", p)
	hashPart := p.Info.StorePath.HashPart()
	url := "/" + n.narInfo("a", hashPart, n.root()).URL
	alias := "/nar/" + hashPart.String() + ".nar"
	tokenA, tokenB := n.token("a: pull"), n.token("b: pull")

	want := func(cache, token string, status int, name string) {
		t.Helper()
		r := n.call("GET", "/"+cache+url, token, nil).want(t, status, name)
		if status == 200 && !bytes.Equal(unzstd(t, r.body), p.NAR) {
			t.Errorf("the NAR from %s is another one", cache)
		}
	}
	want("never", n.root(), 404, wire.ErrorNoSuchObject)

	n.call("DELETE", "/_api/v1/caches/a/paths/"+hashPart.String(), n.root(), nil).want(t, 200, "")
	n.absent("a", hashPart)
	want("a", tokenA, 200, "")
	n.call("GET", "/a"+alias, tokenA, nil).want(t, 404, wire.ErrorNoSuchObject) // it names a path, which is gone
	want("a", tokenB, 401, wire.ErrorUnauthorized)
	want("a", "", 401, wire.ErrorUnauthorized)
	want("b", tokenA, 401, wire.ErrorUnauthorized)
	want("never", n.token("never: pull"), 404, wire.ErrorNoSuchObject)
	want("never", n.root(), 404, wire.ErrorNoSuchObject)
	// Another path of that cache does not open it either.
	other := mkPath(t, "other", 2, 500)
	n.push("never", other)
	wrong := "/nar/" + other.Info.StorePath.HashPart().String() + url[len("/nar/")+32:]
	n.call("GET", "/never"+wrong, n.root(), nil).want(t, 404, wire.ErrorNoSuchObject)

	// A range, and a HEAD, of what was withdrawn.
	if r := n.call("GET", "/a"+url, tokenA, nil, "Range", "bytes=0-3").want(t, 206, ""); len(r.body) != 4 {
		t.Errorf("%d bytes of a range of 4", len(r.body))
	}
	n.call("HEAD", "/a"+url, tokenA, nil).want(t, 200, "")

	// Withdrawn from b as well, it is nobody's, and still there.
	n.call("DELETE", "/_api/v1/caches/b/paths/"+hashPart.String(), n.root(), nil).want(t, 200, "")
	want("a", tokenA, 200, "")
	want("b", tokenB, 200, "")

	// A cache that is destroyed takes its URLs with it, also for one of the same name.
	n.call("DELETE", "/_api/v1/cache-config/a", n.root(), nil).want(t, 200, "")
	want("a", n.root(), 404, wire.ErrorNoSuchCache)
	n.mkCache("a", false)
	want("a", tokenA, 404, wire.ErrorNoSuchObject)
	want("b", tokenB, 200, "")
}

// TestNarURLOfReplacedPath: pushed again with other content, a path leaves its earlier
// URL behind, too.
func TestNarURLOfReplacedPath(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	before := mkPath(t, "p", 1, 5000)
	after := nixtest.Path{Info: before.Info, NAR: mkPath(t, "p", 2, 5000).NAR}
	after.Info.NarHash, after.Info.NarSize = nix.SHA256Hash(sum256(after.NAR)), int64(len(after.NAR))
	n.push("c", before)
	hashPart := before.Info.StorePath.HashPart()
	old := "/c/" + n.narInfo("c", hashPart, n.root()).URL
	n.push("c", after)
	now := "/c/" + n.narInfo("c", hashPart, n.root()).URL
	if old == now {
		t.Fatal("the URL is the same for other content")
	}
	for url, want := range map[string][]byte{old: before.NAR, now: after.NAR} {
		if r := n.call("GET", url, n.token("c: pull"), nil).want(t, 200, ""); !bytes.Equal(unzstd(t, r.body), want) {
			t.Errorf("%s: another NAR", url)
		}
	}
}

// TestNarURLOfPurgedPath: what somebody wants gone at once is not served meanwhile.
func TestNarURLOfPurgedPath(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p := mkPath(t, "secret", 1, 5000)
	hashPart := p.Info.StorePath.HashPart()
	n.push("c", p)
	url := "/c/" + n.narInfo("c", hashPart, n.root()).URL
	withdraw := func(now bool) {
		t.Helper()
		_, err := n.cat.WithdrawPaths(t.Context(), catalog.Withdrawal{Cache: "c", HashParts: []nix.HashPart{hashPart}, Purge: true, Now: now})
		must(t, err)
	}
	withdraw(false)
	n.call("GET", url, n.root(), nil).want(t, 200, "")
	sum, _ := p.Info.NarHash.Sum256()
	hurried, err := n.cat.Hurry(t.Context(), [][32]byte{sum}, true)
	if must(t, err); hurried != 1 {
		t.Errorf("hurried %d NARs, want 1", hurried)
	}
	n.call("GET", url, n.root(), nil).want(t, 404, wire.ErrorNoSuchObject)
	n.push("c", p)
	n.call("GET", url, n.root(), nil).want(t, 200, "")
	withdraw(true)
	n.call("GET", url, n.root(), nil).want(t, 404, wire.ErrorNoSuchObject)
}
