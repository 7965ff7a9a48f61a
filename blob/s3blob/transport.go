package s3blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// errNotWanted ends the sending of a body that the server has refused.
var errNotWanted = errors.New("the server has answered without asking for the body")

// maxRefusal bounds what is read of a refusal before its connection is given up.
const maxRefusal = 64 << 10

// holdBack keeps a request's body back if the server answers a request with
// Expect: 100-continue at once.
//
// net/http would send the body all the same, to be able to use the connection
// again, unless the answer says that the connection will be closed. A server
// that neither says so nor reads the body then resets the connection while we
// write, and the reset may overtake the answer: a clean 412 becomes an unknown
// outcome. So the body blocks until the answer has been read, and then fails.
// That costs the connection, which is cheaper than the uncertainty.
type holdBack struct {
	next http.RoundTripper
	wait time.Duration // ExpectContinueTimeout of next: then the body is sent unasked
}

func (h *holdBack) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Header.Get("Expect") == "" || req.Body == nil {
		return h.next.RoundTrip(req)
	}
	body := &heldBody{ReadCloser: req.Body, wait: h.wait, answered: make(chan struct{})}
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Wait100Continue: func() { now := time.Now(); body.waiting.Store(&now) },
		Got100Continue:  func() { body.asked.Store(true) },
	})
	out := req.Clone(ctx)
	out.Body = body
	// The SDK leaves the version at 0.0, and then net/http sends the header but
	// the body right after it, without waiting.
	out.Proto, out.ProtoMajor, out.ProtoMinor = "HTTP/1.1", 1, 1
	out.GetBody = nil // never replayed below us
	body.ctx = ctx
	resp, err := h.next.RoundTrip(out)
	if err == nil && body.blocked.Load() {
		// Save the answer before the failing body takes the connection with it.
		var text []byte
		text, err = io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
		if err = errors.Join(err, resp.Body.Close()); err == nil {
			resp.Body = io.NopCloser(bytes.NewReader(text))
		}
	}
	body.finish()
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// heldBody is a body that the server has to ask for.
type heldBody struct {
	io.ReadCloser
	ctx  context.Context //nolint:containedctx // of the request it belongs to
	wait time.Duration

	waiting atomic.Pointer[time.Time] // since when the answer is awaited
	asked   atomic.Bool               // there was a 100 Continue
	blocked atomic.Bool               // a Read waits for the answer

	once     sync.Once
	answered chan struct{} // closed by finish
}

func (b *heldBody) Read(p []byte) (int, error) {
	since := b.waiting.Load()
	if b.asked.Load() || since == nil || time.Since(*since) >= b.wait {
		return b.ReadCloser.Read(p)
	}
	// Neither asked nor tired of waiting: so there is a final answer.
	b.blocked.Store(true)
	select {
	case <-b.answered:
	case <-b.ctx.Done():
	}
	return 0, errNotWanted
}

func (b *heldBody) finish() { b.once.Do(func() { close(b.answered) }) }
