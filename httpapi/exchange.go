package httpapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
)

// exchange is one request and its response. It is the http.ResponseWriter that
// handlers write to, so that status, bytes and stalls are seen whoever writes.
type exchange struct {
	s     *server
	w     http.ResponseWriter
	r     *http.Request
	rc    *http.ResponseController
	body  *bodyReader
	start time.Time

	grant auth.Grant
	id    string // see requestID
	route string
	attrs []slog.Attr // of the access line
	err   error       // what was answered with an error, for the access line

	status       int
	written      int64
	writeBy      time.Time // the write deadline in force
	headerIsSent bool
	lastReadSet  bool
}

// ServeHTTP is everything around a handler: panics, the access line, the checks that come
// before any route.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{s: s, w: w, rc: http.NewResponseController(w), start: s.opts.Now(), route: "other"}
	x.body = &bodyReader{x: x, src: r.Body, empty: r.ContentLength == 0}
	r.Body = x.body
	x.r = r
	s.metrics.inFlight.Add(1)
	defer func() { r.Pattern = x.r.Pattern }() // admit makes a request of its own, and spans are named by this one
	defer x.end()
	if err := x.admit(); err != nil {
		x.fail(err)
		return
	}
	s.mux.ServeHTTP(x, x.r)
}

// admit runs the checks that hold for every path.
func (x *exchange) admit() error {
	if hosts := x.s.opts.AllowedHosts; len(hosts) > 0 {
		switch {
		case x.r.Host == "":
			return requestError("Missing Host header")
		case !slices.Contains(hosts, x.r.Host):
			return requestError("Bad Host")
		}
	}
	if !clean(x.r.URL) {
		return errNotFound
	}
	if isProbe(x.r.URL.Path) {
		return nil
	}
	x.grant = x.s.auth.Authenticate(x.r.Header.Get("Authorization"), x.start)
	if x.grant.Rejected != nil {
		x.s.opts.Logger.LogAttrs(x.r.Context(), slog.LevelDebug, "credentials are not believed",
			slog.String("remote_addr", x.r.RemoteAddr), slog.Any("err", x.grant.Rejected))
	}
	x.r = x.r.WithContext(catalog.As(x.r.Context(), x.grant.Subject)) // stands in the log
	if h := x.s.opts.Health(x.start); h.Stale {
		return unavailable("this node has not reached its bucket for "+h.Staleness.Round(time.Second).String(), h.Err)
	}
	return x.awaitSeq()
}

// isProbe tells the paths that must answer however bad things are.
func isProbe(path string) bool {
	return path == "/" || path == "/healthz" || path == "/readyz" || path == "/metrics"
}

// awaitSeq serves Celler-Min-Seq: the caller wants to see at least what it was told of.
func (x *exchange) awaitSeq() error {
	text := x.r.Header.Get(wire.HeaderMinSeq)
	if text == "" {
		return nil
	}
	seq, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return requestError("%s: expected a number, found %.40q", wire.HeaderMinSeq, text)
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), x.s.opts.WaitTimeout)
	defer cancel()
	if err := x.s.cat.Wait(ctx, catalog.Seq(seq)); err != nil {
		if x.r.Context().Err() != nil {
			return err
		}
		return unavailable("this node has not seen position "+text+" of the log yet", err)
	}
	return nil
}

// end runs last, also when the handler panicked.
func (x *exchange) end() {
	s := x.s
	s.metrics.inFlight.Add(-1)
	panicked := recover()
	if panicked != nil && panicked != http.ErrAbortHandler {
		s.opts.Logger.LogAttrs(x.r.Context(), slog.LevelError, "handler panicked",
			slog.String("request_id", x.requestID()), slog.String("route", x.route), slog.Any("err", panicked), slog.String("stack", stack()))
		if !x.headerIsSent {
			x.fail(&refusal{status: http.StatusInternalServerError, name: wire.ErrorInternal, message: messageInternal, plain: true})
			panicked = nil
		} else {
			panicked = http.ErrAbortHandler
		}
	}
	x.finish(panicked != nil)
	if x.bodyPending() {
		x.lastRead()
	}
	if panicked != nil {
		panic(http.ErrAbortHandler)
	}
}

// requestID names the request in the log, and to a client that is answered with an error. It
// is made up here, whatever the request says: two lines must not have the same.
func (x *exchange) requestID() string {
	if x.id == "" {
		x.id = strconv.FormatUint(1<<63|rand.Uint64(), 16) // always 16 digits
	}
	return x.id
}

