package wal_test

import (
	"errors"
	"testing"

	"github.com/celler/celler/wal"
)

// TestErrorsSayWhatAndWhere pins the sentences: they are what an operator has.
func TestErrorsSayWhatAndWhere(t *testing.T) {
	want := func(err error, text string) {
		t.Helper()
		if err.Error() != text {
			t.Errorf("error is\n%s, want\n%s", err, text)
		}
	}
	want(&wal.CorruptError{Key: "log/1", Offset: 4, What: "magic", Want: `"CLS1"`, Got: `"XXXX"`},
		`log/1 is corrupt at offset 4: magic: want "CLS1", got "XXXX"`)
	want(&wal.CorruptError{What: "magic", Want: "a", Got: "b"}, `object is corrupt at offset 0: magic: want a, got b`)
	want(&wal.TooNewError{What: "FORMAT version", Found: "2", Known: "1"}, "FORMAT version is 2, this celler knows 1")
	want(&wal.ForeignError{Key: "ROOT", Store: wal.StoreID{1}, Own: wal.StoreID{2}},
		"ROOT belongs to store 01000000000000000000000000000000, not to 02000000000000000000000000000000")
	want(&wal.ForkError{Seq: 16, Detail: "two heads"}, "log is forked at slot 0000000000000010: two heads")
	want(&wal.TransitionError{Field: "floor", Old: "9", New: "8"}, "ROOT: floor must not go from 9 to 8")
	want(&wal.TooLargeError{Op: "publish", Bytes: 10, Max: 9}, `operation "publish" needs 10 bytes of entries, a segment holds 9`)
	want(&wal.EntryError{Op: "publish", Key: []byte("!x"), Reason: "is not yours"}, `operation "publish": entry "!x": is not yours`)
	doubt := &wal.InDoubtError{Seq: 3, Writer: wal.WriterID{1}, Batch: 2, Attempts: 5, Cause: errDenied}
	want(doubt, "batch 2 of writer 01000000000000000000000000000000 is in doubt at slot 0000000000000003 after 5 attempts: create: access denied")
	if !errors.Is(doubt, wal.ErrUnknown) || !errors.Is(doubt, errDenied) {
		t.Error("an InDoubtError must be ErrUnknown and its cause")
	}
}
