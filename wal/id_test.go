package wal_test

import (
	"strings"
	"testing"

	"github.com/celler/celler/wal"
)

// FuzzIDs: what is read is what String writes, upper case aside, and nothing panics.
func FuzzIDs(f *testing.F) {
	f.Add("00000000000000ff")
	f.Add("000102030405060708090a0b0c0d0e0f")
	f.Add("12345678")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if seq, err := wal.ParseSeq(text); err == nil && seq.String() != strings.ToLower(text) {
			t.Errorf("ParseSeq(%q) = %v", text, seq)
		}
		if id, err := wal.ParseStoreID(text); err == nil && id.String() != strings.ToLower(text) {
			t.Errorf("ParseStoreID(%q) = %v", text, id)
		}
		if w, err := wal.ParseWriterID(text); err == nil && w.String() != strings.ToLower(text) {
			t.Errorf("ParseWriterID(%q) = %v", text, w)
		}
		if n, err := wal.DecodeUint64([]byte(text)); err == nil && string(wal.AppendUint64(nil, n)) != text {
			t.Errorf("DecodeUint64(%q) = %d", text, n)
		}
	})
}
