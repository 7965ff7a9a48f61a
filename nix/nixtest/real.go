package nixtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/celler/celler/nix"
)

// A Nix is an isolated environment for the real nix: own configuration, own
// home, own store and state, nothing shared with the machine's.
type Nix struct {
	Dir          string       // holds everything below
	StoreDir     nix.StoreDir // that store paths name; need not exist
	RealStoreDir string       // where their files are
	Remote       string       // NIX_REMOTE of the environment
	env          []string
}

// Available reports whether a real nix is installed.
func Available() bool {
	for _, tool := range [...]string{"nix", "nix-store", "nix-daemon", "nix-hash"} {
		if _, err := exec.LookPath(tool); err != nil {
			return false
		}
	}
	return true
}

// Real makes an isolated environment in a temporary directory, or skips the
// test, saying how to get a nix, if there is none.
func Real(t testing.TB) *Nix {
	t.Helper()
	if !Available() {
		t.Skip("no real nix found: install it with apt-get install nix-bin (make test does)")
	}
	dir := tempDir(t)
	storeDir := filepath.Join(dir, "store")
	return newNix(t, &Nix{Dir: dir, StoreDir: nix.StoreDir(storeDir), RealStoreDir: storeDir, Remote: "local"})
}

// RealDefault is Real with the usual store dir /nix/store, the files of which
// are below the temporary directory. Nothing can be built in it, only added and
// copied.
func RealDefault(t testing.TB) *Nix {
	t.Helper()
	if !Available() {
		t.Skip("no real nix found: install it with apt-get install nix-bin (make test does)")
	}
	return newRooted(t, nix.DefaultStoreDir)
}

// Twin is another environment with the same store dir and nothing in it: the
// machine that substitutes what n has built. Its files are elsewhere, so nothing
// can be built in it.
func (n *Nix) Twin(t testing.TB) *Nix {
	t.Helper()
	return newRooted(t, n.StoreDir)
}

func newRooted(t testing.TB, storeDir nix.StoreDir) *Nix {
	dir := tempDir(t)
	root := filepath.Join(dir, "root")
	return newNix(t, &Nix{Dir: dir, StoreDir: storeDir, RealStoreDir: root + "/nix/store", Remote: root})
}

// tempDir is not t.TempDir: stores are read-only, which its cleanup cannot
// remove.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nixtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeStore(t, dir) })
	return dir
}

func newNix(t testing.TB, n *Nix) *Nix {
	t.Helper()
	for _, sub := range [...]string{"etc", "home", "var", "tmp"} {
		if err := os.MkdirAll(filepath.Join(n.Dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const conf = "sandbox = false\nbuild-users-group =\nexperimental-features = nix-command\nsubstituters =\n"
	if err := os.WriteFile(filepath.Join(n.Dir, "etc", "nix.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	n.env = []string{
		"PATH=/usr/local/bin:/usr/bin:/bin",
		"HOME=" + filepath.Join(n.Dir, "home"),
		"TMPDIR=" + filepath.Join(n.Dir, "tmp"),
		"NIX_CONF_DIR=" + filepath.Join(n.Dir, "etc"),
		"NIX_STORE_DIR=" + string(n.StoreDir),
		"NIX_STATE_DIR=" + filepath.Join(n.Dir, "var"),
		"NIX_LOG_DIR=" + filepath.Join(n.Dir, "var", "log"),
		"NIX_REMOTE=" + n.Remote,
	}
	return n
}

// RealPath is where the files of a store path are.
func (n *Nix) RealPath(p nix.StorePath) string { return filepath.Join(n.RealStoreDir, p.Base()) }

// DumpOf is the NAR of a store path as the real nix writes it.
func (n *Nix) DumpOf(t testing.TB, p nix.StorePath) []byte {
	t.Helper()
	return n.Output(t, nil, "nix-store", "--dump", n.RealPath(p))
}

// Substitute fetches a path and its closure from a cache into this store,
// demanding signatures by one of the keys.
func (n *Nix) Substitute(t testing.TB, url string, keys []nix.PublicKey, p nix.StorePath) error {
	t.Helper()
	var trusted []string
	for _, k := range keys {
		trusted = append(trusted, k.String())
	}
	_, err := n.TryOutput(t, nil, "nix-store", "--realise", p.String(),
		"--option", "substituters", url, "--option", "trusted-public-keys", strings.Join(trusted, " "),
		"--option", "narinfo-cache-negative-ttl", "0", "--option", "narinfo-cache-positive-ttl", "0")
	return err
}

// Env is the environment in which the real nix sees this store and nothing
// else.
func (n *Nix) Env() []string { return append([]string(nil), n.env...) }

// Command prepares a command in this environment; it dies with the test.
func (n *Nix) Command(t testing.TB, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = n.Env()
	cmd.Dir = n.Dir
	return cmd
}

// Run runs a command and returns its output without the last newline.
func (n *Nix) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return strings.TrimSuffix(string(n.Output(t, nil, name, args...)), "\n")
}

// Output runs a command with the given input and returns its output.
func (n *Nix) Output(t testing.TB, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	out, err := n.TryOutput(t, stdin, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryOutput is Output for commands that may fail; the error holds what they
// said.
func (n *Nix) TryOutput(t testing.TB, stdin []byte, name string, args ...string) ([]byte, error) {
	t.Helper()
	cmd := n.Command(t, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, &CommandError{Args: cmd.Args, Stderr: stderr.String(), Err: err}
	}
	return stdout.Bytes(), nil
}

// A CommandError is a command that failed, with what it said.
type CommandError struct {
	Args   []string
	Stderr string
	Err    error
}

func (e *CommandError) Error() string {
	return strings.Join(e.Args, " ") + ": " + e.Err.Error() + ": " + strings.TrimSpace(e.Stderr)
}

func (e *CommandError) Unwrap() error { return e.Err }

// Add adds a tree to the store under a name and returns its path.
func (n *Nix) Add(t testing.TB, name string, tree Node) nix.StorePath {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(n.Dir, "tmp"), "add")
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(dir, name)
	WriteTree(t, src, tree)
	return n.mustPath(t, n.Run(t, "nix-store", "--add", src))
}

// Build builds an attribute of a nix expression, see Chain for an example,
// and returns its path.
func (n *Nix) Build(t testing.TB, expr, attr string) nix.StorePath {
	t.Helper()
	return n.mustPath(t, n.Run(t, "nix-build", "--no-out-link", "-E", expr, "-A", attr))
}

func (n *Nix) mustPath(t testing.TB, s string) nix.StorePath {
	t.Helper()
	p, err := nix.ParseStorePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Chain is an expression of three derivations that need only /bin/sh: top
// refers to app, lib and itself, app to lib. There are symlinks, an executable,
// an empty file and an empty directory.
const Chain = `
let mk = n: s: derivation {
  name = n; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" s ]; PATH = "/usr/bin:/bin";
};
in rec {
  lib = mk "lib-1.0" "mkdir -p $out/lib $out/empty; head -c 300000 /dev/zero > $out/lib/a.so; ln -s a.so $out/lib/a.so.1; : > $out/lib/none";
  app = mk "app-1.0" "mkdir -p $out/bin; printf '#!/bin/sh\necho ${lib}\n' > $out/bin/b; chmod +x $out/bin/b";
  top = mk "top-1.0" "mkdir $out; echo ${app} ${lib} $out > $out/refs";
}`

// removeStore removes a directory that may hold a store, whose files are
// read-only.
func removeStore(t testing.TB, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("remove %s: %v", dir, err)
	}
}
