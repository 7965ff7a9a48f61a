package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
)

const createBody = `{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`

// TestStatusTable goes through the error object: each name with its status, from a request
// that brings it about.
func TestStatusTable(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("private", false)
	n.mkCache("open", true)
	p := mkPath(t, "p", 1, 1000)
	n.push("private", p)
	n.push("open", p)
	part := p.Info.StorePath.HashPart().String()
	absent := "00bgd045z0d4icpbc2yyz4gx48ak44la"
	pull := n.token("*: pull")

	f := func(method, path, token string, body any, status int, name string) {
		t.Helper()
		r := n.call(method, path, token, body, "Content-Type", "application/json").want(t, status, name)
		if cc := r.Header.Get("Cache-Control"); status >= 400 && cc != "no-store" {
			t.Errorf("%s %s: Cache-Control %q on status %d", method, path, cc, status)
		}
		if auth := r.Header.Get("WWW-Authenticate"); strings.HasPrefix(auth, "Basic realm=") != (status == 401) {
			t.Errorf("%s %s: WWW-Authenticate %q on status %d", method, path, auth, status)
		}
	}
	// NotFound: no such URL, whoever asks.
	for _, path := range []string{"/x", "/private", "/private/", "/_api", "/_api/v1", "/_api/v1/", "/_api/v1/nope", "/_api/v2/caches", "/private/logs/x.drv", "/open/" + part + ".lss", "/open/realisations/x/y.doi", "/private/nar/", "/private/nar/x", "/open/nar/" + part + ".nar.xz"} {
		f("GET", path, "", nil, 404, wire.ErrorNotFound)
		f("GET", path, n.root(), nil, 404, wire.ErrorNotFound)
	}
	// Who has no right on a name sees 401 whatever there is, and always the same one.
	for _, cache := range []string{"private", "absent"} {
		for _, path := range []string{
			"/" + cache + "/nix-cache-info", "/" + cache + "/attic-cache-info", "/" + cache + "/" + part + ".narinfo", "/" + cache + "/" + absent + ".narinfo",
			"/" + cache + "/short.narinfo", "/" + cache + "/" + part + ".ls", "/" + cache + "/log/x.drv", "/" + cache + "/serve/" + part, "/" + cache + "/serve/" + part + "/bin", "/" + cache + "/nar/" + part + ".nar", "/" + cache + "/nar/" + absent + ".nar",
			"/_api/v1/cache-config/" + cache, "/_api/v1/caches/" + cache + "/paths", "/_api/v1/caches/" + cache + "/paths/" + part,
		} {
			f("GET", path, "", nil, 401, wire.ErrorUnauthorized)
			f("GET", path, n.token("another"), nil, 401, wire.ErrorUnauthorized)
		}
		f("PATCH", "/_api/v1/cache-config/"+cache, "", `{"priority":1}`, 401, wire.ErrorUnauthorized)
		f("DELETE", "/_api/v1/cache-config/"+cache, "", nil, 401, wire.ErrorUnauthorized)
		f("POST", "/_api/v1/cache-config/"+cache, "", createBody, 401, wire.ErrorUnauthorized)
		f("DELETE", "/_api/v1/caches/"+cache+"/paths/"+part, "", nil, 401, wire.ErrorUnauthorized)
		for _, file := range []string{part + ".narinfo", part + ".ls", "nix-cache-info", "nar/x.nar", "log/x.drv", "debuginfo/ab", "realisations/x.doi", "build-trace-v2/x/out.doi"} {
			f("PUT", "/"+cache+"/"+file, "", "body", 401, wire.ErrorUnauthorized)
			f("PUT", "/"+cache+"/"+file, n.token("another"), "body", 401, wire.ErrorUnauthorized)
		}
	}
	// AccessError: some right, but not this one.
	push := n.token("private: push")
	f("GET", "/private/nix-cache-info", push, nil, 403, wire.ErrorAccess)
	f("GET", "/private/"+part+".narinfo", push, nil, 403, wire.ErrorAccess)
	f("GET", "/private/"+absent+".narinfo", push, nil, 403, wire.ErrorAccess)
	f("POST", "/_api/v1/cache-config/new", pull, createBody, 403, wire.ErrorAccess)
	f("PATCH", "/_api/v1/cache-config/private", pull, `{"priority":1}`, 403, wire.ErrorAccess)
	f("DELETE", "/_api/v1/cache-config/private", pull, nil, 403, wire.ErrorAccess)
	f("DELETE", "/_api/v1/cache-config/open", "", nil, 403, wire.ErrorAccess) // a public cache is no secret
	f("DELETE", "/_api/v1/caches/private/paths/"+part, pull, nil, 403, wire.ErrorAccess)
	for _, file := range []string{part + ".narinfo", part + ".ls", "nix-cache-info", "nar/x.nar", "log/x.drv", "debuginfo/ab", "realisations/x.doi", "build-trace-v2/x/out.doi"} {
		f("PUT", "/private/"+file, pull, "body", 403, wire.ErrorAccess)
		f("PUT", "/open/"+file, "", "body", 403, wire.ErrorAccess)
		f("PUT", "/private/"+file, push, "no sense", 400, wire.ErrorRequest)
	}
	// NoSuchCache: only for who may know.
	f("GET", "/absent/nix-cache-info", pull, nil, 404, wire.ErrorNoSuchCache)
	f("GET", "/absent/"+part+".narinfo", pull, nil, 404, wire.ErrorNoSuchCache)
	f("DELETE", "/_api/v1/cache-config/absent", n.root(), nil, 404, wire.ErrorNoSuchCache)
	f("PATCH", "/_api/v1/cache-config/absent", n.root(), `{"priority":1}`, 404, wire.ErrorNoSuchCache)
	// NoSuchObject.
	for _, file := range []string{absent + ".narinfo", "short.narinfo", "EEEE.narinfo", ".narinfo", part + "x.narinfo", absent + ".ls", "short.ls", "log/x.drv", "log/" + absent + "-x.drv", "debuginfo/ab", "debuginfo/x", "realisations/x.doi", "build-trace-v2/x/out.doi", "serve/" + absent, "serve/short", "serve/" + part + "/nothing", "nar/" + strings.Repeat("0", 52) + ".nar.xz", "nar/" + absent + ".nar", "nar/short.nar", "nar/" + part + "-x.nar.zst", "nar/" + part + "-" + strings.Repeat("0", 52) + ".nar.zst", "nar/.nar"} {
		f("GET", "/private/"+file, pull, nil, 404, wire.ErrorNoSuchObject)
		f("GET", "/open/"+file, "", nil, 404, wire.ErrorNoSuchObject)
	}
	f("DELETE", "/_api/v1/caches/open/paths/"+absent, n.root(), nil, 404, wire.ErrorNoSuchObject)
	f("DELETE", "/_api/v1/caches/open/paths/short", n.root(), nil, 404, wire.ErrorNoSuchObject)
	// RequestError.
	f("PATCH", "/_api/v1/cache-config/private", n.root(), `{}`, 400, wire.ErrorRequest)
	f("PATCH", "/_api/v1/cache-config/private", n.root(), `{"public_key":"x"}`, 400, wire.ErrorRequest)
	f("PATCH", "/_api/v1/cache-config/private", n.root(), `{"retention_period":{"Period":2147483648}}`, 400, wire.ErrorRequest)
	f("PATCH", "/_api/v1/cache-config/private", n.root(), `{"store_dir":"relative"}`, 400, wire.ErrorRequest)
	f("GET", "/_api/v1/caches/private/paths?limit=0", n.root(), nil, 400, wire.ErrorRequest)
	f("GET", "/_api/v1/caches/private/paths?after=x", n.root(), nil, 400, wire.ErrorRequest)
	// The layer before the handlers answers in text.
	text := func(method, path, contentType, body string, status int) {
		t.Helper()
		r := n.call(method, path, n.root(), body, "Content-Type", contentType).want(t, status, "")
		if ct := r.Header.Get("Content-Type"); ct != "text/plain; charset=utf-8" {
			t.Errorf("%s %s: status %d has Content-Type %q", method, path, status, ct)
		}
	}
	const api = "/_api/v1/cache-config/"
	text("POST", api+"new", "text/plain", createBody, 415)
	text("POST", api+"new", "", createBody, 415)
	text("POST", api+"new", "application/json", `{`, 400)
	text("POST", api+"new", "application/json", `{}`, 422)
	text("POST", api+"new", "application/json", strings.Replace(createBody, `"Generate"`, `{"Keypair":"bad"}`, 1), 422)
	text("PATCH", api+"private", "application/json", `{"priority":"high"}`, 422)
	text("PATCH", api+"private", "application/json", `{"retention_period":{"Period":-1}}`, 422)
	text("PATCH", api+"private", "application/json", `{"x":"`+strings.Repeat("x", 2<<20)+`"}`, 413)
	for _, name := range []string{"-x", "a%20b", "a.b", "%C3%BC", strings.Repeat("x", 51)} {
		text("GET", "/"+name+"/nix-cache-info", "", "", 400)
		text("GET", "/"+name+"/x.narinfo", "", "", 400)
		text("GET", "/"+name+"/nar/x.nar", "", "", 400)
		text("GET", "/"+name+"/anything", "", "", 400)
		text("POST", api+name, "application/json", createBody, 400)
		text("GET", api+name, "", "", 400)
	}
	if r := n.call("POST", "/_api/v1/cache-config/new", n.root(), `{}`, "Content-Type", "application/json"); len(r.body) == 0 {
		t.Error("a text error has no text")
	}
	// 405: Allow, no body.
	for path, allow := range map[string]string{
		"/": "GET, HEAD", "/open/nix-cache-info": "GET, HEAD, PUT", "/open/x.narinfo": "GET, HEAD, PUT", "/open/nar/x": "GET, HEAD, PUT", "/open/log/x": "GET, HEAD, PUT", "/open/serve/x": "GET, HEAD",
		"/_api/v1/upload-path": "PUT", "/_api/v1/get-missing-paths": "POST", "/_api/v1/cache-config/x": "DELETE, GET, HEAD, PATCH, POST", "/_api/v1/caches/x/paths/y": "DELETE, GET, HEAD",
	} {
		r := n.call("PROPFIND", path, n.root(), nil).want(t, 405, "")
		if got := r.Header.Get("Allow"); got != allow || len(r.body) != 0 {
			t.Errorf("PROPFIND %s: Allow %q, body %q; want %q and none", path, got, r.body, allow)
		}
	}
}

