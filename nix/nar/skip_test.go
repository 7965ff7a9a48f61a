package nar_test

import (
	"bytes"
	"testing"

	"github.com/celler/celler/nix/nar"
)

// TestSkip: whoever passes over contents comes to the same verdict, at the same place.
func TestSkip(t *testing.T) {
	var buf bytes.Buffer
	w := nar.NewWriter(&buf)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.Directory(""))
	for i, n := range []int{0, 1, 8, 1000, 70000} {
		must(w.Regular(string(rune('a'+i)), i%2 == 0, int64(n)))
		_, err := w.Write(bytes.Repeat([]byte{'x'}, n))
		must(err)
	}
	must(w.Symlink("z", "target"))
	must(w.EndDirectory())
	must(w.Close())
	whole := buf.Bytes()

	judge := func(b []byte, step int, skip bool) (int64, int, error) {
		v := nar.NewVerifier()
		entries, read := 0, 0
		v.OnEntry = func(*nar.Header) { entries++ }
		for at := 0; at < len(b); {
			if n := min(v.Contents(), int64(len(b)-at)); skip && n > 0 {
				v.Skip(n)
				at += int(n)
				continue
			}
			n := min(step, len(b)-at)
			m, err := v.Write(b[at : at+n])
			read += m
			if err != nil {
				return v.Size(), entries, err
			}
			at += n
		}
		if skip && step == 1 && read > 2000 {
			t.Errorf("%d bytes were read, want only what is no contents", read)
		}
		err := v.Close()
		return v.Size(), entries, err
	}
	bad := bytes.Clone(whole)
	bad[len(bad)-1] = 1
	for _, b := range [][]byte{whole, bad, whole[:len(whole)-100], whole[:60000], append(bytes.Clone(whole), 0)} {
		wantSize, wantEntries, wantErr := judge(b, 1<<20, false)
		for _, step := range []int{1, 7, 64} {
			size, entries, err := judge(b, step, true)
			if err != nil {
				size = wantSize // how much was taken in before the mistake depends on the steps
			}
			if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() || size != wantSize || entries != wantEntries {
				t.Errorf("%d bytes in steps of %d: %v after %d bytes and %d entries, want %v, %d, %d", len(b), step, err, size, entries, wantErr, wantSize, wantEntries)
			}
		}
	}
}
