package client

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
	"github.com/google/go-cmp/cmp"
)

func TestNew(t *testing.T) {
	ok := func(in, want string) {
		t.Helper()
		c, err := New(in)
		if err != nil {
			t.Errorf("New(%q): %v", in, err)
		} else if c.Endpoint() != want {
			t.Errorf("New(%q) has endpoint %q, want %q", in, c.Endpoint(), want)
		}
	}
	bad := func(in, why string) {
		t.Helper()
		if _, err := New(in); err == nil {
			t.Errorf("New(%q): want an error, %s", in, why)
		}
	}
	ok("http://localhost:8080", "http://localhost:8080/")
	ok("https://host/attic", "https://host/attic/")
	ok("https://host/attic/", "https://host/attic/")
	bad("host:8080", "no scheme")
	bad("ftp://host/", "not HTTP")
	bad("https://user:password@host/", "credentials belong into the token")
	bad("https://host/?x=1", "a query")
}

// TestPrefix: an endpoint behind a path keeps it.
func TestPrefix(t *testing.T) {
	var path string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.Path
		_, _ = io.WriteString(w, "{}")
	}))
	defer server.Close()
	c, err := New(server.URL + "/attic")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Cache(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	if want := "/attic/_api/v1/cache-config/ci"; path != want {
		t.Errorf("asked for %s, want %s", path, want)
	}
}

func TestCache(t *testing.T) {
	c := mustServe(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"substituter_endpoint":"https://h/ci","api_endpoint":"https://h/","public_key":"ci:AAAA","is_public":true,
			"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":["cache.nixos.org-1"],"retention_period":{"Period":3600},"new":"ignored"}`)
	}))
	got, err := c.Cache(t.Context(), "ci")
	if err != nil {
		t.Fatal(err)
	}
	want := Cache{
		Name: "ci", Endpoint: "https://h/ci", APIEndpoint: "https://h/", PublicKey: "ci:AAAA", Public: true, StoreDir: "/nix/store",
		Priority: 41, UpstreamKeyNames: []string{"cache.nixos.org-1"}, Retention: ptr(time.Hour),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cache (-want +got):\n%s", diff)
	}
}

// TestRequests: the bodies are what Attic's server takes, and no more than was asked for.
func TestRequests(t *testing.T) {
	var method, body string
	c := mustServe(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		method, body = r.Method+" "+r.URL.Path, string(text)
		if len(text) > 0 && r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s has Content-Type %q", method, r.Header.Get("Content-Type"))
		}
	}))
	check := func(err error, wantMethod, wantBody string) {
		t.Helper()
		if err != nil || method != wantMethod || body != wantBody {
			t.Errorf("error %v\nsent %s %s\nwant %s %s", err, method, body, wantMethod, wantBody)
		}
	}
	const path = "/_api/v1/cache-config/ci"
	check(c.CreateCache(t.Context(), "ci", NewCache{}), "POST "+path,
		`{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":["cache.nixos.org-1"]}`)
	check(c.CreateCache(t.Context(), "ci", NewCache{Public: true, Priority: 30, SecretKey: "ci:c2VjcmV0", UpstreamKeyNames: []string{}}), "POST "+path,
		`{"keypair":{"Keypair":"ci:c2VjcmV0"},"is_public":true,"store_dir":"/nix/store","priority":30,"upstream_cache_key_names":[]}`)
	check(c.ConfigureCache(t.Context(), "ci", CacheChange{Public: ptr(false)}), "PATCH "+path, `{"is_public":false}`)
	check(c.ConfigureCache(t.Context(), "ci", CacheChange{RegenerateKey: true, Retention: &Retention{Default: true}}), "PATCH "+path,
		`{"keypair":"Generate","retention_period":"Global"}`)
	check(c.ConfigureCache(t.Context(), "ci", CacheChange{Retention: &Retention{Period: time.Minute}}), "PATCH "+path, `{"retention_period":{"Period":60}}`)
	check(c.DestroyCache(t.Context(), "ci"), "DELETE "+path, "")

	method = ""
	if err := c.ConfigureCache(t.Context(), "ci", CacheChange{Retention: &Retention{Period: time.Millisecond}}); err == nil || method != "" {
		t.Errorf("a retention of a millisecond was sent as %s: error %v", method, err)
	}
}

func TestPaths(t *testing.T) {
	pages := map[string]wire.PathList{
		"":  {Paths: []wire.PathInfo{{StorePath: "one"}, {StorePath: "two"}}, Next: "2"},
		"2": {Paths: []wire.PathInfo{{StorePath: "three", Sigs: []string{"k:s"}}}},
	}
	c := mustServe(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(pages[r.URL.Query().Get("after")])
	}))
	var got []string
	for p, err := range c.Paths(t.Context(), "ci") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p.StorePath)
	}
	if !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("listed %q", got)
	}
}

