package gc

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/celler/celler/blob/chunk"
)

func TestBitsetAgainstBools(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		n := 1 + r.IntN(300)
		b, model := mkBits(n), make([]bool, n)
		for range 1 + r.IntN(8) {
			first := r.IntN(n)
			count := r.IntN(n-first) + 1
			fresh := make([]bool, n)
			b.setRange(first, count, func(f, c int) {
				for i := f; i < f+c; i++ {
					if fresh[i] {
						t.Fatalf("%d+%d of %d: bit %d is fresh twice", first, count, n, i)
					}
					fresh[i] = true
				}
			})
			for i := range n {
				in := i >= first && i < first+count
				if want := in && !model[i]; fresh[i] != want {
					t.Fatalf("%d+%d of %d: bit %d fresh %v, want %v", first, count, n, i, fresh[i], want)
				}
				model[i] = model[i] || in
			}
		}
		dead := make([]bool, n)
		last := -2
		for first, count := range b.clears(n) {
			if first <= last || count <= 0 {
				t.Fatalf("stretch %d+%d after %d", first, count, last)
			}
			last = first + count
			for i := first; i < first+count; i++ {
				dead[i] = true
			}
		}
		set := 0
		for i := range n {
			if b.has(i) != model[i] || dead[i] == model[i] {
				t.Fatalf("bit %d of %d is %v, clear %v, want %v", i, n, b.has(i), dead[i], model[i])
			}
			set += b2i(model[i])
		}
		if b.count() != set {
			t.Fatalf("count %d, want %d", b.count(), set)
		}
	}
}

func TestMarks(t *testing.T) {
	a, b, gone := chunk.PackID{Epoch: 1, Rand: 1}, chunk.PackID{Epoch: 1, Rand: 2}, chunk.PackID{Epoch: 1, Rand: 3}
	m := mkMarks()
	m.add(a, 100)
	m.add(b, 3)
	strays := m.recipe(&chunk.Recipe{Runs: []chunk.Run{{Pack: a, First: 10, Count: 20}, {Pack: gone, Count: 1}, {Pack: b, First: 2, Count: 2}}}, nil)
	if strays != 2 {
		t.Errorf("%d strays, want 2: a pack that is not there, and a run beyond the end", strays)
	}
	var fresh []chunk.Run
	m.recipe(&chunk.Recipe{Runs: []chunk.Run{{Pack: a, First: 5, Count: 30}}}, func(r chunk.Run) { fresh = append(fresh, r) })
	if want := []chunk.Run{{Pack: a, First: 5, Count: 5}, {Pack: a, First: 30, Count: 5}}; !slices.Equal(fresh, want) {
		t.Errorf("fresh %v, want %v", fresh, want)
	}
	if got, want := slices.Collect(m.dead(a)), []chunk.Run{{Pack: a, Count: 5}, {Pack: a, First: 35, Count: 65}}; !slices.Equal(got, want) {
		t.Errorf("dead in a: %v, want %v", got, want)
	}
	if got, want := slices.Collect(m.dead(b)), []chunk.Run{{Pack: b, Count: 3}}; !slices.Equal(got, want) {
		t.Errorf("dead in b: %v, want %v", got, want)
	}
	if got := slices.Collect(m.dead(gone)); got != nil {
		t.Errorf("of a pack never seen %v is said to be dead", got)
	}
	if m.overlaps(chunk.Run{Pack: a, First: 0, Count: 5}) || !m.overlaps(chunk.Run{Pack: a, First: 0, Count: 6}) {
		t.Error("marks begin at 5")
	}
}
