package node_test

import (
	"archive/tar"
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/index"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
	"github.com/celler/celler/wal"
)

// golden writes a bucket, the same one every time: its clock is that of a synctest
// bubble, its randomness has a seed, and it does one thing after the other.
type golden struct {
	t      *testing.T
	bucket blob.Bucket
	log    *wal.Log
	cat    *catalog.Catalog
	chunks *chunkstore.Store

	profile  chunk.Profile
	proofs   chunk.ProofKey
	listings bool               // publish them
	onApply  func(*wal.Segment) // if set
}

// mkGoldenBucket returns a bucket as a tar file: with two tables on top of each other in
// its snapshot, segments after it, a floor above the first slot, packs, several caches,
// a path that was pushed again, one that was withdrawn, and a cache that was destroyed;
// with pins, a bookmark, and packs that a collector has moved into an object they share;
// with what came later, see today.
func mkGoldenBucket(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	t.Run("write", func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, 20261123)
		synctest.Test(t, func(t *testing.T) {
			g := &golden{t: t, bucket: memblob.New()}
			g.write()
			g.tar(&out)
		})
	})
	return out.Bytes()
}

func (g *golden) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *golden) ctx() context.Context { return g.t.Context() }

func (g *golden) write() {
	format, err := wal.Found(g.ctx(), g.bucket, wal.Format{Profile: chunk.DefaultProfile})
	g.must(err)
	db, err := index.Open("index", format.Store, index.Options{FS: vfs.NewMem(), Bucket: g.bucket})
	g.must(err)
	g.log, err = wal.Open(g.ctx(), g.bucket, db, wal.Options{
		Address: "http://golden.invalid:8080",
		Forward: func(context.Context, string, []byte) (wal.Seq, error) { return 0, wal.ErrRefused },
		OnApply: func(seg *wal.Segment) {
			if g.onApply != nil {
				g.onApply(seg)
			}
		},
	})
	g.must(err)
	g.cat = catalog.New(g.log, db, catalog.Options{})
	g.profile, err = chunk.ParseProfile(format.Profile)
	g.must(err)
	g.chunks, err = chunkstore.New(g.bucket, g.cat, chunkstore.Options{Profile: g.profile}) // chunks without proofs
	g.must(err)
	g.history()
	g.cleanup()
	g.today()
	g.must(g.chunks.Close())
	g.must(g.log.Close())
	g.must(db.Close())
	g.recover()
}

// history is what happens to the bucket.
func (g *golden) history() {
	_, _, err := g.cat.Secret(g.ctx(), "token-hs256", func() ([]byte, error) { return []byte("the golden secret is of no value"), nil })
	g.must(err)
	for _, c := range []catalog.Cache{
		{Name: "ci", Public: true, StoreDir: nix.DefaultStoreDir, Priority: 41, UpstreamKeyNames: []string{"cache.nixos.org-1"}},
		{Name: "private", StoreDir: nix.DefaultStoreDir, Priority: 30},
		{Name: "gone", StoreDir: nix.DefaultStoreDir},
	} {
		g.then(g.cat.CreateCache(g.ctx(), c))
	}
	closure := nixtest.MkClosure(g.t, 1, 6, 25_000)
	for _, p := range closure {
		g.publish("ci", "builder", p)
	}
	g.publish("gone", "builder", closure[0])
	g.compact()
	g.then(g.cat.DestroyCache(g.ctx(), "gone"))
	for _, p := range closure[:2] {
		g.publish("private", "another builder", p) // shares recipe and chunks
	}
	again := nixtest.MkTree(7, 25_000)
	g.publish("ci", "builder", nixtest.MkPath(g.t, closure[1].Info.StorePath.Name(), again, closure[0].Info.StorePath))
	g.compact()
	g.then(g.cat.Withdraw(g.ctx(), "ci", closure[2].Info.StorePath.HashPart()))
	week := 7 * 24 * time.Hour
	g.then(g.cat.ConfigureCache(g.ctx(), "private", func(c *catalog.Cache) error { c.Retention = &week; return nil }))
	g.publish("ci", "builder", nixtest.MkPath(g.t, "late", nixtest.Dir{"large": nixtest.File{Contents: bytes.Repeat([]byte("late "), 25_000)}}))
}

