package gc_test

import (
	"testing"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// An earlier celler, which counts nothing, has brought a NAR back to life. The first
// collection counts its path, and leaves the log to those who count.
func TestEarlierWriters(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 0)
	n.push("main", "first", "shared")
	p, err := n.cat.Path(t.Context(), "main", part("first"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.cat.Withdraw(t.Context(), "main", part("first")); err != nil {
		t.Fatal(err)
	}
	p.StorePath = mkPath("second")
	w.nars["second"] = w.nars["first"]
	if _, err := n.log.Commit(t.Context(), wal.Op{Name: "publish", Build: func(wal.View) ([]wal.Entry, error) {
		return []wal.Entry{{Kind: wal.Set, Key: keyspace.AppendPathKey(nil, keyspace.FirstCount, p.StorePath.HashPart()), Value: keyspace.AppendPath(nil, &p)}}, nil
	}}); err != nil {
		t.Fatal(err)
	}
	if root, err := wal.ReadRoot(t.Context(), w.bucket); err != nil || root.MinWriter != 1 {
		t.Fatalf("ROOT demands version %d of writers, %v; want 1", root.MinWriter, err)
	}
	n.live(14, n.collector(func(o *gc.Options) { o.NarGrace = day }))
	n.wantPaths("main", "second")
	n.wantSound()
	if root, err := wal.ReadRoot(t.Context(), w.bucket); err != nil || root.MinWriter != 2 {
		t.Errorf("ROOT demands version %d of writers, %v; want 2", root.MinWriter, err)
	}
}
