package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"github.com/celler/celler/httpapi/wire"
)

// frontPage is what a person sees who opens the server in a browser. Some use it as a
// health check, so it is always there.
const frontPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>celler</title>
<h1>celler</h1>
<p>This is a Nix binary cache. Point Nix at <code>&lt;this address&gt;/&lt;cache&gt;</code>,
or let <code>celler use &lt;cache&gt;</code> do it.</p>
</html>
`

// front answers GET /.
func (s *server) front(x *exchange) error {
	x.send("text/html; charset=utf-8", []byte(frontPage))
	return nil
}

// healthz answers GET /healthz: the process serves requests.
func (s *server) healthz(x *exchange) error {
	x.Header().Set("Cache-Control", "no-store")
	x.send("text/plain; charset=utf-8", []byte("ok\n"))
	return nil
}

// readyz answers GET /readyz: requests sent here will be answered well.
func (s *server) readyz(x *exchange) error {
	h := s.opts.Health(s.opts.Now())
	ready := wire.Readiness{Ready: !h.Stale && h.Err == nil, Seq: h.Seq, StalenessSeconds: h.Staleness.Seconds()}
	if s.opts.Past != "" {
		ready.Past = "shows " + s.opts.Past + ", read-only"
	}
	switch {
	case h.Err != nil:
		ready.Reason = h.Err.Error()
	case h.Stale:
		ready.Reason = "the bucket was last reached " + h.Staleness.Round(time.Millisecond).String() + " ago"
	}
	body := append(mustJSON(ready), '\n')
	x.Header().Set("Cache-Control", "no-store")
	x.Header().Set("Content-Type", "application/json")
	x.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if !ready.Ready {
		x.Header().Set("Retry-After", strconv.Itoa(int(retrySoon/time.Second)))
		x.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = x.Write(body)
	return nil
}

// exposition answers GET /metrics.
func (s *server) exposition(x *exchange) error {
	s.opts.MetricsHandler.ServeHTTP(x, x.r)
	return nil
}

// send answers 200 with a short body.
func (x *exchange) send(contentType string, body []byte) {
	x.Header().Set("Content-Type", contentType)
	x.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = x.Write(body) // the peer is gone, and there is nobody to tell
}

// sendJSON answers 200 with an object.
func (x *exchange) sendJSON(v any) {
	x.Header().Set("Cache-Control", "no-store")
	x.send("application/json", mustJSON(v))
}
