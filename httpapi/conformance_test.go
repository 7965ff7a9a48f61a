package httpapi_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// TestConformance is the list of what a server must do for the clients of Attic and
// Celler, one subtest an item.
func TestConformance(t *testing.T) {
	t.Run("1 header families and modes", conformUploadModes)
	t.Run("2 credentials", conformCredentials)
	t.Run("3 tokens", conformTokens)
	t.Run("4 spellings", conformSpellings)
	t.Run("5 empty bodies", conformEmptyBodies)
	t.Run("6 cache exists", conformCacheExists)
	t.Run("7 narinfo and real nix", conformNarInfo)
	t.Run("8 old NAR URL", conformOldURL)
	t.Run("9 a million hashes", conformMillion)
	t.Run("10 same path at once", conformSamePath)
	t.Run("11 front page", conformFrontPage)
	t.Run("12 endpoints and hosts", conformEndpoints)
	t.Run("13 room for more", conformExtensions)
	t.Run("14 early answers", conformEarlyAnswers)
}

func conformUploadModes(t *testing.T) {
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.MaxUploadInfoBytes = 1 << 20 })
	n.mkCache("c", true)
	seed := uint64(0)
	next := func() nixtest.Path { seed++; return mkPath(t, "p"+strconv.Itoa(int(seed)), seed, 30_000) }
	check := func(p nixtest.Path, r response) {
		t.Helper()
		r.want(t, 200, "")
		if got := n.narInfo("c", p.Info.StorePath.HashPart(), ""); got.NarHash != p.Info.NarHash {
			t.Errorf("narinfo has NAR hash %v, want %v", got.NarHash, p.Info.NarHash)
		}
	}
	for _, h := range []string{wire.HeaderAtticNarInfo, wire.HeaderCellerNarInfo} {
		p := next()
		check(p, n.call("PUT", "/_api/v1/upload-path", n.root(), p.NAR, h, jsonText(infoOf("c", p))))
	}
	for _, h := range []string{wire.HeaderAtticNarInfoPreamble, wire.HeaderCellerNarInfoPreamble} {
		for _, pad := range []int{0, 5000, 1<<20 - 4096} {
			p := next()
			info := jsonText(infoOf("c", p))
			info = strings.Replace(info, "{", "{"+strings.Repeat(" ", pad), 1)
			body := io.MultiReader(strings.NewReader(info), bytes.NewReader(p.NAR)) // no Content-Length
			check(p, n.call("PUT", "/_api/v1/upload-path", n.root(), body, h, strconv.Itoa(len(info))))
		}
	}
	// Both preamble headers, as a careful client sends them; a preamble beats a header.
	p := next()
	info := jsonText(infoOf("c", p))
	check(p, n.call("PUT", "/_api/v1/upload-path", n.root(), info+string(p.NAR), wire.HeaderAtticNarInfoPreamble, "+"+strconv.Itoa(len(info)),
		wire.HeaderCellerNarInfoPreamble, strconv.Itoa(len(info)), wire.HeaderAtticNarInfo, "{}"))

	put := func(body string, headers ...string) response {
		t.Helper()
		return n.call("PUT", "/_api/v1/upload-path", n.root(), body, headers...)
	}
	put("", wire.HeaderAtticNarInfoPreamble, strconv.Itoa(1<<20+1)).want(t, 400, wire.ErrorRequest)
	put("", wire.HeaderAtticNarInfoPreamble, "99999999999999999999999").want(t, 400, wire.ErrorRequest)
	put("{}", wire.HeaderAtticNarInfoPreamble, "-1").want(t, 400, wire.ErrorRequest)
	put("{}", wire.HeaderAtticNarInfoPreamble, "10").want(t, 400, wire.ErrorRequest)
	put("x", wire.HeaderAtticNarInfo, "not json").want(t, 400, wire.ErrorRequest)
	put("x").want(t, 400, wire.ErrorRequest)
}

