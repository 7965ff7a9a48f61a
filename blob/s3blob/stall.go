package s3blob

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// errStalled ends an attempt whose body nobody takes.
var errStalled = errors.New("connection stalled in the middle of the body")

// stallGuard ends an attempt when the connection takes nothing of its body for
// too long. net/http bounds the wait for an answer, but only from the end of the
// body on; a peer that has vanished is noticed by the kernel after a quarter of an
// hour, and all that time an upload would hold its memory.
type stallGuard struct {
	next     http.RoundTripper
	patience time.Duration
}

func (g *stallGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return g.next.RoundTrip(req)
	}
	ctx, stop := context.WithCancelCause(req.Context())
	body := &guardedBody{ReadCloser: req.Body, patience: g.patience, stalled: func() { stop(errStalled) }}
	out := req.Clone(ctx)
	out.Body = body
	out.GetBody = nil // else net/http could send it again unguarded
	resp, err := g.next.RoundTrip(out)
	body.end()
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			err = cause
		}
		stop(nil)
		return nil, err
	}
	resp.Body = &endingBody{ReadCloser: resp.Body, end: func() { stop(nil) }}
	return resp, nil
}

// guardedBody calls stalled if the time from one Read to the next is too long.
type guardedBody struct {
	io.ReadCloser
	patience time.Duration
	stalled  func()

	mu    sync.Mutex  // guards what follows
	timer *time.Timer // runs since the first Read
	ended bool
}

func (b *guardedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	wait := b.patience
	if err != nil {
		wait *= 2 // for what is buffered, and then for the answer, which has its own bound
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended:
	case b.timer == nil:
		b.timer = time.AfterFunc(wait, b.stalled)
	default:
		b.timer.Reset(wait)
	}
	return n, err
}

// end stops watching: there is an answer, or there will be none.
func (b *guardedBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.timer != nil {
		b.timer.Stop()
	}
}

// endingBody is an answer's body that releases its request's context.
type endingBody struct {
	io.ReadCloser
	end func()
}

func (b *endingBody) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}
