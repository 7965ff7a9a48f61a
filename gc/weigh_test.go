package gc

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/celler/celler/blob/chunk"
)

func mkLayout(r *rand.Rand, id chunk.PackID) *chunk.Layout {
	l := &chunk.Layout{ID: id}
	at := int64(0)
	for range 1 + r.IntN(5) {
		f := chunk.Frame{Offset: at, Size: 1 + r.Int64N(1000), Chunks: uint32(1 + r.IntN(6))}
		at += f.Size
		l.Frames = append(l.Frames, f)
		for range f.Chunks {
			l.Sizes = append(l.Sizes, uint32(1+r.IntN(70000)))
		}
	}
	l.Bytes = at + 100
	return l
}

// However a pack is cut into stretches, they weigh what it weighs.
func TestStretchesAddUp(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		l := mkLayout(r, chunk.PackID{Epoch: 1, Rand: 1})
		s := newScale(l)
		n := uint32(len(l.Sizes))
		var sum weight
		for at := uint32(0); at < n; {
			count := 1 + r.Uint32N(n-at)
			sum.add(s.of(at, count))
			at += count
		}
		plain := int64(0)
		for _, size := range l.Sizes {
			plain += int64(size)
		}
		if want := (weight{chunks: int(n), plain: plain, stored: l.Stored()}); sum != want {
			t.Fatalf("stretches weigh %+v, the pack %+v", sum, want)
		}
	}
}

func TestWeighing(t *testing.T) {
	l := &chunk.Layout{
		ID: chunk.PackID{Epoch: 1, Rand: 7}, Bytes: 500,
		Frames: []chunk.Frame{{Size: 100, Chunks: 2}, {Chunks: 1}, {Offset: 100, Size: 60, Chunks: 3}},
		Sizes:  []uint32{30, 70, 0, 10, 20, 30}, // the third is a hole
	}
	asked := 0
	s := newScales(func(id chunk.PackID) (*chunk.Layout, error) {
		asked++
		if id != l.ID {
			return nil, errors.New("not there")
		}
		return l, nil
	})
	for _, c := range []struct {
		first, count uint32
		want         weight
	}{
		{0, 6, weight{6, 160, 160}},
		{0, 1, weight{1, 30, 30}},
		{1, 3, weight{3, 80, 80}},
		{2, 1, weight{1, 0, 0}},
		{4, 1, weight{1, 20, 20}},
		{0, 0, weight{}},
	} {
		if got, err := s.of(chunk.Run{Pack: l.ID, First: c.first, Count: c.count}); got != c.want || err != nil {
			t.Errorf("%d+%d: %+v, %v; want %+v", c.first, c.count, got, err, c.want)
		}
	}
	if asked != 1 {
		t.Errorf("the layout was asked for %d times, want once", asked)
	}
	if _, err := s.of(chunk.Run{Pack: l.ID, First: 5, Count: 2}); err == nil || !strings.Contains(err.Error(), "it has 6") {
		t.Errorf("beyond the end: %v", err)
	}
	if _, err := s.of(chunk.Run{Pack: chunk.PackID{Epoch: 9}}); err == nil {
		t.Error("a pack that is not there has a weight")
	}
}
