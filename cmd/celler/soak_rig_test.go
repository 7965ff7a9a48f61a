//go:build soak

package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// soakRig owns the processes: an S3 server, three cellers, and what runs once and ends.
type soakRig struct {
	celler string
	dir    string
	env    []string
	s3     string // address of the S3 server itself
	root   string // its directory
	token  string
	http   *http.Client
	rng    *soakRand
}

// soakRand is a source of randomness for several goroutines.
type soakRand struct {
	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

func (r *soakRand) n(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.IntN(n)
}

// span returns a random time between from and to.
func (r *soakRand) span(from, to time.Duration) time.Duration {
	return from + time.Duration(r.n(int(to-from)))
}

// offset draws by how many seconds a process's clock is off: by up to a day and a
// half, and one time in four by years.
func (r *soakRand) offset() int {
	if r.n(4) == 0 {
		return (r.n(21) - 10) * 365 * 86400
	}
	return r.n(3*86400) - 36*3600
}

func newSoakRig(t *testing.T, seed uint64) *soakRig {
	t.Helper()
	bin, gateway := os.Getenv("CELLER_TEST_BINARY"), os.Getenv("CELLER_TEST_VERSITYGW")
	if bin == "" || gateway == "" {
		t.Fatal(`CELLER_TEST_BINARY and CELLER_TEST_VERSITYGW are not set: run "make soak"`)
	}
	r := &soakRig{celler: bin, dir: t.TempDir(), s3: soakAddr(t), rng: &soakRand{rng: rand.New(rand.NewPCG(seed, 2))}}
	r.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir,
		"AWS_ACCESS_KEY_ID=celler", "AWS_SECRET_ACCESS_KEY=cellersecret", "AWS_EC2_METADATA_DISABLED=true",
		"CELLER_SERVER_TOKEN_HS256_SECRET_BASE64=" + base64.StdEncoding.EncodeToString([]byte("a secret of the soak test, worth nothing")),
	}
	r.http = &http.Client{Timeout: 4 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	t.Cleanup(r.http.CloseIdleConnections)
	r.root = filepath.Join(r.dir, "s3")
	if err := os.MkdirAll(filepath.Join(r.root, "celler"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gateway, "--quiet", "--access", "celler", "--secret", "cellersecret", "--port", r.s3, "posix", r.root)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", r.s3); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("versitygw did not start within 30 s")
		}
	}
	r.token = r.mint(t)
	return r
}

// mint makes a token that is valid by every clock, and sees on the way that the
// clocks of the binary can be moved.
func (r *soakRig) mint(t *testing.T) string {
	t.Helper()
	args := []string{"token", "create", "--local", "--sub", "soak", "--validity", "60 years"}
	for _, right := range []string{"pull", "push", "delete", "create-cache", "configure-cache", "configure-cache-retention", "destroy-cache", "pin"} {
		args = append(args, "--"+right, "*")
	}
	out, err := r.run(t.Context(), -20*365*86400, args...)
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(out)
	var claims struct {
		NotBefore int64 `json:"nbf"`
	}
	if parts := strings.Split(token, "."); len(parts) == 3 {
		text, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(text, &claims)
	}
	if age := time.Since(time.Unix(claims.NotBefore, 0)); age < 19*365*24*time.Hour {
		t.Fatalf(`the clock of %s cannot be moved: run "make soak", which builds one`, r.celler)
	}
	return token
}

func soakAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func bucketAt(addr string) string {
	return "s3://celler/soak?endpoint=http://" + addr + "&path-style=true&region=us-east-1"
}

// command is a celler with its clock off by some seconds.
func (r *soakRig) command(ctx context.Context, offset int, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.celler, args...)
	cmd.Env = append(append([]string{}, r.env...), "CELLER_SOAK_CLOCK_OFFSET="+strconv.Itoa(offset))
	return cmd
}

