package httpapi

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// TestHoldings compares with what one would do by hand: a set of paths for each pin.
func TestHoldings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "paths")
		graph := map[nix.HashPart]heldPath{}
		for i := range n {
			var p heldPath
			for _, ref := range rapid.SliceOfN(rapid.IntRange(0, n), 0, 3).Draw(t, "refs") { // n is never there, circles are
				p.refs = append(p.refs, part(ref))
			}
			p.narBytes, p.fileBytes = int64(1)<<(2*i), int64(1)<<i // a sum tells which paths are in it
			graph[part(i)] = p
		}
		var pins [][]nix.HashPart
		for range rapid.IntRange(0, 5).Draw(t, "pins") {
			var roots []nix.HashPart
			for _, root := range rapid.SliceOfN(rapid.IntRange(0, n), 0, 3).Draw(t, "roots") {
				roots = append(roots, part(root))
			}
			pins = append(pins, roots)
		}

		sets := make([]map[nix.HashPart]bool, len(pins))
		var visit func(set map[nix.HashPart]bool, at nix.HashPart)
		visit = func(set map[nix.HashPart]bool, at nix.HashPart) {
			p, ok := graph[at]
			if !ok || set[at] {
				return
			}
			set[at] = true
			for _, ref := range p.refs {
				visit(set, ref)
			}
		}
		for i, roots := range pins {
			sets[i] = map[nix.HashPart]bool{}
			for _, root := range roots {
				visit(sets[i], root)
			}
		}
		wantAll, wantOnly := make([]wire.Holding, len(pins)), make([]wire.Holding, len(pins))
		add := func(to *wire.Holding, p heldPath) {
			to.Paths, to.NarBytes, to.FileBytes = to.Paths+1, to.NarBytes+p.narBytes, to.FileBytes+p.fileBytes
		}
		for i, set := range sets {
			for at := range set {
				add(&wantAll[i], graph[at])
				alone := true
				for j, other := range sets {
					alone = alone && (i == j || !other[at])
				}
				if alone {
					add(&wantOnly[i], graph[at])
				}
			}
		}

		asked := map[nix.HashPart]int{}
		all, only, err := countHoldings(context.Background(), pins, n, func(hashPart nix.HashPart) (heldPath, bool, error) {
			if asked[hashPart]++; asked[hashPart] > 1 {
				t.Fatalf("path %v was read twice", hashPart)
			}
			p, ok := graph[hashPart]
			return p, ok, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wantAll, all); diff != "" {
			t.Errorf("closures (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(wantOnly, only); diff != "" {
			t.Errorf("only (-want +got):\n%s", diff)
		}
	})
}

func TestHoldingsBounds(t *testing.T) {
	chain := func(hashPart nix.HashPart) (heldPath, bool, error) {
		return heldPath{refs: []nix.HashPart{part(int(hashPart[0]) + 1)}}, hashPart[0] < 10, nil
	}
	roots := [][]nix.HashPart{{part(0)}}
	if all, _, err := countHoldings(t.Context(), roots, 10, chain); err != nil || all[0].Paths != 10 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, _, err := countHoldings(t.Context(), roots, 9, chain); err == nil {
		t.Error("more paths than allowed were counted")
	}
	many := make([][]nix.HashPart, 10*holdingSteps)
	for i := range many {
		many[i] = roots[0]
	}
	if _, _, err := countHoldings(t.Context(), many, 10, chain); err == nil {
		t.Error("a graph was walked without end")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := countHoldings(gone, roots, 10, chain); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v for somebody who has gone", err)
	}
	broken := errors.New("broken")
	if _, _, err := countHoldings(t.Context(), roots, 10, func(nix.HashPart) (heldPath, bool, error) { return heldPath{}, false, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want the one of the lookup", err)
	}
}

func part(i int) nix.HashPart { return nix.HashPart{byte(i)} }
