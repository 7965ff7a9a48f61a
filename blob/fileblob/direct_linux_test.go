package fileblob_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/celler/celler/blob/fileblob"
)

// What is large is written past the page cache, as far as its place in memory and its length
// allow, and is the same bytes.
func TestLargeBodies(t *testing.T) {
	const mib = 1 << 20
	dir := t.TempDir()
	probe, err := os.OpenFile(filepath.Join(dir, "probe"), os.O_CREATE|os.O_WRONLY|syscall.O_DIRECT, 0o600)
	can := err == nil
	if can {
		probe.Close()
	}
	memory := make([]byte, 6*mib) // of this size, it begins where a page does
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range memory {
		memory[i] = byte(rng.Uint32())
	}
	for _, c := range []struct{ from, n, direct int }{
		{0, mib - 1, 0},
		{0, mib, mib},
		{0, mib + 1, mib},
		{0, mib + 4096, mib + 4096},
		{0, 5*mib + 4095, 5 * mib},
		{1, mib, 0},
		{512, 2 * mib, 0},
		{4096, 2*mib + 77, 2 * mib},
	} {
		body := memory[c.from : c.from+c.n]
		name := filepath.Join(dir, fmt.Sprint(c.from, "-", c.n))
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		direct, err := fileblob.Write(f, body)
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
		if can && direct != c.direct {
			t.Errorf("of %d bytes at %d, %d were written directly, want %d", c.n, c.from, direct, c.direct)
		}
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s has %d bytes, %v, want the %d that were written", name, len(got), err, c.n)
		}
	}
}

// A direct write that fails is made again in the ordinary way, which says why.
func TestLargeBodyThatCannotBeWritten(t *testing.T) {
	name := filepath.Join(t.TempDir(), "object")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name) // to be read
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if direct, err := fileblob.Write(f, make([]byte, 2<<20)); err == nil || direct != 0 {
		t.Errorf("%d bytes were written directly, %v, want an error", direct, err)
	}
}
