package nar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/celler/celler/nix/nar"
	"github.com/celler/celler/nix/nixtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustDump(t *testing.T, path string) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := nar.Dump(t.Context(), &buf, path); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// mkSizes makes a directory with files of the sizes where buffers end.
func mkSizes() nixtest.Dir {
	d := nixtest.Dir{}
	for _, edge := range []int{0, 8, 4 << 10, 64 << 10, 256 << 10} {
		for _, n := range []int{edge - 1, edge, edge + 1} {
			if n >= 0 {
				d[fmt.Sprintf("%07d", n)] = nixtest.File{Contents: bytes.Repeat([]byte{byte(n)}, n), Executable: n%2 == 1}
			}
		}
	}
	return d
}

func TestDump(t *testing.T) {
	trees := map[string]nixtest.Node{
		"tree":  nixtest.MkTree(1, 4<<20),
		"many":  nixtest.Dir{"a": nixtest.MkTree(2, 1<<20), "b": nixtest.MkTree(3, 1<<20)},
		"sizes": mkSizes(),
		"large": nixtest.File{Contents: bytes.Repeat([]byte("large"), 200_000)},
	}
	for _, v := range mustVectors(t, "valid.txtar") {
		trees[v.name] = nixtest.ReadNAR(t, v.nar)
	}
	for name, tree := range trees {
		path := filepath.Join(t.TempDir(), "tree")
		nixtest.WriteTree(t, path, tree)
		if !bytes.Equal(mustDump(t, path), nixtest.MkNAR(t, tree)) {
			t.Errorf("%s: not the NAR of the tree", name)
		}
	}
}

func TestRealDump(t *testing.T) {
	n := nixtest.Real(t)
	for seed := range uint64(3) {
		path := filepath.Join(n.Dir, fmt.Sprint(seed))
		nixtest.WriteTree(t, path, nixtest.Dir{"tree": nixtest.MkTree(seed, 2<<20), "sizes": mkSizes()})
		if !bytes.Equal(mustDump(t, path), n.Output(t, nil, "nix-store", "--dump", path)) {
			t.Errorf("seed %d: nix-store --dump gives other bytes", seed)
		}
	}
}

func TestDumpRefuses(t *testing.T) {
	dir := t.TempDir()
	bad := func(path, why string) {
		t.Helper()
		if err := nar.Dump(t.Context(), io.Discard, path); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got error %v, expected %q", path, err, why)
		}
	}
	bad(filepath.Join(dir, "nothing"), "no such file")

	fifo := filepath.Join(dir, "sub", "fifo")
	nixtest.WriteTree(t, filepath.Dir(fifo), nixtest.MkTree(4, 100_000))
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	bad(fifo, "expected a file, directory or symlink")
	bad(dir, "sub/fifo: expected a file, directory or symlink")

	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bad(filepath.Join(dir, "socket"), "expected a file")
}

func TestDumpUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Log("root reads everything: only the error of a file that vanished is tested")
	}
	dir := t.TempDir()
	tree := nixtest.Dir{"a": nixtest.Text("a"), "b": nixtest.Text("b")}
	path := filepath.Join(dir, "tree")
	nixtest.WriteTree(t, path, tree)
	if os.Geteuid() != 0 {
		if err := os.Chmod(filepath.Join(path, "b"), 0); err != nil {
			t.Fatal(err)
		}
		if err := nar.Dump(t.Context(), io.Discard, path); !errors.Is(err, os.ErrPermission) {
			t.Errorf("unreadable file: %v", err)
		}
	}
}

// TestDumpStops breaks the destination at many places, and cancels there: Dump
// must return, say why, and leave no goroutine and no file open behind.
func TestDumpStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree")
	nixtest.WriteTree(t, path, nixtest.Dir{"tree": nixtest.MkTree(5, 2<<20), "sizes": mkSizes()})
	size := len(mustDump(t, path))
	before := openFiles(t)
	for n := 0; n < size; n += size / 20 {
		if err := nar.Dump(t.Context(), &failAfter{n: n}, path); !errors.Is(err, errFull) {
			t.Errorf("full after %d bytes: %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if err := nar.Dump(ctx, &cancelAfter{n: n, cancel: cancel}, path); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d bytes: %v", n, err)
		}
		cancel()
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files open, %d before", after, before)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := nar.Dump(ctx, io.Discard, path); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before it began: %v", err)
	}
}

type cancelAfter struct {
	n      int
	cancel func()
}

func (c *cancelAfter) Write(b []byte) (int, error) {
	if c.n -= len(b); c.n < 0 {
		c.cancel()
	}
	return len(b), nil
}

func openFiles(t *testing.T) int {
	t.Helper()
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // not Linux
	}
	return len(es)
}

// growing changes a file while it is being dumped: it is written to when the
// header of the archive arrives, which is after the file was opened.
func TestDumpFileChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	w := writerFunc(func(b []byte) (int, error) { return len(b), os.Truncate(path, 1000) })
	err := nar.Dump(t.Context(), w, path)
	if err == nil || !strings.Contains(err.Error(), "changed while it was read, expected 1048576 bytes") {
		t.Errorf("got error %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
