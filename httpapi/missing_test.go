package httpapi_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// mkHashes returns the JSON of a request for count hash parts that are not there.
func mkHashes(cache string, count int, more ...nix.HashPart) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	body := []byte(`{"cache":"` + cache + `","store_path_hashes":[`)
	for i := range count {
		var h nix.HashPart
		binary.LittleEndian.PutUint64(h[:], rnd.Uint64())
		binary.LittleEndian.PutUint64(h[8:], rnd.Uint64())
		if i < len(more) {
			h = more[i]
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, '"')
		body, _ = h.AppendText(body)
		body = append(body, '"')
	}
	return append(body, `]}`...)
}

func conformMillion(t *testing.T) {
	const count = 1_000_000
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p, q := mkPath(t, "p", 1, 1000), mkPath(t, "q", 2, 1000)
	n.push("c", p, q)
	body := mkHashes("c", count, p.Info.StorePath.HashPart(), q.Info.StorePath.HashPart())

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	r := n.call("POST", "/_api/v1/get-missing-paths", n.token("c: push"), body, "Content-Type", "application/json").want(t, 200, "")
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	var missing wire.MissingPathsResponse
	if err := json.Unmarshal(r.body, &missing); err != nil {
		t.Fatal(err)
	}
	if len(missing.MissingPaths) != count-2 {
		t.Errorf("%d paths are missing, want %d", len(missing.MissingPaths), count-2)
	}
	t.Logf("%d hashes, %d MB: %v, heap %d MB at most", count, len(body)>>20, took, (after.HeapSys-before.HeapSys)>>20)
}

func TestMissingPaths(t *testing.T) {
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.MaxMissingPaths = 100_000 })
	n.mkCache("c", false)
	n.mkCache("open", true)
	p := mkPath(t, "p", 1, 1000)
	n.push("c", p)
	part := p.Info.StorePath.HashPart().String()
	ask := func(token string, body any, headers ...string) response {
		t.Helper()
		return n.call("POST", "/_api/v1/get-missing-paths", token, body, headers...)
	}
	request := func(cache string, hashes ...string) wire.MissingPathsRequest {
		return wire.MissingPathsRequest{Cache: cache, StorePathHashes: append([]string{}, hashes...)}
	}
	other := "00bgd045z0d4icpbc2yyz4gx48ak44la"
	var got wire.MissingPathsResponse
	ask(n.root(), request("c", part, other, other)).want(t, 200, "").json(t, &got)
	if len(got.MissingPaths) != 1 || got.MissingPaths[0] != other {
		t.Errorf("missing %q, want one %s", got.MissingPaths, other)
	}
	r := ask(n.root(), request("c")).want(t, 200, "")
	if string(r.body) != `{"missing_paths":[]}` {
		t.Errorf("nothing asked: %s", r.body)
	}
	ask("", request("c", part)).want(t, 401, wire.ErrorUnauthorized)
	ask("", request("absent", part)).want(t, 401, wire.ErrorUnauthorized)
	ask("", request("open", part)).want(t, 403, wire.ErrorAccess)
	ask(n.token("c: pull"), request("c", part)).want(t, 403, wire.ErrorAccess)
	ask(n.token("c: push"), request("absent", part)).want(t, 401, wire.ErrorUnauthorized)
	ask(n.root(), request("absent", part)).want(t, 404, wire.ErrorNoSuchCache)
	text := func(r response, status int) {
		t.Helper()
		r.want(t, status, "")
		if ct := r.Header.Get("Content-Type"); ct != "text/plain; charset=utf-8" {
			t.Errorf("status %d has Content-Type %q, want text", status, ct)
		}
	}
	text(ask(n.root(), request("no name", part)), 422)
	text(ask(n.root(), request("c", "short")), 422)
	text(ask(n.root(), `{"cache":"c"}`, "Content-Type", "application/json"), 422)
	text(ask(n.root(), `{"cache":"c",`, "Content-Type", "application/json"), 400)
	text(ask(n.root(), `{}`, "Content-Type", "text/plain"), 415)
	text(ask(n.root(), `{}`), 415)
	ask(n.root(), `{"cache":"c","store_path_hashes":[]}`, "Content-Type", "application/vnd.x+json; charset=utf-8").want(t, 200, "")
	text(ask(n.root(), mkHashes("c", 100_001), "Content-Type", "application/json"), 413)
	text(ask(n.root(), bytes.NewReader(make([]byte, 20<<20)), "Content-Type", "application/json"), 413)
	// Who cannot push anywhere need not send megabytes to hear it.
	ask("", mkHashes("c", 90_000), "Content-Type", "application/json").want(t, 401, wire.ErrorUnauthorized)
	n.call("GET", "/_api/v1/get-missing-paths", "", nil).want(t, http.StatusMethodNotAllowed, "")
}
