package nar_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nar"
	"github.com/celler/celler/nix/nixtest"
)

var update = flag.Bool("update", false, "rewrite the expectations of testdata/vectors")

// A vector is one archive of testdata/vectors.
type vector struct {
	name string
	nar  []byte
	want map[string]string // by extension
}

func mustVectors(t testing.TB, file string) []vector {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", "vectors", file))
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	for _, f := range a.Files {
		name, ext, _ := strings.Cut(f.Name, ".")
		if ext == "nar" {
			vs = append(vs, vector{name: name, nar: assemble(t, string(f.Data)), want: map[string]string{}})
			continue
		}
		if v := &vs[len(vs)-1]; v.name == name {
			v.want[ext] = strings.TrimSuffix(string(f.Data), "\n")
		}
	}
	return vs
}

// assemble turns the directives of a vector into bytes.
func assemble(t testing.TB, text string) []byte {
	t.Helper()
	var out []byte
	unquote := func() string {
		q, err := strconv.QuotedPrefix(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		text = text[len(q):]
		s, err := strconv.Unquote(q)
		if err != nil {
			t.Fatalf("%q: %v", q, err)
		}
		return s
	}
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		switch {
		case text[0] == '"':
			s := unquote()
			out = binary.LittleEndian.AppendUint64(out, uint64(len(s)))
			out = append(out, s...)
			out = append(out, make([]byte, -len(s)&7)...)
		case strings.HasPrefix(text, "raw "):
			text = strings.TrimSpace(text[4:])
			out = append(out, unquote()...)
		case strings.HasPrefix(text, "len "):
			var n int64
			if _, err := fmt.Sscanf(text, "len %d", &n); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			out = binary.LittleEndian.AppendUint64(out, uint64(n))
			text = strings.TrimLeft(text[4:], "-0123456789")
		default:
			t.Fatalf("no directive: %q", text)
		}
	}
	return out
}

