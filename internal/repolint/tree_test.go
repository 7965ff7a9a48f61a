package repolint

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// pkg is what go list says of one package, and its files parsed.
type pkg struct {
	ImportPath  string
	Dir         string
	Name        string
	Doc         string
	GoFiles     []string
	Imports     []string
	Deps        []string
	TestGoFiles []string

	folder string // ImportPath without the module
	files  map[string]*ast.File
}

// tree loads every package of the module once for all tests.
var tree = sync.OnceValues(func() ([]*pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Name,Doc,GoFiles,Imports,Deps,TestGoFiles", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		os.Stderr.Write(stderr.Bytes())
		return nil, err
	}
	var pkgs []*pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		p := &pkg{files: map[string]*ast.File{}}
		if err := dec.Decode(p); err != nil {
			return nil, err
		}
		p.folder = strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, Module), "/")
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			p.files[name] = f
		}
		pkgs = append(pkgs, p)
	}
	return pkgs, nil
})

var fset = token.NewFileSet()

func mustTree(t *testing.T) []*pkg {
	t.Helper()
	pkgs, err := tree()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return pkgs
}

// mustGoFiles returns every Go file in the tree by its path from the root, tests,
// build-tagged files and tools included, generated files not.
func mustGoFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "../.." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Contains(text[:min(len(text), 400)], []byte("// Code generated ")) {
			files[filepath.ToSlash(strings.TrimPrefix(path, "../../"))] = string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func isTest(file string) bool { return strings.HasSuffix(file, "_test.go") }

// mustDocs returns the joined text of the documents that match.
func mustDocs(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("../..", pattern))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
