package nixtest

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nar"
)

func TestMkClosure(t *testing.T) {
	paths := MkClosure(t, 1, 20, 10_000)
	again := MkClosure(t, 1, 20, 10_000)
	seen := map[nix.StorePath]bool{}
	key := MkSecretKey(t, "test-1")
	for i, p := range paths {
		if !bytes.Equal(p.NAR, again[i].NAR) || p.Info.String() != again[i].Info.String() {
			t.Errorf("%v: not the same twice", p.Info.StorePath)
		}
		for _, ref := range p.Info.References {
			if ref != p.Info.StorePath && !seen[ref] {
				t.Errorf("%v: reference %v does not come before", p.Info.StorePath, ref)
			}
		}
		seen[p.Info.StorePath] = true
		s, err := nar.Verify(bytes.NewReader(p.NAR))
		if err != nil || s.NarHash != p.Info.NarHash || s.NarSize != p.Info.NarSize {
			t.Errorf("%v: %+v, %v", p.Info.StorePath, s, err)
		}
		if d := cmp.Diff(p.Tree, ReadNAR(t, p.NAR)); d != "" {
			t.Error(d)
		}
		info := p.Sign(t, key)
		fp, err := info.Fingerprint()
		if err != nil || !nix.VerifyAny([]nix.PublicKey{key.Public()}, fp, info.Sig) {
			t.Errorf("%v: not signed: %v", p.Info.StorePath, err)
		}
		if len(p.Info.Sig) != 0 {
			t.Error("Sign signs the original")
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d different paths", len(seen))
	}
	if other := MkClosure(t, 2, 1, 10_000); seen[other[0].Info.StorePath] {
		t.Error("another seed, the same path")
	}
}

// TestRealTwin moves a closure from one real store to another through a cache in
// a directory, as the end-to-end tests do through ours.
func TestRealTwin(t *testing.T) {
	n := Real(t)
	top := n.Build(t, Chain, "top")
	key := MkSecretKey(t, "test-1")
	secret := filepath.Join(n.Dir, "key")
	WriteTree(t, secret, Text(key.Secret()))
	cache := "file://" + filepath.Join(n.Dir, "cache")
	n.Run(t, "nix", "copy", "--to", cache+"?secret-key="+secret+"&compression=none", top.String())

	twin := n.Twin(t)
	wrong := []nix.PublicKey{MkSecretKey(t, "test-2").Public()}
	if err := twin.Substitute(t, cache, wrong, top); err == nil || !strings.Contains(err.Error(), "sign") {
		t.Errorf("with the wrong key: %v", err)
	}
	if err := twin.Substitute(t, cache, []nix.PublicKey{key.Public()}, top); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(n.DumpOf(t, top), twin.DumpOf(t, top)) {
		t.Error("the copy differs")
	}
}
