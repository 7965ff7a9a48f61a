package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/celler/celler/internal/queue"
)

func pid() int { return os.Getpid() }

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// serve answers on the agent's socket until stop is called.
func (a *Agent) serve(ctx context.Context) (stop func(), err error) {
	if a.o.Listen == nil {
		return func() {}, nil
	}
	l, err := a.o.Listen(ctx)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return func() {}, nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /wake", func(w http.ResponseWriter, _ *http.Request) {
		a.Wake()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		var s Status
		if a.ask(r.Context(), func() { s = a.status() }) {
			answerJSON(w, s)
			return
		}
		http.Error(w, "the agent is stopping", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("POST /wait", a.serveWait)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second,
		ErrorLog: slog.NewLogLogger(a.o.Logger.Handler(), slog.LevelDebug),
	}
	a.workers.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.o.Logger.ErrorContext(ctx, "nobody can be answered any more", "err", err)
		}
	})
	return func() { _ = server.Close() }, nil
}

// ask has f run by Run's goroutine; false if that has ended, or ctx has.
func (a *Agent) ask(ctx context.Context, f func()) bool {
	done := make(chan struct{})
	select {
	case a.asks <- func() { defer close(done); f() }:
		<-done
		return true
	case <-a.stopped:
	case <-ctx.Done():
	}
	return false
}

func (a *Agent) serveWait(rw http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	var w *waiter
	if a.ask(ctx, func() { a.look(ctx, true); w = a.wait() }) {
		select {
		case result := <-w.reply:
			answerJSON(rw, result)
			return
		case <-a.stopped:
		case <-ctx.Done():
			a.ask(context.WithoutCancel(ctx), func() { delete(a.waiters, w) })
		}
	}
	http.Error(rw, "the agent is stopping", http.StatusServiceUnavailable)
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who has gone does not want it
}

// NotRunningError reports that no agent listens on a socket.
type NotRunningError struct{ Socket string }

func (e *NotRunningError) Error() string { return "no agent listens on " + e.Socket }

// wakeWithin bounds how long a hook may be held up by an agent that does not accept.
const wakeWithin = 20 * time.Millisecond

// WakeAt tells the agent behind a socket that there is something new, without waiting
// for it. That it fails matters little: an agent looks by itself.
func WakeAt(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, wakeWithin)
	defer cancel()
	c, err := dial(ctx, socket)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline) // a unix socket has them
	}
	_, err = io.WriteString(c, "POST /wake HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	return err
}

// StatusAt asks the agent behind a socket how it is doing; *NotRunningError if there is none.
func StatusAt(ctx context.Context, socket string) (Status, error) {
	var s Status
	return s, call(ctx, socket, http.MethodGet, "/status", &s)
}

// WaitAt waits until the agent behind a socket has done what can be done about everything
// that is queued.
func WaitAt(ctx context.Context, socket string) (WaitResult, error) {
	var r WaitResult
	return r, call(ctx, socket, http.MethodPost, "/wait", &r)
}

func call(ctx context.Context, socket, method, path string, answer any) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) }}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, nil)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the agent: it answered %d: %.200s", res.StatusCode, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("ask the agent: decode its answer: %w", err)
	}
	return nil
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, &NotRunningError{socket}
	}
	return c, err
}

// NewListener is an Options.Listen: it takes over a socket that a service manager opened, if
// there is one in passed, or opens the queue's own.
func NewListener(q *queue.Queue, passed []net.Listener) func(context.Context) (net.Listener, error) {
	return func(ctx context.Context) (net.Listener, error) {
		if len(passed) > 0 {
			return passed[0], nil
		}
		name := q.Socket()
		if len(name) > maxSocketName {
			return nil, &SocketNameError{name}
		}
		// The queue is locked, so no agent listens there; but a service manager may, to
		// start one. What it does not hear of, we find by looking.
		c, err := dial(ctx, name)
		if err == nil {
			return nil, c.Close()
		}
		if errors.Is(err, syscall.EAGAIN) {
			return nil, nil // somebody does, and has not got round to all who called
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("listen on %s: %w", name, err)
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "unix", name)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", name, err)
		}
		return l, nil
	}
}

// maxSocketName is what every Unix has room for.
const maxSocketName = 103

// SocketNameError reports a queue whose directory is too deep for a socket.
type SocketNameError struct{ Name string }

func (e *SocketNameError) Error() string {
	return fmt.Sprintf("listen on %s: the name has %d bytes, and a socket's can have %d", e.Name, len(e.Name), maxSocketName)
}
