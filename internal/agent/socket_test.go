package agent

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/queue"
)

// The real socket, and a hook that does not wait.
func TestSocket(t *testing.T) {
	w := newWorld(t)
	if _, ok := errors.AsType[*NotRunningError](WakeAt(t.Context(), w.q.Socket())); !ok {
		t.Error("an agent that does not run was woken")
	}
	w.refuse["bad"] = &client.DamagedError{Err: errors.New("NAR hash expected")}
	if err := os.WriteFile(w.q.Socket(), nil, 0o600); err != nil { // of an agent that was killed
		t.Fatal(err)
	}
	o := w.options()
	o.Listen = NewListener(w.q, nil)
	ready := make(chan struct{})
	once := sync.OnceFunc(func() { close(ready) })
	o.Notify = func(string) { once() }
	_, stop := w.start(o)
	<-ready
	w.add("ci", "good")
	w.add("ci", "bad")
	if err := WakeAt(t.Context(), w.q.Socket()); err != nil {
		t.Fatal(err)
	}
	r, err := WaitAt(t.Context(), w.q.Socket())
	if err != nil || r.Entries == 0 || r.Undone != 1 || !strings.Contains(r.Failures[0].Err, "NAR hash") {
		t.Errorf("waited: %+v %v", r, err)
	}
	s, err := StatusAt(t.Context(), w.q.Socket())
	if err != nil || !s.Running || s.Entries != 1 || s.Pushed != 1 {
		t.Errorf("status %+v %v", s, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, ok := errors.AsType[*NotRunningError](WakeAt(t.Context(), w.q.Socket())); !ok {
		t.Error("the socket is open after the end")
	}
}

// A socket on which somebody listens is left alone, and one that is passed is used.
func TestSocketOfOthers(t *testing.T) {
	w := newWorld(t)
	l, err := NewListener(w.q, nil)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if second, err := NewListener(w.q, nil)(t.Context()); second != nil || err != nil {
		t.Errorf("listens a second time: %v %v", second, err)
	}
	if passed, err := NewListener(w.q, []net.Listener{l})(t.Context()); passed != l || err != nil {
		t.Errorf("took %v %v, want what was passed", passed, err)
	}
	o := w.options()
	o.Listen = NewListener(w.q, nil)
	_, stop := w.start(o)
	if err := stop(); err != nil {
		t.Errorf("an agent without a socket ended with %v", err)
	}
}

func TestSocketName(t *testing.T) {
	q, err := queue.Open(filepath.Join(t.TempDir(), strings.Repeat("deep/", 30)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewListener(q, nil)(t.Context())
	if _, ok := errors.AsType[*SocketNameError](err); !ok {
		t.Errorf("a name of %d bytes gave %v", len(q.Socket()), err)
	}
}

// A socket of somebody who is slow to answer is not taken away.
func TestListenerIsBusy(t *testing.T) {
	dir, err := os.MkdirTemp("", "busy") // a name that is short enough
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	q, err := queue.Open(filepath.Join(dir, "queue"))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: q.Socket()}), syscall.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	for busy := false; !busy; {
		c, err := dial(t.Context(), q.Socket())
		if err == nil {
			defer c.Close()
		}
		busy = err != nil
	}
	l, err := NewListener(q, nil)(t.Context())
	if l != nil || err != nil {
		t.Errorf("listener %v, %v, want none and no error", l, err)
	}
	if _, err := os.Lstat(q.Socket()); err != nil {
		t.Errorf("the socket is gone: %v", err)
	}
	if l != nil {
		_ = l.Close()
	}
}

// An agent that is stopped has its socket and does not answer.
func TestStatusOfSilentAgent(t *testing.T) {
	w := newWorld(t)
	w.add("ci", "one")
	if s, err := StatusWithin(t.Context(), w.q, time.Minute); err != nil || s.Running || s.Silent || s.Entries != 1 {
		t.Errorf("without an agent: %+v, %v", s, err)
	}
	unlock, err := w.q.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	l, err := NewListener(w.q, nil)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s, err := StatusWithin(t.Context(), w.q, 10*time.Millisecond)
	if err != nil || !s.Running || !s.Silent || s.PID != os.Getpid() || s.Entries != 1 {
		t.Errorf("status %+v, %v", s, err)
	}
}
