package node_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

// What is only tried out leaves nothing behind.
func TestMemoryBucket(t *testing.T) {
	cfg := mkConfig(t)
	cfg.Default = false
	cfg.LogBucket, cfg.DataBucket = "mem:", "mem:"
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	n := mustRun(t, cfg, node.Options{})
	if code, body := n.do(t, http.MethodGet, "/readyz", "", ""); code != http.StatusOK {
		t.Errorf("readyz: %d %s", code, body)
	}
	n.end(t)
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v, %v", left, err)
	}
	if _, err := os.Stat(cfg.CacheDir); err == nil {
		t.Errorf("%s was made", cfg.CacheDir)
	}
}

// Verbs that only look do not make a directory of a mistyped name.
func TestLookingMakesNoBucket(t *testing.T) {
	cfg := mkConfig(t)
	cfg.LogBucket = filepath.Join(t.TempDir(), "typo")
	for range node.ReadLog(t.Context(), cfg.Buckets, node.LogQuery{}, nil) {
	}
	_, errProbe := node.Probe(t.Context(), cfg.LogBucket, cfg.Buckets, node.ProbeOptions{})
	_, errMint := node.MintToken(t.Context(), cfg, node.TokenRequest{}, time.Now)
	for _, err := range []error{errProbe, errMint} {
		if missing, ok := errors.AsType[*node.NotFoundedError](err); !ok || !missing.NoPlace {
			t.Errorf("got %v, want a NotFoundedError", err)
		}
	}
	if _, err := os.Stat(cfg.LogBucket); err == nil {
		t.Error("the directory was made")
	}
}

func TestMissingBucketIsNotMade(t *testing.T) {
	cfg := mkConfig(t)
	cfg.Default = false
	cfg.LogBucket = filepath.Join(t.TempDir(), "not-mounted", "bucket")
	cfg.DataBucket = cfg.LogBucket
	if n, err := node.Open(t.Context(), cfg, node.Options{}); err == nil {
		t.Errorf("a bucket was made where there is no directory; close: %v", n.Close())
	}
}

// Whatever can be known to be wrong without the bucket is found before one is founded:
// the token of the first run is shown once, and must not be lost to a taken port.
func TestNothingIsFoundedInVain(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := []struct {
		name   string
		change func(*config.Config)
	}{
		{"address", func(c *config.Config) { c.Listen = taken.Addr().String() }},
		{"key", func(c *config.Config) { c.Signing = config.Signing{Kind: config.HS256, Text: "%%%", From: "here"} }},
		{"cache dir", func(c *config.Config) { c.CacheDir = filepath.Join(os.Args[0], "cache") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := mkConfig(t)
			tt.change(&cfg)
			if n, err := node.Open(t.Context(), cfg, node.Options{}); err == nil {
				t.Fatalf("the node opened; close: %v", n.Close())
			}
			if _, err := os.Stat(cfg.LogBucket); err == nil {
				t.Error("there is a bucket")
			}
		})
	}
}

// Who founds a bucket with "celler init" gets the token at the first start.
func TestFirstStartAfterInit(t *testing.T) {
	cfg := mkConfig(t)
	if _, err := node.Init(t.Context(), cfg.Buckets, "", "v1", node.ProbeOptions{Rounds: 1, Racers: 2}); err != nil {
		t.Fatal(err)
	}
	first := mustRun(t, cfg, node.Options{})
	if !first.Founded() {
		t.Error("the first node on a founded bucket without a log does not say so")
	}
	first.end(t)
	if second := mustRun(t, cfg, node.Options{}); second.Founded() {
		t.Error("the second node says that the bucket is new")
	}
}

func TestForeignBucket(t *testing.T) {
	cfg := mkConfig(t)
	cfg.Default = false
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), []byte("!"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.LogBucket, cfg.DataBucket = dir, dir
	_, err := node.Open(t.Context(), cfg, node.Options{})
	foreign, ok := errors.AsType[*node.ForeignBucketError](err)
	if !ok || foreign.Key != "thesis.tex" {
		t.Fatalf("got %v, want a ForeignBucketError about thesis.tex", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ROOT")); err == nil {
		t.Error("the bucket was founded nevertheless")
	}
}

func TestNewerFormat(t *testing.T) {
	cfg := mkConfig(t)
	mustRun(t, cfg, node.Options{}).end(t)
	path := filepath.Join(cfg.LogBucket, "FORMAT")
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var format map[string]any
	if err := json.Unmarshal(body, &format); err != nil {
		t.Fatal(err)
	}
	format["v"] = 99
	if body, err = json.Marshal(format); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = node.Open(t.Context(), cfg, node.Options{})
	sentence, hint, ok := node.Diagnose(err)
	if !ok || !strings.Contains(sentence, "99") || !strings.Contains(hint, "upgrade") {
		t.Errorf("got %q, hint %q (%v)", sentence, hint, err)
	}
}

// A bucket that overwrites where it should refuse must not be used.
func TestBrokenBucketIsRefused(t *testing.T) {
	objects := map[string][]byte{}
	var mu sync.Mutex
	careless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		switch r.Method {
		case http.MethodPut: // whatever If-None-Match says
			objects[r.URL.Path] = body
			w.Header().Set("ETag", `"tag"`)
		case http.MethodGet, http.MethodHead:
			body, ok := objects[r.URL.Path]
			if !ok {
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
				return
			}
			w.Header().Set("ETag", `"tag"`)
			_, _ = w.Write(body)
		default:
			delete(objects, r.URL.Path)
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	defer careless.Close()

	cfg := mkConfig(t)
	cfg.Default = false
	cfg.S3 = config.S3Credentials{AccessKeyID: "k", SecretAccessKey: "s"}
	cfg.LogBucket = "s3://b?region=us-east-1&endpoint=" + careless.URL
	cfg.DataBucket = cfg.LogBucket
	_, err := node.Open(t.Context(), cfg, node.Options{})
	broken, ok := errors.AsType[*node.BrokenPromiseError](err)
	if !ok {
		t.Fatalf("got %v, want a BrokenPromiseError", err)
	}
	if !strings.Contains(broken.Error(), "create") || len(broken.Hints()) < 2 {
		t.Errorf("got %q with hints %q", broken, broken.Hints())
	}
	mu.Lock()
	defer mu.Unlock()
	for key := range objects {
		if !strings.Contains(key, "/probe/") {
			t.Errorf("the node wrote %s nevertheless", key)
		}
	}
}
