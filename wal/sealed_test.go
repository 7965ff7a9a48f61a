package wal_test

import (
	"bytes"
	"os"
	"reflect"
	"testing"

	"github.com/celler/celler/wal"
)

// A flipped bit in ROOT or FORMAT is noticed, wherever it is, unless it changes nothing.
func TestSealed(t *testing.T) {
	for file, decode := range map[string]func([]byte) (any, error){
		"testdata/root-v1.json":   func(src []byte) (any, error) { return wal.DecodeRoot(src) },
		"testdata/format-v1.json": func(src []byte) (any, error) { return wal.DecodeFormat(src) },
	} {
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := decode(good)
		if err != nil {
			t.Fatal(err)
		}
		for i := range good {
			for bit := range 8 {
				bad := bytes.Clone(good)
				bad[i] ^= 1 << bit
				if got, err := decode(bad); err == nil && !reflect.DeepEqual(got, want) {
					t.Errorf("%s: bit %d of byte %d (%q) flipped is not noticed: %+v", file, bit, i, good[i], got)
				}
			}
		}
	}
}

// What was written before there was a sum is believed.
func TestUnsealed(t *testing.T) {
	root, err := os.ReadFile("testdata/root-v1-unsealed.json")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := wal.DecodeRoot(root); err != nil || r.By != "celler-1/golden" {
		t.Errorf("ROOT decodes to %+v, %v", r, err)
	}
	format, err := os.ReadFile("testdata/format-v1-unsealed.json")
	if err != nil {
		t.Fatal(err)
	}
	if f, err := wal.DecodeFormat(format); err != nil || f.Profile != "fast2016-16k" {
		t.Errorf("FORMAT decodes to %+v, %v", f, err)
	}
}
