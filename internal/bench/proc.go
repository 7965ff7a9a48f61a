package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lab owns the processes and directories of a run.
type lab struct {
	settings
	out   io.Writer
	rows  []row
	procs []*proc
	n     int
	nars  []corpusNAR

	patience time.Duration // with a server that starts; zero: a minute
}

// proc is one child process.
type proc struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

func (l *lab) close() error {
	l.stopAll()
	if l.keep {
		return nil
	}
	return os.RemoveAll(l.dir)
}

func (l *lab) stopAll() {
	for _, p := range l.procs {
		p.stop()
	}
	l.procs = nil
}

func (p *proc) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// start runs a command with its output in a file of the scratch directory.
func (l *lab) start(name string, env []string, args ...string) (*proc, string, error) {
	l.n++
	logName := filepath.Join(l.dir, fmt.Sprintf("%s-%d.log", filepath.Base(name), l.n))
	f, err := os.Create(logName)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start %s: %w", name, err)
	}
	p := &proc{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // it is stopped by a signal
	}()
	l.procs = append(l.procs, p)
	return p, logName, nil
}

// peakRSS is the process's largest resident set so far, in bytes.
func (p *proc) peakRSS() (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kb * 1024, err
		}
	}
	return 0, errors.New("no VmHWM line")
}

// cpuSeconds is the processor time the process has used so far.
func (p *proc) cpuSeconds() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 14 {
		return 0, errors.New("short /proc stat line")
	}
	user, err1 := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100, errors.Join(err1, err2)
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// server is one celler serve with a token that may do everything.
type server struct {
	*proc
	lab      *lab
	endpoint string
	token    string
	ready    time.Duration // from exec to the first 200 of /readyz
}

const benchSecret = "YSBiZW5jaG1hcmsgc2VjcmV0IG9mIG5vIHZhbHVl"

// serve starts celler on a bucket and waits until it is ready.
func (l *lab) serve(ctx context.Context, bucket, local string, env ...string) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	return l.serveAt(ctx, addr, bucket, local, env...)
}

// serveAt is serve on an address of the caller's choice.
func (l *lab) serveAt(ctx context.Context, addr, bucket, local string, env ...string) (*server, error) {
	env = append(env, "CELLER_SERVER_TOKEN_HS256_SECRET_BASE64="+benchSecret)
	begin := time.Now()
	p, logName, err := l.start(l.celler, env, "serve", "--bucket", bucket, "--cache-dir", local, "--listen", addr)
	if err != nil {
		return nil, err
	}
	s := &server{proc: p, lab: l, endpoint: "http://" + addr}
	for deadline := begin.Add(max(l.patience, time.Minute)); ; time.Sleep(2 * time.Millisecond) {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return nil, fmt.Errorf("celler serve is not ready in time; see %s", logName)
		}
		res, err := http.Get(s.endpoint + "/readyz")
		if err != nil {
			continue
		}
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			break
		}
	}
	s.ready = time.Since(begin)
	cmd := exec.CommandContext(ctx, l.celler, "token", "create", "--local", "--sub", "bench", "--validity", "1d", "--pull", "*", "--push", "*", "--create-cache", "*")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("celler token create: %w", err)
	}
	s.token = strings.TrimSpace(string(out))
	return s, nil
}

// s3 starts versitygw and returns its address, and the environment and URL that name a bucket on it.
func (l *lab) s3() (addr string, env []string, err error) {
	addr, err = freeAddr()
	if err != nil {
		return "", nil, err
	}
	root := filepath.Join(l.dir, "s3-"+addr)
	if err := os.MkdirAll(filepath.Join(root, "celler"), 0o755); err != nil {
		return "", nil, err
	}
	if _, _, err := l.start(l.versitygw, nil, "--access", "celler", "--secret", "cellersecret", "--port", addr, "posix", root); err != nil {
		return "", nil, err
	}
	return addr, []string{"AWS_ACCESS_KEY_ID=celler", "AWS_SECRET_ACCESS_KEY=cellersecret"}, waitTCP(addr)
}

func s3URL(addr string) string {
	return "s3://celler/bench?endpoint=http://" + addr + "&path-style=true&region=us-east-1"
}

func waitTCP(addr string) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			return c.Close()
		}
	}
	return fmt.Errorf("%s does not answer after 30 s", addr)
}

// nginxServe starts nginx on a directory of static files.
func (l *lab) nginxServe(root string) (endpoint string, err error) {
	addr, err := freeAddr()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(l.dir, "nginx-"+addr)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	conf := fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 512; }
http { sendfile on; tcp_nopush on; access_log off; keepalive_requests 100000000; default_type application/octet-stream;
  client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
  server { listen %[2]s; root %[3]s; } }
`, dir, addr, root)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return "", err
	}
	if _, _, err := l.start(l.nginx, nil, "-c", file, "-p", dir); err != nil {
		return "", err
	}
	return "http://" + addr, waitTCP(addr)
}

// bucketRequests reads the server's own count of bucket calls, by operation.
func (s *server) bucketRequests() (map[string]float64, error) {
	res, err := http.Get(s.endpoint + "/metrics")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	counts := map[string]float64{}
	sc := bufio.NewScanner(res.Body)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		name, value, ok := strings.Cut(sc.Text(), "} ")
		if !ok || !strings.HasPrefix(name, "celler_blob_requests_total{") {
			continue
		}
		_, rest, _ := strings.Cut(name, `op="`)
		op, _, _ := strings.Cut(rest, `"`)
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("parse metric line %q: %w", sc.Text(), err)
		}
		counts[op] += v
	}
	return counts, sc.Err()
}

func dirBytes(root string) (n int64, err error) {
	err = filepath.WalkDir(root, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			n += fi.Size()
		}
		return err
	})
	return n, err
}

// reads counts the requests that bring bytes or tell of them.
func reads(requests map[string]float64) float64 {
	return requests["get"] + requests["get_if"] + requests["get_range"]
}