// finish writes the access line and the metrics.
func (x *exchange) finish(aborted bool) {
	s := x.s
	if x.status == 0 {
		x.status = http.StatusOK
	}
	dur := s.opts.Now().Sub(x.start)
	s.metrics.observe(x.route, x.status, dur, x.written, x.body.read)

	level := slog.LevelInfo
	switch {
	case isProbe(x.r.URL.Path) && x.status < 400:
		level = slog.LevelDebug
	case x.status >= 500 || aborted:
		level = slog.LevelWarn
	}
	ctx := x.r.Context()
	if !s.opts.Logger.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("method", x.r.Method),
		slog.String("route", x.route),
		slog.Int("status", x.status),
		slog.Int64("bytes", x.written),
		slog.Duration("dur", dur),
		slog.String("remote_addr", x.r.RemoteAddr),
		slog.String("request_id", x.requestID()),
	)
	if x.body.read > 0 {
		attrs = append(attrs, slog.Int64("body_bytes", x.body.read))
	}
	if x.grant.Subject != "" {
		attrs = append(attrs, slog.String("subject", x.grant.Subject))
	}
	if cache := x.r.PathValue("cache"); cache != "" {
		attrs = append(attrs, slog.String("cache", cache))
	}
	attrs = append(attrs, x.attrs...)
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		attrs = append(attrs, slog.String("trace_id", span.TraceID().String()))
	}
	if x.err != nil {
		attrs = append(attrs, slog.String("err", x.err.Error()))
	}
	if aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	s.opts.Logger.LogAttrs(ctx, level, "request", attrs...)
}

// Header implements http.ResponseWriter.
func (x *exchange) Header() http.Header { return x.w.Header() }

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.w }

// WriteHeader implements http.ResponseWriter.
func (x *exchange) WriteHeader(status int) {
	if status >= 200 && !x.headerIsSent {
		x.status, x.headerIsSent = status, true
		if status >= 400 {
			x.Header().Set(wire.HeaderRequestID, x.requestID())
		}
		if x.bodyPending() && x.body.read == 0 {
			x.answerFirst() // nobody was interested in the body
		}
	}
	x.extendWrite()
	x.w.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(p []byte) (int, error) {
	if !x.headerIsSent {
		x.WriteHeader(http.StatusOK)
	}
	x.extendWrite()
	n, err := x.w.Write(p)
	x.written += int64(n)
	return n, err
}

const (
	// copyBytes is the buffer of a body copied through memory: large enough that
	// the system calls do not show, small enough for hundreds of connections.
	copyBytes = 128 << 10
	// sendfileBytes is how much of a file is sent per write deadline. A peer that takes
	// longer than StallTimeout for it is cut off.
	sendfileBytes = 1 << 20
)

//nolint:gochecknoglobals // a pool
var copyBuffers = sync.Pool{New: func() any { return new([copyBytes]byte) }}

// ReadFrom implements io.ReaderFrom, which io.Copy looks for: a file goes to the
// connection by sendfile, anything else through a pooled buffer, and both keep the
// write deadline moving.
func (x *exchange) ReadFrom(src io.Reader) (int64, error) {
	if !x.headerIsSent {
		x.WriteHeader(http.StatusOK)
	}
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		return copyThrough(x, src)
	}
	rf, canSend := x.w.(io.ReaderFrom)
	if _, isFile := limited.R.(*os.File); !isFile || !canSend {
		return copyThrough(x, src)
	}
	var total int64
	for limited.N > 0 {
		x.extendWrite()
		part := &io.LimitedReader{R: limited.R, N: min(limited.N, sendfileBytes)}
		n, err := rf.ReadFrom(part)
		limited.N -= n
		total += n
		x.written += n
		if err != nil || n == 0 {
			return total, err
		}
	}
	return total, nil
}

// copyThrough copies through a pooled buffer.
func copyThrough(dst io.Writer, src io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[copyBytes]byte)
	defer copyBuffers.Put(buf)
	var total int64
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			m, werr := dst.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// extendWrite moves the write deadline, at most eight times per StallTimeout: setting it
// for every write would cost more than the writing of a narinfo.
func (x *exchange) extendWrite() {
	stall := x.s.opts.StallTimeout
	now := x.s.opts.Now()
	if x.writeBy.Sub(now) > stall-stall/8 {
		return
	}
	x.writeBy = now.Add(stall)
	_ = x.rc.SetWriteDeadline(x.writeBy) // not supported by test recorders; then there is no peer to stall
}

// bodyReader is the request's body: counted, with a read deadline that moves as
// long as bytes do.
type bodyReader struct {
	x      *exchange
	src    io.ReadCloser
	empty  bool // there is none
	read   int64
	done   bool // all of it was read, or it broke
	readBy time.Time
}

func (b *bodyReader) Read(p []byte) (int, error) {
	if b.empty {
		b.done = true
		return b.src.Read(p)
	}
	stall := b.x.s.opts.StallTimeout
	if now := b.x.s.opts.Now(); b.readBy.Sub(now) <= stall-stall/8 && !b.done {
		b.readBy = now.Add(stall)
		_ = b.x.rc.SetReadDeadline(b.readBy)
	}
	n, err := b.src.Read(p)
	b.read += int64(n)
	if err != nil {
		b.done = true
	}
	if errors.Is(err, io.EOF) {
		// The server now watches the connection for the peer's going away; a
		// deadline left in place would look like that. After any other error it
		// stays, or the server would wait for the rest of the body without one.
		_ = b.x.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (b *bodyReader) Close() error { return b.src.Close() }
