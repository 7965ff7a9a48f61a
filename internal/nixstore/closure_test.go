package nixstore

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/celler/celler/nix"
)

func mkStore(t testing.TB, f *fakeDaemon) *Store {
	t.Helper()
	return mustOpen(t, listen(t, func(nc net.Conn) { f.serve(nc, nc) }))
}

// wantClosure asserts that the closure has exactly these paths, references first.
func wantClosure(t *testing.T, closure []PathInfo, paths []nix.StorePath) {
	t.Helper()
	var got []nix.StorePath
	for _, info := range closure {
		for _, ref := range info.References {
			if ref != info.StorePath && !slices.Contains(got, ref) {
				t.Errorf("%v comes before its reference %v", info.StorePath, ref)
			}
		}
		got = append(got, info.StorePath)
	}
	if d := diff(unique(paths), unique(got)); d != "" || len(got) != len(paths) {
		t.Errorf("%d paths: %s", len(got), d)
	}
}

// TestLargeClosure is long enough to fill every buffer on the way if requests
// were written without reading answers.
func TestLargeClosure(t *testing.T) {
	const n = 20_000
	infos := map[string]PathInfo{}
	paths := make([]nix.StorePath, 0, n)
	for i := range n {
		p := mkPath(t, byte(i), byte(i>>8), 9)
		info := PathInfo{StorePath: p, NarHash: nix.SHA256Hash([32]byte{byte(i)}), NarSize: 1, CA: strings.Repeat("x", 300)}
		if i > 0 {
			info.References = unique([]nix.StorePath{paths[i/2], paths[i/3]}) // wide and shallow
		}
		infos[p.String()] = info
		paths = append(paths, p)
	}
	s := mkStore(t, &fakeDaemon{minor: 37, infos: infos})
	first, err := s.Closure(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	wantClosureFast(t, first, n)
	slices.Reverse(paths)
	second, err := s.Closure(t.Context(), append(paths, paths...))
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(first, second); d != "" {
		t.Errorf("the order of the roots matters: %s", d)
	}
	valid, err := s.ValidPaths(t.Context(), paths)
	if err != nil || len(valid) != n {
		t.Errorf("%d valid paths, %v", len(valid), err)
	}
	if err := s.AddTempRoot(t.Context(), paths...); err != nil {
		t.Error(err)
	}
}

func wantClosureFast(t *testing.T, closure []PathInfo, n int) {
	t.Helper()
	seen := map[nix.StorePath]bool{}
	for _, info := range closure {
		for _, ref := range info.References {
			if !seen[ref] {
				t.Fatalf("%v comes before its reference %v", info.StorePath, ref)
			}
		}
		seen[info.StorePath] = true
	}
	if len(seen) != n || len(closure) != n {
		t.Errorf("%d paths, %d different, expected %d", len(closure), len(seen), n)
	}
}

// TestDeepClosure is a chain: every level is one path.
func TestDeepClosure(t *testing.T) {
	paths, infos := mkInfos(t, 2000)
	s := mkStore(t, &fakeDaemon{minor: 38, infos: infos})
	closure, err := s.Closure(t.Context(), paths[len(paths)-1:])
	if err != nil {
		t.Fatal(err)
	}
	for i, info := range closure {
		if info.StorePath != paths[i] {
			t.Fatalf("position %d: %v, expected %v", i, info.StorePath, paths[i])
		}
	}
}

func TestClosureErrors(t *testing.T) {
	paths, infos := mkInfos(t, 4)
	a, b := paths[0], paths[1]

	cyclic := map[string]PathInfo{
		a.String(): {StorePath: a, NarHash: nix.SHA256Hash([32]byte{}), References: []nix.StorePath{b}},
		b.String(): {StorePath: b, NarHash: nix.SHA256Hash([32]byte{}), References: []nix.StorePath{a}},
	}
	s := mkStore(t, &fakeDaemon{minor: 38, infos: cyclic})
	if c, err := s.Closure(t.Context(), []nix.StorePath{a}); err == nil || !strings.Contains(err.Error(), "refer to each other") {
		t.Errorf("cycle: %v, %v", c, err)
	}

	delete(infos, paths[1].String())
	s = mkStore(t, &fakeDaemon{minor: 38, infos: infos})
	if c, err := s.Closure(t.Context(), paths[3:]); !errors.Is(err, ErrNotValid) || !strings.Contains(err.Error(), paths[1].String()) {
		t.Errorf("incomplete: %v, %v", c, err)
	}
	if c, err := s.Closure(t.Context(), nil); err != nil || len(c) != 0 {
		t.Errorf("of nothing: %v, %v", c, err)
	}
}