// cleanup is what compaction and collection make of it, and what happens after that.
func (g *golden) cleanup() {
	old := nixtest.MkPath(g.t, "old", nixtest.Dir{"a": g.noise(1), "b": g.noise(2), "c": g.noise(3)})
	g.publish("ci", "builder", old)
	g.publish("ci", "builder", nixtest.MkPath(g.t, "heir", nixtest.Dir{"a": g.noise(1)}))
	pinned := nixtest.MkPath(g.t, "pinned", nixtest.Dir{"bin": nixtest.Script("#!/bin/sh")}, old.Info.StorePath)
	g.publish("ci", "builder", pinned)
	policy := &keyspace.PinPolicy{KeepRevisions: 2}
	g.then(g.cat.SetPin(g.ctx(), catalog.PinChange{Cache: "ci", Name: "release", StorePath: pinned.Info.StorePath, Policy: policy, By: "builder"}))
	_, err := wal.RootChange{By: "operator"}.SetBookmark(g.ctx(), g.bucket, wal.Bookmark{Name: "before-cleanup", Seq: g.log.Seq(), By: "operator"})
	g.must(err)
	g.then(g.cat.Withdraw(g.ctx(), "ci", old.Info.StorePath.HashPart()))
	c := gc.New(g.cat, g.chunks, gc.Options{NarGrace: time.Hour, ReaderGrace: time.Hour})
	rewritten := 0
	for range 4 {
		time.Sleep(3 * time.Hour)
		rep, err := c.Round(g.ctx(), gc.Mode{})
		g.must(err)
		rewritten += rep.Rewritten
	}
	if rewritten == 0 {
		g.t.Error("no pack was moved")
	}
	g.compact()
	// What comes now stays in the log.
	late := nixtest.MkPath(g.t, "latest", nixtest.Dir{"a": g.noise(1), "d": g.noise(4)}, pinned.Info.StorePath)
	g.publish("ci", "builder", late)
	g.then(g.cat.SetPin(g.ctx(), catalog.PinChange{Cache: "ci", Name: "release", StorePath: late.Info.StorePath, By: "builder"}))
	g.then(g.cat.SetPin(g.ctx(), catalog.PinChange{Cache: "ci", Name: "nightly", StorePath: nixtest.MkStorePath(g.t, "not-there-yet"), Policy: &keyspace.PinPolicy{KeepDays: 7}, By: "another builder"}))
	gone := nixtest.MkPath(g.t, "withdrawn", nixtest.Dir{"e": g.noise(5)})
	g.publish("ci", "builder", gone)
	g.then(g.cat.Withdraw(g.ctx(), "ci", gone.Info.StorePath.HashPart()))
}

// noise is a file with chunks of its own, which compress to an eighth.
func (g *golden) noise(seed uint64) nixtest.File {
	b := make([]byte, 80_000)
	rng := rand.New(rand.NewPCG(seed, 11))
	for i := range b {
		b[i] = 'a' + byte(rng.Uint32()&1)
	}
	return nixtest.File{Contents: b}
}

// then lets time pass after something was done.
func (g *golden) then(_ wal.Seq, err error) {
	g.t.Helper()
	g.must(err)
	time.Sleep(time.Minute)
}

func (g *golden) publish(cache catalog.CacheName, by string, p nixtest.Path) {
	g.t.Helper()
	res, err := g.chunks.Write(g.ctx(), bytes.NewReader(p.NAR))
	g.must(err)
	g.put(cache, by, p, res)
}

func (g *golden) put(cache catalog.CacheName, by string, p nixtest.Path, res chunkstore.Result) {
	g.t.Helper()
	g.then(g.cat.Publish(g.ctx(), g.publication(cache, by, p, res)))
}

func (g *golden) publication(cache catalog.CacheName, by string, p nixtest.Path, res chunkstore.Result) catalog.Publication {
	return catalog.Publication{
		Path: catalog.Path{
			Cache: cache, StorePath: p.Info.StorePath, NarHash: res.Recipe.NarHash, NarSize: res.Recipe.Size,
			References: p.Info.References, By: by,
		},
		Recipe: res.Recipe, Packs: res.Packs, Listing: g.listing(p.NAR),
	}
}

// compact leaves nothing in the log that the snapshot has.
func (g *golden) compact() {
	g.t.Helper()
	_, err := compact.New(g.bucket, compact.Options{KeepSegments: -1, LogRetention: -1, Parallel: 1}).Round(g.ctx(), compact.Mode{})
	g.must(err)
	time.Sleep(time.Hour)
}

// tar writes the objects in order of their names.
func (g *golden) tar(out *bytes.Buffer) {
	w := tar.NewWriter(out)
	for info, err := range g.bucket.List(g.ctx(), "", "") {
		g.must(err)
		body, _, err := g.bucket.Get(g.ctx(), info.Key)
		g.must(err)
		g.must(w.WriteHeader(&tar.Header{Name: string(info.Key), Mode: 0o644, Size: int64(len(body)), Format: tar.FormatUSTAR}))
		_, err = w.Write(body)
		g.must(err)
	}
	g.must(w.Close())
}