func TestStatusError(t *testing.T) {
	answer := func(status int, header http.Header, body string) *StatusError {
		t.Helper()
		c := mustServe(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}), WithRetry(Retry{Attempts: -1}))
		_, err := c.Cache(t.Context(), "ci")
		e, ok := errors.AsType[*StatusError](err)
		if !ok {
			t.Fatalf("error %v is no StatusError", err)
		}
		return e
	}
	plain := http.Header{"Content-Type": {"text/plain; charset=utf-8"}}

	e := answer(404, nil, `{"code":404,"error":"NoSuchCache","message":"The requested cache does not exist."}`)
	if e.Name != NoSuchCache || e.Message != "The requested cache does not exist." || !e.Final() {
		t.Errorf("object: %+v", e)
	}
	if e := answer(400, plain, "Invalid URL: Invalid cache name\nmore"); e.Message != "Invalid URL: Invalid cache name" {
		t.Errorf("plain text: %+v", e)
	}
	if e := answer(502, http.Header{"Content-Type": {"text/html"}}, "<html><h1>Bad Gateway</h1>"); strings.Contains(e.Error(), "<") || e.Final() {
		t.Errorf("a proxy's page: %v", e)
	}
	if e := answer(500, plain, "\x1b[2Jboo"); strings.Contains(e.Error(), "\x1b") {
		t.Errorf("a server may not steer the terminal: %q", e.Error())
	}
	if e := answer(503, http.Header{"Retry-After": {"120"}}, ""); e.RetryAfter != 2*time.Minute || e.Error() == "" {
		t.Errorf("Retry-After: %+v", e)
	}
	if e := answer(500, http.Header{"X-Request-Id": {"3f2a\u009b" + strings.Repeat("b", 1000)}}, ""); !strings.Contains(e.Error(), "(request 3f2ab") || strings.Contains(e.Error(), "\u009b") || len(e.Error()) > 200 {
		t.Errorf("what the server calls the request: %q", e.Error())
	}
	if e := answer(403, http.Header{"X-Request-Id": {"3f2a"}}, ""); e.RequestID != "3f2a" || strings.Contains(e.Error(), "3f2a") {
		t.Errorf("what the caller can help is no matter of the server's log: %v", e)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":       0,
		"7":      7 * time.Second,
		"-7":     0,
		"999999": time.Hour,
		"soon":   0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("Retry-After %q is %v, want %v", header, got, want)
		}
	}
}

// TestCreateLostAnswer: sending it again would only say that the cache exists.
func TestCreateLostAnswer(t *testing.T) {
	var requests atomic.Int32
	c := mustServe(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		requests.Add(1)
		panic(http.ErrAbortHandler)
	}))
	err := c.CreateCache(t.Context(), "ci", NewCache{})
	if err == nil || requests.Load() != 1 || !strings.Contains(err.Error(), "may have happened") {
		t.Errorf("%d requests, error %v", requests.Load(), err)
	}
}

func TestDeleteLostAnswer(t *testing.T) {
	var requests atomic.Int32
	c := mustServe(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		refuse(w, http.StatusNotFound, wire.ErrorNoSuchObject, "gone")
	}))
	if err := c.DeletePath(t.Context(), "ci", nix.HashPart{1}); err != nil {
		t.Errorf("that it is gone is what was wanted: %v", err)
	}
	requests.Store(1)
	if err := c.DeletePath(t.Context(), "ci", nix.HashPart{1}); err == nil {
		t.Error("a path that was never there was deleted")
	}
}

// TestMinSeq: what this client has done, every replica it asks later must know.
func TestMinSeq(t *testing.T) {
	var asked []string
	c := mustServe(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get(wire.HeaderMinSeq))
		if r.Method != http.MethodGet {
			w.Header().Set(wire.HeaderSeq, "17")
		}
		_, _ = io.WriteString(w, "{}")
	}))
	for range 2 {
		if err := c.CreateCache(t.Context(), "ci", NewCache{}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(asked, []string{"", "17"}) {
		t.Errorf("asked for positions %q", asked)
	}
}

func TestParseHashPart(t *testing.T) {
	p := mkPath("hello-1.0")
	for _, in := range []string{p.String(), p.Base(), p.HashPart().String()} {
		if got, err := ParseHashPart(in); err != nil || got != p.HashPart() {
			t.Errorf("ParseHashPart(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "hello", p.HashPart().String() + "x", "/nix/store", "./result"} {
		if got, err := ParseHashPart(in); err == nil {
			t.Errorf("ParseHashPart(%q) = %v, want an error", in, got)
		}
	}
}

func FuzzParseHashPart(f *testing.F) {
	f.Add(mkPath("hello").String())
	f.Add(mkPath("hello").Base())
	f.Add("")
	f.Fuzz(func(t *testing.T, in string) {
		hashPart, err := ParseHashPart(in)
		if err == nil && !strings.Contains(in, hashPart.String()) {
			t.Errorf("ParseHashPart(%q) found %v", in, hashPart)
		}
	})
}

// Whoever waits is told why, once for every wait.
func TestRetryNotice(t *testing.T) {
	left := 2
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if left--; left >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `{"caches":[]}`)
	}))
	defer server.Close()
	var told []string
	c, err := New(server.URL, WithRetry(Retry{First: time.Millisecond}), WithRetryNotice(func(_ time.Duration, err error) { told = append(told, err.Error()) }))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Caches(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(told) != 2 || !strings.Contains(told[0], "503") {
		t.Errorf("told %q", told)
	}
}
