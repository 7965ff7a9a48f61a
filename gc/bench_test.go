package gc_test

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
)

// mkPack makes a pack of n chunks that nobody else has.
func mkPack(seed uint64, n int) chunk.NewPack {
	p := chunk.NewPack{Layout: chunk.Layout{ID: chunk.PackID{Epoch: 1, Rand: seed}}}
	for i := range n {
		p.Layout.Sizes = append(p.Layout.Sizes, 16<<10)
		if i%32 == 0 {
			p.Layout.Frames = append(p.Layout.Frames, chunk.Frame{Offset: int64(i/32) << 18, Size: 1 << 18, Chunks: uint32(min(32, n-i))})
		}
		p.IDs = append(p.IDs, chunk.Sum(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, seed), uint64(i))))
	}
	p.Layout.Bytes = int64((n+31)/32)<<18 + 1000
	return p
}

// BenchmarkDeadChunks collects a million chunks of NARs that nobody wants, in a store in which
// as many live.
func BenchmarkDeadChunks(b *testing.B) {
	const packs, chunks = 256, 8192 // two million
	for b.Loop() {
		b.StopTimer()
		w := mkWorld(b)
		n := w.mkNode(b)
		n.create("main", 10*day)
		for i := range packs {
			p := mkPack(uint64(i), chunks)
			if err := n.cat.CommitPacks(b.Context(), []chunk.NewPack{p}); err != nil {
				b.Fatal(err)
			}
			for j := range 8 { // as many NARs share a pack
				name := fmt.Sprintf("p%d-%d", i, j)
				size := int64(chunks / 8 * 16 << 10)
				recipe := chunk.Recipe{
					Size: size, NarHash: [32]byte(chunk.Sum([]byte(name))),
					Runs:   []chunk.Run{{Pack: p.Layout.ID, First: uint32(j * chunks / 8), Count: chunks / 8}},
					Served: chunk.Served{Encoder: 1, Size: size / 2},
				}
				if _, err := n.cat.Publish(b.Context(), catalog.Publication{
					Path: catalog.Path{Cache: "main", StorePath: mkPath(name), NarHash: recipe.NarHash, NarSize: size}, Recipe: recipe,
				}); err != nil {
					b.Fatal(err)
				}
			}
		}
		n.tick()
		for range 11 {
			w.pass(day + time.Minute)
			n.tick()
			for i := range packs / 2 {
				for j := range 8 {
					n.use("main", fmt.Sprintf("p%d-%d", 2*i, j))
				}
			}
		}
		c := n.collector(func(o *gc.Options) { o.NarGrace = -1; o.Requests = n.requests })
		w.pass(day + time.Minute)
		b.StartTimer()
		cpu := cpuTime(b)
		n.mustRound(c) // paths
		w.pass(day + time.Minute)
		rep := n.mustRound(c) // NARs and chunks
		if rep.Condemned != packs/2*chunks {
			b.Fatalf("condemned %d chunks, want %d: %+v", rep.Condemned, packs/2*chunks, rep)
		}
		for range 3 {
			w.pass(day + time.Minute)
			n.mustRound(c) // objects
		}
		b.ReportMetric((cpuTime(b) - cpu).Seconds(), "cpu-s/op")
		sum := int64(0)
		for _, k := range rep.Requests {
			sum += k
		}
		b.ReportMetric(float64(sum), "requests/op")
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