func TestRetentionOfStockClient(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	patch := func(token, body string, status int) {
		t.Helper()
		n.call("PATCH", "/_api/v1/cache-config/c", token, body, "Content-Type", "application/json").want(t, status, "")
	}
	retention := func() string {
		t.Helper()
		var c struct {
			Priority  int             `json:"priority"`
			Retention json.RawMessage `json:"retention_period"`
		}
		n.call("GET", "/_api/v1/cache-config/c", n.root(), nil).want(t, 200, "").json(t, &c)
		return fmt.Sprint(c.Priority, string(c.Retention))
	}
	limited := n.token("c: pull configure-cache")
	patch(n.root(), `{"retention_period":{"Period":60}}`, 200)
	// A stock client sends "Global" with every change. Whoever may not change retention
	// did not mean it; whoever may, gets what was sent.
	patch(limited, `{"priority":7,"retention_period":"Global"}`, 200)
	if got := retention(); got != `7{"Period":60}` {
		t.Errorf("after a change without the right: %s", got)
	}
	patch(limited, `{"retention_period":"Global"}`, 403)
	patch(limited, `{"priority":8,"retention_period":{"Period":5}}`, 403)
	if got := retention(); got != `7{"Period":60}` {
		t.Errorf("after refused changes: %s", got)
	}
	patch(n.root(), `{"priority":9,"retention_period":"Global"}`, 200)
	if got := retention(); got != `9"Global"` {
		t.Errorf("after a change with the right: %s", got)
	}
}