// rewrite fills in the expectations of a file of vectors.
func rewrite(t *testing.T, file string, want map[string][]txtar.File) {
	t.Helper()
	path := filepath.Join("testdata", "vectors", file)
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var files []txtar.File
	for _, f := range a.Files {
		if name, ok := strings.CutSuffix(f.Name, ".nar"); ok {
			files = append(append(files, f), want[name]...)
		}
	}
	a.Files = files
	if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readAll reads an archive with a Reader, contents included, and says what it
// thought of it.
func readAll(b []byte) error {
	return readWith(nar.NewReader(bytes.NewReader(b)), b)
}

// readWith is readAll with a Reader that is about to read b.
func readWith(r *nar.Reader, b []byte) error {
	for {
		h, err := r.Next()
		if err == io.EOF {
			if r.Offset() != int64(len(b)) {
				return fmt.Errorf("stopped at offset %d of %d", r.Offset(), len(b))
			}
			return nil
		}
		if err != nil {
			return err
		}
		if h.Type == nar.Regular {
			if got, err := io.ReadAll(r); err != nil {
				return err
			} else if !bytes.Equal(got, b[h.ContentOffset:h.ContentOffset+h.Size]) {
				return fmt.Errorf("contents of %q are not at offset %d", h.Path, h.ContentOffset)
			}
		}
	}
}

// push writes an archive to a Verifier in pieces of n bytes.
func push(b []byte, n int) error {
	v := nar.NewVerifier()
	for len(b) > 0 {
		k := min(n, len(b))
		if _, err := v.Write(b[:k]); err != nil {
			return err
		}
		b = b[k:]
	}
	return v.Close()
}

func TestValidVectors(t *testing.T) {
	updates := map[string][]txtar.File{}
	for _, v := range mustVectors(t, "valid.txtar") {
		t.Run(v.name, func(t *testing.T) {
			if err := readAll(v.nar); err != nil {
				t.Errorf("reader: %v", err)
			}
			for _, n := range []int{1, 3, 8, 13, len(v.nar)} {
				if err := push(v.nar, n); err != nil {
					t.Errorf("verifier, in pieces of %d: %v", n, err)
				}
			}
			s, err := nar.Verify(bytes.NewReader(v.nar))
			if err != nil {
				t.Fatal(err)
			}
			if s.NarSize != int64(len(v.nar)) {
				t.Errorf("size %d, expected %d", s.NarSize, len(v.nar))
			}
			ls, err := nar.AppendListing(nil, bytes.NewReader(v.nar))
			if err != nil {
				t.Fatal(err)
			}
			if !json.Valid(ls) {
				t.Errorf("no JSON: %s", ls)
			}
			if *update {
				updates[v.name] = []txtar.File{
					{Name: v.name + ".sha256", Data: []byte(s.NarHash.Nix32() + "\n")},
					{Name: v.name + ".ls", Data: append(ls, '\n')},
				}
				return
			}
			if got := s.NarHash.Nix32(); got != v.want["sha256"] {
				t.Errorf("hash %s, expected %s", got, v.want["sha256"])
			}
			if d := cmp.Diff(v.want["ls"], string(ls)); d != "" {
				t.Error(d)
			}
			if again := nixtest.MkNAR(t, nixtest.ReadNAR(t, v.nar)); !bytes.Equal(again, v.nar) {
				t.Errorf("read and written again: %q", again)
			}
		})
	}
	if *update {
		rewrite(t, "valid.txtar", updates)
	}
}

func TestInvalidVectors(t *testing.T) {
	updates := map[string][]txtar.File{}
	for _, v := range mustVectors(t, "invalid.txtar") {
		t.Run(v.name, func(t *testing.T) {
			err := readAll(v.nar)
			e, is := errors.AsType[*nar.SyntaxError](err)
			if !is {
				t.Fatalf("reader: %v", err)
			}
			if e.Offset < 0 || e.Offset > int64(len(v.nar)) {
				t.Errorf("offset %d of %d", e.Offset, len(v.nar))
			}
			if *update {
				updates[v.name] = []txtar.File{{Name: v.name + ".err", Data: []byte(err.Error() + "\n")}}
				return
			}
			if d := cmp.Diff(v.want["err"], err.Error()); d != "" {
				t.Error(d)
			}
			for _, n := range []int{1, 3, 8, 13, len(v.nar)} {
				if perr := push(v.nar, n); !cmp.Equal(fmt.Sprint(err), fmt.Sprint(perr)) {
					t.Errorf("in pieces of %d: verifier says %v, reader %v", n, perr, err)
				}
			}
			if _, err := nar.Verify(bytes.NewReader(v.nar)); err == nil {
				t.Error("Verify accepts it")
			}
			if _, err := nar.AppendListing(nil, bytes.NewReader(v.nar)); err == nil {
				t.Error("AppendListing accepts it")
			}
		})
	}
	if *update {
		rewrite(t, "invalid.txtar", updates)
	}
}

// TestTruncation cuts every valid vector at every byte.
func TestTruncation(t *testing.T) {
	for _, v := range mustVectors(t, "valid.txtar") {
		for n := range len(v.nar) {
			short := v.nar[:n]
			err := readAll(short)
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s cut at %d of %d: reader says %v", v.name, n, len(v.nar), err)
			}
			if e, is := errors.AsType[*nar.SyntaxError](err); !is || e.Offset != int64(n) {
				t.Fatalf("%s cut at %d of %d: %v", v.name, n, len(v.nar), err)
			}
			for _, k := range []int{1, 7, max(n, 1)} {
				if perr := push(short, k); fmt.Sprint(perr) != fmt.Sprint(err) {
					t.Fatalf("%s cut at %d of %d: verifier says %v, reader %v", v.name, n, len(v.nar), perr, err)
				}
			}
		}
	}
}

