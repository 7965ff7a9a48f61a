package catalog

import (
	"fmt"
	"sync"
	"testing"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

func TestDestroyCacheLeavesNothing(t *testing.T) {
	bucket := mkBucket(t)
	n, other := mkNode(t, bucket), mkNode(t, bucket)
	ctx := t.Context()
	n.mustCreate("ci")
	pub := mkPublication(t, "ci", "x", mkPack(1, 1, 2))
	n.mustPublish(pub)
	hp := pub.Path.StorePath.HashPart()
	row, _, err := n.db.Get(keyspace.AppendPathKey(nil, 1, hp))
	if err != nil {
		t.Fatal(err)
	}
	var many []wal.Entry
	for i := range 2*opPaths + 10 {
		many = append(many, set(keyspace.AppendPathKey(nil, 1, mkStorePath(t, fmt.Sprint("p", i)).HashPart()), row))
	}
	n.commit(many...)

	// Destroyed, and nobody gets around to sweeping.
	key := keyspace.AppendCacheKey(nil, "ci")
	mark := keyspace.Destroyed{ID: 1, Name: "ci", At: mkTime()}
	n.commit(remove(key), set(keyspace.AppendDestroyedKey(nil, 1), keyspace.AppendDestroyed(nil, &mark)))
	if _, err := other.log.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = other.Path(ctx, "ci", hp)
	wantErr(t, "Path", err, ErrNoCache)
	other.mustCreate("ci")
	_, err = other.Path(ctx, "ci", hp)
	wantErr(t, "Path in the new cache", err, ErrNoPath)
	if paths, err := other.Paths(ctx, "ci", nil, 10); err != nil || len(paths) != 0 {
		t.Errorf("the new cache has %d paths, %v", len(paths), err)
	}

	// Both sweep at once; a new cache of the same name keeps its own.
	other.mustPublish(pub)
	var wg sync.WaitGroup
	for _, n := range []*node{n, other} {
		wg.Go(func() {
			if err := n.Sweep(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for kv, err := range other.db.Scan(keyspace.AppendPathPrefix(nil, 1), nil) {
		t.Fatalf("left of the destroyed cache: %x, %v", kv.Key, err)
	}
	for kv := range other.db.Scan([]byte{keyspace.DestroyedPrefix}, nil) {
		t.Errorf("marker left: %x", kv.Key)
	}
	if _, err := other.Path(ctx, "ci", hp); err != nil {
		t.Errorf("the new cache's own path: %v", err)
	}
	if _, err := other.DestroyCache(ctx, "ci"); err != nil {
		t.Fatal(err)
	}
	for kv := range other.db.Scan([]byte{keyspace.PathPrefix}, nil) {
		t.Errorf("left: %x", kv.Key)
	}
	other.wantSound()
}
