package node_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/wal"
)

// TestGoldenRows wants every type and version of row that package keyspace has golden bytes
// of in a golden bucket, and all types in the newest. Whoever adds one adds it to the
// generator: see docs/formats.
func TestGoldenRows(t *testing.T) {
	seen, newest := map[string]bool{}, map[string]bool{}
	for _, name := range goldenTars(t) {
		rows := goldenRows(t, name)
		maps.Copy(seen, rows)
		if filepath.Base(name) == goldenNewest+".tar" {
			newest = rows
		}
	}
	for b := range 256 {
		if kind := keyspace.Kind([]byte{byte(b)}); kind != "" && !newest[kind] {
			t.Errorf("golden bucket %s has no row %q (%s)", goldenNewest, rune(b), kind)
		}
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "index", "keyspace", "testdata", "golden.txt"))
	if err != nil {
		t.Fatal(err)
	}
	known := regexp.MustCompile(`(?m)^([a-z-]+).*\n\t[0-9a-f]+\n\t([0-9a-f]{2})`).FindAllStringSubmatch(string(text), -1)
	if len(known) < 20 {
		t.Fatalf("keyspace has %d golden rows", len(known))
	}
	for _, k := range known {
		if row := k[1] + " " + k[2]; !seen[row] {
			t.Errorf("no golden bucket has a row of type %s in version 0x%s", k[1], k[2])
		}
	}
	for _, row := range []string{
		"recipe of version 1", "recipe of version 2", "recipe with breaks", "pack 01", "pack 02", "chunk 01", "chunk 02",
		"entry 1", "entry 2", "entry 3", "entry 16", "entry 128",
	} {
		if !newest[row] {
			t.Errorf("golden bucket %s has no %s", goldenNewest, row)
		}
	}
}

