package nixstore

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/celler/celler/nix"
)

func TestSocketChoice(t *testing.T) {
	for _, c := range []struct {
		remote, socket string
		must           bool
	}{
		{"", "/s", false},
		{"auto", "/s", false},
		{"daemon", "/s", true},
		{"unix:///other", "/other", true},
		{"unix:///other?root=/x", "/other", true},
		{"unix://", "/s", true},
		{"local", "", false},
		{"/some/root", "", false},
		{"ssh://host", "", false},
	} {
		socket, must := Options{Remote: c.remote, Socket: "/s"}.socket()
		if socket != c.socket || must != c.must {
			t.Errorf("%q: %q, %v", c.remote, socket, must)
		}
	}
	if got := (Options{Remote: "/r", StoreDir: "/my/store"}).withDefaults().RealStoreDir; got != "/r/nix/store" {
		t.Errorf("a root and another store dir: files in %q", got)
	}
	if got := (Options{StoreDir: "/my/store"}).withDefaults().RealStoreDir; got != "/my/store" {
		t.Errorf("another store dir: files in %q", got)
	}
	for remote, want := range map[string]string{
		"": "/nix/store", "daemon": "/nix/store", "local": "/nix/store",
		"/some/root": "/some/root/nix/store", "/some/root/": "/some/root/nix/store", "/": "/nix/store",
		"local?root=/r": "/r/nix/store", "local?real=/elsewhere": "/elsewhere", "local://?root=/r": "/r/nix/store",
	} {
		if got := (Options{Remote: remote}).withDefaults().RealStoreDir; got != want {
			t.Errorf("%q: files in %q, expected %q", remote, got, want)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	none := filepath.Join(dir, "none")
	bad := func(o Options, want ...string) {
		t.Helper()
		s, err := Open(t.Context(), o)
		if err == nil {
			_ = s.Close()
			t.Errorf("%+v: opened", o)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: got error %q, expected %q in it", o, err, w)
			}
		}
	}
	bad(Options{Remote: "daemon", Socket: none}, none, "no such file")
	bad(Options{Remote: "unix://" + none}, none, "no such file")
	bad(Options{Socket: none, DaemonCommand: []string{"no-such-nix-daemon"}}, none, "no-such-nix-daemon", "not found")
	bad(Options{Socket: none, DaemonCommand: []string{"/bin/sh", "-c", "echo 'error: out of cheese' >&2; exit 1"}}, "hung up", "it said: out of cheese")
	bad(Options{Socket: none, DaemonCommand: []string{"/bin/sh", "-c", "echo not a daemon; cat >/dev/null"}}, "expected magic")
	bad(Options{StoreDir: "nix/store"}, "not an absolute path")

	// A socket that nobody listens on any more counts as absent.
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	bad(Options{Remote: "daemon", Socket: stale}, "refused")
	bad(Options{Socket: stale, DaemonCommand: []string{"/bin/false"}}, "/bin/false")
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	storeDir := filepath.Join(dir, "store")
	base := mkPath(t, 1).Base()
	other := mkPath(t, 2).Base()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	must(os.MkdirAll(filepath.Join(storeDir, base, "bin"), 0o755))
	must(os.MkdirAll(at("work", "deep"), 0o755))
	must(os.Symlink(filepath.Join(storeDir, base), at("work", "result")))
	must(os.Symlink("../result", at("work", "deep", "indirect")))
	must(os.Symlink(at("work"), at("w")))
	must(os.Symlink(filepath.Join(storeDir, other, "missing"), at("work", "dangling")))
	must(os.Symlink("loop", at("work", "loop")))
	must(os.Symlink("deep/../../store/./"+base, at("work", "dots")))
	must(os.Symlink(at("work", "deep"), at("to-deep")))
	must(os.Symlink("to-deep/../result", at("through")))
	must(os.WriteFile(at("work", "file"), nil, 0o644))

	t.Chdir(at("work"))
	s := &Store{o: Options{StoreDir: nix.StoreDir(storeDir), RealStoreDir: storeDir}}
	ok := func(in, want string) {
		t.Helper()
		if p, err := s.Resolve(in); err != nil || p.Base() != want || string(p.Dir()) != storeDir {
			t.Errorf("%s: %v, %v, expected %s", in, p, err, want)
		}
	}
	bad := func(in, why string) {
		t.Helper()
		if p, err := s.Resolve(in); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, %v, expected %q", in, p, err, why)
		}
	}
	ok(filepath.Join(storeDir, base), base)
	ok(filepath.Join(storeDir, base)+"/", base)
	ok(filepath.Join(storeDir, base, "bin", "anything"), base)
	ok(filepath.Join(storeDir, other), other) // need not exist
	ok("result", base)
	ok("./result", base)
	ok("./result/bin", base)
	ok("deep/indirect", base)
	ok(at("w", "deep", "indirect"), base)
	ok("dangling", other)
	ok("dots", base)
	ok(at("through"), base) // to-deep/.. is work, not the directory of to-deep
	ok("../store/"+base, base)

	bad("", "empty")
	bad("file", "is not in the store dir")
	bad(".", "is not in the store dir")
	bad("nothing", "no such file")
	bad("loop", "more than 40 symlinks")
	bad(storeDir, "is the store dir itself")
	bad(filepath.Join(storeDir, ".links"), "too short")
	bad(filepath.Join(storeDir, base[:32]+"x"+base[33:]), "no dash")

	// A store below another root: its files lead to the logical path.
	s.o.StoreDir = "/nix/store"
	if p, err := s.Resolve("result/bin"); err != nil || p.String() != "/nix/store/"+base {
		t.Errorf("real path: %v, %v", p, err)
	}
	if p, err := s.Resolve("/nix/store/" + base); err != nil || p.String() != "/nix/store/"+base {
		t.Errorf("logical path: %v, %v", p, err)
	}
}
