//go:build e2e

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// rig is one Nix store, one built celler binary and a directory for servers.
type rig struct {
	dir    string
	celler string
	env    []string
	secret string
}

// ownMounts names the variable that is set in a process with mounts of its own, to notRoot
// if it is root of nothing but a user namespace.
const (
	ownMounts = "CELLER_TEST_OWN_MOUNTS"
	notRoot   = "not root"
)

func newRig(t *testing.T) *rig {
	t.Helper()
	bin := os.Getenv("CELLER_TEST_BINARY")
	if bin == "" {
		t.Fatal(`CELLER_TEST_BINARY is not set: run "make e2e"`)
	}
	r := &rig{dir: t.TempDir(), celler: bin}
	r.secret = base64.StdEncoding.EncodeToString([]byte("an end-to-end secret of no value"))
	etc := filepath.Join(r.dir, "etc")
	home := filepath.Join(r.dir, "home")
	for _, d := range []string{etc, home} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := "sandbox = false\nbuild-users-group =\nexperimental-features = nix-command flakes\nsubstituters =\n"
	if err := os.WriteFile(filepath.Join(etc, "nix.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "NIX_") && !strings.HasPrefix(kv, "HOME=") && !strings.HasPrefix(kv, "XDG_") && !strings.HasPrefix(kv, "CELLER_") {
			r.env = append(r.env, kv)
		}
	}
	r.env = append(r.env, "NIX_CONF_DIR="+etc, "HOME="+home, "NIX_REMOTE=local",
		"CELLER_SERVER_TOKEN_HS256_SECRET_BASE64="+r.secret)
	if os.Geteuid() != 0 || os.Getenv(ownMounts) == notRoot {
		for _, v := range []string{"STORE", "STATE", "LOG"} {
			r.env = append(r.env, "NIX_"+v+"_DIR="+filepath.Join(r.dir, "nix", strings.ToLower(v)))
		}
	}
	return r
}

// run executes a command in the rig's environment and returns its standard output.
func (r *rig) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := r.try(t.Context(), name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return out
}

func (r *rig) try(ctx context.Context, name string, args ...string) (string, error) {
	return r.tryIn(ctx, filepath.Join(r.dir, "home"), name, args...)
}

// tryIn is try with another home: Nix processes that share a home also share a
// cache of narinfos, whose first entry two of them cannot make at once.
func (r *rig) tryIn(ctx context.Context, home, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(append([]string{}, r.env...), "HOME="+home)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return out.String(), nil
}

// build makes the test closure and returns its top path, all its paths, and
// the SHA-256 of each path's NAR.
func (r *rig) build(t *testing.T, salt string) (string, []string, map[string]string) {
	t.Helper()
	top := strings.TrimSpace(r.run(t, "nix-build", "testdata/e2e/closure.nix", "--argstr", "salt", salt, "--no-out-link"))
	paths := strings.Fields(r.run(t, "nix-store", "-qR", top))
	if len(paths) < 50 {
		t.Fatalf("closure has %d paths, want at least 50", len(paths))
	}
	return top, paths, r.dump(t, paths)
}

func (r *rig) dump(t *testing.T, paths []string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	var largest int64
	for _, p := range paths {
		cmd := exec.CommandContext(t.Context(), "nix-store", "--dump", p)
		cmd.Env = r.env
		h := sha256.New()
		n := &counter{w: h}
		cmd.Stdout = n
		if err := cmd.Run(); err != nil {
			t.Fatalf("nix-store --dump %s: %v", p, err)
		}
		largest = max(largest, n.n)
		sums[p] = hex.EncodeToString(h.Sum(nil))
	}
	if largest < 200e6 {
		t.Fatalf("largest path is %d bytes, want over 200 MB", largest)
	}
	return sums
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return c.w.Write(p) }

// remove deletes the closure from the local store.
func (r *rig) remove(t *testing.T, paths []string) {
	t.Helper()
	r.run(t, "nix-store", append([]string{"--delete"}, paths...)...)
	for _, p := range paths {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s is still in the store", p)
		}
	}
}

// substitute fetches top from the cache with signatures required and compares every NAR.
func (r *rig) substitute(t *testing.T, endpoint, cache, key, top string, want map[string]string, extra ...string) {
	t.Helper()
	args := append([]string{
		"-r", top, "--option", "substituters", endpoint + "/" + cache,
		"--option", "trusted-public-keys", key, "--option", "require-sigs", "true",
		"--option", "narinfo-cache-negative-ttl", "0", "--option", "narinfo-cache-positive-ttl", "0",
		"-j", "0",
	}, extra...)
	r.run(t, "nix-store", args...)
	paths := strings.Fields(r.run(t, "nix-store", "-qR", top))
	got := r.dump(t, paths)
	if len(got) != len(want) {
		t.Fatalf("substituted %d paths, pushed %d", len(got), len(want))
	}
	for p, sum := range want {
		if got[p] != sum {
			t.Errorf("%s: NAR differs after the round trip", p)
		}
	}
}

