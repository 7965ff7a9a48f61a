package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// node is a Catalog with all that is below it.
type node struct {
	*Catalog
	t      testing.TB
	bucket blob.Bucket
	fs     *vfs.MemFS
	db     *index.DB
	log    *wal.Log
}

func mkBucket(t testing.TB) blob.Bucket {
	t.Helper()
	b := memblob.New()
	if _, err := wal.Found(t.Context(), b, wal.Format{Profile: chunk.DefaultProfile}); err != nil {
		t.Fatal(err)
	}
	return b
}

// mkNode opens a node on bucket and closes it with the test.
func mkNode(t testing.TB, bucket blob.Bucket) *node {
	t.Helper()
	n := &node{t: t, bucket: bucket, fs: vfs.NewMem()}
	n.open()
	t.Cleanup(n.close)
	return n
}

func (n *node) open() {
	n.t.Helper()
	if err := n.tryOpen(context.Background()); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) tryOpen(ctx context.Context) error {
	f, err := wal.ReadFormat(ctx, n.bucket)
	if err != nil {
		return err
	}
	if n.db, err = index.Open("index", f.Store, index.Options{FS: n.fs}); err != nil {
		return err
	}
	if n.log, err = wal.Open(ctx, n.bucket, n.db, wal.Options{GiveUp: time.Millisecond, HedgeAfter: -1}); err != nil {
		_ = n.db.Close()
		n.db = nil
		return err
	}
	n.Catalog = New(n.log, n.db, Options{Now: func() time.Time { return mkTime() }})
	return nil
}

func (n *node) close() {
	n.t.Helper()
	if n.db == nil {
		return
	}
	if err := n.log.Close(); err != nil {
		n.t.Error(err)
	}
	if err := n.db.Close(); err != nil {
		n.t.Error(err)
	}
	n.db = nil
}

// wipe reopens the node with an empty index.
func (n *node) wipe() {
	n.t.Helper()
	n.close()
	n.fs = vfs.NewCrashableMem()
	n.open()
}

func mkTime() time.Time { return time.UnixMilli(1763884800123).UTC() }

// mkStorePath makes a store path out of any name.
func mkStorePath(t testing.TB, name string) nix.StorePath {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	var hp nix.HashPart
	copy(hp[:], sum[:])
	p, err := nix.ParseStorePathBase(nix.DefaultStoreDir, hp.String()+"-"+name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mkPack makes a pack of n chunks that nobody else has.
func mkPack(epoch uint32, seed uint64, n int) chunk.NewPack {
	r := rand.New(rand.NewPCG(seed, 99))
	p := chunk.NewPack{Layout: chunk.Layout{ID: chunk.PackID{Epoch: epoch, Rand: seed}}}
	for i := range n {
		p.Layout.Sizes = append(p.Layout.Sizes, 1000)
		p.Layout.Frames = append(p.Layout.Frames, chunk.Frame{Offset: int64(i * 500), Size: 500, Checksum: r.Uint32(), Chunks: 1})
		p.IDs = append(p.IDs, chunk.Sum(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, seed), uint64(i))))
	}
	p.Layout.Bytes = int64(n*500) + 100
	return p
}

// mkPublication makes a path called name whose NAR fills the pack.
func mkPublication(t testing.TB, cache CacheName, name string, pack chunk.NewPack) Publication {
	t.Helper()
	n := len(pack.IDs)
	narHash := sha256.Sum256([]byte("nar of " + name))
	return Publication{
		Path: Path{
			Cache: cache, StorePath: mkStorePath(t, name), NarHash: narHash, NarSize: int64(n) * 1000,
			References: []nix.StorePath{mkStorePath(t, name+"-dep"), mkStorePath(t, name)}, By: "test",
		},
		Recipe: chunk.Recipe{
			Size: int64(n) * 1000, NarHash: narHash, Runs: []chunk.Run{{Pack: pack.Layout.ID, Count: uint32(n)}},
			Served: chunk.Served{Encoder: 1, Size: int64(n) * 500},
		},
		Packs: []chunk.NewPack{pack},
	}
}