// TestPathEscapes sends paths that try to be others, over a bare connection so that no
// client library tidies them up. None may be redirected, none may be found.
func TestPathEscapes(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("open", true)
	p := mkPath(t, "p", 1, 1000)
	n.push("open", p)
	part := p.Info.StorePath.HashPart().String()
	for _, path := range []string{
		"//open/nix-cache-info", "/open//nix-cache-info", "/open/./nix-cache-info", "/x/../open/nix-cache-info", "/open/x/../nix-cache-info", "/open/nix-cache-info/", "/open/nix-cache-info/..",
		"/%2e%2e/open/nix-cache-info", "/open/%2e/nix-cache-info", "/open%2fnix-cache-info", "/open%2Fnar%2Fx.nar", "/open/..%2f" + part + ".narinfo", "/open/nar%2f" + part + ".nar",
		"/open/nar/..%2f..%2fopen%2f" + part + ".nar", "/open/nar/../" + part + ".narinfo", "/open/" + part + ".narinfo%00", "/open/%00", "/open/..%5c..%5cFORMAT", "/..%2fFORMAT/nix-cache-info",
		"/open/nar/../../../../etc/passwd", "/_api/v1/cache-config/..%2f..%2fopen", "/_api/v1/cache-config/open%2f..", "/_api/v1/caches/open/paths/..", "/_api/v1/caches/../caches", "/_api/v1/caches/open/paths/%2e%2e%2f" + part,
		"/log/0000000000000001", "/ROOT/x.narinfo/../../FORMAT",
	} {
		status, location, body := raw(t, n, "GET "+path+" HTTP/1.1\r\nHost: h\r\nAuthorization: bearer "+n.root()+"\r\nConnection: close\r\n\r\n")
		if status != 404 || location != "" {
			t.Errorf("%s: status %d, location %q, body %.200s", path, status, location, body)
		}
	}
	// Nonsense request lines do not even reach us, and must not hurt.
	for _, line := range []string{"GET * HTTP/1.1", "OPTIONS * HTTP/1.1", "GET open HTTP/1.1", "GET /%zz HTTP/1.1", "GET /%ff%fe/nix-cache-info HTTP/1.1", "CONNECT open:80 HTTP/1.1", "GET http://other/open/nix-cache-info/.. HTTP/1.1"} {
		if status, _, _ := raw(t, n, line+"\r\nHost: h\r\nConnection: close\r\n\r\n"); status < 400 && !strings.HasPrefix(line, "OPTIONS") || status >= 500 {
			t.Errorf("%s: status %d", line, status)
		}
	}
}

