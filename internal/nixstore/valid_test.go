package nixstore

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// The real daemon lists what it has, and an indirect root keeps a path from a real
// collection until its link is gone.
func TestRealValidAndRoots(t *testing.T) {
	n := nixtest.Real(t)
	kept := n.Add(t, "kept", nixtest.MkTree(1, 2000))
	lost := n.Add(t, "lost", nixtest.MkTree(2, 2000))
	s, err := Open(t.Context(), stdio(n))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all, err := s.AllValidPaths(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []nix.StorePath{kept, lost} {
		if !slices.Contains(all, p) {
			t.Errorf("%v is not among the valid paths %v", p, all)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(kept.String(), link); err != nil {
		t.Fatal(err)
	}
	if err := s.AddIndirectRoot(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	if err := s.AddIndirectRoot(t.Context(), "a/relative/link"); err == nil {
		t.Error("a relative link was taken")
	}
	wantValid := func(want ...nix.StorePath) {
		t.Helper()
		n.Run(t, "nix-store", "--gc")
		got, err := s.ValidPaths(t.Context(), []nix.StorePath{kept, lost})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("after a collection: %v %v, want %v", got, err, want)
		}
	}
	wantValid(kept)
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	wantValid()
}
