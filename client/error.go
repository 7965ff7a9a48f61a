package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/celler/celler/httpapi/wire"
)

// errStalled is the cause of a request that was given up because nothing moved.
var errStalled = errors.New("the connection stalled")

// StatusError is an answer of the server that is no success.
type StatusError struct {
	Method, Path string        // of the request
	Status       int           // HTTP status
	Name         string        // the API's name of the error, such as "NoSuchCache"; "" if another program answered
	Message      string        // what the server said
	RetryAfter   time.Duration // what it asked for; 0 = nothing
	RequestID    string        // what the server's log calls the request; "" if it does not say
	object       []byte        // the error object as it came
}

func (e *StatusError) Error() string {
	text := e.Message
	if text == "" {
		text = strings.ToLower(http.StatusText(e.Status))
	}
	if e.Status >= 500 && e.RequestID != "" { // what the server's operator has to look into
		text += " (request " + e.RequestID + ")"
	}
	return fmt.Sprintf("%s %s: the server answered %d: %s", e.Method, e.Path, e.Status, text)
}

// Final reports whether the same request would be answered the same way again.
func (e *StatusError) Final() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return e.Status < 500 || e.Status == http.StatusNotImplemented || e.Status == http.StatusHTTPVersionNotSupported
}

// overload reports whether the server asked for fewer requests.
func (e *StatusError) overload() bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable
}

// hopeless reports whether no other path of the same push could fare better.
func (e *StatusError) hopeless() bool {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return false
}

// newStatusError reads the error object of a response, or the beginning of whatever a
// proxy sent instead.
func newStatusError(req *http.Request, res *http.Response, now time.Time) *StatusError {
	e := &StatusError{Method: req.Method, Path: req.URL.Path, Status: res.StatusCode, RetryAfter: retryAfter(res.Header.Get("Retry-After"), now)}
	e.RequestID = printable(res.Header.Get(wire.HeaderRequestID), 64)
	text, err := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes))
	if err != nil && len(text) == 0 {
		return e
	}
	var object struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	if json.Unmarshal(text, &object) == nil && object.Error != "" {
		e.Name, e.Message, e.object = object.Error, object.Message, text
		return e
	}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		e.Message, _, _ = strings.Cut(strings.TrimSpace(string(text)), "\n")
		e.Message = printable(e.Message, 200)
	}
	return e
}

// printable cuts s to n bytes and drops what could steer a terminal.
func printable(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x9b {
			return -1
		}
		return r
	}, s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}

// retryAfter reads a Retry-After header: seconds, or a date.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(strings.TrimSpace(header)); err == nil {
		return time.Duration(min(max(seconds, 0), 3600)) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(at.Sub(now), 0), time.Hour)
	}
	return 0
}

// final marks an error that a repetition cannot change.
func final(err error) error { return backoff.Permanent(err) }

// isFinal reports whether retrying err is pointless: it says so itself, or it is the
// caller's own context that ended.
func isFinal(ctx context.Context, err error) bool {
	if _, ok := errors.AsType[*backoff.PermanentError](err); ok {
		return true
	}
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.Final()
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return true // it is not the server that was meant, or not as it was meant
	}
	return ctx.Err() != nil
}

// unmark takes off what final put on.
func unmark(err error) error {
	if p, ok := err.(*backoff.PermanentError); ok { //nolint:errorlint // only the outermost wrapper is ours
		return p.Err
	}
	return err
}
