package recovery_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/recovery"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

const profile = "fast2016-64k"

// world is a bucket and what was pushed into it.
type world struct {
	t      testing.TB
	bucket blob.Bucket
	data   blob.Bucket // where packs are; bucket in most tests
	nars   map[string][]byte
}

func mkWorld(t testing.TB) *world {
	t.Helper()
	b := memblob.New()
	return found(t, b, b)
}

func found(t testing.TB, bucket, data blob.Bucket) *world {
	t.Helper()
	if _, err := wal.Found(t.Context(), bucket, wal.Format{Profile: profile}); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, bucket: bucket, data: data, nars: map[string][]byte{}}
}

// node is a catalog and a chunk store on the world's bucket.
type node struct {
	w      *world
	fs     vfs.FS
	db     *index.DB
	log    *wal.Log
	cat    *catalog.Catalog
	chunks *chunkstore.Store
}

// open opens a node with an index in fs.
func (w *world) open(fs vfs.FS) (*node, error) {
	ctx := context.Background()
	n := &node{w: w, fs: fs}
	f, err := wal.ReadFormat(ctx, w.bucket)
	if err != nil {
		return nil, err
	}
	if n.db, err = index.Open("index", f.Store, index.Options{FS: fs, Bucket: w.bucket}); err != nil {
		return nil, err
	}
	if n.log, err = wal.Open(ctx, w.bucket, n.db, wal.Options{HedgeAfter: -1}); err != nil {
		return nil, errors.Join(err, n.db.Close())
	}
	if err := n.log.CheckWhole(ctx); err != nil {
		return nil, errors.Join(err, n.log.Close(), n.db.Close())
	}
	n.cat = catalog.New(n.log, n.db, catalog.Options{})
	p, err := chunk.ParseProfile(f.Profile)
	if err != nil {
		return nil, err
	}
	n.chunks, err = chunkstore.New(w.data, n.cat, chunkstore.Options{Profile: p, HedgeAfter: -1})
	return n, err
}

