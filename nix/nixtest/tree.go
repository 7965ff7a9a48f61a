package nixtest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/celler/celler/nix/nar"
)

// A Node is one node of a file tree: a File, a Link or a Dir.
type Node interface{ node() }

// File is a regular file.
type File struct {
	Contents   []byte
	Executable bool
}

// Link is a symlink with its target.
type Link string

// Dir is a directory.
type Dir map[string]Node

func (File) node() {}
func (Link) node() {}
func (Dir) node()  {}

// Text is a regular file with the contents s.
func Text(s string) File { return File{Contents: []byte(s)} }

// Script is an executable file with the contents s.
func Script(s string) File { return File{Contents: []byte(s), Executable: true} }

// MkNAR serialises a tree.
func MkNAR(t testing.TB, root Node) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := nar.NewWriter(&buf)
	if err := writeNAR(w, "", root); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func writeNAR(w *nar.Writer, name string, n Node) error {
	switch n := n.(type) {
	case File:
		if err := w.Regular(name, n.Executable, int64(len(n.Contents))); err != nil {
			return err
		}
		_, err := w.Write(n.Contents)
		return err
	case Link:
		return w.Symlink(name, string(n))
	case Dir:
		if err := w.Directory(name); err != nil {
			return err
		}
		for _, k := range slices.Sorted(maps.Keys(n)) {
			if err := writeNAR(w, k, n[k]); err != nil {
				return err
			}
		}
		return w.EndDirectory()
	}
	return fmt.Errorf("%q: no node", name)
}

// ReadNAR is the inverse of MkNAR.
func ReadNAR(t testing.TB, b []byte) Node {
	t.Helper()
	r := nar.NewReader(bytes.NewReader(b))
	var root Node
	var open []Dir // open[i] holds entries i+1 names deep
	for {
		h, err := r.Next()
		if err == io.EOF {
			return root
		}
		if err != nil {
			t.Fatal(err)
		}
		var n Node
		switch h.Type {
		case nar.Directory:
			n = Dir{}
		case nar.Symlink:
			n = Link(h.Target)
		case nar.Regular:
			f := File{Executable: h.Executable}
			if f.Contents, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
			n = f
		}
		if h.Depth == 0 {
			root = n
		} else {
			open = open[:h.Depth]
			open[h.Depth-1][string(h.Name())] = n
		}
		if d, ok := n.(Dir); ok {
			open = append(open, d)
		}
	}
}

// WriteTree makes the tree at path, which must not exist yet.
func WriteTree(t testing.TB, path string, root Node) {
	t.Helper()
	if err := writeTree(path, root); err != nil {
		t.Fatal(err)
	}
}

func writeTree(path string, n Node) error {
	switch n := n.(type) {
	case File:
		mode := os.FileMode(0o644)
		if n.Executable {
			mode = 0o755
		}
		return os.WriteFile(path, n.Contents, mode)
	case Link:
		return os.Symlink(string(n), path)
	case Dir:
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		for name, child := range n {
			if err := writeTree(filepath.Join(path, name), child); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%s: no node", path)
}

// MkTree makes a tree like those of real store paths, the same for the same
// seed: most files small, some large, with executables, symlinks, empty files
// and empty directories, about size bytes in all.
func MkTree(seed uint64, size int) Dir {
	rng := mkRand(seed)
	root := Dir{"bin": Dir{}, "lib": Dir{}, "share": Dir{"doc": Dir{}, "empty": Dir{}}}
	dirs := []Dir{root["bin"].(Dir), root["lib"].(Dir), root["share"].(Dir), root["share"].(Dir)["doc"].(Dir)}
	for i := 0; size > 0; i++ {
		d := dirs[rng.IntN(len(dirs))]
		name := fmt.Sprintf("%s-%d", words[rng.IntN(len(words))], i)
		switch k := rng.IntN(20); {
		case k == 0:
			d[name] = Link("../lib/" + name)
		case k == 1:
			d[name] = File{Contents: []byte{}}
		case k == 2:
			sub := Dir{}
			d[name] = sub
			dirs = append(dirs, sub)
		default:
			n := min(1+int(rng.ExpFloat64()*8000), size)
			if k == 3 {
				n = min(n*40, size)
			}
			size -= n
			d[name] = File{Contents: mkContents(rng, n), Executable: k == 4}
		}
	}
	return root
}

// mkContents makes bytes that compress about as well as programs do: words and
// noise by turns.
func mkContents(rng *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+64)
	for len(b) < n {
		if rng.IntN(3) == 0 {
			for range 32 {
				b = append(b, byte(rng.Uint32()))
			}
			continue
		}
		for range 8 {
			b = append(b, words[rng.IntN(len(words))]...)
			b = append(b, ' ')
		}
	}
	return b[:n]
}

func mkRand(seed uint64) *rand.Rand {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.New(rand.NewChaCha8(key))
}

var words = [...]string{
	"attribute", "build", "closure", "derivation", "evaluate", "fetch", "garbage", "hash", "input",
	"join", "kernel", "library", "module", "nixpkgs", "output", "package", "query", "realise",
	"store", "substitute", "tree", "unpack", "version", "wrapper", "xattr", "yield", "zone",
}
