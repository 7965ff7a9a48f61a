package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/celler/celler/blob/fileblob"
	"github.com/celler/celler/wal"
)

// TestCompactAfterAKill: a round that was killed has left its claim in ROOT. Running the
// command again does the work at once, unless it is told to wait.
func TestCompactAfterAKill(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	call := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if code := run("celler", append(args, "--bucket", dir), strings.NewReader(""), &out, &out); code != 0 {
			t.Fatalf("celler %s: exit %d: %s", strings.Join(args, " "), code, out.String())
		}
		return out.String()
	}
	call("init")
	call("gc", "run") // writes to the log
	bucket, err := fileblob.Open(dir, fileblob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = wal.RootChange{By: "a compactor that was killed"}.Swap(t.Context(), bucket, func(root *wal.Root) error {
		root.CompactEpoch++
		return nil
	})
	if err = errors.Join(err, bucket.Close()); err != nil {
		t.Fatal(err)
	}
	if out := call("compact", "--no-steal"); !strings.Contains(out, "a compactor that was killed has been compacting since") || strings.Contains(out, "folded") {
		t.Errorf("with --no-steal: %s", out)
	}
	if out := call("compact"); !strings.Contains(out, "folded") {
		t.Errorf("after a kill: %s", out)
	}
}