func (w *world) mustOpen(fs vfs.FS) *node {
	w.t.Helper()
	n, err := w.open(fs)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// with runs do on a fresh node.
func (w *world) with(do func(*node)) {
	w.t.Helper()
	n := w.mustOpen(vfs.NewMem())
	do(n)
	n.close()
}

func (n *node) close() {
	n.w.t.Helper()
	for _, c := range []io.Closer{n.chunks, n.log, n.db} {
		if err := c.Close(); err != nil {
			n.w.t.Error(err)
		}
	}
}

func mkPath(name string) nix.StorePath {
	sum := sha256.Sum256([]byte(name))
	var hp nix.HashPart
	copy(hp[:], sum[:])
	p, err := nix.ParseStorePathBase(nix.DefaultStoreDir, hp.String()+"-"+name)
	if err != nil {
		panic(err)
	}
	return p
}

func mkNar(name string) []byte {
	nar := make([]byte, 100<<10)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(nar)
	return nar
}

func (n *node) create(name string) {
	n.w.t.Helper()
	if _, err := n.cat.CreateCache(n.w.t.Context(), catalog.Cache{Name: catalog.CacheName(name)}); err != nil {
		n.w.t.Fatal(err)
	}
}

// push pushes paths; each is a segment of its own.
func (n *node) push(names ...string) (stored int64) {
	n.w.t.Helper()
	ctx := n.w.t.Context()
	for _, name := range names {
		nar := mkNar(name)
		res, err := n.chunks.Write(ctx, bytes.NewReader(nar))
		if err != nil {
			n.w.t.Fatal(err)
		}
		stored += int64(len(res.Packs))
		_, err = n.cat.Publish(ctx, catalog.Publication{
			Path:   catalog.Path{Cache: "ci", StorePath: mkPath(name), NarHash: res.Recipe.NarHash, NarSize: res.PlainBytes},
			Recipe: res.Recipe, Packs: res.Packs,
		})
		if err != nil {
			n.w.t.Fatalf("push %s: %v", name, err)
		}
		n.w.nars[name] = nar
	}
	return stored
}

// paths returns the names of the paths of cache ci, each of which is read back.
func (n *node) paths() string {
	n.w.t.Helper()
	page, err := n.cat.Paths(n.w.t.Context(), "ci", nil, catalog.MaxPathsPage)
	if errors.Is(err, catalog.ErrNoCache) {
		return "no cache"
	}
	if err != nil {
		n.w.t.Fatal(err)
	}
	var names []string
	for i := range page {
		name := page[i].StorePath.Name()
		if got, err := n.read(&page[i]); err != nil || !bytes.Equal(got, n.w.nars[name]) {
			name += "(broken)"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (n *node) read(p *catalog.Path) ([]byte, error) {
	ctx := n.w.t.Context()
	r, err := n.cat.Recipe(ctx, p.NarHash)
	if err != nil {
		return nil, err
	}
	served, err := n.chunks.Open(ctx, &r)
	if err != nil {
		return nil, err
	}
	defer served.Close()
	plain, err := zstd.NewReader(served)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	return io.ReadAll(plain)
}

// compact folds the log. What is folded is deleted if keep is false.
func (w *world) compact(keep bool) {
	w.t.Helper()
	o := compact.Options{KeepSegments: -1, LogRetention: -1}
	if keep {
		o.KeepSegments = 1000
	}
	if _, err := compact.New(w.bucket, o).Round(w.t.Context(), compact.Mode{Steal: true}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) keys(prefix blob.Key) (keys []blob.Key) {
	w.t.Helper()
	for info, err := range w.bucket.List(w.t.Context(), prefix, "") {
		if err != nil {
			w.t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func (w *world) remove(keys ...blob.Key) {
	w.t.Helper()
	if len(keys) == 0 {
		w.t.Fatal("nothing to remove")
	}
	if err := w.bucket.Delete(w.t.Context(), keys...); err != nil {
		w.t.Fatal(err)
	}
}

// damage flips a bit in the middle of an object.
func (w *world) damage(keys ...blob.Key) {
	w.t.Helper()
	for _, key := range keys {
		body, _, err := w.bucket.Get(w.t.Context(), key)
		if err != nil {
			w.t.Fatal(err)
		}
		body[len(body)/2] ^= 0x40
		if _, err := w.bucket.Put(w.t.Context(), key, body); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) put(key blob.Key, body string) {
	w.t.Helper()
	if _, err := w.bucket.Put(w.t.Context(), key, []byte(body)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(key blob.Key) string {
	body, _, err := w.bucket.Get(w.t.Context(), key)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(body)
}

func (w *world) seq() wal.Seq {
	w.t.Helper()
	var seq wal.Seq
	w.with(func(n *node) { seq = n.log.Seq() })
	return seq
}

func (w *world) examine(o recovery.Options) *recovery.Plan {
	w.t.Helper()
	o.Dir, o.Index.FS = w.t.TempDir(), vfs.NewMem()
	o.Env.Sleep = func(context.Context, time.Duration, <-chan struct{}) {} // a broken bucket is tried again
	p, err := recovery.Examine(w.t.Context(), w.bucket, w.data, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// recover examines and executes, and wants nothing to be left to do.
func (w *world) recover(o recovery.Options) (*recovery.Plan, recovery.Result) {
	w.t.Helper()
	p := w.examine(o)
	res, err := p.Execute(w.t.Context())
	if err != nil {
		w.t.Fatalf("execute %+v: %v", p, err)
	}
	if again := w.examine(recovery.Options{}); !again.Sound() || len(again.Findings) > 0 && !hasOnly(again, "snapshot of slot") {
		w.t.Errorf("after recovery: %+v", again)
	}
	return p, res
}

// hasOnly reports whether all findings are of a kind that recovery leaves.
func hasOnly(p *recovery.Plan, what string) bool {
	return !slices.ContainsFunc(p.Findings, func(f recovery.Finding) bool { return !strings.Contains(f.Problem, what) })
}

// text is what a plan says, in lines.
func text(p *recovery.Plan) string {
	var s strings.Builder
	for _, f := range p.Findings {
		fmt.Fprintf(&s, "finding %s: %s\n", f.Object, f.Problem)
	}
	for _, l := range p.Losses {
		fmt.Fprintf(&s, "loss %s: %s\n", l.What, l.Detail)
	}
	fmt.Fprintf(&s, "write %s\n", strings.Join(p.Write, " "))
	return s.String()
}
