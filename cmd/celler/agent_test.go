package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/celler/celler/internal/agent"
	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/internal/ui"
)

// An agent under systemd: it takes the socket that it is passed, says when it is ready, gives
// signs of life, and says when it stops.
func TestAgentUnderSystemd(t *testing.T) {
	dir, err := os.MkdirTemp("", "agent") // t.TempDir may be too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	q, err := queue.Open(filepath.Join(dir, "q"))
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: q.Socket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	file, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	if err := manager.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	expect := func(prefix string) {
		t.Helper()
		buf := make([]byte, 4096)
		for {
			n, err := manager.Read(buf)
			if err != nil {
				t.Fatalf("systemd was never told %s: %v", prefix, err)
			}
			if strings.HasPrefix(string(buf[:n]), prefix) {
				return
			}
		}
	}

	// A hook queues something before there is an agent: it waits at the socket.
	hook := exec.CommandContext(t.Context(), "celler", "hook", "--queue", q.Dir(), "nosuch:ci")
	hook.Env = append(hook.Environ(), "OUT_PATHS=/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-gone")
	if out, err := hook.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("hook: %v %s", err, out)
	}
	c := exec.CommandContext(t.Context(), "sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 WATCHDOG_PID=$$ exec celler agent")
	c.Env = append(c.Environ(), "HOME="+dir, "XDG_CONFIG_HOME=", "CELLER_QUEUE="+q.Dir(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=200000",
		"NIX_REMOTE=unix:///nonexistent")
	c.ExtraFiles = append(c.ExtraFiles, file)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	expect("READY=1\nSTATUS=1 paths queued")
	expect("WATCHDOG=1")
	expect("WATCHDOG=1")
	s, err := agent.StatusAt(t.Context(), q.Socket())
	if err != nil || !s.Running || s.PID != c.Process.Pid || s.Entries != 1 {
		t.Errorf("status %+v %v", s, err)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	expect("STOPPING=1")
	if err := c.Wait(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	if _, err := os.Stat(q.Socket()); err != nil {
		t.Errorf("the agent took systemd's socket away: %v", err)
	}
}

// What is printed of an agent that does not answer, and of one whose entries were set aside.
func TestAgentStatusText(t *testing.T) {
	var out bytes.Buffer
	a := &app{ui: ui.New(ui.Options{Stdout: &out, Stderr: &out}), now: time.Now}
	s := agent.Status{Queue: "/q", Running: true, Silent: true, PID: 17, Totals: agent.Totals{Damaged: 2}}
	if err := (&agentStatusCmd{}).print(a, s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"process 17 does not answer", "2 entries, kept in /q/damaged"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nwant %q", out.String(), want)
		}
	}
	if strings.Contains(out.String(), "uploads") {
		t.Errorf("%s\nnobody knows what it has pushed", out.String())
	}
	if v := explain(&agent.UndoneError{Aside: "/q/damaged"}); v.code != exitPartly || len(v.hints) != 1 || !strings.Contains(v.hints[0], "by hand") || !strings.Contains(v.sentence, "/q/damaged") {
		t.Errorf("%+v", v)
	}
}
