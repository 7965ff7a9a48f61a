package node_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

var update = flag.Bool("update", false, "write testdata/buckets/NEWEST anew, and what every bucket there is read as")

// goldenNewest is the bucket that this version writes. Buckets before it were written
// by earlier versions and are never written again. A version that changes what it
// writes leaves this one behind, and begins the next.
const goldenNewest = "3"

// TestGoldenBuckets opens the buckets that this version and earlier ones have written,
// reads every path back byte for byte, works with them, and reads them again.
func TestGoldenBuckets(t *testing.T) {
	if *update {
		first, second := mkGoldenBucket(t), mkGoldenBucket(t)
		if !bytes.Equal(first, second) {
			t.Fatal("two buckets made in the same way differ")
		}
		if err := os.WriteFile(filepath.Join("testdata", "buckets", goldenNewest+".tar"), first, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tars, err := filepath.Glob(filepath.Join("testdata", "buckets", "*.tar"))
	if err != nil || len(tars) == 0 {
		t.Fatalf("no buckets in testdata: %v", err)
	}
	for _, name := range tars {
		base := strings.TrimSuffix(name, ".tar")
		t.Run(filepath.Base(base), func(t *testing.T) { goldenBucket(t, name, base+".txt") })
	}
}

func goldenBucket(t *testing.T, tarName, wantName string) {
	cfg := mkConfig(t)
	cfg.Maintenance = "off"
	cfg.Bucket = t.TempDir()
	cfg.LogBucket, cfg.DataBucket = cfg.Bucket, cfg.Bucket
	untar(t, tarName, cfg.Bucket)

	first := mustRun(t, cfg, node.Options{})
	got := first.describe(t)
	if *update {
		if err := os.WriteFile(wantName, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(wantName)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the bucket is read in another way than when it was written (-want +got):\n%s", diff)
	}

	// What was written then can be added to now, folded into tables of now, and read
	// by a server that has nothing else.
	added := nixtest.MkPath(t, "added", nixtest.Dir{"new": nixtest.Text("not of old")})
	first.push(t, "ci", added)
	first.end(t)
	limits := config.Compact{}
	if _, err := node.Compact(t.Context(), cfg.Buckets, limits, node.CompactRequest{Steal: true}); err != nil {
		t.Fatal(err)
	}
	cfg.CacheDir = t.TempDir()
	second := mustRun(t, cfg, node.Options{})
	if code, _ := second.do(t, http.MethodDelete, "/_api/v1/caches/ci/paths/"+added.Info.StorePath.HashPart().String(), second.admin(t), ""); code != http.StatusOK {
		t.Errorf("delete of what was added: %d", code)
	}
	if diff := cmp.Diff(string(want), second.describe(t)); diff != "" {
		t.Errorf("after the bucket was used and compacted it is read in another way (-want +got):\n%s", diff)
	}
}

func (r *running) admin(t *testing.T) string {
	t.Helper()
	token, err := r.AdminToken(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (r *running) push(t *testing.T, cache string, p nixtest.Path) {
	t.Helper()
	refs := []string{}
	for _, ref := range p.Info.References {
		refs = append(refs, ref.Base())
	}
	info, err := json.Marshal(map[string]any{
		"cache": cache, "store_path_hash": p.Info.StorePath.HashPart().String(), "store_path": p.Info.StorePath.String(), "references": refs,
		"system": nil, "deriver": nil, "sigs": []string{}, "ca": nil, "nar_hash": p.Info.NarHash.String(), "nar_size": p.Info.NarSize,
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, r.url+"/_api/v1/upload-path", bytes.NewReader(p.NAR))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.admin(t))
	req.Header.Set("X-Celler-Nar-Info", string(info))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("push: %s: %s, %v", res.Status, text, err)
	}
}

// describe tells everything that clients can read in the bucket, and wants every NAR
// to be what its narinfo says.
func (r *running) describe(t *testing.T) string {
	t.Helper()
	token := r.admin(t)
	get := func(into any, format string, args ...any) {
		t.Helper()
		path := fmt.Sprintf(format, args...)
		code, text := r.do(t, http.MethodGet, path, token, "")
		if code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, code, text)
		}
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	var b strings.Builder
	var caches struct{ Caches []struct{ Name string } }
	get(&caches, "/_api/v1/caches")
	for _, c := range caches.Caches {
		var config struct {
			PublicKey string          `json:"public_key"`
			Public    bool            `json:"is_public"`
			StoreDir  string          `json:"store_dir"`
			Priority  int             `json:"priority"`
			Upstream  []string        `json:"upstream_cache_key_names"`
			Retention json.RawMessage `json:"retention_period"`
		}
		get(&config, "/_api/v1/cache-config/%s", c.Name)
		fmt.Fprintf(&b, "== cache %s: %+v retention %s\n", c.Name, config.PublicKey, config.Retention)
		fmt.Fprintf(&b, "public %v, store dir %s, priority %d, upstream keys %q\n", config.Public, config.StoreDir, config.Priority, config.Upstream)
		var paths struct {
			Paths []struct {
				StorePath string    `json:"store_path"`
				HashPart  string    `json:"store_path_hash"`
				By        string    `json:"created_by"`
				Created   time.Time `json:"created"`
			}
		}
		get(&paths, "/_api/v1/caches/%s/paths", c.Name)
		r.describePins(&b, get, c.Name)
		for _, p := range paths.Paths {
			fmt.Fprintf(&b, "\n%s by %q at %s\n", p.StorePath, p.By, p.Created.UTC().Format(time.RFC3339Nano))
			r.describePath(t, &b, token, c.Name, p.HashPart)
		}
	}
	for _, url := range goldenBeside(t) {
		if code, text := r.do(t, http.MethodGet, url, token, ""); code == http.StatusOK {
			fmt.Fprintf(&b, "\n%s: %d bytes, sha256 %x\n", url, len(text), sha256.Sum256([]byte(text)))
		} else if code, _ := r.do(t, http.MethodHead, url, token, ""); code == http.StatusOK {
			fmt.Fprintf(&b, "\n%s: need not be sent again\n", url)
		}
	}
	return b.String()
}

// describePins tells what the pins and the counters of a cache say.
func (r *running) describePins(b *strings.Builder, get func(any, string, ...any), cache string) {
	var stats struct {
		Paths     int64
		NarBytes  int64 `json:"nar_bytes"`
		FileBytes int64 `json:"file_bytes"`
		Uncounted bool
	}
	get(&stats, "/_api/v1/caches/%s/stats", cache)
	fmt.Fprintf(b, "%d paths, %d bytes of NARs, %d as served, some not counted: %v\n", stats.Paths, stats.NarBytes, stats.FileBytes, stats.Uncounted)
	var pins struct{ Pins []struct{ Name string } }
	get(&pins, "/_api/v1/caches/%s/pins", cache)
	for _, p := range pins.Pins {
		var history struct {
			Pin struct {
				Policy json.RawMessage
				Kept   int
			}
			Revisions []struct {
				Revision  uint64
				StorePath string `json:"store_path"`
				Created   time.Time
				By        string `json:"created_by"`
				Waiting   bool
			}
		}
		get(&history, "/_api/v1/caches/%s/pins/%s", cache, p.Name)
		fmt.Fprintf(b, "pin %s: %s\n", p.Name, history.Pin.Policy)
		for _, rev := range history.Revisions {
			fmt.Fprintf(b, "  %d: %s by %q at %s, waiting: %v\n", rev.Revision, rev.StorePath, rev.By, rev.Created.UTC().Format(time.RFC3339Nano), rev.Waiting)
		}
	}
}

func (r *running) describePath(t *testing.T, b *strings.Builder, token, cache, hashPart string) {
	t.Helper()
	code, text := r.do(t, http.MethodGet, "/"+cache+"/"+hashPart+".narinfo", token, "")
	if code != http.StatusOK {
		t.Fatalf("narinfo of %s: %d %s", hashPart, code, text)
	}
	info, err := nix.ParseNarInfo([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	b.WriteString(text)
	code, served := r.do(t, http.MethodGet, "/"+cache+"/"+info.URL, token, "")
	if code != http.StatusOK {
		t.Fatalf("NAR of %s: %d %s", hashPart, code, served)
	}
	fmt.Fprintf(b, "served: %d bytes, sha256 %x\n", len(served), sha256.Sum256([]byte(served)))
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	nar, err := dec.DecodeAll([]byte(served), nil)
	if err != nil {
		t.Fatalf("NAR of %s: %v", hashPart, err)
	}
	if got := nix.SHA256Hash(sha256.Sum256(nar)); got != info.NarHash || int64(len(nar)) != info.NarSize {
		t.Errorf("NAR of %s has %d bytes and hash %v, its narinfo says %d and %v", hashPart, len(nar), got, info.NarSize, info.NarHash)
	}
}

// untar unpacks a bucket into a directory.
func untar(t *testing.T, name, dir string) {
	t.Helper()
	eachInTar(t, name, func(name string, body []byte) {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, body, 0o644); err != nil {
			t.Fatal(err)
		}
	})
}
