package nar_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/celler/celler/nix/nar"
)

func TestWriterRefuses(t *testing.T) {
	// A step does one thing; the last one, or Close, must fail.
	type step = func(w *nar.Writer) error
	dir := func(name string) step { return func(w *nar.Writer) error { return w.Directory(name) } }
	file := func(name string, size int64) step {
		return func(w *nar.Writer) error { return w.Regular(name, false, size) }
	}
	link := func(name, target string) step { return func(w *nar.Writer) error { return w.Symlink(name, target) } }
	write := func(s string) step {
		return func(w *nar.Writer) error { _, err := io.WriteString(w, s); return err }
	}
	end := func(w *nar.Writer) error { return w.EndDirectory() }
	closed := func(w *nar.Writer) error { return w.Close() }

	bad := func(why string, steps ...step) {
		t.Helper()
		w := nar.NewWriter(io.Discard)
		for i, s := range steps {
			err := s(w)
			if last := i == len(steps)-1; !last && err != nil {
				t.Errorf("%s: step %d: %v", why, i, err)
				return
			} else if last && (err == nil || !strings.Contains(err.Error(), why)) {
				t.Errorf("%s: got error %v", why, err)
			} else if last {
				if again := w.Close(); again == nil {
					t.Errorf("%s: Close forgets the error", why)
				}
			}
		}
	}
	bad("closed with 0 directories open", closed)
	bad("closed with 1 directories open", dir(""), closed)
	bad("empty name", file("a", 0))
	bad("single root", file("", 0), file("", 0))
	bad("single root", dir(""), end, dir(""))
	bad("not begun", end)
	bad("not begun", dir(""), end, end)
	bad("empty name", dir(""), file("", 0))
	bad(`"."`, dir(""), dir("."))
	bad(`".."`, dir(""), link("..", "x"))
	bad(`"a/b"`, dir(""), file("a/b", 0))
	bad("a name of 256 bytes", dir(""), file(strings.Repeat("n", 256), 0))
	bad(`does not sort after "b"`, dir(""), dir("b"), end, file("a", 0))
	bad(`does not sort after "b"`, dir(""), file("b", 0), file("b", 0))
	bad("target of 0 bytes", link("", ""))
	bad("target of 4096 bytes", link("", strings.Repeat("t", 4096)))
	bad("NUL in target", link("", "a\x00"))
	bad("3 bytes of the current file are missing", file("", 3), closed)
	bad("1 bytes of the current file are missing", dir(""), file("a", 3), write("ab"), file("b", 0))
	bad("1 bytes of the current file are missing", dir(""), file("a", 3), write("ab"), end)
	bad("2 bytes more", file("", 3), write("abcde"))
	bad("1 bytes more", dir(""), write("x"))
	bad("no size", file("", -1))
	bad("already closed", file("", 0), closed, closed)
	deep := []step{dir("")}
	for range nar.MaxDepth - 1 {
		deep = append(deep, dir("d"))
	}
	bad("nested", append(deep, dir("d"))...)
}

func TestReaderDepth(t *testing.T) {
	var buf bytes.Buffer
	w := nar.NewWriter(&buf)
	_ = w.Directory("")
	for range nar.MaxDepth - 1 {
		_ = w.Directory("d")
	}
	for range nar.MaxDepth {
		_ = w.EndDirectory()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := readAll(buf.Bytes()); err != nil {
		t.Errorf("deepest allowed: %v", err)
	}
	// One more level, assembled by hand.
	level := assemble(t, `"entry" "(" "name" "d" "node" "(" "type" "directory"`)
	deep := assemble(t, `"nix-archive-1" "(" "type" "directory"`)
	for range nar.MaxDepth {
		deep = append(deep, level...)
	}
	err := readAll(deep)
	if err == nil || !strings.Contains(err.Error(), "at most 2048 nested") {
		t.Errorf("one deeper: %v", err)
	}
	if perr := push(deep, 1000); perr == nil || perr.Error() != err.Error() {
		t.Errorf("verifier says %v", perr)
	}
}

// failAfter accepts n bytes.
type failAfter struct{ n int }

var errFull = errors.New("full")

func (f *failAfter) Write(b []byte) (int, error) {
	if len(b) > f.n {
		n := f.n
		f.n = 0
		return n, errFull
	}
	f.n -= len(b)
	return len(b), nil
}

func TestWriterPassesErrorsOn(t *testing.T) {
	for _, n := range []int{0, 10, 1 << 16, 1 << 17} {
		w := nar.NewWriter(&failAfter{n: n})
		_ = w.Regular("", false, 1<<18)
		_, err := w.Write(make([]byte, 1<<18))
		if err == nil {
			err = w.Close()
		}
		if !errors.Is(err, errFull) || !errors.Is(w.Close(), errFull) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// brokenReader fails with an error of its own.
type brokenReader struct {
	r   io.Reader
	err error
}

func (b brokenReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

func TestReaderPassesErrorsOn(t *testing.T) {
	errBroken := errors.New("connection reset")
	whole := mustVectors(t, "valid.txtar")[7].nar
	for n := range len(whole) + 1 {
		src := brokenReader{bytes.NewReader(whole[:n]), errBroken}
		r := nar.NewReader(src)
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, errBroken) {
			t.Errorf("after %d bytes: Next says %v", n, err)
		}
		if _, err := nar.Verify(brokenReader{bytes.NewReader(whole[:n]), errBroken}); !errors.Is(err, errBroken) {
			t.Errorf("after %d bytes: Verify says %v", n, err)
		}
	}
}

func TestReaderReset(t *testing.T) {
	vs := append(mustVectors(t, "invalid.txtar"), mustVectors(t, "valid.txtar")...)
	r, v := nar.NewReader(strings.NewReader("")), nar.NewVerifier()
	for i := range vs {
		vec := vs[len(vs)-1-i]
		want := readAll(vec.nar)
		r.Reset(bytes.NewReader(vec.nar))
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if (want == nil) != (err == io.EOF) || want != nil && want.Error() != err.Error() {
			t.Errorf("%s: %v, expected %v", vec.name, err, want)
		}
		v.Reset()
		if _, err = v.Write(vec.nar); err == nil {
			err = v.Close()
		}
		if (want == nil) != (err == nil) || want != nil && want.Error() != err.Error() {
			t.Errorf("%s: verifier says %v, expected %v", vec.name, err, want)
		}
	}
}

func TestListingRefusesOtherThanUTF8(t *testing.T) {
	for _, v := range []string{
		`"nix-archive-1" "(" "type" "symlink" "target" "\xff" ")"`,
		`"nix-archive-1" "(" "type" "directory" "entry" "(" "name" "\xff" "node" "(" "type" "regular" "contents" "" ")" ")" ")"`,
	} {
		b := assemble(t, v)
		if err := readAll(b); err != nil {
			t.Errorf("%s: %v", v, err)
		}
		if ls, err := nar.AppendListing(nil, bytes.NewReader(b)); err == nil {
			t.Errorf("%s: listed as %s", v, ls)
		}
	}
}
