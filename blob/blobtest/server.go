package blobtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Credentials of the servers that Serve starts.
const (
	ServerAccessKey = "test"
	ServerSecretKey = "testtest"
)

const (
	serveAttempts = 5                // a free port may be taken before the server binds it
	serveTimeout  = 20 * time.Second // from start to the first connection
	servePoll     = 20 * time.Millisecond
)

// Serve runs a versitygw binary (scripts/versitygw builds it) with the named
// buckets, empty, until the test ends, and returns its endpoint.
func Serve(t testing.TB, binary string, buckets ...string) (endpoint string) {
	t.Helper()
	return ServeWith(t, binary, nil, buckets...)
}

// ServeWith is Serve with additional flags for the server.
func ServeWith(t testing.TB, binary string, flags []string, buckets ...string) (endpoint string) {
	t.Helper()
	dir := t.TempDir()
	for _, bucket := range buckets {
		if err := os.Mkdir(filepath.Join(dir, bucket), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	for range serveAttempts {
		if endpoint, err = serve(t, binary, dir, flags); err == nil {
			return endpoint
		}
	}
	t.Fatalf("start %s: %v", binary, err)
	return ""
}

func serve(t testing.TB, binary, dir string, flags []string) (string, error) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return "", err
	}
	log, err := os.CreateTemp(t.TempDir(), "server")
	if err != nil {
		return "", err
	}
	defer log.Close()
	// Ended by the cleanup below, which waits: not by the context.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary,
		slices.Concat([]string{"--quiet", "--port", address}, flags, []string{"posix", dir})...)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+ServerAccessKey, "ROOT_SECRET_KEY="+ServerSecretKey)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	stop := func() {
		_ = cmd.Process.Kill() // it keeps nothing that must be saved
		<-exited
	}
	if err := await(t.Context(), address, exited); err != nil {
		stop()
		out, _ := os.ReadFile(log.Name())
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	t.Cleanup(stop)
	return "http://" + address, nil
}

// await returns when something listens on the address.
func await(ctx context.Context, address string, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	tick := time.NewTicker(servePoll)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-exited:
			return fmt.Errorf("server on %s ended at once", address)
		case <-ctx.Done():
			return fmt.Errorf("server on %s does not listen: %w", address, err)
		}
	}
}