func raw(t *testing.T, n *node, request string) (status int, location, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", n.srv.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte(request))
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer resp.Body.Close()
	var b strings.Builder
	_, _ = bufio.NewReader(resp.Body).WriteTo(&b)
	return resp.StatusCode, resp.Header.Get("Location"), b.String()
}

// stale switches a node's health.
type stale struct{ on atomic.Bool }

func (s *stale) health(time.Time) httpapi.Health {
	return httpapi.Health{Seq: 17, Stale: s.on.Load(), Staleness: 90 * time.Second}
}

func TestReadiness(t *testing.T) {
	var s stale
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.Health = s.health })
	n.mkCache("open", true)
	n.call("GET", "/readyz", "", nil).want(t, 200, "")
	s.on.Store(true)
	r := n.call("GET", "/readyz", "", nil).want(t, 503, "")
	var got wire.Readiness
	r.json(t, &got)
	if got.Ready || got.Seq != 17 || got.StalenessSeconds != 90 || got.Reason == "" {
		t.Errorf("readyz says %+v", got)
	}
	n.call("GET", "/healthz", "", nil).want(t, 200, "") // the process is fine
	r = n.call("GET", "/open/nix-cache-info", "", nil).want(t, 503, wire.ErrorUnavailable)
	if r.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	s.on.Store(false)
	n.call("GET", "/open/nix-cache-info", "", nil).want(t, 200, "")
}

func TestMinSeq(t *testing.T) {
	a := mkNode(t, nil)
	b := mkNode(t, a.bucket, func(o *nodeOptions) { o.http.WaitTimeout = 50 * time.Millisecond })
	a.mkCache("open", true)
	p := mkPath(t, "p", 1, 1000)
	r := a.upload(a.root(), infoOf("open", p), p.NAR).want(t, 200, "")
	seq := r.Header.Get(wire.HeaderSeq)
	b.call("GET", "/open/nix-cache-info", "", nil, wire.HeaderMinSeq, seq).want(t, 200, "")
	b.call("GET", "/open/nix-cache-info", "", nil, wire.HeaderMinSeq, "x").want(t, 400, wire.ErrorRequest)
	r = b.call("GET", "/open/nix-cache-info", "", nil, wire.HeaderMinSeq, "99999").want(t, 503, wire.ErrorUnavailable)
	if r.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
}

