package node_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/internal/catalog"
	checker "github.com/celler/celler/internal/fsck"
	"github.com/celler/celler/internal/recovery"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nar"
	"github.com/celler/celler/nix/nixtest"
	"github.com/celler/celler/wal"
)

// What lies beside the paths of the newest bucket.
const (
	goldenBuildID     = "0123456789abcdef0123456789abcdef01234567"
	goldenRealisation = "sha256:0000000000000000000000000000000000000000000000000000000000000001!out.doi"
)

// goldenFile is the hash of a file that plain Nix is taken to have put there.
func goldenFile(name string) [32]byte { return sha256.Sum256([]byte("the file of " + name)) }

// goldenBeside are URLs of what lies beside paths. Buckets of earlier versions lack it.
func goldenBeside(t *testing.T) []string {
	t.Helper()
	base := func(name string) string { return nixtest.MkStorePath(t, name).Base() }
	hash := func(name string) string { return nixtest.MkStorePath(t, name).HashPart().String() }
	file := func(name string) string {
		h := goldenFile(name)
		return "/ci/nar/" + string(nix.AppendNix32(nil, h[:])) + ".nar"
	}
	return []string{
		"/ci/log/" + base("short.drv"), "/ci/log/" + base("long.drv"), "/ci/debuginfo/" + goldenBuildID + ".debug",
		"/ci/realisations/" + goldenRealisation, "/ci/build-trace-v2/" + base("short.drv") + "/out.doi",
		file("claimed"), file("unclaimed"),
		"/ci/" + hash("before") + ".ls", "/ci/" + hash("after") + ".ls", "/ci/" + hash("claimed") + ".ls",
	}
}

// today is what buckets before the third did not know: pushes by chunks, and what plain
// Nix puts beside paths.
func (g *golden) today() {
	secret, _, err := g.cat.Secret(g.ctx(), "delta", func() ([]byte, error) { return []byte("what proofs of chunks come from."), nil })
	g.must(err)
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("celler proofs"))
	g.proofs = chunk.ProofKey(h.Sum(nil))
	g.must(g.chunks.Close())
	g.chunks, err = chunkstore.New(g.bucket, g.cat, chunkstore.Options{Profile: g.profile, ProofKey: g.proofs})
	g.must(err)
	g.listings = true

	before := nixtest.MkPath(g.t, "before", nixtest.Dir{"text": g.long(), "tool": nixtest.Script("#!/bin/sh"), "link": nixtest.Link("tool")})
	g.publish("ci", "builder", before)
	g.delta(before)
	g.plainNix("claimed", before, true)
	g.beside(before)
	g.must(g.cat.RecordUses(g.ctx(), []catalog.PathKey{{Cache: "ci", HashPart: before.Info.StorePath.HashPart()}}))
	g.compact()
	_, err = checker.New(g.cat, g.chunks, checker.Options{}).Check(g.ctx(), checker.Mode{Read: checker.Read{All: true}})
	g.must(err)
	g.purge()
	g.plainNix("unclaimed", before, false)
	g.unfinished()
}

// long is a file of a dozen chunks.
func (g *golden) long() nixtest.File {
	return nixtest.File{Contents: slices.Concat(g.noise(21).Contents, g.noise(24).Contents, g.noise(25).Contents)}
}

