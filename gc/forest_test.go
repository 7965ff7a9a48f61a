package gc

import (
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/celler/celler/nix"
)

// plantText makes a forest of lines "name day ref ref …"; "*" after a name pins it, and a
// line "--" begins another cache. names are in the order of the forest.
func plantText(t testing.TB, text string) (f *forest, names []string) {
	t.Helper()
	f = new(forest)
	part := func(name string) (hp nix.HashPart) {
		sum := sha256.Sum256([]byte(name))
		copy(hp[:], sum[:])
		return hp
	}
	for _, section := range strings.Split(text, "--") {
		lines := strings.FieldsFunc(section, func(r rune) bool { return r == '\n' || r == ';' })
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "" })
		fields := make([][]string, len(lines))
		for i, l := range lines {
			fields[i] = strings.Fields(l)
		}
		slices.SortFunc(fields, func(a, b []string) int {
			x, y := part(strings.Trim(a[0], "*")), part(strings.Trim(b[0], "*"))
			return slices.Compare(x[:], y[:])
		})
		tr := f.plant()
		for _, l := range fields {
			name := strings.Trim(l[0], "*")
			names = append(names, name)
			f.add(part(name), uint32(l[1][0]-'0'), 0)
		}
		for _, l := range fields {
			var refs []nix.HashPart
			for _, r := range l[2:] {
				refs = append(refs, part(r))
			}
			f.refer(tr, refs)
		}
		for _, l := range fields {
			if strings.HasSuffix(l[0], "*") {
				f.pin(tr, part(strings.Trim(l[0], "*")))
			}
		}
	}
	return f, names
}

func pick(names []string, live bitset) string {
	var out []string
	for i, n := range names {
		if live.has(i) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestLive(t *testing.T) {
	for _, c := range []struct{ name, paths, since5 string }{
		{"a path lives by its own use", "a 5; b 4", "a"},
		{"what a live path refers to lives, however old", "a 9 b; b 1 c; c 1; d 1", "a b c"},
		{"what refers to a live path does not live by that", "a 1 b; b 9", "b"},
		{"a pin keeps its closure", "a* 1 b; b 1 c; c 1; d 1", "a b c"},
		{"a reference to itself keeps nothing alive", "a 1 a; b 9 b", "b"},
		{"neither does a ring", "a 1 b; b 1 c; c 1 a", ""},
		{"a ring that is reached lives whole", "a 1 b; b 1 c; c 1 a; d 7 b", "a b c d"},
		{"what is not there is passed over", "a 9 nothing b; b 1", "a b"},
		{"references stay in their cache", "a 9 b -- b 1", "a"},
		{"one name in two caches is two paths", "a 9; b 1 a -- a 1; b 9 a", "a a b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, names := plantText(t, c.paths)
			live := f.live(func(i int) bool { return f.days[i] >= 5 })
			if got := pick(names, live); got != c.since5 {
				t.Errorf("alive: %s; want %s", got, c.since5)
			}
		})
	}
}

func TestByUse(t *testing.T) {
	for _, c := range []struct {
		name, paths string
		order       string // of those that are determined
		pinned      int
	}{
		{"the newest first", "a 1; b 3; c 2", "b c a", 0},
		{"references before what refers to them", "a 1; b 3 a; c 2", "a b c", 0},
		{"pins before all, with what they refer to", "a* 1 d; b 3; c 2; d 1", "d a b c", 2},
		{"all pinned", "a* 1 b; b 2", "b a", 2},
		{"nothing", "", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, names := plantText(t, c.paths)
			order, pinned := f.byUse(f.live(func(int) bool { return true }))
			var got []string
			for _, i := range order {
				got = append(got, names[i])
			}
			if s := strings.Join(got, " "); s != c.order || pinned != c.pinned {
				t.Errorf("%s, %d pinned; want %s, %d", s, pinned, c.order, c.pinned)
			}
		})
	}
}

