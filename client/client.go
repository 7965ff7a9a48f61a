package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/celler/celler/httpapi/wire"
)

// Bounds on what a server may make us read.
const (
	maxErrorBytes  = 64 << 10  // an error object, or the page of a proxy
	maxAnswerBytes = 128 << 20 // a list of a million missing paths is 36 MB
)

// Client talks to one server.
type Client struct {
	endpoint  *url.URL // with a slash at its end
	token     string
	agent     string
	http      *http.Client
	retry     Retry
	onRetry   func(wait time.Duration, err error) // or nil
	logger    *slog.Logger
	now       func() time.Time
	ownClient bool
	seq       atomic.Uint64 // newest log position seen
	memory    *Memory       // that pushes share with those of other Clients, or nil
}

// Option changes a Client in New.
type Option func(*Client)

// WithToken sends a bearer token with every request.
func WithToken(token string) Option { return func(c *Client) { c.token = token } }

// WithHTTPClient replaces the HTTP client, and with it the transport's limits. Its
// CheckRedirect must not follow a PUT elsewhere.
func WithHTTPClient(h *http.Client) Option {
	return func(c *Client) { c.http = h; c.ownClient = false }
}

// WithUserAgent names the program in the server's log; the default is "celler".
func WithUserAgent(agent string) Option { return func(c *Client) { c.agent = agent } }

// WithRetry replaces the bounds on retries.
func WithRetry(r Retry) Option { return func(c *Client) { c.retry = r } }

// WithRetryNotice is told of every request that failed and will be repeated after wait,
// so that a person can be told why nothing happens. Uploads are reported by Events.
func WithRetryNotice(f func(wait time.Duration, err error)) Option {
	return func(c *Client) { c.onRetry = f }
}

// WithLogger receives what a caller may want to see in a debug log. Default: nothing.
func WithLogger(l *slog.Logger) Option { return func(c *Client) { c.logger = l } }

// WithClock replaces the clock that durations are measured with.
func WithClock(now func() time.Time) Option { return func(c *Client) { c.now = now } }

// WithMemory makes the pushes of several Clients share m. Default: each push has its own.
func WithMemory(m *Memory) Option { return func(c *Client) { c.memory = m } }

// New returns a client of the server at endpoint, such as "https://cache.example.org/".
// It makes no request.
func New(endpoint string, options ...Option) (*Client, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", endpoint, err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("endpoint %q: expected http://host/ or https://host/ and nothing behind", endpoint)
	}
	// A path without its last slash would lose its last segment when joined.
	u.Path = strings.TrimRight(u.Path, "/") + "/"
	c := &Client{endpoint: u, agent: "celler", logger: slog.New(slog.DiscardHandler), now: time.Now, ownClient: true}
	for _, option := range options {
		option(c)
	}
	c.retry = c.retry.withDefaults()
	if c.http == nil {
		c.http = &http.Client{Transport: newTransport(c.retry.Dial)}
	}
	return c, nil
}

// Close closes idle connections. A Client with an HTTP client of the caller's does nothing.
func (c *Client) Close() {
	if c.ownClient {
		c.http.CloseIdleConnections()
	}
}

// Endpoint is the server's address, with a slash at its end.
func (c *Client) Endpoint() string { return c.endpoint.String() }

// newTransport is http.DefaultTransport with enough idle connections for all uploads
// at once, bigger buffers, and patience for a server that commits before it answers.
func newTransport(dial time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dial, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          2 * maxJobs,
		MaxIdleConnsPerHost:   2 * maxJobs,
		IdleConnTimeout:       30 * time.Second, // below the usual keep-alive of proxies
		TLSHandshakeTimeout:   dial,
		ExpectContinueTimeout: 2 * time.Second,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        16 << 10,
		DisableCompression:    true,
	}
}

// call makes one request of the API with a JSON body and a JSON answer, either of
// which may be nil, and retries it: the request must be idempotent.
func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	payload, err := encode(body)
	if err != nil {
		return err
	}
	return c.retrying(ctx, &budget{}, c.noticed(), func(ctx context.Context, _ int) error {
		return c.attempt(ctx, method, path, payload, answer)
	})
}

// callCreate is call for a request that must not be sent again when its answer was
// lost, since the second would be refused because of the first.
func (c *Client) callCreate(ctx context.Context, path string, body any) error {
	payload, err := encode(body)
	if err != nil {
		return err
	}
	return c.retrying(ctx, &budget{}, c.noticed(), func(ctx context.Context, _ int) error {
		err := c.attempt(ctx, http.MethodPost, path, payload, nil)
		if _, answered := errors.AsType[*StatusError](err); err != nil && !answered && !neverSent(err) {
			return final(fmt.Errorf("%w; the answer was lost, so it may have happened", err))
		}
		return err
	})
}