func (r *soakRig) run(ctx context.Context, offset int, args ...string) (string, error) {
	var out, stderr strings.Builder
	cmd := r.command(ctx, offset, args...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("celler %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out.String(), nil
}

// floor is where the log begins, as ROOT says in the S3 server's directory.
func (r *soakRig) floor() uint64 {
	text, err := os.ReadFile(filepath.Join(r.root, "celler", "soak", "ROOT"))
	if err != nil {
		return 0
	}
	var root struct {
		Floor json.RawMessage `json:"floor"`
	}
	if json.Unmarshal(text, &root) != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.Trim(string(root.Floor), `"`), 10, 64)
	return n
}

// soakServer is a "celler serve" that may be killed, stopped and started again.
type soakServer struct {
	rig   *soakRig
	name  string
	addr  string
	local string
	proxy *soakProxy // nil: straight to the bucket

	mu     sync.Mutex // guards below
	cmd    *exec.Cmd
	done   chan struct{} // closed when cmd has ended
	wanted bool          // it has been ready, and should be running
	starts int
	deaths []string // ends that nobody asked for
}

func (s *soakServer) url(path string) string { return "http://" + s.addr + path }

// start runs the server until it is ready. One that gives up because the bucket's
// connections break while it starts is started again, as a supervisor would.
func (s *soakServer) start(ctx context.Context) error {
	for range 20 {
		if err := s.launch(); err != nil {
			return err
		}
		err := s.ready(ctx, time.Minute)
		if err == nil {
			s.mu.Lock()
			s.wanted = true
			s.mu.Unlock()
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.end(syscall.SIGKILL)
	}
	return fmt.Errorf("%s does not become ready: see its log", s.name)
}

func (s *soakServer) launch() error {
	f, err := os.OpenFile(s.logName(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	bucket, offset := bucketAt(s.rig.s3), 0
	if s.proxy != nil {
		bucket, offset = bucketAt(s.proxy.addr()), s.rig.rng.offset()
	}
	args := append([]string{"serve", "--bucket", bucket, "--cache-dir", s.local, "--listen", s.addr}, soakSettings()...)
	cmd := s.rig.command(context.Background(), offset, args...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	s.mu.Lock()
	s.cmd, s.done, s.wanted = cmd, done, false
	s.starts++
	s.mu.Unlock()
	go func() {
		defer close(done)
		err := cmd.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.wanted && s.cmd == cmd {
			s.deaths = append(s.deaths, fmt.Sprint(err))
		}
	}()
	return nil
}

// soakSettings make everything happen often.
func soakSettings() []string {
	return []string{
		"--wal.poll-interval=300ms", "--wal.max-staleness=" + soakStaleness.String(), "--drain-timeout=5s", "--resident-bytes=64MiB",
		"--maintenance-interval=4s", "--maintenance-segments=40", "--compact.log-retention=0s", "--compact.keep-segments=20",
		"--garbage-collection.interval=20s", "--garbage-collection.nar-grace=" + soakNarGrace.String(), "--garbage-collection.reader-grace=6s",
	}
}

func (s *soakServer) logName() string { return filepath.Join(s.rig.dir, s.name+".log") }

// keepLog prints how the server's log ends, and keeps all of it where the pictures of the
// histories are.
func (s *soakServer) keepLog(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(s.logName())
	if err != nil {
		t.Log(err)
	}
	kept := filepath.Join(os.Getenv("CELLER_TEST_SOAK_OUT"), s.name+".log")
	if err := os.WriteFile(kept, text, 0o644); err != nil {
		t.Log(err)
	}
	t.Logf("%s ends with:\n%s", kept, text[max(0, len(text)-600):])
}

func (s *soakServer) ready(ctx context.Context, patience time.Duration) error {
	s.mu.Lock()
	done := s.done
	s.mu.Unlock()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		select {
		case <-done:
			return errors.New(s.name + " ended before it was ready")
		default:
		}
		if res, err := s.rig.http.Get(s.url("/readyz")); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	return fmt.Errorf("%s is not ready after %v", s.name, patience)
}

func (s *soakServer) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd.Process.Signal(sig)
}

// end makes the process end and waits for that.
func (s *soakServer) end(sig syscall.Signal) error {
	s.mu.Lock()
	s.wanted = false
	cmd, done := s.cmd, s.done
	s.mu.Unlock()
	if cmd == nil {
		return nil
	}
	cmd.Process.Signal(sig)
	select {
	case <-done:
		return nil
	case <-time.After(30 * time.Second):
		cmd.Process.Kill()
		<-done
		return fmt.Errorf("%s did not end within 30 s of %v", s.name, sig)
	}
}

// metric reads one number from the server.
func (s *soakServer) metric(name string) (float64, error) {
	res, err := s.rig.http.Get(s.url("/metrics"))
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	for sc := bufio.NewScanner(res.Body); sc.Scan(); {
		if text, ok := strings.CutPrefix(sc.Text(), name+" "); ok {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", s.name, name)
}

// logged returns the lines of the server's log that hold one of the words.
func (s *soakServer) logged(words ...string) (lines []string) {
	f, err := os.Open(s.logName())
	if err != nil {
		return nil
	}
	defer f.Close()
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadString('\n')
		for _, w := range words {
			if strings.Contains(line, w) {
				lines = append(lines, strings.TrimSpace(line))
				break
			}
		}
		if errors.Is(err, io.EOF) {
			return lines
		}
	}
}
