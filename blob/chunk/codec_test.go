package chunk_test

import (
	"bytes"
	"encoding/hex"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/celler/celler/blob/chunk"
)

func mkRecipe() chunk.Recipe {
	a, b := chunk.PackID{Epoch: 1, Rand: 0x1122334455667788}, chunk.PackID{Epoch: 300, Rand: 7}
	return chunk.Recipe{
		Size: 1_000_000, NarHash: [32]byte{1, 2, 3},
		Runs: []chunk.Run{{b, 0, 40}, {a, 17, 2}, {b, 40, 1}, {a, 5, 12}, {b, 100, 3}},
		Served: chunk.Served{
			Encoder: 1, Size: 300_000, Segments: []uint32{5000, 123, 70_000}, FileHash: [32]byte{9},
		},
	}
}

// mkJoined is mkRecipe joined from three parts.
func mkJoined() chunk.Recipe {
	r := mkRecipe()
	r.Breaks = []uint32{1, 57}
	return r
}

func mkLayout() chunk.Layout {
	return chunk.Layout{
		ID: chunk.PackID{Epoch: 2, Rand: 0xaabb}, Bytes: 10_000,
		Frames: []chunk.Frame{{0, 4000, 0xdeadbeef, 2}, {4000, 1, 0, 1}, {4100, 5000, 7, 3}},
		Sizes:  []uint32{4096, 20_000, 1, 65536, 5000, 4096},
	}
}

// mkMoved is mkLayout after a move: chunk 1 is gone from the first frame, the second
// frame and another one are gone altogether.
func mkMoved() chunk.Layout {
	return chunk.Layout{
		ID: chunk.PackID{Epoch: 2, Rand: 0xaabb}, Object: chunk.PackID{Epoch: 3, Rand: 0xcc}, Bytes: 9_000, Footer: 8_500,
		Frames: []chunk.Frame{{700, 3000, 0xdeadbeef, 2}, {0, 0, 0, 2}, {3700, 4000, 7, 3}},
		Sizes:  []uint32{4096, 0, 0, 0, 65536, 5000, 4096},
	}
}

const goldenRecipe = "01c0843d0102030000000000000000000000000000000000000000000000000000000000" +
	"02ac020700000000000000018877665544332211" +
	"0500002801220200000101" + "1b0c" + "007603" +
	"01e0a712038827" + "7b" + "f0a20401" + "0900000000000000000000000000000000000000000000000000000000000000"

const goldenJoined = "02c0843d0102030000000000000000000000000000000000000000000000000000000000" +
	"02ac020700000000000000018877665544332211" +
	"0500002801220200000101" + "1b0c" + "007603" + "020138" +
	"01e0a712038827" + "7b" + "f0a20401" + "0900000000000000000000000000000000000000000000000000000000000000"

const goldenLayout = "0102bbaa000000000000904e0300a01fefbeadde02000100000000016388270700000003" + "8020a09c010180800488278020"

const goldenMoved = "0202bbaa00000000000003cc00000000000000a846b44203" + "02b817bc05efbeadde" + "0200" + "03a01f0007000000" + "80200003808004" + "88278020"

func TestGolden(t *testing.T) {
	r, l, m := mkRecipe(), mkLayout(), mkMoved()
	if got := hex.EncodeToString(chunk.AppendLayout(nil, &m)); got != goldenMoved {
		t.Errorf("moved layout is\n%s, want\n%s", got, goldenMoved)
	}
	gotM, rest, err := chunk.DecodeLayout(append(chunk.AppendLayout(nil, &m), "rest"...))
	if err != nil || string(rest) != "rest" {
		t.Fatalf("decode moved layout: %v, rest %q", err, rest)
	}
	if d := cmp.Diff(m, gotM); d != "" {
		t.Error(d)
	}
	if got := hex.EncodeToString(chunk.AppendRecipe(nil, &r)); got != goldenRecipe {
		t.Errorf("recipe is\n%s, want\n%s", got, goldenRecipe)
	}
	j := mkJoined()
	if got := hex.EncodeToString(chunk.AppendRecipe(nil, &j)); got != goldenJoined {
		t.Errorf("joined recipe is\n%s, want\n%s", got, goldenJoined)
	}
	gotJ, rest, err := chunk.DecodeRecipe(append(chunk.AppendRecipe(nil, &j), "rest"...))
	if err != nil || string(rest) != "rest" {
		t.Fatalf("decode joined recipe: %v, rest %q", err, rest)
	}
	if d := cmp.Diff(j, gotJ); d != "" {
		t.Error(d)
	}
	if got := hex.EncodeToString(chunk.AppendLayout(nil, &l)); got != goldenLayout {
		t.Errorf("layout is\n%s, want\n%s", got, goldenLayout)
	}
	gotR, rest, err := chunk.DecodeRecipe(append(chunk.AppendRecipe(nil, &r), "rest"...))
	if err != nil || string(rest) != "rest" {
		t.Fatalf("decode recipe: %v, rest %q", err, rest)
	}
	if d := cmp.Diff(r, gotR); d != "" {
		t.Error(d)
	}
	gotL, rest, err := chunk.DecodeLayout(append(chunk.AppendLayout(nil, &l), "rest"...))
	if err != nil || string(rest) != "rest" {
		t.Fatalf("decode layout: %v, rest %q", err, rest)
	}
	if d := cmp.Diff(l, gotL); d != "" {
		t.Error(d)
	}
}