// delta pushes a NAR in several segments, as new chunks between references to known ones.
func (g *golden) delta(before nixtest.Path) {
	text := bytes.Clone(g.long().Contents)
	text[1], text[len(text)/2] = 'c', 'c' // what lies between is parts of frames, across segments
	p := nixtest.MkPath(g.t, "after", nixtest.Dir{"text": nixtest.File{Contents: append(text, g.noise(22).Contents...)}}, before.Info.StorePath)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	g.must(err)
	defer enc.Close()
	sum := sha256.New()
	var segs []chunkstore.Segment
	for rest := p.NAR; len(rest) > 0; {
		b, err := g.chunks.Batch(g.ctx())
		g.must(err)
		from, err := chunk.SHAStateOf(sum)
		g.must(err)
		g.must(b.Begin(from, nil))
		for size := 0; size < 40_000 && len(rest) > 0; {
			n := g.profile.Cut(rest)
			g.item(b, enc, rest[:n])
			sum.Write(rest[:n])
			rest, size = rest[n:], size+n
		}
		g.must(b.End(g.ctx()))
		got, err := b.Settle(g.ctx())
		b.Close()
		g.must(err)
		segs = append(segs, got...)
		time.Sleep(time.Second)
	}
	narHash := [32]byte(sum.Sum(nil))
	recipe, err := g.chunks.Join(g.ctx(), narHash, segs)
	g.must(err)
	if len(recipe.Breaks) == 0 {
		g.t.Errorf("a NAR joined from %d segments has no breaks", len(segs))
	}
	g.put("ci", "builder", p, chunkstore.Result{Recipe: recipe})
}

// item sends a chunk, or a reference to it.
func (g *golden) item(b *chunkstore.Batch, enc *zstd.Encoder, plain []byte) {
	id, proof := g.proofs.Sum(plain)
	ref := chunk.Ref{Name: id.Name(), Proof: proof}
	_, known, err := g.cat.LookupRefs(g.ctx(), []chunk.Ref{ref})
	g.must(err)
	if known[0] {
		g.must(b.Known([]chunk.Ref{ref}))
		return
	}
	g.must(b.Frame(g.ctx(), []chunk.Name{ref.Name}, []uint32{uint32(len(plain))}, enc.EncodeAll(plain, nil)))
}

// plainNix is what a plain `nix copy` does: it puts a file, and then the narinfo.
func (g *golden) plainNix(name string, ref nixtest.Path, claim bool) {
	p := nixtest.MkPath(g.t, name, nixtest.Dir{"name": nixtest.Text(name)}, ref.Info.StorePath)
	res, err := g.chunks.Write(g.ctx(), bytes.NewReader(p.NAR))
	g.must(err)
	file := goldenFile(name)
	g.then(g.cat.CommitUpload(g.ctx(), catalog.NarUpload{
		Cache: "ci", FileHash: file, FileSize: int64(len(p.NAR)), Compression: "none",
		Recipe: res.Recipe, Packs: res.Packs, Listing: g.listing(p.NAR),
	}))
	if claim {
		pub := g.publication("ci", "nix", p, chunkstore.Result{Recipe: res.Recipe})
		pub.First, pub.Claim = true, &file
		g.then(g.cat.Publish(g.ctx(), pub))
	}
}

// beside puts side objects: of every kind, of every kind of owner, in the row and as chunks.
func (g *golden) beside(owner nixtest.Path) {
	short, long := nixtest.MkStorePath(g.t, "short.drv").Base(), nixtest.MkStorePath(g.t, "long.drv").Base()
	put := func(kind catalog.SideKind, name string, owner catalog.OwnerKind, by [32]byte, text string) {
		g.then(g.cat.PutSide(g.ctx(), catalog.SideUpload{Cache: "ci", Side: catalog.Side{
			Kind: kind, Name: name, OwnerKind: owner, Owner: by, Size: int64(len(text)), Zstd: g.zstd([]byte(text)),
		}}))
	}
	path := catalog.PathOwner(owner.Info.StorePath.HashPart())
	put(catalog.SideLog, short, catalog.OwnerNone, [32]byte{}, "a short log\n")
	put(catalog.SideDebugInfo, goldenBuildID+".debug", catalog.OwnerPath, path, `{"archive":"../nar/x.nar","member":"lib/debug"}`)
	put(catalog.SideRealisation, goldenRealisation, catalog.OwnerUpload, goldenFile("claimed"), `{"id":"sha256:01!out"}`)
	put(catalog.SideBuildTrace, short+"/out.doi", catalog.OwnerPath, path, `{"outPath":"x"}`)
	log := slices.Concat(g.noise(23).Contents, []byte("the end of a long log\n"))
	res, err := g.chunks.Write(g.ctx(), bytes.NewReader(log))
	g.must(err)
	g.then(g.cat.PutSide(g.ctx(), catalog.SideUpload{
		Cache: "ci", Side: catalog.Side{Kind: catalog.SideLog, Name: long, Stored: true}, Recipe: res.Recipe, Packs: res.Packs,
	}))
}