func (n *node) mustCreate(name CacheName) {
	n.t.Helper()
	if _, err := n.CreateCache(n.t.Context(), Cache{Name: name, Public: true, Priority: 40}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) mustPublish(p Publication) {
	n.t.Helper()
	if _, err := n.Publish(n.t.Context(), p); err != nil {
		n.t.Fatal(err)
	}
}

// commit puts entries into the log as no operation of this package would.
func (n *node) commit(entries ...wal.Entry) {
	n.t.Helper()
	op := wal.Op{Name: "test", Build: func(wal.View) ([]wal.Entry, error) { return entries, nil }}
	if _, err := n.log.Commit(n.t.Context(), op); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) setCounter(c keyspace.Counter, to uint32) {
	n.t.Helper()
	n.commit(set(keyspace.AppendCounterKey(nil, c), keyspace.AppendCount(nil, to)))
}

// wantSound checks what must hold of the whole state: a path has its recipe and
// is signed by its cache, a recipe has its packs and nothing dead in it, a chunk
// lies in a pack that has it, and nothing is left of caches that are gone.
func (n *node) wantSound() {
	n.t.Helper()
	ctx := n.t.Context()
	caches, packs := map[keyspace.CacheID]*tenant{}, map[chunk.PackID]int{}
	for row, err := range n.db.Scan(nil, nil) {
		if err == nil {
			err = n.checkRow(ctx, row, caches, packs)
		}
		if err != nil {
			n.t.Errorf("row %.40x: %v", row.Key, err)
		}
	}
}

func (n *node) checkRow(ctx context.Context, row wal.KV, caches map[keyspace.CacheID]*tenant, packs map[chunk.PackID]int) error {
	switch row.Key[0] {
	case keyspace.CachePrefix:
		name, err := keyspace.DecodeCacheKey(row.Key)
		if err != nil {
			return err
		}
		t, err := n.keys.tenant(name, row.Value)
		if err != nil {
			return err
		}
		if caches[t.cache.ID] != nil {
			return fmt.Errorf("id %d is used twice", t.cache.ID)
		}
		caches[t.cache.ID] = t
	case keyspace.PathPrefix:
		id, _, err := keyspace.DecodePathKey(row.Key)
		if err != nil {
			return err
		}
		p, err := keyspace.DecodePath(row.Key, row.Value)
		if err != nil {
			return err
		}
		t := caches[id]
		if t == nil {
			_, ok, err := n.db.Get(keyspace.AppendDestroyedKey(nil, id))
			if !ok {
				err = fmt.Errorf("path of cache %d, which neither exists nor is being swept", id)
			}
			return err
		}
		fp, err := fingerprint(&p)
		if err != nil {
			return err
		}
		sig, err := nix.ParseSignature(p.Sig)
		if err != nil {
			return err
		}
		if p.SigKey == t.keyID && !t.key.Public().Verify(string(fp), sig) {
			return fmt.Errorf("bad signature %s", p.Sig)
		}
		r, err := n.Recipe(ctx, p.NarHash)
		if err == nil && r.Served.Size != p.FileSize {
			err = fmt.Errorf("file size %d, recipe says %d", p.FileSize, r.Served.Size)
		}
		return err
	case keyspace.RecipePrefix:
		k, err := keyspace.DecodeRecipeKey(row.Key)
		if err != nil || k.Part > 0 {
			return err
		}
		r, err := n.Recipe(ctx, k.NarHash)
		if err != nil {
			return err
		}
		books, err := newBooks(n.db)
		if err != nil {
			return err
		}
		b := newPackBuilder(books, 0)
		if err := b.check(&r); err != nil {
			return err
		}
		return b.refuse()
	case keyspace.ListingPrefix:
		l, err := keyspace.DecodeListing(row.Key, row.Value)
		if err == nil {
			_, err = n.Recipe(ctx, l.NarHash)
		}
		return err
	case keyspace.SidePrefix:
		s, err := keyspace.DecodeSide(row.Key, row.Value)
		if err != nil || !s.Stored {
			return err
		}
		_, err = n.Recipe(ctx, s.TextSum)
		return err
	case keyspace.ChunkPrefix:
		c, err := keyspace.DecodeChunk(row.Key, row.Value)
		if err != nil {
			return err
		}
		size, ok := packs[c.Location.Pack]
		if !ok {
			l, err := n.PackLayout(ctx, c.Location.Pack)
			if err != nil {
				return err
			}
			size = len(l.Sizes)
			packs[c.Location.Pack] = size
		}
		if int(c.Location.Index) >= size {
			return fmt.Errorf("chunk %d of a pack of %d", c.Location.Index, size)
		}
	}
	return nil
}
