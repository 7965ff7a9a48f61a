package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFsckOfALostBookmark: what a bookmark kept is gone. No repair helps, and what does is
// said.
func TestFsckOfALostBookmark(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	call := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if code := run("celler", append(args, "--bucket", dir), strings.NewReader(""), &out, &out); code != want {
			t.Fatalf("celler %s: exit %d, want %d: %s", strings.Join(args, " "), code, want, out.String())
		}
		return out.String()
	}
	fold := []string{"compact", "--compact.log-retention", "0s", "--compact.keep-segments", "0"}
	call(0, "init")
	call(0, "gc", "run") // writes to the log
	call(0, "bookmark", "add", "before")
	call(0, fold...)
	kept, err := filepath.Glob(filepath.Join(dir, "snap", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("snapshots %v (%v), want one", kept, err)
	}
	call(0, "gc", "run")
	call(0, fold...)
	if err := os.Remove(kept[0]); err != nil {
		t.Fatal(err)
	}
	const hint = `"celler bookmark remove before --bucket `
	if out := call(1, "fsck", "--objects", "--repair"); !strings.Contains(out, hint) {
		t.Errorf("nothing is said of what helps: %s", out)
	}
	call(0, "bookmark", "remove", "before")
	if out := call(0, "fsck", "--objects"); strings.Contains(out, hint) {
		t.Errorf("afterwards: %s", out)
	}
}