// TestTruncated checks that no beginning of an encoding is taken for a whole one.
func TestTruncated(t *testing.T) {
	r, l := mkRecipe(), mkLayout()
	whole := chunk.AppendRecipe(nil, &r)
	for n := range whole {
		if _, _, err := chunk.DecodeRecipe(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes of a recipe are accepted", n, len(whole))
		}
	}
	j := mkJoined()
	whole = chunk.AppendRecipe(nil, &j)
	for n := range whole {
		if _, _, err := chunk.DecodeRecipe(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes of a joined recipe are accepted", n, len(whole))
		}
	}
	whole = chunk.AppendLayout(nil, &l)
	for n := range whole {
		if _, _, err := chunk.DecodeLayout(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes of a layout are accepted", n, len(whole))
		}
	}
	m := mkMoved()
	whole = chunk.AppendLayout(nil, &m)
	for n := range whole {
		if _, _, err := chunk.DecodeLayout(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes of a moved layout are accepted", n, len(whole))
		}
	}
}

func TestMovedLayout(t *testing.T) {
	l, m := mkLayout(), mkMoved()
	if l.Moved() || l.Where() != l.ID || l.FooterOffset() != 9100 || l.Stored() != 9001 || l.Holes() != nil {
		t.Errorf("a layout that was not moved: in %v, footer at %d, %d stored, holes %v", l.Where(), l.FooterOffset(), l.Stored(), l.Holes())
	}
	want := []chunk.Range{{First: 1, Count: 3}}
	if !m.Moved() || m.Where() != m.Object || m.FooterOffset() != 8500 || m.Stored() != 7000 || !cmp.Equal(m.Holes(), want) {
		t.Errorf("one that was moved: in %v, footer at %d, %d stored, holes %v, want %v", m.Where(), m.FooterOffset(), m.Stored(), m.Holes(), want)
	}
	for name, damage := range map[string]func(*chunk.Layout){
		"moved to itself":                  func(l *chunk.Layout) { l.Object = l.ID },
		"footer after the end":             func(l *chunk.Layout) { l.Footer = l.Bytes + 1 },
		"a frame in the footer":            func(l *chunk.Layout) { l.Frames[2].Size += 1000 },
		"two gone frames side by side":     func(l *chunk.Layout) { l.Frames[0].Size = 0; l.Sizes[0] = 0 },
		"a chunk in a gone frame":          func(l *chunk.Layout) { l.Sizes[2] = 5 },
		"a frame with holes only":          func(l *chunk.Layout) { l.Sizes[0] = 0 },
		"nothing left":                     func(l *chunk.Layout) { l.Frames, l.Sizes = []chunk.Frame{{Chunks: 1}}, []uint32{0} },
		"a frame without chunks":           func(l *chunk.Layout) { l.Frames[0].Chunks = 0 },
		"more chunks than a pack may have": func(l *chunk.Layout) { l.Frames[0].Chunks = chunk.MaxPackChunks },
	} {
		m := mkMoved()
		damage(&m)
		if got, _, err := chunk.DecodeLayout(chunk.AppendLayout(nil, &m)); err == nil {
			t.Errorf("%s: decoded as %+v", name, got)
		}
	}
	if _, _, err := chunk.DecodeLayout([]byte{3, 0}); err == nil || !strings.Contains(err.Error(), "version is 3, want 1 or 2") {
		t.Errorf("version 3: %v", err)
	}
}

func TestBreaks(t *testing.T) {
	for name, breaks := range map[string][]uint32{
		"at the beginning": {0}, "twice in a place": {5, 5}, "at the end": {58}, "after the end": {1, 59}, "backwards": {9, 8},
	} {
		r := mkRecipe()
		r.Breaks = breaks
		if got, _, err := chunk.DecodeRecipe(chunk.AppendRecipe(nil, &r)); err == nil {
			t.Errorf("a break %s: decoded as %+v", name, got)
		}
	}
}

