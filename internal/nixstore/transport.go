package nixstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/celler/celler/nix"
)

// DefaultSocket is where the daemon listens unless told otherwise.
const DefaultSocket = "/nix/var/nix/daemon-socket/socket"

// exitDelay is how long a spawned daemon may take to end after its input ended.
// It has nothing left to do.
const exitDelay = 2 * time.Second

// dial connects to the store that the options name.
func dial(ctx context.Context, o Options) (*conn, error) {
	socket, must := o.socket()
	if socket != "" {
		nc, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			c, err := newConn(ctx, nc, nil)
			if err != nil {
				_ = nc.Close()
				return nil, fmt.Errorf("open nix store at socket %s: %w", socket, err)
			}
			return c, nil
		}
		absent := errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTDIR)
		if must || !absent {
			return nil, fmt.Errorf("open nix store: %w", err)
		}
	}
	p, err := spawn(o)
	if err != nil {
		return nil, fmt.Errorf("open nix store: no daemon at %s, and start one of our own: %w", o.Socket, err)
	}
	c, err := newConn(ctx, p, p.said)
	if err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("open nix store with %s: %w", strings.Join(o.DaemonCommand, " "), err)
	}
	return c, nil
}

// socket is the socket to try, and whether it is the only choice.
func (o Options) socket() (path string, must bool) {
	switch {
	case o.Remote == "" || o.Remote == "auto":
		return o.Socket, false
	case o.Remote == "daemon":
		return o.Socket, true
	case strings.HasPrefix(o.Remote, "unix://"):
		path, _, _ := strings.Cut(strings.TrimPrefix(o.Remote, "unix://"), "?")
		if path == "" {
			path = o.Socket
		}
		return path, true
	}
	return "", false // "local", a directory, or a store that nix-daemon will reach for us
}

// realStoreDir is where the files of the store are. It differs from the store
// dir for a store below another root, Remote "/some/root" or "local?root=…":
// there Nix puts them below nix/store whatever the store dir is.
func (o Options) realStoreDir() string {
	if rest, ok := strings.CutPrefix(o.Remote, "local"); ok {
		_, query, _ := strings.Cut(rest, "?")
		if v, err := url.ParseQuery(query); err == nil && v.Get("real") != "" {
			return v.Get("real")
		}
	}
	if root := o.root(); root != "" {
		return root + string(nix.DefaultStoreDir)
	}
	return string(o.StoreDir)
}

// root is the directory below which a store of its own is, or "".
func (o Options) root() string {
	root := ""
	if strings.HasPrefix(o.Remote, "/") {
		root, _, _ = strings.Cut(o.Remote, "?")
	} else if rest, ok := strings.CutPrefix(o.Remote, "local"); ok {
		_, query, _ := strings.Cut(rest, "?")
		if v, err := url.ParseQuery(query); err == nil {
			root = v.Get("root")
		}
	}
	return strings.TrimSuffix(root, "/")
}

// A process is a daemon of our own, spoken to over its standard streams. What it
// writes to stderr is kept for error messages.
type process struct {
	io.Reader
	io.Writer
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout io.Closer
	stderr tail

	once sync.Once // the fields below are written in it
	err  error
}

func spawn(o Options) (*process, error) {
	p := &process{}
	// Without a context: it lives as long as the Store, and Close waits for it.
	p.cmd = exec.Command(o.DaemonCommand[0], o.DaemonCommand[1:]...) //nolint:noctx // see above
	p.cmd.Env = o.Env
	if o.Remote != "" {
		p.cmd.Env = append(p.cmd.Environ(), "NIX_REMOTE="+o.Remote)
	}
	// A ^C at the terminal is for us; we close its input when we are done.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = exitDelay
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		_ = stdin.Close()
		return nil, err
	}
	p.Writer, p.stdin, p.Reader, p.stdout = stdin, stdin, stdout, stdout
	if err := p.cmd.Start(); err != nil {
		_ = stdin.Close()
		_ = stdout.Close()
		return nil, err
	}
	return p, nil
}

// Close ends the process and waits for it.
func (p *process) Close() error {
	p.once.Do(func() {
		_ = p.stdin.Close()
		_ = p.stdout.Close()
		kill := time.AfterFunc(exitDelay, func() { _ = p.cmd.Process.Kill() })
		defer kill.Stop()
		// How it exits does not matter: it was told that nobody listens.
		var exit *exec.ExitError
		if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
			p.err = err
		}
	})
	return p.err
}

// said waits for the process to end, since its last words come last.
func (p *process) said() string {
	_ = p.Close()
	return plain(p.stderr.String())
}

// A tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

const tailSize = 2 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-tailSize):]...)
	if len(t.buf) > tailSize {
		t.buf = bytes.Clone(t.buf[len(t.buf)-tailSize:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
