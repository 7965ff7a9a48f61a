package storewatch

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// A real Nix adds and builds, and all of it is told by events: no scan is due for ten
// minutes.
func TestRealStore(t *testing.T) {
	n := nixtest.Real(t)
	n.Add(t, "old", nixtest.Text("the store directory is made with the first path"))
	o := nixstore.Options{Remote: "local", StoreDir: n.StoreDir, Env: n.Env(), RealStoreDir: n.RealStoreDir}
	told := make(chan nix.StorePath, 100)
	ready := make(chan struct{}, 10) // a second scan is not expected
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- Run(ctx, Options{
			OpenStore: func(ctx context.Context) (Store, error) { return nixstore.Open(ctx, o) },
			StoreDir:  n.StoreDir, RealDir: n.RealStoreDir,
			Seen: func(time.Time) { ready <- struct{}{} },
		}, func(paths []nix.StorePath) error {
			for _, p := range paths {
				told <- p
			}
			return nil
		})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("ended with %v", err)
	}
	want := []nix.StorePath{n.Add(t, "added", nixtest.Text("text")), n.Build(t, nixtest.Chain, "top")}
	for len(want) > 0 {
		select {
		case p := <-told:
			if strings.HasSuffix(p.Name(), ".drv") {
				t.Errorf("told of %v", p)
			}
			want = slices.DeleteFunc(want, func(q nix.StorePath) bool { return p == q })
		case <-time.After(time.Minute):
			t.Fatalf("never told of %v", want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The real events of a directory: removals by name, and its own end.
func TestFollow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := follow(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.stop()
	for i := range 3 {
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for len(got) < 3 {
		names, lost, err := f.next()
		if err != nil || lost {
			t.Fatal(names, lost, err)
		}
		got = append(got, names...)
	}
	if !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("removed %v", got)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, lost, err := f.next(); err == nil || !lost {
		t.Errorf("the directory is gone: %v %v", lost, err)
	}
	if _, err := follow(dir); err == nil {
		t.Error("a directory that is not there can be followed")
	}
}

func mkEvent(mask uint32, name string) []byte {
	length := (len(name) + 16) &^ 15
	if name == "" {
		length = 0
	}
	b := make([]byte, 16+length)
	binary.NativeEndian.PutUint32(b[4:], mask)
	binary.NativeEndian.PutUint32(b[12:], uint32(length))
	copy(b[16:], name)
	return b
}

func TestDecodeEvents(t *testing.T) {
	b := append(mkEvent(syscall.IN_DELETE, "a.lock"), mkEvent(syscall.IN_Q_OVERFLOW, "")...)
	b = append(b, mkEvent(syscall.IN_DELETE, "b.lock")...)
	names, lost, err := decodeEvents(b)
	if !slices.Equal(names, []string{"a.lock", "b.lock"}) || !lost || err != nil {
		t.Errorf("decoded %v %v %v", names, lost, err)
	}
}

func FuzzDecodeEvents(f *testing.F) {
	f.Add(mkEvent(syscall.IN_DELETE, "a.lock"))
	f.Fuzz(func(t *testing.T, b []byte) {
		names, _, _ := decodeEvents(b)
		if len(names) > len(b)/16 {
			t.Errorf("%d events in %d bytes", len(names), len(b))
		}
	})
}

// What was not changed since a time need not be asked about.
func TestChangedSince(t *testing.T) {
	name := filepath.Join(t.TempDir(), "path")
	before := time.Now().Add(-time.Second)
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, time.Unix(1, 0), time.Unix(1, 0)); err != nil { // as Nix does
		t.Fatal(err)
	}
	if !changedSince(name, before) {
		t.Error("a file that was just made counts as old")
	}
	if changedSince(name, time.Now().Add(time.Hour)) {
		t.Error("a file counts as changed in the future")
	}
	if !changedSince(name+"-gone", before) {
		t.Error("a file that cannot be looked at counts as old")
	}
}
