package nixstore

import (
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestBuildLog(t *testing.T) {
	dir := t.TempDir()
	s := &Store{o: Options{LogDir: dir}}
	const plain, packed, broken = "aabbcc-plain.drv", "aaddee-packed.drv", "aaffff-broken.drv"
	// "hello\n" as bzip2 writes it.
	bz2, err := hex.DecodeString("425a6839314159265359c1c080e2000001410000100244a00030cd00c3462997177245385090c1c080e2")
	if err != nil || len(bz2) == 0 {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "drvs", "aa"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{plain[2:]: []byte("hello\n"), packed[2:] + ".bz2": bz2, broken[2:] + ".bz2": bz2[:20]} {
		if err := os.WriteFile(filepath.Join(dir, "drvs", "aa", name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(drv string) (text []byte, ok bool, err error) {
		r, err := s.BuildLog(drv)
		if r == nil || err != nil {
			return nil, false, err
		}
		defer r.Close()
		text, err = io.ReadAll(r)
		return text, true, err
	}
	for _, drv := range []string{plain, packed} {
		if text, ok, err := read(drv); string(text) != "hello\n" || !ok || err != nil {
			t.Errorf("%s: %q, %v, %v", drv, text, ok, err)
		}
	}
	if _, ok, err := read("zz-none.drv"); ok || err != nil {
		t.Errorf("a build without a log: %v, %v", ok, err)
	}
	for _, drv := range []string{broken, "", "x", "../aa/" + plain, "aa/../x.drv"} {
		if _, _, err := read(drv); err == nil {
			t.Errorf("%q: no error", drv)
		}
	}
	long := filepath.Join(dir, "drvs", "aa", "long.drv")
	for size, want := range map[int64]bool{MaxLogBytes: true, MaxLogBytes + 1: false} {
		if err := os.WriteFile(long, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(long, size); err != nil {
			t.Fatal(err)
		}
		r, err := s.BuildLog("aalong.drv")
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		if r.Close(); want != (err == nil && n == size) || n > MaxLogBytes {
			t.Errorf("a log of %d bytes: %d were read, %v", size, n, err)
		}
	}
}
