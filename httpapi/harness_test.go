package httpapi_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
	"github.com/celler/celler/wal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a whole celler but for the process: real log, index, catalog and chunk store
// on a bucket in memory, behind a real HTTP server.
type node struct {
	t      testing.TB
	bucket blob.Bucket
	log    *wal.Log
	cat    *catalog.Catalog
	chunks *chunkstore.Store
	auth   *auth.Verifier
	srv    *httptest.Server
	client *http.Client
	logs   *logBuffer
}

type nodeOptions struct {
	http   httpapi.Options
	chunks chunkstore.Options
	auth   auth.Options
	dir    string
	http2  bool
}

var testKey = []byte("a secret for tests only")

// mkNode starts a node on bucket; nil is a new one.
func mkNode(t testing.TB, bucket blob.Bucket, change ...func(*nodeOptions)) *node {
	t.Helper()
	o := nodeOptions{dir: t.TempDir()}
	o.http.Now = time.Now
	logs := &logBuffer{}
	o.http.Logger = slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, f := range change {
		f(&o)
	}
	if bucket == nil {
		bucket = memblob.New()
	}
	format, err := wal.Found(t.Context(), bucket, wal.Format{Profile: "fast2016-16k"})
	must(t, err)
	db, err := index.Open(o.dir, format.Store, index.Options{})
	must(t, err)
	log, err := wal.Open(t.Context(), bucket, db, wal.Options{HedgeAfter: -1}) // tests hold calls
	must(t, err)
	cat := catalog.New(log, db, catalog.Options{})
	chunks, err := chunkstore.New(bucket, cat, o.chunks)
	must(t, err)
	key, err := auth.HS256(testKey)
	must(t, err)
	verifier := auth.New(key, o.auth)
	n := &node{
		t: t, bucket: bucket, log: log, cat: cat, chunks: chunks, auth: verifier, logs: logs,
		srv: httptest.NewUnstartedServer(httpapi.New(cat, chunks, verifier, o.http)),
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!o.http2)
	protocols.SetUnencryptedHTTP2(o.http2)
	n.srv.Config.Protocols = protocols
	n.srv.Start()
	n.client = n.srv.Client()
	n.client.Transport.(*http.Transport).Protocols = protocols
	n.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(func() {
		n.client.CloseIdleConnections()
		n.srv.Close()
		must(t, chunks.Close())
		must(t, log.Close())
		must(t, db.Close())
	})
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logBuffer keeps the log for tests that look at it.
type logBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// token mints one with "pattern: right right" rules, in order.
func (n *node) token(rules ...string) string {
	n.t.Helper()
	c := auth.Claims{Subject: "tester", Expires: time.Now().Add(time.Hour)}
	for _, r := range rules {
		pattern, rights, _ := strings.Cut(r, ":")
		perm := auth.AllPermissions()
		if rights != "" {
			var err error
			perm, err = auth.ParsePermission(strings.Fields(rights)...)
			must(n.t, err)
		}
		c.Rules = append(c.Rules, auth.Rule{Pattern: auth.Pattern(pattern), Permission: perm})
	}
	token, err := n.auth.Mint(c)
	must(n.t, err)
	return token
}

func (n *node) root() string { return n.token("*") }

// response is one that was read to its end.
type response struct {
	*http.Response
	body []byte
}

// call makes one request. body may be nil, a string, []byte, an io.Reader, or anything
// that encodes to JSON, which sets the Content-Type.
func (n *node) call(method, path, token string, body any, headers ...string) response {
	n.t.Helper()
	r, err := n.try(method, path, token, body, headers...)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

func (n *node) try(method, path, token string, body any, headers ...string) (response, error) {
	n.t.Helper()
	var reader io.Reader
	isJSON := false
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	case []byte:
		reader = bytes.NewReader(b)
	case io.Reader:
		reader = b
	default:
		raw, err := json.Marshal(b)
		must(n.t, err)
		reader, isJSON = bytes.NewReader(raw), true
	}
	req, err := http.NewRequestWithContext(n.t.Context(), method, n.srv.URL+path, reader)
	must(n.t, err)
	if token != "" {
		req.Header.Set("Authorization", "bearer "+token)
	}
	if isJSON {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept-Encoding", "identity")
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return response{resp, raw}, err
}

// want checks status and, if not "", the name of the JSON error.
func (r response) want(t testing.TB, status int, name string) response {
	t.Helper()
	if r.StatusCode != status {
		t.Errorf("%s %s: status %d, want %d; body %.300s", r.Request.Method, r.Request.URL.Path, r.StatusCode, status, r.body)
		return r
	}
	if name == "" {
		return r
	}
	var e wire.Error
	if err := json.Unmarshal(r.body, &e); err != nil || e.Code != status || e.Name != name || e.Message == "" {
		t.Errorf("%s %s: body %.300s, want error %s with code %d", r.Request.Method, r.Request.URL.Path, r.body, name, status)
	}
	if ct := r.Header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("%s %s: error has Content-Type %q", r.Request.Method, r.Request.URL.Path, ct)
	}
	return r
}

func (r response) json(t testing.TB, to any) {
	t.Helper()
	if err := json.Unmarshal(r.body, to); err != nil {
		t.Fatalf("%.300s: %v", r.body, err)
	}
}

// mkCache creates a cache.
func (n *node) mkCache(name string, public bool) {
	n.t.Helper()
	r := n.call("POST", "/_api/v1/cache-config/"+name, n.root(), wire.CreateCacheRequest{
		IsPublic: public, StoreDir: "/nix/store", Priority: 41, UpstreamCacheKeyNames: []string{"cache.nixos.org-1"},
	})
	r.want(n.t, 200, "")
}

// infoOf is what a stock client says about a path.
func infoOf(cache string, p nixtest.Path) wire.UploadInfo {
	sum, _ := p.Info.NarHash.Sum256()
	info := wire.UploadInfo{
		Cache: cache, StorePathHash: p.Info.StorePath.HashPart().String(), StorePath: p.Info.StorePath.String(),
		References: []string{}, Sigs: []string{}, NarHash: "sha256:" + hex.EncodeToString(sum[:]), NarSize: int64(len(p.NAR)),
	}
	for _, ref := range p.Info.References {
		info.References = append(info.References, ref.Base())
	}
	return info
}

func jsonText(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// upload sends a NAR in header mode, chunked, as a stock client does.
func (n *node) upload(token string, info wire.UploadInfo, body []byte) response {
	n.t.Helper()
	return n.call("PUT", "/_api/v1/upload-path", token, io.MultiReader(bytes.NewReader(body)), wire.HeaderAtticNarInfo, jsonText(info))
}

// push uploads and checks that it worked.
func (n *node) push(cache string, paths ...nixtest.Path) wire.UploadResult {
	n.t.Helper()
	var result wire.UploadResult
	for _, p := range paths {
		r := n.upload(n.root(), infoOf(cache, p), p.NAR)
		r.want(n.t, 200, "")
		r.json(n.t, &result)
	}
	return result
}

// narInfo fetches and parses a narinfo.
func (n *node) narInfo(cache string, hashPart nix.HashPart, token string) *nix.NarInfo {
	n.t.Helper()
	r := n.call("GET", "/"+cache+"/"+hashPart.String()+".narinfo", token, nil)
	r.want(n.t, 200, "")
	info, err := nix.ParseNarInfo(r.body)
	if err != nil {
		n.t.Fatalf("%s: %v", r.body, err)
	}
	return info
}

// absent checks that a path cannot be seen in any way.
func (n *node) absent(cache string, hashPart nix.HashPart) {
	n.t.Helper()
	for _, path := range []string{
		"/" + cache + "/" + hashPart.String() + ".narinfo",
		"/" + cache + "/nar/" + hashPart.String() + ".nar",
		"/_api/v1/caches/" + cache + "/paths/" + hashPart.String(),
	} {
		n.call("GET", path, n.root(), nil).want(n.t, 404, wire.ErrorNoSuchObject)
	}
	var missing wire.MissingPathsResponse
	r := n.call("POST", "/_api/v1/get-missing-paths", n.root(), wire.MissingPathsRequest{Cache: cache, StorePathHashes: []string{hashPart.String()}})
	r.want(n.t, 200, "").json(n.t, &missing)
	if len(missing.MissingPaths) != 1 {
		n.t.Errorf("get-missing-paths says that %v is there", hashPart)
	}
}

func (n *node) publicKey(cache string) nix.PublicKey {
	n.t.Helper()
	var config wire.CacheConfig
	n.call("GET", "/_api/v1/cache-config/"+cache, n.root(), nil).want(n.t, 200, "").json(n.t, &config)
	key, err := nix.ParsePublicKey(*config.PublicKey)
	must(n.t, err)
	return key
}

func unzstd(t testing.TB, b []byte) []byte {
	t.Helper()
	d, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1))
	must(t, err)
	defer d.Close()
	plain, err := io.ReadAll(d)
	must(t, err)
	return plain
}

// mkPaths makes n unrelated paths of about size bytes.
func mkPath(t testing.TB, name string, seed uint64, size int, refs ...nix.StorePath) nixtest.Path {
	t.Helper()
	return nixtest.MkPath(t, name, nixtest.MkTree(seed, size), refs...)
}
