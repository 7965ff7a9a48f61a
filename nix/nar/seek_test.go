package nar_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/celler/celler/nix/nar"
)

// watched counts what is read of it.
type watched struct {
	*bytes.Reader
	read int
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.read += n
	return n, err
}

// TestSeekReader lists a NAR of two large files and small ones without reading the large.
func TestSeekReader(t *testing.T) {
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	large := bytes.Repeat([]byte("large"), 1_000_000)
	file := func(name string, content []byte) {
		t.Helper()
		if err := errors.Join(w.Regular(name, false, int64(len(content)))); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Directory(""); err != nil {
		t.Fatal(err)
	}
	file("a", large)
	file("b", []byte("small"))
	file("c", large[:len(large)-3])
	file("d", nil)
	if err := errors.Join(w.EndDirectory(), w.Close()); err != nil {
		t.Fatal(err)
	}
	list := func(r *nar.Reader) (string, error) {
		var l nar.Lister
		for {
			h, err := r.Next()
			if err == io.EOF { //nolint:errorlint // Next returns the bare one
				out, err := l.Finish()
				return string(out), err
			}
			if err != nil {
				return "", err
			}
			l.Entry(h)
		}
	}
	want, err := list(nar.NewReader(bytes.NewReader(b.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	src := &watched{Reader: bytes.NewReader(b.Bytes())}
	if got, err := list(nar.NewSeekReader(src)); got != want || err != nil {
		t.Errorf("%v, listing\n%s, want\n%s", err, got, want)
	}
	if src.read > 1<<20 {
		t.Errorf("%d of %d bytes were read", src.read, b.Len())
	}
	for _, cut := range []int{1, 100, len(large) / 2, len(large), len(large) + 200, b.Len() - 1000, b.Len() - 1} {
		if _, err := list(nar.NewSeekReader(bytes.NewReader(b.Bytes()[:cut]))); err == nil {
			t.Errorf("cut at %d of %d: no error", cut, b.Len())
		}
	}
}