// A path that one node acknowledged is never denied by another, nor a cache that was
// opened, nor is a cache seen that was closed.
func TestOtherNodesSee(t *testing.T) {
	a := mkNode(t, nil)
	b := mkNode(t, a.bucket)
	a.mkCache("c", true)
	b.call("GET", "/c/nix-cache-info", "", nil).want(t, 200, "")
	for i := range 10 {
		p := mkPath(t, fmt.Sprint("p", i), uint64(i), 500)
		a.push("c", p)
		b.narInfo("c", p.Info.StorePath.HashPart(), "")
		q := mkPath(t, fmt.Sprint("q", i), uint64(i), 500) // the same content under another name
		b.push("c", q)
		info := a.narInfo("c", q.Info.StorePath.HashPart(), "")
		a.call("GET", "/c/"+info.URL, "", nil).want(t, 200, "")
	}
	a.call("PATCH", "/_api/v1/cache-config/c", a.root(), `{"is_public":false}`, "Content-Type", "application/json").want(t, 200, "")
	a.call("GET", "/c/nix-cache-info", "", nil).want(t, 401, "")
	a.call("PATCH", "/_api/v1/cache-config/c", a.root(), `{"is_public":true}`, "Content-Type", "application/json").want(t, 200, "")
	b.call("GET", "/c/nix-cache-info", "", nil).want(t, 200, "")
}

// unreachable is a bucket that can be made to fail.
type unreachable struct {
	blob.Bucket
	down atomic.Bool
}

var errDown = errors.New("the bucket is down")

func (u *unreachable) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	if u.down.Load() {
		return nil, "", errDown
	}
	return u.Bucket.Get(ctx, key)
}

func (u *unreachable) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	if u.down.Load() {
		return nil, "", errDown
	}
	return u.Bucket.GetIf(ctx, key, old)
}

func (u *unreachable) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if u.down.Load() {
		return "", errDown
	}
	return u.Bucket.Put(ctx, key, body)
}

func TestBucketDown(t *testing.T) {
	bucket := &unreachable{Bucket: memblob.New()}
	n := mkNode(t, bucket)
	n.mkCache("open", true)
	p := mkPath(t, "p", 1, 1000)
	n.push("open", p)
	bucket.down.Store(true)
	defer bucket.down.Store(false)
	// What is here is still answered; what would have to be denied is not.
	n.call("GET", "/open/"+p.Info.StorePath.HashPart().String()+".narinfo", "", nil).want(t, 200, "")
	r := n.call("GET", "/open/00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo", "", nil).want(t, 503, wire.ErrorUnavailable)
	if r.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	n.call("GET", "/absent/nix-cache-info", "", nil).want(t, 503, wire.ErrorUnavailable)
	q := mkPath(t, "q", 2, 1000)
	if r := n.upload(n.root(), infoOf("open", q), q.NAR); r.StatusCode < 500 {
		t.Errorf("upload without a bucket: status %d: %s", r.StatusCode, r.body)
	}
	bucket.down.Store(false)
	n.absent("open", q.Info.StorePath.HashPart())
	n.push("open", q)
}

