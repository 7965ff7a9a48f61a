package httpapi

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// FuzzFileNames parses what stands in URLs: what is accepted has one spelling, and stays
// in its folder.
func FuzzFileNames(f *testing.F) {
	hash := strings.Repeat("0", nix32SHA256)
	for _, name := range []string{
		hash + ".nar.xz", hash + ".nar", "x.nar", "00bgd045z0d4icpbc2yyz4gx48ak44la-x.drv", "0123456789abcdef.debug",
		"sha256:" + strings.Repeat("a", 64) + "!out.doi", "out.doi", "..", "a/b",
	} {
		f.Add(name, "out.doi")
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		if fileHash, format, exact, ok := parseFileName(one); ok {
			again := strings.TrimPrefix(nix.SHA256Hash(fileHash).Nix32(), "sha256:") + aliasSuffix
			if !strings.HasPrefix(one, again) || exact == (one == again) {
				t.Errorf("%q is file %x in %v, exact %v", one, fileHash, format, exact)
			}
		}
		for pattern, kind := range sideRoutes() {
			name, err := kind.name(nix.DefaultStoreDir, one, two)
			if err != nil {
				continue
			}
			side := catalog.Side{Kind: kind.kind, Name: name}
			if err := side.Valid(); err != nil {
				t.Errorf("%s: %q and %q make a name that cannot be kept: %v", pattern, one, two, err)
			}
		}
	})
}

// FuzzWalk looks for files in trees of links: it ends, and finds nothing outside.
func FuzzWalk(f *testing.F) {
	tree := `{"type":"directory","entries":{"a":{"type":"symlink","target":"../b"},"b":{"type":"directory","entries":{"c":{"type":"regular","size":1}}},"l":{"type":"symlink","target":"l"}}}`
	f.Add([]byte(tree), "b/c")
	f.Add([]byte(tree), "a/../l/x")
	path := nixtest.MkStorePath(f, "p")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		root := &file{}
		if json.Unmarshal(text, root) != nil || !sane(root) {
			return
		}
		found, out, err := walk(root, path, strings.Split(name, "/"))
		if err == nil && out == "" && (found == nil || found.Type == "symlink") {
			t.Errorf("%q leads to %+v", name, found)
		}
		if strings.HasPrefix(out, path.Base()+"/") || strings.HasPrefix(out, "/") {
			t.Errorf("%q leads out to %q", name, out)
		}
	})
}

// sane trees are those that a listing can be.
func sane(f *file) bool {
	if f == nil || f.Type != "directory" && len(f.Entries) > 0 {
		return false
	}
	for name, e := range f.Entries {
		if name == "" || name == "." || name == ".." || strings.Contains(name, "/") || !sane(e) {
			return false
		}
	}
	return true
}

// FuzzOwner reads side objects that anybody may have written.
func FuzzOwner(f *testing.F) {
	f.Add([]byte(`{"outPath":"00bgd045z0d4icpbc2yyz4gx48ak44la-x"}`))
	f.Add([]byte(`{"archive":"../nar/` + strings.Repeat("0", nix32SHA256) + `.nar.xz"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, kind := range []catalog.SideKind{catalog.SideDebugInfo, catalog.SideRealisation, catalog.SideBuildTrace} {
			s := catalog.Side{Kind: kind, Name: "x"}
			if s.OwnerKind, s.Owner = ownerOf(text, kind, nix.DefaultStoreDir); s.Valid() != nil {
				t.Errorf("%q has an owner that cannot be kept: %v", text, s.Valid())
			}
		}
	})
}

// FuzzListNar lists archives that are none.
func FuzzListNar(f *testing.F) {
	f.Add(nixtest.MkNAR(f, nixtest.MkTree(1, 2000)))
	f.Fuzz(func(t *testing.T, nar []byte) {
		text, err := listNar(bytes.NewReader(nar))
		if err != nil {
			return
		}
		if root, err := tree(text); err != nil || !sane(root) {
			t.Errorf("listing %s: %v", text, err)
		}
	})
}
