package index

import (
	"math/rand/v2"
	"testing"

	"github.com/celler/celler/wal"
)

func BenchmarkGet(b *testing.B) {
	db := mustOpen(b, b.TempDir(), Options{})
	defer mustClose(b, db)
	const n = 100_000
	seg := &wal.Segment{Store: testStore, Seq: 1}
	r := rand.New(rand.NewPCG(1, 1))
	key := func(i int) []byte {
		h := wal.DigestOf(wal.AppendUint64(nil, uint64(i)))
		return append([]byte{'c'}, h[:]...)
	}
	for i := range n {
		seg.Entries = append(seg.Entries, wal.Entry{Kind: wal.Set, Key: key(i), Value: make([]byte, 14)})
	}
	if err := db.Apply(seg, wal.Digest{1}); err != nil {
		b.Fatal(err)
	}
	if err := db.flush(); err != nil {
		b.Fatal(err)
	}
	for name, offset := range map[string]int{"hit": 0, "miss": n} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := db.Get(key(r.IntN(n) + offset)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