// token mints a token for the given rights.
func (r *rig) token(t *testing.T, args ...string) string {
	t.Helper()
	return strings.TrimSpace(r.run(t, r.celler, append([]string{"token", "create", "--local", "--sub", "e2e", "--validity", "1d"}, args...)...))
}

// login points the command-line client at endpoint.
func (r *rig) login(t *testing.T, endpoint string) {
	t.Helper()
	tok := r.token(t, "--pull", "*", "--push", "*", "--delete", "*", "--create-cache", "*", "--configure-cache", "*", "--destroy-cache", "*")
	f := filepath.Join(r.dir, "token")
	if err := os.WriteFile(f, []byte(tok+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.run(t, r.celler, "login", "--set-default", "e2e", endpoint, "--token-file", f)
}

// cache creates a cache and returns its public key.
func (r *rig) cache(t *testing.T, endpoint, name string, args ...string) string {
	t.Helper()
	r.run(t, r.celler, append([]string{"cache", "create", name}, args...)...)
	res, err := http.Get(endpoint + "/" + name + "/nix-cache-info")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	out := r.run(t, r.celler, "cache", "info", name)
	for f := range strings.FieldsSeq(out) {
		if strings.HasPrefix(f, name+":") {
			return f
		}
	}
	t.Fatalf("cache info shows no public key:\n%s", out)
	return ""
}

// daemon is one running "celler serve".
type daemon struct {
	cmd      *exec.Cmd
	endpoint string
	done     chan struct{}
}

// serve starts a server on listen, the address of one that was killed or "" for
// a free one, with its own directory for local copies.
func (r *rig) serve(t *testing.T, bucket, local, listen string, env ...string) *daemon {
	t.Helper()
	if listen == "" {
		listen = freeAddr(t)
	}
	logFile, err := os.OpenFile(filepath.Join(r.dir, "serve.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	cmd := exec.Command(r.celler, "serve", "--bucket", bucket, "--cache-dir", local, "--listen", listen)
	cmd.Env = append(append([]string{}, r.env...), env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &daemon{cmd: cmd, endpoint: "http://" + listen, done: make(chan struct{})}
	go func() { defer close(s.done); cmd.Wait() }()
	t.Cleanup(func() {
		s.stop(t, syscall.SIGTERM)
		if t.Failed() {
			text, _ := os.ReadFile(logFile.Name())
			t.Logf("log of the servers:\n%s", text[max(0, len(text)-4000):])
		}
	})
	r.ready(t, s)
	return s
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (r *rig) ready(t *testing.T, s *daemon) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-s.done:
			t.Fatal("celler serve ended before it was ready")
		default:
		}
		res, err := http.Get(s.endpoint + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
	}
	t.Fatalf("%s is not ready after a minute", s.endpoint)
}

func (s *daemon) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	select {
	case <-s.done:
		return
	default:
	}
	s.cmd.Process.Signal(sig)
	select {
	case <-s.done:
	case <-time.After(60 * time.Second):
		s.cmd.Process.Kill()
		t.Error("celler serve did not stop within a minute of the signal")
	}
}

func (s *daemon) addr() string { return strings.TrimPrefix(s.endpoint, "http://") }

// versitygw starts a real S3 server and returns a bucket URL and the environment it needs.
func (r *rig) versitygw(t *testing.T) (string, []string) {
	t.Helper()
	bin := os.Getenv("CELLER_TEST_VERSITYGW")
	if bin == "" {
		t.Fatal(`CELLER_TEST_VERSITYGW is not set: run "make e2e"`)
	}
	addr := freeAddr(t)
	root := filepath.Join(r.dir, "s3-"+addr)
	if err := os.MkdirAll(filepath.Join(root, "celler"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--access", "celler", "--secret", "cellersecret", "--port", addr, "posix", root)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("versitygw did not start within 30 s")
		}
	}
	return "s3://celler/some/prefix?endpoint=http://" + addr + "&path-style=true&region=us-east-1",
		[]string{"AWS_ACCESS_KEY_ID=celler", "AWS_SECRET_ACCESS_KEY=cellersecret"}
}

// roundRobin proxies requests to the endpoints in turn.
func roundRobin(t *testing.T, endpoints ...string) string {
	t.Helper()
	var next atomic.Uint64
	proxy := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			u, _ := url.Parse(endpoints[next.Add(1)%uint64(len(endpoints))])
			pr.SetURL(u)
			pr.Out.Host = pr.In.Host
		},
		FlushInterval: -1,
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: proxy}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String()
}

// buckets runs f on the embedded bucket and on a real S3 server.
func buckets(t *testing.T, f func(t *testing.T, r *rig, bucket string, env []string)) {
	t.Run("fileblob", func(t *testing.T) {
		r := newRig(t)
		f(t, r, filepath.Join(r.dir, "bucket"), nil)
	})
	t.Run("s3", func(t *testing.T) {
		r := newRig(t)
		url, env := r.versitygw(t)
		f(t, r, url, env)
	})
}
