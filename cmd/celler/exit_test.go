package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/internal/ui"
)

func TestReport(t *testing.T) {
	says := func(err error, code int, want string) {
		t.Helper()
		var stderr bytes.Buffer
		p := ui.New(ui.Options{Stderr: &stderr})
		if got := report(p, "verb", fmt.Errorf("context: %w", err)); got != code {
			t.Errorf("%v: exit code %d, want %d", err, got, code)
		}
		if diff := cmp.Diff(want, stderr.String()); diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}

	says(&usageError{Problem: "no"}, exitUsage, "celler: verb: context: no\n")
	says(&partlyError{Done: 2, Failed: 1, What: "path"}, exitPartly, "celler: verb: 2 paths done, 1 failed\n")
	says(context.Canceled, exitFailed, "celler: verb: interrupted\n")
	says(errors.New("odd"), exitFailed, "celler: verb: context: odd\n")
	says(&node.ListenError{Addr: ":80", Err: os.ErrPermission}, exitFailed,
		"celler: verb: context: listen on :80: permission denied\nhint: low ports are for root: choose a port from 1024 with --listen, or let systemd pass the socket\n")
	says(&node.ListenError{Addr: ":80", Err: syscall.EADDRINUSE}, exitFailed,
		"celler: verb: context: listen on :80: address already in use\nhint: another program may have :80; choose another with --listen, or port 0 for a free one\n")
	says(&os.PathError{Op: "open", Path: "/x", Err: os.ErrPermission}, exitFailed,
		"celler: verb: context: open /x: permission denied\nhint: /x is not yours to open: run celler as its owner, such as root\n")
	if got := report(ui.New(ui.Options{}), "verb", nil); got != exitDone {
		t.Errorf("no error gives exit code %d", got)
	}
}

// A bucket that breaks a promise is refused with the promise, what was seen, and what to do.
func TestReportBrokenPromise(t *testing.T) {
	findings := []node.Finding{
		{Check: "create", OK: true, Promise: "kept"},
		{Check: "create-race", Promise: "of all concurrent creates of a key one succeeds", Detail: "2 winners", Hint: "upgrade the server"},
	}
	err := node.Broken("s3://b", findings)
	v := explain(err)
	want := verdict{
		code:     exitFailed,
		sentence: "bucket s3://b breaks a promise celler stands on: of all concurrent creates of a key one succeeds (2 winners)",
		hints:    []string{"upgrade the server"},
	}
	if diff := cmp.Diff(want, v, cmp.AllowUnexported(verdict{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := node.Broken("s3://b", findings[:1]); err != nil {
		t.Errorf("a healthy bucket is broken: %v", err)
	}
}

// What a script is told never depends on what a person is.
func TestReportUsageOfVerbs(t *testing.T) {
	var stderr bytes.Buffer
	code := run("celler", []string{"doctor", "bucket", "--rounds", "x"}, strings.NewReader(""), &stderr, &stderr)
	if code != exitUsage || !strings.HasPrefix(stderr.String(), "celler: doctor bucket: --rounds: ") {
		t.Errorf("got %d: %s", code, stderr.String())
	}
}
