package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// A socket that systemd holds is served on, whatever --listen says, so that the server
// can be restarted without refusing a connection.
func TestSocketActivation(t *testing.T) {
	socket, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	c := exec.CommandContext(t.Context(), "sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec celler serve --listen 127.0.0.1:1")
	c.Env = append(c.Environ(), "HOME="+t.TempDir(), "XDG_CONFIG_HOME=", "XDG_DATA_HOME=", "XDG_CACHE_HOME=")
	c.ExtraFiles = append(c.ExtraFiles, file)
	log, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ready := false
	lines := bufio.NewScanner(log)
	for !ready && lines.Scan() {
		ready = strings.Contains(lines.Text(), "msg=ready addr="+socket.Addr().String())
	}
	if !ready {
		t.Errorf("the server did not become ready on the socket; it ended with %v", c.Wait())
		return
	}
	res, err := http.Get("http://" + socket.Addr().String() + "/healthz")
	if err != nil {
		t.Error(err)
	} else {
		_ = res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, log); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}
