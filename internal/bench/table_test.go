package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPartOfATable runs one scenario of two again.
func TestPartOfATable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.md")
	if err := os.WriteFile(file, []byte("before\n"+tableBegin+"\n"+tableEnd+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	write := func(part bool, rows ...row) string {
		t.Helper()
		l := &lab{rows: rows}
		if err := replaceTable(file, l.table(), part); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write(false, row{scenario: "a", figure: "old"}, row{scenario: "b", figure: "kept"})
	text := write(true, row{scenario: "a", figure: "new"}, row{scenario: "c", figure: "more"})
	for part, want := range map[string]int{"| old |": 0, "| kept |": 1, "| new |": 1, "| more |": 1, "| scenario |": 1, "before\n": 1, "after\n": 1} {
		if got := strings.Count(text, part); got != want {
			t.Errorf("%q is %d times in it, want %d:\n%s", part, got, want, text)
		}
	}
}
