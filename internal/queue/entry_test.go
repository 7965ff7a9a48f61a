package queue

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/nix"
)

func mustPath(t testing.TB, text string) nix.StorePath {
	t.Helper()
	p, err := nix.ParseStorePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mkEntry(t testing.TB) Entry {
	t.Helper()
	return Entry{
		Target:  Target{Cache: "prod:ci", NoClosure: true, IgnoreUpstream: true},
		Queued:  time.Date(2026, 3, 1, 12, 30, 0, 123456789, time.UTC),
		Deriver: mustPath(t, "/nix/store/1bgd045z0d4icpbc2yyz4gx48ak44la0-hello.drv"),
		Paths: []nix.StorePath{
			mustPath(t, "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-hello"),
			mustPath(t, "/nix/store/11bgd045z0d4icpbc2yyz4gx48ak44la-hello-doc"),
		},
	}
}

func TestEntryGolden(t *testing.T) {
	full := mkEntry(t)
	plain := Entry{Queued: full.Queued, Paths: full.Paths[:1]}
	for name, e := range map[string]Entry{"full": full, "plain": plain} {
		want, err := os.ReadFile("testdata/" + name + ".entry")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(AppendEntry(nil, e))); diff != "" {
			t.Errorf("%s: the bytes of an entry changed (-want +got):\n%s", name, diff)
		}
		got, err := DecodeEntry(want)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, got, cmp.Comparer(samePath)); diff != "" {
			t.Errorf("%s: decoded (-want +got):\n%s", name, diff)
		}
	}
}

func samePath(a, b nix.StorePath) bool { return a == b }

// Whatever a disk does to one byte of an entry, or to its end, is noticed.
func TestEntryDamage(t *testing.T) {
	text := AppendEntry(nil, mkEntry(t))
	for i := range text {
		if _, err := DecodeEntry(text[:i]); err == nil {
			t.Errorf("an entry cut to %d of %d bytes was decoded", i, len(text))
		}
		for _, flip := range []byte{1, 0x20, 0x80, 0xff} {
			bad := append([]byte(nil), text...)
			bad[i] ^= flip
			if _, err := DecodeEntry(bad); err == nil {
				t.Errorf("an entry with byte %d turned from %q to %q was decoded", i, text[i], bad[i])
			}
		}
	}
	if _, err := DecodeEntry(append(text, '\n')); err == nil {
		t.Error("an entry with something behind it was decoded")
	}
}

func TestEntryRefused(t *testing.T) {
	bad := func(why string, change func(*Entry)) {
		t.Helper()
		e := mkEntry(t)
		change(&e)
		if err := e.check(); err == nil {
			t.Errorf("%s: passed the check", why)
		}
		if _, err := DecodeEntry(AppendEntry(nil, e)); err == nil {
			t.Errorf("%s: was decoded", why)
		}
	}
	bad("no paths", func(e *Entry) { e.Paths = nil })
	bad("too many paths", func(e *Entry) { e.Paths = make([]nix.StorePath, maxPaths+1) })
	bad("an empty path", func(e *Entry) { e.Paths[1] = nix.StorePath{} })
	bad("a line feed in the cache", func(e *Entry) { e.Target.Cache = "ci\nno-closure" })
	bad("a space in the cache", func(e *Entry) { e.Target.Cache = "ci x" })
	bad("a long cache", func(e *Entry) { e.Target.Cache = strings.Repeat("a", maxCacheBytes+1) })
	bad("long ago", func(e *Entry) { e.Queued = time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC) })
	bad("far away", func(e *Entry) { e.Queued = time.Date(2222, 1, 1, 0, 0, 0, 0, time.UTC) })
}

func FuzzDecodeEntry(f *testing.F) {
	text := AppendEntry(nil, mkEntry(f))
	f.Add(text)
	f.Add([]byte("CLQ2\nqueued never\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		e, err := DecodeEntry(src)
		if err == nil && string(AppendEntry(nil, e)) != string(src) {
			t.Errorf("decoded and encoded again is not the same: %q", src)
		}
		// The sum keeps the fuzzer out of the body: let it in.
		var body Entry
		if body.decodeBody(string(src)) == nil && body.check() == nil {
			again, err := DecodeEntry(AppendEntry(nil, body))
			if err != nil {
				t.Fatalf("an entry that passes the check cannot be decoded: %v", err)
			}
			if diff := cmp.Diff(body, again, cmp.Comparer(samePath)); diff != "" {
				t.Errorf("encoded and decoded (-want +got):\n%s", diff)
			}
		}
	})
}
