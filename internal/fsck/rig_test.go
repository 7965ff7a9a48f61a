package fsck_test

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
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/blob/pack"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/fsck"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const profile = "fast2016-1k"

// world is a bucket with a clock of its own, and what was pushed into it.
type world struct {
	t      testing.TB
	bucket blob.Bucket

	mu    sync.Mutex // guards what follows
	clock time.Time
	nars  map[string][]byte // by name
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
}

func (w *world) mkNode() *node { return w.mkNodeOn(w.bucket) }

// mkNodeOn opens a node with an empty index that sees the world's bucket through
// another. Its own clock is years off.
func (w *world) mkNodeOn(bucket blob.Bucket) *node {
	w.t.Helper()
	n := &node{w: w, t: w.t, bucket: bucket}
	f, err := wal.ReadFormat(w.t.Context(), w.bucket)
	if err != nil {
		w.t.Fatal(err)
	}
	if n.db, err = index.Open("index", f.Store, index.Options{FS: vfs.NewMem(), Bucket: bucket}); err != nil {
		w.t.Fatal(err)
	}
	if n.log, err = wal.Open(w.t.Context(), bucket, n.db, wal.Options{GiveUp: time.Millisecond, HedgeAfter: -1}); err != nil {
		w.t.Fatal(err)
	}
	n.cat = catalog.New(n.log, n.db, catalog.Options{Now: func() time.Time { return w.now().AddDate(-7, 3, 11) }})
	p, err := chunk.ParseProfile(profile)
	if err != nil {
		w.t.Fatal(err)
	}
	n.chunks, err = chunkstore.New(bucket, n.cat, chunkstore.Options{Profile: p, FrameBytes: 8 << 10, RestoreBytes: -1, HedgeAfter: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(n.close)
	return n
}

func (n *node) close() {
	for _, c := range []io.Closer{n.chunks, n.log, n.db} {
		if err := c.Close(); err != nil {
			n.t.Error(err)
		}
	}
}

// mkNar makes bytes that are the same for one name, in parts that are the same for one
// part: NARs that name a part share its chunks.
func mkNar(parts ...string) []byte {
	var nar []byte
	for _, p := range parts {
		r := rand.NewChaCha8(sha256.Sum256([]byte(p)))
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
		for r := range strings.FieldsSeq(refs) {
			p.Path.References = append(p.Path.References, mkPath(r))
		}
		_, err = n.cat.Publish(ctx, p)
		if err == nil {
			n.w.mu.Lock()
			n.w.nars[name] = nar
			n.w.mu.Unlock()
			return nil
		}
		if !errors.Is(err, catalog.ErrChunksMissing) || attempt == 3 {
			return err
		}
		n.chunks.Refused(&res.Recipe)
	}
}

func (n *node) create(name string) {
	n.t.Helper()
	if _, err := n.cat.CreateCache(n.t.Context(), catalog.Cache{Name: catalog.CacheName(name), Public: true}); err != nil {
		n.t.Fatal(err)
	}
}

// names returns the paths of a cache, sorted.
func (n *node) names(cache string) string {
	n.t.Helper()
	page, err := n.cat.Paths(n.t.Context(), catalog.CacheName(cache), nil, catalog.MaxPathsPage)
	if err != nil {
		n.t.Fatal(err)
	}
	var names []string
	for _, p := range page {
		names = append(names, p.StorePath.Name())
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
	for name := range strings.FieldsSeq(got) {
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
	if err := errors.Join(err, plain.Close()); err != nil {
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
	if err := errors.Join(err, served.Close()); err != nil {
		return err
	}
	if size != r.Served.Size || size != p.FileSize {
		return fmt.Errorf("served %d bytes, announced %d and %d", size, r.Served.Size, p.FileSize)
	}
	return nil
}

// packOf returns the pack that the NAR of a path begins in.
func (n *node) packOf(cache, name string) chunk.PackID {
	n.t.Helper()
	p, err := n.cat.Path(n.t.Context(), catalog.CacheName(cache), part(name))
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := n.cat.Recipe(n.t.Context(), p.NarHash)
	if err != nil {
		n.t.Fatal(err)
	}
	return r.Runs[0].Pack
}

func (n *node) layout(id chunk.PackID) chunk.Layout {
	n.t.Helper()
	l, err := n.cat.PackLayout(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return l
}

// spoil changes the bytes of an object.
func (w *world) spoil(id chunk.PackID, change func([]byte) []byte) {
	w.t.Helper()
	body, _, err := w.bucket.Get(w.t.Context(), pack.Key(id))
	if err == nil {
		_, err = w.bucket.Put(w.t.Context(), pack.Key(id), change(bytes.Clone(body)))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func flip(at int64) func([]byte) []byte {
	return func(b []byte) []byte {
		b[at] ^= 0x10
		return b
	}
}

func (w *world) remove(key blob.Key) {
	w.t.Helper()
	if err := w.bucket.Delete(w.t.Context(), key); err != nil {
		w.t.Fatal(err)
	}
}

// commit writes rows past the catalog.
func (n *node) commit(entries ...wal.Entry) {
	n.t.Helper()
	op := wal.Op{Name: "test", Build: func(wal.View) ([]wal.Entry, error) { return entries, nil }}
	if _, err := n.log.Commit(n.t.Context(), op); err != nil {
		n.t.Fatal(err)
	}
}

// outcome is what a check said.
type outcome struct {
	rep      fsck.Report
	findings []fsck.Finding
	err      error
}

func (n *node) check(mode fsck.Mode) outcome {
	n.t.Helper()
	var o outcome
	mode.Each = func(f fsck.Finding) error {
		o.findings = append(o.findings, f)
		return nil
	}
	o.rep, o.err = fsck.New(n.cat, n.chunks, fsck.Options{Log: n.bucket}).Check(n.t.Context(), mode)
	return o
}

// kinds names what was found, each kind once.
func (o *outcome) kinds() string {
	var kinds []string
	for _, f := range o.findings {
		kinds = append(kinds, string(f.Kind))
	}
	slices.Sort(kinds)
	return strings.Join(slices.Compact(kinds), " ")
}

// withdrawn returns the paths that have to be pushed again.
func (o *outcome) withdrawn() string {
	var paths []string
	for _, f := range o.findings {
		if f.Kind == fsck.Withdrawn {
			paths = append(paths, f.Cache+":"+f.StorePath[strings.LastIndexByte(f.StorePath, '-')+1:])
		}
	}
	slices.Sort(paths)
	return strings.Join(paths, " ")
}

// everything is the deepest check.
func everything() fsck.Mode { return fsck.Mode{Objects: true, Read: fsck.Read{All: true}} }

// wantKinds makes a check and wants it to find certain kinds of things, "" for none.
func (n *node) wantKinds(mode fsck.Mode, want string) outcome {
	n.t.Helper()
	o := n.check(mode)
	if o.err != nil || o.kinds() != want {
		n.t.Errorf("found %q, %v; want %q\n%v", o.kinds(), o.err, want, o.findings)
	}
	if o.rep.Sound() != (want == "") {
		n.t.Errorf("found %q and said that all is sound: %v", want, o.rep.Sound())
	}
	return o
}