// TestBitFlips flips every bit of a small archive: whatever comes of it,
// Reader and Verifier agree, and only a change of contents or of a name or
// target goes unnoticed.
func TestBitFlips(t *testing.T) {
	r := nar.NewReader(nil)
	for _, v := range mustVectors(t, "valid.txtar") {
		b := bytes.Clone(v.nar)
		for i := range b {
			for bit := range 8 {
				b[i] ^= 1 << bit
				r.Reset(bytes.NewReader(b))
				rerr, perr := readWith(r, b), push(b, 5)
				if fmt.Sprint(rerr) != fmt.Sprint(perr) {
					t.Fatalf("%s, bit %d of byte %d: reader says %v, verifier %v", v.name, bit, i, rerr, perr)
				}
				if rerr == nil && sha256.Sum256(nixtest.MkNAR(t, nixtest.ReadNAR(t, b))) != sha256.Sum256(b) {
					t.Fatalf("%s, bit %d of byte %d: accepted, but it is not what its tree is written as", v.name, bit, i)
				}
				b[i] ^= 1 << bit
			}
		}
	}
}

// TestRealVectors compares the vectors with what the real nix writes, restores
// and lists.
func TestRealVectors(t *testing.T) {
	n := nixtest.Real(t)
	for _, v := range mustVectors(t, "valid.txtar") {
		t.Run(v.name, func(t *testing.T) {
			dir := filepath.Join(n.Dir, "tmp", v.name)
			nixtest.WriteTree(t, dir, nixtest.ReadNAR(t, v.nar))
			if got := n.Output(t, nil, "nix-store", "--dump", dir); !bytes.Equal(got, v.nar) {
				t.Errorf("nix-store --dump gives %q, the vector is %q", got, v.nar)
			}
			h, err := nix.ParseHashAs(nix.SHA256, n.Run(t, "nix-hash", "--type", "sha256", "--base32", dir))
			if err != nil || h.Nix32() != v.want["sha256"] {
				t.Errorf("nix-hash says %v, %v, the vector %s", h, err, v.want["sha256"])
			}
			file := filepath.Join(n.Dir, v.name+".nar")
			if err := os.WriteFile(file, v.nar, 0o644); err != nil {
				t.Fatal(err)
			}
			wantSameListing(t, n.Output(t, nil, "nix", "nar", "ls", "--json", "--recursive", file, "/"), v.want["ls"])
		})
	}
	for _, v := range mustVectors(t, "invalid.txtar") {
		// These nix 2.8 accepts or dies of; later versions refuse them too.
		switch v.name {
		case "magic-enormous", "contents-enormous", "contents-negative":
			continue // it tries to allocate them
		}
		_, err := n.TryOutput(t, v.nar, "nix-store", "--restore", filepath.Join(n.Dir, "tmp", "restored-"+v.name))
		if err == nil && !stricterThan28(v.name) {
			t.Errorf("%s: nix restores it, we say %s", v.name, v.want["err"])
		}
	}
}

// stricterThan28 lists what we refuse although nix 2.8 restores it: it would
// dump the result as other bytes, so that no narinfo could be right about both.
func stricterThan28(name string) bool {
	switch name {
	case "regular-without-contents", "executable-without-contents", "executable-with-value", "executable-twice",
		"executable-after-contents", "contents-twice", "symlink-target-twice", "trailing-byte", "trailing-archive",
		"last-padding-missing", "last-padding-short", "directory-closed-twice", "no-type", "entry-without-node",
		"symlink-without-target", "symlink-with-nul",
		"names-out-of-order", "names-out-of-order-inside", "names-out-of-order-prefix":
		return true
	}
	return false
}

// wantSameListing compares listings by meaning: nix leaves out what is zero and
// gives only the root node, without a version.
func wantSameListing(t *testing.T, real []byte, ours string) {
	t.Helper()
	var got struct {
		Version int
		Root    any
	}
	var want any
	if err := json.Unmarshal([]byte(ours), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(real, &want); err != nil {
		t.Fatalf("%s: %v", real, err)
	}
	if d := cmp.Diff(want, got.Root); d != "" || got.Version != 1 {
		t.Errorf("version %d, %s", got.Version, d)
	}
}
