package gc_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

const profile = "fast2016-1k"

// world is a bucket with a clock of its own, and what was pushed into it.
type world struct {
	t      testing.TB
	bucket blob.Bucket

	mu    sync.Mutex // guards clock
	clock time.Time

	nars map[string][]byte // by name

	broken catalog.Mutants // rules that catalogs leave out
}

func mkWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, clock: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), nars: map[string][]byte{}}
	w.bucket = memblob.NewAt(w.now)
	if _, err := wal.Found(t.Context(), w.bucket, wal.Format{Profile: profile}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

// pass lets time pass in the bucket.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

// node is a catalog and a chunk store on a bucket.
type node struct {
	w      *world
	t      testing.TB
	bucket blob.Bucket
	db     *index.DB
	log    *wal.Log
	cat    *catalog.Catalog
	chunks *chunkstore.Store

	calls map[string]int64 // guarded by w.mu
}

// requests returns what the node has asked of its bucket so far.
func (n *node) requests() map[string]int64 {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return maps.Clone(n.calls)
}

// mkNode opens a node with an empty index on the world's bucket. Its own clock is
// years off.
func (w *world) mkNode(t testing.TB) *node {
	t.Helper()
	n, err := w.openNode(t, w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// openNode opens a node that sees the world's bucket through bucket, and closes it with
// the test.
func (w *world) openNode(t testing.TB, bucket blob.Bucket) (*node, error) {
	t.Helper()
	ctx := context.Background()
	n := &node{w: w, t: t, calls: map[string]int64{}}
	bucket = blob.Observe(bucket, func(_ context.Context, c blob.Call) {
		w.mu.Lock()
		defer w.mu.Unlock()
		n.calls[c.Op]++
	})
	n.bucket = bucket
	f, err := wal.ReadFormat(ctx, w.bucket)
	if err != nil {
		return nil, err
	}
	wrong := func() time.Time { return w.now().AddDate(-7, 3, 11) }
	if n.db, err = index.Open("index", f.Store, index.Options{FS: vfs.NewMem(), Bucket: bucket}); err != nil {
		return nil, err
	}
	// Tests hold calls for as long as they like: none of them is late.
	n.log, err = wal.Open(ctx, bucket, n.db, wal.Options{GiveUp: time.Millisecond, HedgeAfter: -1})
	if err != nil {
		return nil, fmt.Errorf("%w (%v)", err, n.db.Close())
	}
	n.cat = catalog.New(n.log, n.db, catalog.Options{Now: wrong, Mutants: w.broken})
	p, err := chunk.ParseProfile(profile)
	if err != nil {
		t.Fatal(err)
	}
	n.chunks, err = chunkstore.New(bucket, n.cat, chunkstore.Options{Profile: p, FrameBytes: 8 << 10, RestoreBytes: -1, HedgeAfter: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n, nil
}

func (n *node) close() {
	if n.db == nil {
		return
	}
	for _, c := range []io.Closer{n.chunks, n.log, n.db} {
		if err := c.Close(); err != nil {
			n.t.Error(err)
		}
	}
	n.db = nil
}

// mkNar makes bytes that are the same for one name, in parts that are the same for one
// part: NARs that name a part share its chunks.
func mkNar(parts ...string) []byte {
	var nar []byte
	for _, p := range parts {
		sum := sha256.Sum256([]byte(p))
		r := rand.NewChaCha8(sum)
		part := make([]byte, 40<<10)
		_, _ = r.Read(part)
		nar = append(nar, part...)
	}
	return nar
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

func part(name string) nix.HashPart { return mkPath(name).HashPart() }

// push puts a path into a cache. what is "name" or "name: ref ref"; its NAR is made of
// parts, or of its own name if there are none.
func (n *node) push(cache, what string, parts ...string) {
	n.t.Helper()
	if err := n.tryPush(n.t.Context(), cache, what, parts...); err != nil {
		n.t.Fatalf("push %s: %v", what, err)
	}
}

func (n *node) tryPush(ctx context.Context, cache, what string, parts ...string) error {
	name, refs, _ := strings.Cut(what, ":")
	if len(parts) == 0 {
		parts = []string{name}
	}
	nar := mkNar(parts...)
	for attempt := 0; ; attempt++ {
		res, err := n.chunks.Write(ctx, bytes.NewReader(nar))
		if err != nil {
			return err
		}
		p := catalog.Publication{
			Path:   catalog.Path{Cache: catalog.CacheName(cache), StorePath: mkPath(name), NarHash: res.Recipe.NarHash, NarSize: res.PlainBytes, By: "test"},
			Recipe: res.Recipe, Packs: res.Packs,
		}
		for _, r := range strings.Fields(refs) {
			p.Path.References = append(p.Path.References, mkPath(r))
		}
		_, err = n.cat.Publish(ctx, p)
		if err == nil {
			n.w.mu.Lock()
			n.w.nars[name] = nar
			n.w.mu.Unlock()
			return nil
		}
		if !isMissing(err) || attempt == 3 {
			return err
		}
		n.chunks.Refused(&res.Recipe)
	}
}

func (n *node) create(name string, retention time.Duration) {
	n.t.Helper()
	c := catalog.Cache{Name: catalog.CacheName(name), Public: true}
	if retention >= 0 {
		c.Retention = &retention
	}
	if _, err := n.cat.CreateCache(n.t.Context(), c); err != nil {
		n.t.Fatal(err)
	}
}

// names returns the paths of a cache, sorted.
func (n *node) names(cache string) string {
	n.t.Helper()
	var names []string
	var after *nix.HashPart
	for {
		page, err := n.cat.Paths(n.t.Context(), catalog.CacheName(cache), after, catalog.MaxPathsPage)
		if err != nil {
			n.t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, p := range page {
			names = append(names, p.StorePath.Name())
			hp := p.StorePath.HashPart()
			after = &hp
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// wantPaths checks which paths a cache has and reads each of them back.
func (n *node) wantPaths(cache, want string) {
	n.t.Helper()
	got := n.names(cache)
	if got != want {
		n.t.Errorf("cache %s has %q, want %q", cache, got, want)
	}
	for _, name := range strings.Fields(got) {
		if err := n.readBack(cache, name); err != nil {
			n.t.Errorf("%s: %v", name, err)
		}
	}
}

// readBack reads a path's NAR and compares it, plain and as it is served.
func (n *node) readBack(cache, name string) error {
	ctx := n.t.Context()
	p, err := n.cat.Path(ctx, catalog.CacheName(cache), part(name))
	if err != nil {
		return err
	}
	r, err := n.cat.Recipe(ctx, p.NarHash)
	if err != nil {
		return err
	}
	plain, err := n.chunks.Plain(ctx, &r)
	if err != nil {
		return err
	}
	nar, err := io.ReadAll(plain)
	if err := errorsJoin(err, plain.Close()); err != nil {
		return err
	}
	if !bytes.Equal(nar, n.w.nars[name]) {
		return fmt.Errorf("NAR of %d bytes is not the %d that were pushed", len(nar), len(n.w.nars[name]))
	}
	served, err := n.chunks.Open(ctx, &r)
	if err != nil {
		return err
	}
	size, err := io.Copy(io.Discard, served)
	if err := errorsJoin(err, served.Close()); err != nil {
		return err
	}
	if size != r.Served.Size {
		return fmt.Errorf("served %d bytes, announced %d", size, r.Served.Size)
	}
	return nil
}

// objects returns the names of objects below a prefix.
func (w *world) objects(prefix blob.Key) (keys []blob.Key) {
	w.t.Helper()
	for info, err := range w.bucket.List(context.Background(), prefix, "") {
		if err != nil {
			w.t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// holds reports whether any pack holds the bytes of a part of a NAR. Parts are random,
// so that compression leaves them as they are.
func (w *world) holds(part string) bool {
	w.t.Helper()
	needle := mkNar(part)[20<<10:][:64]
	for _, key := range w.objects("pack/") {
		body, _, err := w.bucket.Get(context.Background(), key)
		if err != nil {
			w.t.Fatal(err)
		}
		if bytes.Contains(body, needle) {
			return true
		}
	}
	return false
}

func isMissing(err error) bool { return errors.Is(err, catalog.ErrChunksMissing) }

func errorsJoin(errs ...error) error { return errors.Join(errs...) }