func conformCredentials(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	token := n.token("c: pull")
	f := func(header string, want int) {
		t.Helper()
		n.call("GET", "/c/nix-cache-info", "", nil, "Authorization", header).want(t, want, "")
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	f("bearer "+token, 200)
	f("Bearer "+token, 200)
	f("Basic "+b64(":"+token), 200) // what curl makes of "machine h password t"
	f("basic "+b64("anybody:"+token), 200)
	f("Basic "+strings.TrimRight(b64("a:"+token), "="), 200)
	f("bearer "+token+"x", 401)
	f("token "+token, 401)
	f("", 401)
	// A broken token does not hurt where none is needed.
	n.mkCache("open", true)
	n.call("GET", "/open/nix-cache-info", "broken", nil).want(t, 200, "")
}

func conformTokens(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("all-ci-x", false)
	f := func(token string, want int) {
		t.Helper()
		n.call("GET", "/all-ci-x/nix-cache-info", token, nil).want(t, want, "")
	}
	f(n.token("all-*: pull", "all-ci-*: push"), 200) // document order: the first pattern decides
	f(n.token("all-ci-*: push", "all-*: pull"), 403)
	f(n.token("all-*: push", "all-ci-x: pull"), 200) // but the exact name beats them
	f(n.token("other: pull"), 401)
	other, err := auth.HS256([]byte("another secret"))
	must(t, err)
	forged, err := other.Mint(auth.Claims{Rules: []auth.Rule{{Pattern: "*", Permission: auth.AllPermissions()}}})
	must(t, err)
	f(forged, 401)
	enc := base64.RawURLEncoding.EncodeToString
	f(enc([]byte(`{"alg":"none"}`))+"."+enc([]byte(`{"https://jwt.attic.rs/v1":{"caches":{"*":{"r":1}}}}`))+".", 401)
}

func conformSpellings(t *testing.T) {
	n := mkNode(t, nil)
	post := func(name, keypair string) response {
		t.Helper()
		return n.call("POST", "/_api/v1/cache-config/"+name, n.root(),
			`{"keypair":`+keypair+`,"is_public":true,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`, "Content-Type", "application/json")
	}
	post("generated", `"Generate"`).want(t, 200, "")
	key := nixtest.MkSecretKey(t, "mine-1")
	post("brought", `{"Keypair":"`+key.Secret()+`"}`).want(t, 200, "")
	if got := n.publicKey("brought").String(); got != key.Public().String() {
		t.Errorf("public key %s, want %s", got, key.Public())
	}
	if got := n.publicKey("generated").Name(); got != "generated" {
		t.Errorf("generated key is named %q, want the cache's name", got)
	}
	retention := func(want string) {
		t.Helper()
		r := n.call("GET", "/_api/v1/cache-config/generated", n.root(), nil).want(t, 200, "")
		if !strings.Contains(string(r.body), `"retention_period":`+want) {
			t.Errorf("%s, want retention_period %s", r.body, want)
		}
	}
	patch := func(body string) response {
		t.Helper()
		return n.call("PATCH", "/_api/v1/cache-config/generated", n.root(), body, "Content-Type", "application/json")
	}
	retention(`"Global"`)
	patch(`{"retention_period":{"Period":86400}}`).want(t, 200, "")
	retention(`{"Period":86400}`)
	patch(`{"retention_period":{"Period":0}}`).want(t, 200, "")
	retention(`{"Period":0}`)
	patch(`{"retention_period":"Global"}`).want(t, 200, "")
	retention(`"Global"`)

	p := mkPath(t, "p", 1, 1000)
	up := n.upload(n.root(), infoOf("generated", p), p.NAR).want(t, 200, "")
	if !strings.HasPrefix(string(up.body), `{"kind":"Uploaded","file_size":`) || !strings.Contains(string(up.body), `"frac_deduplicated":0`) {
		t.Errorf("first upload: %s", up.body)
	}
	up = n.upload(n.root(), infoOf("brought", p), p.NAR).want(t, 200, "")
	if !strings.HasPrefix(string(up.body), `{"kind":"Deduplicated","frac_deduplicated":null`) {
		t.Errorf("second upload: %s", up.body)
	}
}

func conformEmptyBodies(t *testing.T) {
	n := mkNode(t, nil)
	const create = `{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`
	for _, c := range []struct{ method, body string }{{"POST", create}, {"PATCH", `{"priority":7}`}, {"DELETE", ""}} {
		r := n.call(c.method, "/_api/v1/cache-config/c", n.root(), c.body, "Content-Type", "application/json").want(t, 200, "")
		if len(r.body) != 0 {
			t.Errorf("%s: body %q, want none", c.method, r.body)
		}
		if seq, err := strconv.Atoi(r.Header.Get(wire.HeaderSeq)); err != nil || seq < 1 {
			t.Errorf("%s: %s is %q", c.method, wire.HeaderSeq, r.Header.Get(wire.HeaderSeq))
		}
	}
	n.call("GET", "/c/nix-cache-info", n.root(), nil).want(t, 404, wire.ErrorNoSuchCache)
}

func conformCacheExists(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	before := n.publicKey("c")
	n.call("POST", "/_api/v1/cache-config/c", n.root(), wire.CreateCacheRequest{StoreDir: "/nix/store", UpstreamCacheKeyNames: []string{}}).
		want(t, 400, wire.ErrorCacheAlreadyExists)
	if n.publicKey("c") != before {
		t.Error("the refused creation changed the key")
	}
}

func conformNarInfo(t *testing.T) {
	n := mkNode(t, nil, func(o *nodeOptions) { o.chunks.Dir = t.TempDir() })
	n.mkCache("c", true)
	paths := nixtest.MkClosure(t, 7, 5, 40_000)
	for i := range paths { // references in the wrong order, which must not matter to the signature
		refs := paths[i].Info.References
		for a, b := 0, len(refs)-1; a < b; a, b = a+1, b-1 {
			refs[a], refs[b] = refs[b], refs[a]
		}
	}
	n.push("c", paths...)
	key := n.publicKey("c")
	for _, p := range paths {
		info := n.narInfo("c", p.Info.StorePath.HashPart(), "")
		fp, err := info.Fingerprint()
		must(t, err)
		if !nix.VerifyAny([]nix.PublicKey{key}, fp, info.Sig) {
			t.Errorf("%s: no signature verifies", info.StorePath)
		}
		r := n.call("GET", "/c/"+info.URL, "", nil).want(t, 200, "")
		if int64(len(r.body)) != info.FileSize || info.Compression != "zstd" {
			t.Errorf("%s: %d bytes of %s, narinfo says %d", info.URL, len(r.body), info.Compression, info.FileSize)
		}
		if !bytes.Equal(unzstd(t, r.body), p.NAR) {
			t.Errorf("%s: does not decode to the NAR that was pushed", info.URL)
		}
	}
	realNix(t)
}

// realNix pushes what a real Nix has built and lets it substitute the closure back
// into an empty store, with signatures required.
func realNix(t *testing.T) {
	t.Run("substitute", func(t *testing.T) {
		source := nixtest.Real(t)
		dep := source.Add(t, "dep", nixtest.MkTree(3, 200_000))
		top := source.Build(t, `let dep = builtins.storePath "`+dep.String()+`"; in derivation { name = "top-1.0"; system = builtins.currentSystem;
			builder = "/bin/sh"; args = [ "-c" "mkdir $out; echo ${dep} $out > $out/refs; ln -s ${dep} $out/link" ]; PATH = "/usr/bin:/bin"; }`, "")
		n := mkNode(t, nil)
		n.call("POST", "/_api/v1/cache-config/real", n.root(), wire.CreateCacheRequest{IsPublic: false, StoreDir: string(source.StoreDir), Priority: 30, UpstreamCacheKeyNames: []string{}}).want(t, 200, "")
		for _, p := range []nix.StorePath{dep, top} {
			narBytes := source.Output(t, nil, "nix-store", "--dump", p.String())
			info := wire.UploadInfo{
				Cache: "real", StorePath: p.String(), StorePathHash: p.HashPart().String(), References: []string{}, Sigs: []string{},
				NarHash: source.Run(t, "nix-store", "-q", "--hash", p.String()), NarSize: int64(len(narBytes)),
			}
			for _, ref := range strings.Fields(source.Run(t, "nix-store", "-q", "--references", p.String())) {
				info.References = append(info.References, filepath.Base(ref))
			}
			n.upload(n.root(), info, narBytes).want(t, 200, "")
		}
		netrc := filepath.Join(source.Dir, "netrc")
		must(t, os.WriteFile(netrc, []byte("machine 127.0.0.1 password "+n.token("real: pull")+"\n"), 0o600))
		// Empty stores of the same store dir, each with nothing but what we serve.
		substitute := func(client string, key nix.PublicKey) ([]byte, error) {
			return source.TryOutput(t, nil, "nix-store", "--store", filepath.Join(source.Dir, client), "-r", top.String(),
				"--option", "substituters", n.srv.URL+"/real", "--option", "trusted-public-keys", key.String(), "--option", "netrc-file", netrc)
		}
		if out, err := substitute("wrong", nixtest.MkSecretKey(t, "real").Public()); err == nil {
			t.Errorf("nix took a path with a wrong key: %s", out)
		}
		if out, err := substitute("client", n.publicKey("real")); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, p := range []nix.StorePath{dep, top} {
			built := source.Output(t, nil, "nix-store", "--dump", p.String())
			got := source.Output(t, nil, "nix-store", "--dump", filepath.Join(source.Dir, "client", "nix", "store", p.Base()))
			if !bytes.Equal(built, got) {
				t.Errorf("%s: what was substituted differs from what was built", p)
			}
		}
	})
}

func conformOldURL(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	p := mkPath(t, "p", 1, 100_000)
	n.push("c", p)
	info := n.narInfo("c", p.Info.StorePath.HashPart(), "")
	new := n.call("GET", "/c/"+info.URL, "", nil).want(t, 200, "")
	old := n.call("GET", "/c/nar/"+p.Info.StorePath.HashPart().String()+".nar", "", nil).want(t, 200, "")
	if !bytes.Equal(new.body, old.body) || new.Header.Get("ETag") != old.Header.Get("ETag") {
		t.Error("the alias serves other bytes than the URL")
	}
}

func conformSamePath(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	p := mkPath(t, "p", 1, 300_000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { n.upload(n.root(), infoOf("c", p), p.NAR).want(t, 200, "") })
	}
	wg.Wait()
	if t.Failed() {
		t.Log(n.logs)
	}
	info := n.narInfo("c", p.Info.StorePath.HashPart(), "")
	r := n.call("GET", "/c/"+info.URL, "", nil).want(t, 200, "")
	if !bytes.Equal(unzstd(t, r.body), p.NAR) {
		t.Error("what is served is not what was pushed")
	}
}

