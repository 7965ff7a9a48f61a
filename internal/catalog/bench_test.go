package catalog

import (
	"fmt"
	"sync"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// mkFullCache returns a node with a cache of n paths of 10 references each, and
// their hash parts.
func mkFullCache(t testing.TB, n int) (*node, []nix.HashPart) {
	t.Helper()
	nd := mkNode(t, mkBucket(t))
	nd.mustCreate("ci")
	pub := mkPublication(t, "ci", "x", mkPack(1, 1, 1))
	pub.Path.References = nil
	for i := range 10 {
		pub.Path.References = append(pub.Path.References, mkStorePath(t, fmt.Sprint("some-dependency-1.2.", i)))
	}
	nd.mustPublish(pub)
	row, err := nd.Path(t.Context(), "ci", pub.Path.StorePath.HashPart())
	if err != nil {
		t.Fatal(err)
	}
	var entries []wal.Entry
	var hps []nix.HashPart
	for i := range n {
		row.StorePath = mkStorePath(t, fmt.Sprint("path-", i))
		hp := row.StorePath.HashPart()
		hps = append(hps, hp)
		entries = append(entries, set(keyspace.AppendPathKey(nil, 1, hp), keyspace.AppendPath(nil, &row)))
		if len(entries) == 5000 || i == n-1 {
			nd.commit(entries...)
			entries = nil
		}
	}
	return nd, hps
}

// TestPathHitAllocs holds the budget of the hottest read there is. The time it
// may take, 15 µs, is for BenchmarkPathHit to show: it depends on the machine.
func TestPathHitAllocs(t *testing.T) {
	n, hps := mkFullCache(t, 1000)
	i := 0
	got := testing.AllocsPerRun(1000, func() {
		if _, err := n.Path(t.Context(), "ci", hps[i%len(hps)]); err != nil {
			t.Fatal(err)
		}
		i++
	})
	const budget = 10
	if got > budget {
		t.Errorf("%v allocations for a path that is there, want at most %d", got, budget)
	}
}

// BenchmarkPathHit is what a narinfo costs below HTTP. Target: 15 µs.
func BenchmarkPathHit(b *testing.B) {
	n, hps := mkFullCache(b, 50_000)
	ctx := b.Context()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := n.Path(ctx, "ci", hps[i%len(hps)]); err != nil {
			b.Fatal(err)
		}
		i += 7919
	}
}

func BenchmarkPathMiss(b *testing.B) {
	n, _ := mkFullCache(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.Path(b.Context(), "ci", nix.HashPart{}); err == nil {
			b.Fatal("found")
		}
	}
}

// BenchmarkMissingPaths asks for a million paths, half of which are there.
func BenchmarkMissingPaths(b *testing.B) {
	n, hps := mkFullCache(b, 50_000)
	ask := make([]nix.HashPart, 0, 1_000_000)
	ask = append(ask, hps...)
	for i := len(ask); i < cap(ask); i++ {
		ask = append(ask, mkStorePath(b, fmt.Sprint("absent-", i)).HashPart())
	}
	b.ReportAllocs()
	for b.Loop() {
		missing, err := n.MissingPaths(b.Context(), "ci", ask)
		if err != nil || len(missing) != len(ask)-len(hps) {
			b.Fatal(len(missing), err)
		}
	}
}

// BenchmarkPublish is the cost of a publication besides that of the bucket.
func BenchmarkPublish(b *testing.B) {
	n := mkNode(b, mkBucket(b))
	n.mustCreate("ci")
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		i++
		n.mustPublish(mkPublication(b, "ci", fmt.Sprint("x", i), mkPack(1, i, 20)))
	}
}

func BenchmarkLookupChunks(b *testing.B) {
	n := mkNode(b, mkBucket(b))
	var ids []chunk.ID
	for i := range 20 {
		p := mkPack(1, uint64(i), 5000)
		ids = append(ids, p.IDs...)
		if err := n.CommitPacks(b.Context(), []chunk.NewPack{p}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, _, err := n.LookupChunks(b.Context(), ids[i:i+100]); err != nil {
			b.Fatal(err)
		}
		i = (i + 100) % len(ids)
	}
}

// BenchmarkPublishShared publishes 500 tiny paths at once whose chunks share a
// pack, as a push of many small paths does.
func BenchmarkPublishShared(b *testing.B) {
	n := mkNode(b, mkBucket(b))
	n.mustCreate("ci")
	const paths = 500
	round := uint64(0)
	for b.Loop() {
		round++
		pack := mkPack(1, round, paths)
		var wg sync.WaitGroup
		for i := range uint32(paths) {
			pub := mkPublication(b, "ci", fmt.Sprintf("x%d-%d", round, i), pack)
			pub.Recipe.Runs = []chunk.Run{{Pack: pack.Layout.ID, First: i, Count: 1}}
			wg.Go(func() { n.mustPublish(pub) })
		}
		wg.Wait()
	}
	b.ReportMetric(float64(b.N*paths)/b.Elapsed().Seconds(), "paths/s")
	b.ReportMetric(float64(n.Seq())/float64(b.N), "slots/round")
}