// goldenRows names the rows that the state of a bucket and its log hold.
func goldenRows(t *testing.T, tarName string) map[string]bool {
	t.Helper()
	bucket := memblob.New()
	eachInTar(t, tarName, func(name string, body []byte) {
		if _, err := bucket.Put(t.Context(), blob.Key(name), body); err != nil {
			t.Fatal(err)
		}
	})
	root, err := wal.ReadRoot(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	db, err := index.Open("index", root.Store, index.Options{FS: vfs.NewMem(), Bucket: bucket})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	log, err := wal.Open(t.Context(), bucket, db, wal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	rows := map[string]bool{}
	for b := range 256 {
		for kv, err := range db.Scan([]byte{byte(b)}, nil) {
			if err != nil {
				t.Fatal(err)
			}
			noteRow(t, rows, kv.Key, kv.Value)
		}
	}
	for seg, err := range wal.ReadSegments(t.Context(), bucket, 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range seg.Entries {
			rows[fmt.Sprintf("entry %d", e.Kind)] = true
			if e.Kind == wal.Set {
				noteRow(t, rows, e.Key, e.Value)
			}
		}
	}
	return rows
}

// noteRow notes the type of a row, and its version.
func noteRow(t *testing.T, rows map[string]bool, key, value []byte) {
	t.Helper()
	kind := keyspace.Kind(key)
	if kind == "" {
		return // the log's own
	}
	rows[kind] = true
	rows[fmt.Sprintf("%s %02x", kind, value[0])] = true
	if key[0] != keyspace.RecipePrefix {
		return
	}
	if k, err := keyspace.DecodeRecipeKey(key); err != nil || k.Part > 0 {
		return // a further part
	}
	head, err := keyspace.DecodeRecipeHead(value)
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := chunk.DecodeRecipe(head.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	rows[fmt.Sprintf("recipe of version %d", head.Bytes[0])] = true
	rows["recipe with breaks"] = rows["recipe with breaks"] || len(r.Breaks) > 0
}

// TestGoldenObjects wants every type of object that docs/formats lists, in every version
// that has a magic, in the newest bucket, and what has a sum with one.
func TestGoldenObjects(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "formats", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := regexp.MustCompile("(?m)^\\| `([A-Za-z]+)").FindAllStringSubmatch(string(doc), -1)
	if len(listed) < 7 {
		t.Fatalf("docs/formats lists %d types of objects", len(listed))
	}
	there, packs := map[string]bool{}, map[byte]bool{}
	eachInTar(t, filepath.Join("testdata", "buckets", goldenNewest+".tar"), func(name string, body []byte) {
		kind, _, _ := strings.Cut(name, "/")
		there[kind] = true
		switch kind {
		case "FORMAT", "ROOT":
			if !bytes.Contains(body, []byte(`"sum"`)) {
				t.Errorf("%s has no sum: %s", name, body)
			}
			if kind == "ROOT" && !bytes.Contains(body, []byte(`"min_writer":2`)) {
				t.Errorf("ROOT has not raised min_writer: %s", body)
			}
		case "pack":
			tail := body[len(body)-12:]
			n := int(tail[0]) | int(tail[1])<<8 | int(tail[2])<<16
			packs[body[len(body)-12-n]] = true
		}
	})
	for _, l := range listed {
		if !there[l[1]] {
			t.Errorf("golden bucket %s has no object of type %s: %v", goldenNewest, l[1], slices.Sorted(maps.Keys(there)))
		}
	}
	if !there["recover"] {
		t.Errorf("golden bucket %s was never recovered", goldenNewest)
	}
	if !packs[1] || !packs[2] {
		t.Errorf("golden bucket %s has packs of versions %v, want 1 and 2", goldenNewest, packs)
	}
}

// TestGoldenCollected collects in the buckets of all versions: nothing may become
// unreadable by it, and caches that keep their paths keep them.
func TestGoldenCollected(t *testing.T) {
	for _, name := range goldenTars(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			cfg := mkConfig(t)
			cfg.Maintenance = "off"
			cfg.Bucket = t.TempDir()
			cfg.LogBucket, cfg.DataBucket = cfg.Bucket, cfg.Bucket
			untar(t, name, cfg.Bucket)
			first := mustRun(t, cfg, node.Options{})
			before := keptPaths(first.describe(t))
			first.end(t)
			if len(before) < 5 {
				t.Fatalf("the bucket has %d paths that stay", len(before))
			}
			for range 2 {
				if _, err := node.CollectGarbage(t.Context(), cfg, node.GCRequest{Version: "test"}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := node.Compact(t.Context(), cfg.Buckets, config.Compact{}, node.CompactRequest{Steal: true}); err != nil {
				t.Fatal(err)
			}
			if rep, found := fsck(t, cfg, false); !rep.Sound() {
				t.Errorf("after collection: %+v", found)
			}
			cfg.CacheDir = t.TempDir()
			second := mustRun(t, cfg, node.Options{})
			after := keptPaths(second.describe(t))
			for _, path := range before {
				if !slices.Contains(after, path) {
					t.Errorf("after collection this is gone or another:\n%s", path)
				}
			}
		})
	}
}

// keptPaths are the paths of cache ci, which has no retention, as describe tells them.
func keptPaths(text string) []string {
	_, ci, _ := strings.Cut(text, "== cache ci:")
	ci, _, _ = strings.Cut(ci, "== cache")
	_, ci, _ = strings.Cut(ci, "\n\n")
	return strings.Split(strings.TrimSpace(ci), "\n\n")
}

func goldenTars(t *testing.T) []string {
	t.Helper()
	tars, err := filepath.Glob(filepath.Join("testdata", "buckets", "*.tar"))
	if err != nil || len(tars) < 3 {
		t.Fatalf("%d buckets in testdata: %v", len(tars), err)
	}
	return tars
}

// eachInTar calls each with every file of an archive.
func eachInTar(t *testing.T, name string, each func(name string, body []byte)) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		each(h.Name, body)
	}
}