func conformFrontPage(t *testing.T) {
	n := mkNode(t, nil)
	for _, path := range []string{"/", "/healthz", "/readyz", "/metrics"} {
		n.call("GET", path, "", nil).want(t, 200, "")
		n.call("HEAD", path, "", nil).want(t, 200, "")
	}
	if ct := n.call("GET", "/", "", nil).Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/html") {
		t.Errorf("front page is %q", ct)
	}
}

func conformEndpoints(t *testing.T) {
	config := func(n *node, headers ...string) (api, substituter string) {
		t.Helper()
		var c wire.CacheConfig
		n.call("GET", "/_api/v1/cache-config/c", n.root(), nil, headers...).want(t, 200, "").json(t, &c)
		return *c.APIEndpoint, *c.SubstituterEndpoint
	}
	f := func(n *node, wantAPI, wantSubstituter string, headers ...string) {
		t.Helper()
		if api, sub := config(n, headers...); api != wantAPI || sub != wantSubstituter {
			t.Errorf("endpoints %q and %q, want %q and %q", api, sub, wantAPI, wantSubstituter)
		}
	}
	bucketNode := mkNode(t, nil)
	bucketNode.mkCache("c", true)
	f(bucketNode, "http://h:1/", "http://h:1/c", "Host", "h:1")
	f(bucketNode, "https://h/", "https://h/c", "Host", "h", "X-Forwarded-Proto", "https")
	f(bucketNode, "http://h/", "http://h/c", "Host", "h", "X-Forwarded-Proto", "HTTPS")
	f(mkNode(t, bucketNode.bucket, func(o *nodeOptions) { o.http.APIEndpoint = "https://a/x/" }), "https://a/x/", "https://a/x/c")
	f(mkNode(t, bucketNode.bucket, func(o *nodeOptions) {
		o.http.APIEndpoint, o.http.SubstituterEndpoint = "https://a/", "https://s/"
	}), "https://a/", "https://s/c")

	n := mkNode(t, bucketNode.bucket, func(o *nodeOptions) { o.http.AllowedHosts = []string{"good:80", "other"} })
	host := func(h string, want int) {
		t.Helper()
		r := n.call("GET", "/c/nix-cache-info", "", nil, "Host", h)
		r.want(t, want, map[bool]string{true: wire.ErrorRequest}[want == 400])
	}
	host("good:80", 200)
	host("other", 200)
	host("good", 400)
	host("Good:80", 400)
	host("evil", 400)
}

func conformExtensions(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	r := n.call("GET", "/_api/v1/cache-config/c", n.root(), nil).want(t, 200, "")
	if !strings.Contains(string(r.body), `"celler":{"version":3,"permissions":["pull",`) {
		t.Errorf("capabilities are not announced: %s", r.body)
	}
	alias := n.call("GET", "/c/attic-cache-info", n.root(), nil).want(t, 200, "")
	if !bytes.Equal(alias.body, r.body) {
		t.Errorf("the alias says %s, want %s", alias.body, r.body)
	}
	// Fields we do not know are ignored.
	n.call("PATCH", "/_api/v1/cache-config/c", n.root(), `{"priority":1,"from_the_future":{}}`, "Content-Type", "application/json").want(t, 200, "")
}
