package main

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/index"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

func TestPermutation(t *testing.T) {
	p := newPermutation(3200, 0x9e3779b97f4a7c15)
	seen := map[int64]bool{}
	for x := range int64(3200) {
		y := p.of(x)
		if y < 0 || y >= 3200 || seen[y] || p.back(y) != x {
			t.Fatalf("of(%d) = %d, back(%d) = %d, seen before: %v", x, y, y, p.back(y), seen[y])
		}
		seen[y] = true
	}
}

// Rows come in the order of their keys: tables could not be written otherwise.
func TestRowsAscend(t *testing.T) {
	st := newState(1, firstCache)
	for _, k := range st.kinds() {
		var last []byte
		for place := range k.count {
			key, _, err := k.row(place, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Compare(last, key) >= 0 {
				t.Fatalf("%c row %d: %x after %x", k.prefix, place, key, last)
			}
			last = key
		}
	}
}

// A catalog finds its way in a state that was made up as in one that was pushed.
func TestInstall(t *testing.T) {
	bucket := memblob.New()
	format, err := wal.Found(t.Context(), bucket, wal.Format{Profile: chunk.DefaultProfile})
	if err != nil {
		t.Fatal(err)
	}
	open := func(use func(*index.DB, *catalog.Catalog)) {
		t.Helper()
		db, err := index.Open("index", format.Store, index.Options{FS: vfs.NewMem(), Bucket: bucket})
		if err != nil {
			t.Fatal(err)
		}
		log, err := wal.Open(t.Context(), bucket, db, wal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		use(db, catalog.New(log, db, catalog.Options{}))
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	open(func(_ *index.DB, cat *catalog.Catalog) {
		if _, err := cat.CreateCache(t.Context(), catalog.Cache{Name: "bench", StoreDir: nix.DefaultStoreDir}); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := compact.New(bucket, compact.Options{KeepSegments: -1, LogRetention: -1}).Round(t.Context(), compact.Mode{}); err != nil {
		t.Fatal(err)
	}
	st := newState(1, firstCache)
	if _, _, err := st.install(t.Context(), bucket); err != nil {
		t.Fatal(err)
	}
	open(func(db *index.DB, cat *catalog.Catalog) {
		for place := int64(0); place < st.paths; place += 97 {
			wantPath(t, st, cat, place)
		}
		rows := int64(0)
		for _, err := range db.Scan([]byte{keyspace.ChunkPrefix}, nil) {
			if err != nil {
				t.Fatal(err)
			}
			rows++
		}
		if rows != st.chunks() {
			t.Errorf("%d chunk rows, want %d", rows, st.chunks())
		}
	})
}

// wantPath follows a path to the chunks of its NAR.
func wantPath(t *testing.T, st *state, cat *catalog.Catalog, place int64) {
	t.Helper()
	sp, err := st.storePath(place)
	if err != nil {
		t.Fatal(err)
	}
	p, err := cat.Path(t.Context(), "bench", sp.HashPart())
	if err != nil || p.StorePath != sp {
		t.Fatalf("path %d is %v, %v; want %v", place, p.StorePath, err, sp)
	}
	r, err := cat.Recipe(t.Context(), p.NarHash)
	if err != nil || r.Size != p.NarSize || len(r.Runs) != 1 {
		t.Fatalf("recipe of path %d has %d bytes in %d runs, %v; want %d bytes in one", place, r.Size, len(r.Runs), err, p.NarSize)
	}
	run := r.Runs[0]
	l, err := cat.PackLayout(t.Context(), run.Pack)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	for i := range run.Count {
		size += int64(l.Sizes[run.First+i])
	}
	if size != r.Size {
		t.Errorf("chunks of path %d have %d bytes, want %d", place, size, r.Size)
	}
	number := st.ofPath.of(place) * perPath
	id := chunk.ID(hash(keyspace.ChunkPrefix, st.ofChunk.back(number), st.chunks()))
	at, ok, err := cat.LookupChunks(t.Context(), []chunk.ID{id})
	if err != nil || !ok[0] || at[0] != (chunk.Location{Pack: run.Pack, Index: run.First}) {
		t.Errorf("first chunk of path %d is at %v, %v, %v; want %v %d", place, at, ok, err, run.Pack, run.First)
	}
}
