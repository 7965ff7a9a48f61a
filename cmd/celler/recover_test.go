package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecoverAgain: the same damaged bucket is put back and recovered once more. What the
// first time has left on this machine is not in the way.
func TestRecoverAgain(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir, damaged := filepath.Join(t.TempDir(), "bucket"), filepath.Join(t.TempDir(), "damaged")
	call := func(args ...string) {
		t.Helper()
		var out bytes.Buffer
		if code := run("celler", append(args, "--bucket", dir), strings.NewReader(""), &out, &out); code != 0 {
			t.Fatalf("celler %s: exit %d: %s", strings.Join(args, " "), code, out.String())
		}
	}
	call("init")
	call("gc", "run") // writes to the log
	if err := errors.Join(os.Remove(filepath.Join(dir, "log", "0000000000000001")), os.CopyFS(damaged, os.DirFS(dir))); err != nil {
		t.Fatal(err)
	}
	call("recover", "--yes")
	call("gc", "run")
	call("recover", "--yes")
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(damaged))); err != nil {
		t.Fatal(err)
	}
	call("recover", "--yes")
}