// TestRecipeSize holds the recipe of data pushed at once to its budget.
func TestRecipeSize(t *testing.T) {
	r := mkRecipe()
	r.Runs, r.Served.Segments = nil, nil
	for i := range uint32(100) { // 100 packs of 700 chunks
		r.Runs = append(r.Runs, chunk.Run{Pack: chunk.PackID{Epoch: 5, Rand: uint64(i) * math.MaxUint32}, First: 0, Count: 700})
	}
	if n := float64(len(chunk.AppendRecipe(nil, &r))) / float64(r.Chunks()); n > 0.1 {
		t.Errorf("pushed at once: %.3f bytes a chunk, want a tenth", n)
	}
	// And the worst there is: every chunk from elsewhere in one of 100 packs.
	r.Runs = nil
	for i := range uint32(70_000) {
		r.Runs = append(r.Runs, chunk.Run{Pack: chunk.PackID{Rand: uint64(i * 7 % 100)}, First: i * 31 % 700, Count: 1})
	}
	if n := float64(len(chunk.AppendRecipe(nil, &r))) / float64(r.Chunks()); n > 8 {
		t.Errorf("scattered: %.3f bytes a chunk, want 8", n)
	}
}

func TestRecipeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := mkRecipe()
		r.Runs = nil
		for range rapid.IntRange(0, 50).Draw(t, "runs") {
			first := rapid.Uint32Range(0, chunk.MaxPackChunks-1).Draw(t, "first")
			r.Runs = append(r.Runs, chunk.Run{
				Pack:  chunk.PackID{Epoch: rapid.Uint32Range(0, 2).Draw(t, "epoch"), Rand: rapid.Uint64Range(0, 3).Draw(t, "rand")},
				First: first, Count: rapid.Uint32Range(1, chunk.MaxPackChunks-first).Draw(t, "count"),
			})
		}
		for at := range r.Chunks() {
			if at > 0 && at < 100 && rapid.Bool().Draw(t, "break") {
				r.Breaks = append(r.Breaks, uint32(at))
			}
		}
		r.Size = rapid.Int64Range(0, 1<<50).Draw(t, "size")
		got, rest, err := chunk.DecodeRecipe(chunk.AppendRecipe(nil, &r))
		if err != nil || len(rest) != 0 {
			t.Fatalf("decode: %v, %d bytes left", err, len(rest))
		}
		if d := cmp.Diff(r, got); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzDecodeRecipe(f *testing.F) {
	r, j := mkRecipe(), mkJoined()
	f.Add(chunk.AppendRecipe(nil, &r))
	f.Add(chunk.AppendRecipe(nil, &j))
	f.Fuzz(func(t *testing.T, src []byte) {
		before := allocated()
		r, rest, err := chunk.DecodeRecipe(src)
		wantBounded(t, before, len(src))
		if err != nil {
			return
		}
		if again := chunk.AppendRecipe(nil, &r); !bytes.Equal(again, src[:len(src)-len(rest)]) {
			t.Fatalf("%x is decoded, but would be written as %x", src[:len(src)-len(rest)], again)
		}
	})
}

func FuzzDecodeLayout(f *testing.F) {
	l, m := mkLayout(), mkMoved()
	f.Add(chunk.AppendLayout(nil, &l))
	f.Add(chunk.AppendLayout(nil, &m))
	f.Fuzz(func(t *testing.T, src []byte) {
		before := allocated()
		l, rest, err := chunk.DecodeLayout(src)
		// Holes take no bytes each, so the sizes are bounded by what a pack may have.
		wantBounded(t, before, len(src)+4*chunk.MaxPackChunks/100)
		if err != nil {
			return
		}
		if again := chunk.AppendLayout(nil, &l); !bytes.Equal(again, src[:len(src)-len(rest)]) {
			t.Fatalf("%x is decoded, but would be written as %x", src[:len(src)-len(rest)], again)
		}
	})
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// wantBounded fails if a decoder has allocated by a length it only read.
func wantBounded(t *testing.T, before uint64, n int) {
	t.Helper()
	if got := allocated() - before; got > uint64(n)*100+64<<10 {
		t.Fatalf("decoding %d bytes allocated %d", n, got)
	}
}

func TestIDs(t *testing.T) {
	id := chunk.Sum([]byte("abc"))
	if got, err := chunk.ParseID(id.String()); err != nil || got != id {
		t.Errorf("%v comes back as %v, %v", id, got, err)
	}
	p := chunk.PackID{Epoch: 0x1f, Rand: 0xff00}
	if got, err := chunk.ParsePackID(p.String()); err != nil || got != p || p.String() != "0000001f/000000000000ff00" {
		t.Errorf("%v comes back as %v, %v", p, got, err)
	}
	for _, bad := range []string{"", "1/2", "0000001F/000000000000ff00", "0000001f-000000000000ff00", "+000001f/000000000000ff00"} {
		if got, err := chunk.ParsePackID(bad); err == nil {
			t.Errorf("%q is accepted as %v", bad, got)
		}
	}
	if _, err := chunk.ParseID(id.String()[:63] + "G"); err == nil {
		t.Error("a chunk id with a G in it is accepted")
	}
}