// Any prefix of byUse is closed, as long as there are no rings.
func TestPrefixesAreClosed(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		f := mkRandom(r, 1+r.IntN(60))
		live := f.live(func(i int) bool { return f.days[i] >= 3 })
		order, pinned := f.byUse(live)
		if len(order) != live.count() {
			t.Fatalf("%d in order, %d alive", len(order), live.count())
		}
		kept := mkBits(len(f.hashes))
		for k, i := range order {
			kept.set(int(i))
			for _, ref := range f.refsOf(int(i)) {
				if !kept.has(int(ref)) {
					t.Fatalf("path %d is kept at %d before its reference %d", i, k, ref)
				}
			}
		}
		for i := range f.hashes {
			if f.pinned(i) && slices.Index(order, uint32(i)) >= pinned {
				t.Fatalf("pinned path %d is not among the first %d", i, pinned)
			}
		}
	}
}

// mkRandom makes a forest of two trees without rings.
func mkRandom(r *rand.Rand, n int) *forest {
	f := new(forest)
	for range 2 {
		tr := f.plant()
		hashes := make([]nix.HashPart, n)
		for i := range hashes {
			hashes[i] = nix.HashPart{byte(i >> 8), byte(i), byte(r.Uint32())}
			f.add(hashes[i], uint32(r.IntN(6)), 0)
		}
		for i := range hashes {
			var refs []nix.HashPart
			for range r.IntN(4) {
				refs = append(refs, hashes[r.IntN(i+1)])
			}
			f.refer(tr, refs)
		}
		for range r.IntN(3) {
			f.pin(tr, hashes[r.IntN(n)])
		}
	}
	return f
}

func TestWhy(t *testing.T) {
	f, names := plantText(t, "a 9 b; b 1 c; c 1; p* 1 c; d 1; e 8 -- c 1")
	for name, want := range map[string]string{"a": "a", "b": "a b", "c": "p c", "d": "", "p": "p", "e": "e"} {
		i := slices.Index(names, name)
		var got []string
		for _, at := range f.why(i, func(i int) bool { return f.days[i] >= 5 }) {
			got = append(got, names[at])
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("why %s: %s; want %s", name, s, want)
		}
	}
	if i, ok := f.find(1, f.hashes[slices.Index(names, "c")]); !ok || f.treeOf(i) != 1 || f.why(i, func(int) bool { return false }) != nil {
		t.Errorf("c of the other cache: found %v at %d; nothing keeps it", ok, i)
	}
}

func TestFit(t *testing.T) {
	weights := []int64{5, 4, 3, 2, 1}
	weigh := func(i uint32) (int64, error) { return weights[i], nil }
	order := []uint32{0, 1, 2, 3, 4}
	for _, c := range []struct {
		name          string
		pinned        int
		limit         int64
		kept          int
		bytes         int64
		pinnedTooMuch bool
	}{
		{"all fit", 0, 15, 5, 15, false},
		{"the first that does not fit ends it, though later ones would", 0, 8, 1, 5, false},
		{"none", 0, 4, 0, 0, false},
		{"pins are kept, however large", 2, 4, 2, 9, true},
		{"pins count", 2, 12, 3, 12, false},
	} {
		kept, bytes, err := fit(order, c.pinned, c.limit, weigh)
		if kept != c.kept || bytes != c.bytes || err != nil {
			t.Errorf("%s: kept %d of %d bytes, %v; want %d, %d", c.name, kept, bytes, err, c.kept, c.bytes)
		}
	}
	broken := errors.New("broken")
	if _, _, err := fit(order, 0, 9, func(uint32) (int64, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of weigh", err)
	}
}

// TestByUseWithinADay: a quota takes what was pushed first, although the log notes uses by
// the day.
func TestByUseWithinADay(t *testing.T) {
	f := new(forest)
	tr := f.plant()
	for i, made := range []uint32{30, 10, 40, 20} {
		day := uint32(2)
		if made == 40 {
			day = 1
		}
		f.add(nix.HashPart{byte(i)}, day, made)
	}
	for range f.hashes {
		f.refer(tr, nil)
	}
	all := mkBits(len(f.hashes))
	for i := range f.hashes {
		all.set(i)
	}
	if order, _ := f.byUse(all); !slices.Equal(order, []uint32{0, 3, 1, 2}) {
		t.Errorf("kept are %v, in this order; want the newest of the newest day first", order)
	}
}
