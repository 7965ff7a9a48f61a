package keyspace

import (
	"testing"

	"github.com/celler/celler/blob/chunk"
)

func TestDecodePathAllocs(t *testing.T) {
	p := mkPath(t)
	key, value := AppendPathKey(nil, 7, p.StorePath.HashPart()), AppendPath(nil, &p)
	got := testing.AllocsPerRun(100, func() { _, _ = DecodePath(key, value) })
	if got > 4 {
		t.Errorf("%v allocations to decode a path, want at most 4: text, base names, references, sigs", got)
	}
}

func BenchmarkDecodePath(b *testing.B) {
	p := mkPath(b)
	for len(p.References) < 12 {
		p.References = append(p.References, p.References[0])
	}
	key, value := AppendPathKey(nil, 7, p.StorePath.HashPart()), AppendPath(nil, &p)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodePath(key, value); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeChunk(b *testing.B) {
	r := chunkRow("", Chunk{Location: chunk.Location{Pack: chunk.PackID{Epoch: 10, Rand: 1 << 63}, Index: 2000}, Proof: chunk.Proof{7: 1}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeChunk(r.key, r.value); err != nil {
			b.Fatal(err)
		}
	}
}