func TestAccessLogAndMetrics(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("open", true)
	p := mkPath(t, "p", 1, 1000)
	n.push("open", p)
	n.call("GET", "/open/"+p.Info.StorePath.HashPart().String()+".narinfo", n.token("x: pull"), nil)
	n.call("GET", "/open/short.narinfo", "", nil)
	n.call("GET", "/open/nix-cache-info", "broken.token", nil)
	waitFor(t, func() bool { return strings.Count(n.logs.String(), `"msg":"request"`) == 5 })
	lines := map[string]map[string]any{}
	for line := range strings.SplitSeq(strings.TrimSpace(n.logs.String()), "\n") {
		var l map[string]any
		must(t, json.Unmarshal([]byte(line), &l))
		if l["msg"] == "request" {
			lines[fmt.Sprint(l["method"], " ", l["route"], " ", l["status"])] = l
		} else if l["msg"] == "credentials are not believed" && l["err"] != nil {
			lines["unbelieved"] = l
		}
	}
	up := lines["PUT /_api/v1/upload-path 200"]
	if up["cache"] != "open" || up["store_path"] != p.Info.StorePath.String() || up["subject"] != "tester" || up["body_bytes"] != float64(len(p.NAR)) || up["seq"] == nil || up["dur"] == nil {
		t.Errorf("upload is logged as %v", up)
	}
	hit := lines["GET /{cache}/{file} 200"]
	if hit["cache"] != "open" || hit["bytes"].(float64) < 100 || hit["remote_addr"] == nil {
		t.Errorf("hit is logged as %v", hit)
	}
	if miss := lines["GET /{cache}/{file} 404"]; miss["err"] == nil {
		t.Errorf("miss is logged as %v", miss)
	}
	if lines["unbelieved"] == nil {
		t.Error("nothing says why a token was not believed")
	}
	text := string(n.call("GET", "/metrics", "", nil).body)
	for _, want := range []string{`celler_http_request_seconds_bucket{route="/{cache}/{file}",code="404"`, "celler_http_requests_in_flight 1", "celler_http_response_bytes_total", "celler_http_uploads_total 1"} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(text, "open") {
		t.Error("a cache name is in the metrics")
	}
}

func TestPanicIsAnswered(t *testing.T) {
	n := mkNode(t, nil, func(o *nodeOptions) {
		o.http.MetricsHandler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("broken invariant") })
	})
	r := n.call("GET", "/metrics", "", nil).want(t, 500, "")
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") || strings.Contains(string(r.body), "invariant") {
		t.Errorf("panic is answered with %s", r.body)
	}
	if ok := n.call("GET", "/healthz", "", nil).want(t, 200, ""); ok.Header.Get(wire.HeaderRequestID) != "" {
		t.Error("a request that went well is named to its client")
	}
	if !strings.Contains(n.logs.String(), "broken invariant") {
		t.Error("the panic is not in the log")
	}
	// The client is told what both lines of the log call its request: what it calls it itself
	// does not count.
	const given = "mine"
	again := n.call("GET", "/metrics", "", nil, wire.HeaderRequestID, given).want(t, 500, "")
	id, other := again.Header.Get(wire.HeaderRequestID), r.Header.Get(wire.HeaderRequestID)
	if len(id) != 16 || len(other) != 16 || id == other {
		t.Errorf("requests are called %q and %q", other, id)
	}
	waitFor(t, func() bool { return strings.Count(n.logs.String(), `"request_id":"`+id+`"`) == 2 })
	if strings.Contains(n.logs.String(), given) {
		t.Error("the client's word for its request is in the log")
	}
}

// TestUnauthorizedSaysWhy: only of a token whose signature is good.
func TestUnauthorizedSaysWhy(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	end := time.Unix(1_000_000_000, 0)
	expired, err := n.auth.Mint(auth.Claims{Expires: end, Rules: []auth.Rule{{Pattern: "*", Permission: auth.AllPermissions()}}})
	must(t, err)
	for token, want := range map[string]string{
		"":            "Unauthorized.",
		expired:       "Unauthorized. The token expired at 2001-09-09T01:46:40Z.",
		expired + "A": "Unauthorized.",
	} {
		for _, request := range []string{"GET /c/nix-cache-info", "GET /absent/nix-cache-info", "GET /_api/v1/cache-config/c", "POST /_api/v1/tokens"} {
			method, path, _ := strings.Cut(request, " ")
			r := n.call(method, path, token, nil).want(t, 401, "Unauthorized")
			var answer wire.Error
			must(t, json.Unmarshal(r.body, &answer))
			if answer.Message != want || r.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: %s (WWW-Authenticate %q), want %q", request, r.body, r.Header.Get("WWW-Authenticate"), want)
			}
		}
	}
}
