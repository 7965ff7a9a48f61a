package nar_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/celler/celler/nix/nar"
	"github.com/celler/celler/nix/nixtest"
)

// FuzzReader holds Reader and Verifier against each other and against Writer:
// same verdict for any split, and what is accepted is what its tree is written
// as, byte for byte.
func FuzzReader(f *testing.F) {
	for _, file := range []string{"valid.txtar", "invalid.txtar"} {
		for _, v := range mustVectors(f, file) {
			f.Add(v.nar, 5)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		rerr := readAll(b)
		if perr := push(b, 1+max(n, 0)%4096); fmt.Sprint(perr) != fmt.Sprint(rerr) {
			t.Fatalf("reader says %v, verifier %v", rerr, perr)
		}
		if _, err := nar.AppendListing(nil, bytes.NewReader(b)); err == nil && rerr != nil {
			t.Fatalf("listed, though: %v", rerr)
		}
		if rerr == nil && !bytes.Equal(nixtest.MkNAR(t, nixtest.ReadNAR(t, b)), b) {
			t.Fatal("accepted, but it is not what its tree is written as")
		}
	})
}
