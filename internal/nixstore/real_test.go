package nixstore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// stdio are the options for the real nix-daemon --stdio in an isolated store.
func stdio(n *nixtest.Nix) Options {
	return Options{Remote: "local", StoreDir: n.StoreDir, Env: n.Env()}
}

func TestRealStdio(t *testing.T) {
	n := nixtest.Real(t)
	top := n.Build(t, nixtest.Chain, "top")
	added := n.Add(t, "tree", nixtest.MkTree(1, 200_000))
	s, err := Open(t.Context(), stdio(n))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantRealStore(t, n, s, top, added)
}

// TestRealSocket is the same through a real daemon's socket.
func TestRealSocket(t *testing.T) {
	n := nixtest.Real(t)
	top := n.Build(t, nixtest.Chain, "top")
	added := n.Add(t, "tree", nixtest.MkTree(1, 200_000))

	socket := filepath.Join(n.Dir, "socket")
	cmd := n.Command(t, "nix-daemon")
	cmd.Env = append(cmd.Env, "NIX_DAEMON_SOCKET_PATH="+socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	waitForSocket(t, socket)

	s, err := Open(t.Context(), Options{Socket: socket, StoreDir: n.StoreDir, DaemonCommand: []string{"/bin/false"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantRealStore(t, n, s, top, added)
}

func waitForSocket(t *testing.T, socket string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		if nc, err := net.Dial("unix", socket); err == nil {
			_ = nc.Close()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("nobody listens on %s", socket)
		}
	}
}

func wantRealStore(t *testing.T, n *nixtest.Nix, s *Store, top, added nix.StorePath) {
	t.Helper()
	closure, err := s.Closure(t.Context(), []nix.StorePath{top, added})
	if err != nil {
		t.Fatal(err)
	}
	var want []nix.StorePath
	for line := range strings.Lines(n.Run(t, "nix-store", "--query", "--requisites", top.String(), added.String()) + "\n") {
		p, err := nix.ParseStorePath(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, p)
	}
	if len(want) != 4 {
		t.Errorf("nix-store finds %v", want)
	}
	wantClosure(t, closure, want)

	for _, info := range closure {
		wantRealInfo(t, n, s, info)
	}
	self := closure[slices.IndexFunc(closure, func(i PathInfo) bool { return i.StorePath == top })]
	if !slices.Contains(self.References, top) || len(self.References) != 3 {
		t.Errorf("references of top: %v", self.References)
	}

	absent := nixtest.MkStorePathIn(t, n.StoreDir, "absent")
	if _, err := s.PathInfo(t.Context(), absent); !errors.Is(err, ErrNotValid) {
		t.Errorf("absent path: %v", err)
	}
	valid, err := s.ValidPaths(t.Context(), append([]nix.StorePath{absent}, want...))
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(unique(want), valid); d != "" {
		t.Error(d)
	}
	if p, err := s.PathFromHashPart(t.Context(), top.HashPart()); err != nil || p != top {
		t.Errorf("path from hash part: %v, %v", p, err)
	}
	if ok, err := s.Valid(t.Context(), added); err != nil || !ok {
		t.Errorf("valid: %v, %v", ok, err)
	}

	link := filepath.Join(n.Dir, "result")
	_ = os.Remove(link)
	if err := os.Symlink(top.String(), link); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Resolve(link + "/refs"); err != nil || p != top {
		t.Errorf("resolve: %v, %v", p, err)
	}

	// A temporary root keeps what nobody else needs.
	if err := s.AddTempRoot(t.Context(), added); err != nil {
		t.Fatal(err)
	}
	if _, err := n.TryOutput(t, nil, "nix-store", "--delete", added.String()); err == nil {
		t.Error("deleted in spite of the temporary root")
	}

	// A path of another store makes the daemon hang up; we must say what it said.
	foreign := nixtest.MkStorePathIn(t, "/elsewhere/store", "foreign")
	_, err = s.PathInfo(t.Context(), foreign)
	if e, is := errors.AsType[*DaemonError](err); !is || !strings.Contains(e.Message, "/elsewhere/store") {
		t.Errorf("foreign path: %v", err)
	}
}

func wantRealInfo(t *testing.T, n *nixtest.Nix, s *Store, info PathInfo) {
	t.Helper()
	p := info.StorePath.String()
	query := func(what string) string { return n.Run(t, "nix-store", "--query", what, p) }
	if got := query("--hash"); got != info.NarHash.Nix32() {
		t.Errorf("%s: hash %v, nix-store says %s", p, info.NarHash, got)
	}
	if got := query("--size"); got != nix64(info.NarSize) {
		t.Errorf("%s: size %d, nix-store says %s", p, info.NarSize, got)
	}
	refs := slices.Sorted(strings.Lines(query("--references") + "\n"))
	var ours []string
	for _, r := range info.References {
		ours = append(ours, r.String()+"\n")
	}
	if len(ours) == 0 {
		ours = []string{"\n"}
	}
	if d := diff(refs, ours); d != "" {
		t.Errorf("%s: references: %s", p, d)
	}
	if drv := query("--deriver"); drv != "unknown-deriver" && drv != string(n.StoreDir)+"/"+info.Deriver {
		t.Errorf("%s: deriver %q, nix-store says %s", p, info.Deriver, drv)
	}
	if time.Since(info.RegistrationTime) > time.Hour || time.Since(info.RegistrationTime) < -time.Hour {
		t.Errorf("%s: registered at %v", p, info.RegistrationTime)
	}
	var buf bytes.Buffer
	if err := s.Dump(t.Context(), &buf, info.StorePath); err != nil {
		t.Error(err)
	}
	if got := nix.SHA256Hash(sha256.Sum256(buf.Bytes())); got != info.NarHash || int64(buf.Len()) != info.NarSize {
		t.Errorf("%s: dumped %d bytes with hash %v, expected %d, %v", p, buf.Len(), got, info.NarSize, info.NarHash)
	}
}

func nix64(n int64) string {
	var b []byte
	for ; n > 0 || b == nil; n /= 10 {
		b = append(b, byte('0'+n%10))
	}
	slices.Reverse(b)
	return string(b)
}

// TestRealSignatures: what was copied in with a signature comes out with it.
func TestRealSignatures(t *testing.T) {
	n := nixtest.Real(t)
	top := n.Build(t, nixtest.Chain, "top")
	key := nixtest.MkSecretKey(t, "local-1")
	file := filepath.Join(n.Dir, "key")
	if err := os.WriteFile(file, []byte(key.Secret()), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Run(t, "nix", "store", "sign", "--key-file", file, "--recursive", top.String())
	s, err := Open(t.Context(), stdio(n))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	infos, err := s.Closure(t.Context(), []nix.StorePath{top})
	if err != nil || len(infos) != 3 {
		t.Fatalf("%v, %v", infos, err)
	}
	for _, info := range infos {
		ni := nix.NarInfo{StorePath: info.StorePath, NarHash: info.NarHash, NarSize: info.NarSize, References: info.References}
		fp, err := ni.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		if !nix.VerifyAny([]nix.PublicKey{key.Public()}, fp, info.Sigs) {
			t.Errorf("%v: signatures %v do not verify", info.StorePath, info.Sigs)
		}
	}
}

// TestRealRoot reads stores below another root: the files are not where the
// paths say.
func TestRealRoot(t *testing.T) {
	for _, n := range []*nixtest.Nix{nixtest.RealDefault(t), nixtest.Real(t).Twin(t)} {
		p := n.Add(t, "hello", nixtest.Dir{"bin": nixtest.Dir{"hello": nixtest.Script("#!/bin/sh\n")}})
		s, err := Open(t.Context(), Options{Remote: n.Remote, StoreDir: n.StoreDir, Env: n.Env()})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		info, err := s.PathInfo(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		if err := s.Dump(t.Context(), &buf, p); err != nil {
			t.Fatal(err)
		}
		if got := nix.SHA256Hash(sha256.Sum256(buf.Bytes())); got != info.NarHash || p.Dir() != n.StoreDir {
			t.Errorf("%v: hash %v, expected %v", p, got, info.NarHash)
		}
	}
}