// callDelete is call for a deletion: that there is nothing left on a second attempt
// is the success of the first.
func (c *Client) callDelete(ctx context.Context, path string) error {
	return c.retrying(ctx, &budget{}, c.noticed(), func(ctx context.Context, n int) error {
		err := c.attempt(ctx, http.MethodDelete, path, nil, nil)
		if status, ok := errors.AsType[*StatusError](err); ok && n > 1 && status.Status == http.StatusNotFound {
			return nil
		}
		return err
	})
}

func (c *Client) noticed() retryFunc {
	if c.onRetry == nil {
		return nil
	}
	return func(_ int, wait time.Duration, err error) { c.onRetry(wait, err) }
}

func encode(body any) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	payload, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return payload, nil
}

// neverSent reports errors of making a connection.
func neverSent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

func (c *Client) attempt(ctx context.Context, method, path string, payload []byte, answer any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.retry.Idle, errStalled)
	defer cancel()
	var body io.Reader
	if payload != nil {
		body = bytes.NewReader(payload)
	}
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return final(err)
	}
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.do(req, answer)
}

// request makes a request to a path below the endpoint.
func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	u, err := c.endpoint.Parse(path)
	if err != nil {
		return nil, fmt.Errorf("make request for %q: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("make request for %q: %w", path, err)
	}
	req.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if seq := c.seq.Load(); seq > 0 {
		req.Header.Set(wire.HeaderMinSeq, strconv.FormatUint(seq, 10))
	}
	return req, nil
}

// do sends a request and decodes the answer of a success into answer, unless that is
// nil or the server sent none: Attic's successes may be empty.
func (c *Client) do(req *http.Request, answer any) error {
	text, err := c.exchange(req)
	if err != nil {
		return err
	}
	if answer == nil || len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	if _, upload := answer.(*wire.UploadResult); upload && !json.Valid(text) {
		return nil // what was answered with success has succeeded, whatever a proxy made of the body
	}
	return decodeAnswer(req.Method+" "+req.URL.Path, text, answer)
}

// decodeAnswer decodes what was answered to a request.
func decodeAnswer(request string, text []byte, answer any) error {
	if err := json.Unmarshal(text, answer); err != nil {
		return final(fmt.Errorf("%s: decode answer %.60q: %w", request, text, err))
	}
	return nil
}

// binary posts parts, one after another, and returns the bytes of the answer. It makes one
// attempt, which fails when nothing moves for too long.
func (c *Client) binary(ctx context.Context, path, contentType string, parts ...[]byte) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	size := int64(0)
	readers := make([]io.Reader, len(parts))
	for i, p := range parts {
		size += int64(len(p))
		readers[i] = bytes.NewReader(p)
	}
	m := newMeter(io.NopCloser(io.MultiReader(readers...)), c.retry.Idle, func() { cancel(errStalled) }, func(int64) {})
	defer m.finish()
	req, err := c.request(ctx, http.MethodPost, path, m)
	if err != nil {
		return nil, final(err)
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", contentType)
	return c.exchange(req)
}

// exchange sends a request and returns the body of a success.
func (c *Client) exchange(req *http.Request) ([]byte, error) {
	res, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(req.Context()); errors.Is(cause, errStalled) {
			err = cause
		}
		return nil, fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, bare(err))
	}
	defer res.Body.Close()
	c.saw(res.Header.Get(wire.HeaderSeq))
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, newStatusError(req, res, c.now())
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: read answer: %w", req.Method, req.URL.Path, err)
	}
	if len(text) > maxAnswerBytes {
		return nil, final(fmt.Errorf("%s %s: the answer is longer than %d bytes", req.Method, req.URL.Path, maxAnswerBytes))
	}
	return text, nil
}

// saw remembers the newest position in the server's log that an answer named, and
// request asks for at least that: whichever replica answers next knows of what this
// client has done.
func (c *Client) saw(header string) {
	seq, err := strconv.ParseUint(header, 10, 64)
	if err != nil {
		return // not celler, or a read
	}
	for old := c.seq.Load(); old < seq && !c.seq.CompareAndSwap(old, seq); old = c.seq.Load() {
	}
}

// bare takes off the wrapper of net/http, which repeats method and whole URL.
func bare(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}