// purge has a path gone with its bytes. The log keeps what comes and goes meanwhile.
func (g *golden) purge() {
	shared := nixtest.MkPath(g.t, "shares", nixtest.Dir{"a": g.noise(31), "b": g.noise(32)})
	secret := nixtest.MkPath(g.t, "leaked", nixtest.Dir{"b": g.noise(32), "c": nixtest.Text("a password")})
	old := nixtest.MkPath(g.t, "forgotten", nixtest.Dir{"d": g.noise(33), "e": g.noise(31)})
	for _, p := range []nixtest.Path{shared, secret, old} {
		g.publish("ci", "builder", p)
	}
	c := gc.New(g.cat, g.chunks, gc.Options{NarGrace: time.Hour, ReaderGrace: 48 * time.Hour})
	_, err := c.Delete(g.ctx(), gc.DeleteRequest{Cache: "ci", Paths: []nix.HashPart{secret.Info.StorePath.HashPart()}, Now: true})
	g.must(err)
	g.then(g.cat.Withdraw(g.ctx(), "ci", old.Info.StorePath.HashPart()))
	for range 3 {
		time.Sleep(30 * time.Hour)
		_, err := c.Round(g.ctx(), gc.Mode{})
		g.must(err)
	}
}

// unfinished is what a bucket holds after its servers died: a collection that runs, a cache
// that is being put together, and one that is destroyed and not yet swept.
func (g *golden) unfinished() {
	g.then(g.cat.CreateCache(g.ctx(), catalog.Cache{Name: "destroyed", StoreDir: nix.DefaultStoreDir}))
	lost := nixtest.MkPath(g.t, "lost", nixtest.Dir{"a": g.noise(31)})
	g.publish("destroyed", "builder", lost)
	mark, err := g.cat.BeginMark(g.ctx())
	g.must(err)
	g.must(mark.Close())
	g.publish("ci", "builder", nixtest.MkPath(g.t, "while-collecting", nixtest.Dir{"new": nixtest.Text("while a collection ran")}))
	private, err := g.cat.Cache(g.ctx(), "private")
	g.must(err)
	_, err = g.cat.BeginRebuild(g.ctx(), private)
	g.must(err)
	// The sweep that follows is what its server does not live to do.
	ctx, cancel := context.WithCancel(g.ctx())
	defer cancel()
	g.onApply = func(seg *wal.Segment) {
		for _, e := range seg.Entries {
			if e.Kind == wal.Set && e.Key[0] == keyspace.DestroyedPrefix {
				cancel()
			}
		}
	}
	_, _ = g.cat.DestroyCache(ctx, "destroyed")
}

// listing is what is in a NAR, if listings are made.
func (g *golden) listing(plain []byte) []byte {
	if !g.listings {
		return nil
	}
	text, err := nar.AppendListing(nil, bytes.NewReader(plain))
	g.must(err)
	return g.zstd(text)
}

func (g *golden) zstd(text []byte) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	g.must(err)
	defer enc.Close()
	return enc.EncodeAll(text, nil)
}

// recover is what an operator does whose bucket has lost its FORMAT.
func (g *golden) recover() {
	g.must(g.bucket.Delete(g.ctx(), wal.FormatKey))
	plan, err := recovery.Examine(g.ctx(), g.bucket, g.bucket, recovery.Options{By: "operator"})
	g.must(err)
	_, err = plan.Execute(g.ctx())
	g.must(err)
}
