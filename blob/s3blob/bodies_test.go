package s3blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/s3blob"
)

// brokenBody ends with an error after some bytes.
type brokenBody struct {
	io.Reader
	err error
}

func (b *brokenBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = b.err
	}
	return n, err
}
func (b *brokenBody) Close() error { return nil }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// bodies opens a bucket on a server that sends bodies, one after the other.
func bodies(t *testing.T, o s3blob.Options, header http.Header, status int, size int64, all ...io.ReadCloser) *s3blob.Bucket {
	t.Helper()
	n := 0
	if size >= 0 {
		header.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	o.WrapTransport = func(http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			n++
			return &http.Response{StatusCode: status, Header: header, ContentLength: size, Body: all[min(n, len(all))-1], Request: r}, nil
		})
	}
	o.Bucket, o.Endpoint, o.AccessKeyID, o.SecretAccessKey = "b", "http://s3.test", "k", "s"
	return mustOpen(t, o)
}

func TestBrokenBodies(t *testing.T) {
	half := func() io.ReadCloser { return &brokenBody{strings.NewReader("01234"), io.ErrUnexpectedEOF} }
	whole := io.NopCloser(strings.NewReader("0123456789"))
	plain := http.Header{"Etag": {`"t"`}}

	b := bodies(t, s3blob.Options{}, plain, 200, 10, half(), half(), whole)
	if body, _, err := b.Get(t.Context(), "k"); err != nil || string(body) != "0123456789" {
		t.Errorf("get with two broken answers: %q, %v", body, err)
	}
	b = bodies(t, s3blob.Options{}, plain, 200, 10, half())
	if body, _, err := b.Get(t.Context(), "k"); blob.KindOf(err) != blob.KindUnreachable {
		t.Errorf("get with broken answers only: %q, %v", body, err)
	}
	// Some servers announce no length.
	b = bodies(t, s3blob.Options{}, http.Header{"Etag": {`"t"`}}, 200, -1, io.NopCloser(strings.NewReader("0123456789")))
	if body, _, err := b.Get(t.Context(), "k"); err != nil || string(body) != "0123456789" {
		t.Errorf("get of an unannounced length: %q, %v", body, err)
	}
	b = bodies(t, s3blob.Options{}, http.Header{"Etag": {`"t"`}}, 200, -1, io.NopCloser(io.LimitReader(zeros{}, blob.MaxGetBytes+1)))
	if body, _, err := b.Get(t.Context(), "k"); err == nil {
		t.Errorf("get of too much without a length: %d bytes", len(body))
	}
	// A connection that ends as if the body did.
	b = bodies(t, s3blob.Options{}, plain, 200, 10, io.NopCloser(strings.NewReader("01234")))
	if body, _, err := b.Get(t.Context(), "k"); blob.KindOf(err) != blob.KindUnreachable {
		t.Errorf("get with short answers only: %q, %v", body, err)
	}
	for name, body := range map[string]io.ReadCloser{"broken": half(), "short": io.NopCloser(strings.NewReader("01234"))} {
		b = bodies(t, s3blob.Options{}, http.Header{"Content-Range": {"bytes 20-29/100"}}, 206, 10, body)
		r, err := b.GetRange(t.Context(), "k", 20, 10)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if string(got) != "01234" || blob.KindOf(err) != blob.KindUnreachable || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s range: %q, %v; want 5 bytes and unreachable", name, got, err)
		}
		r.Close()
	}
	for _, contentRange := range []string{"bytes 0-9/100", "bytes */100", "nonsense", ""} {
		h := http.Header{}
		if contentRange != "" {
			h.Set("Content-Range", contentRange)
		}
		b = bodies(t, s3blob.Options{}, h, 206, 10, io.NopCloser(strings.NewReader("0123456789")))
		if r, err := b.GetRange(t.Context(), "k", 20, 10); err == nil {
			r.Close()
			t.Errorf("an answer with content range %q was taken for bytes 20 to 29", contentRange)
		}
	}
}

// stalled blocks until it is closed or its request cancelled.
type stalled struct {
	ctx   context.Context //nolint:containedctx // of one request
	begin *bytes.Reader
}

func (s *stalled) Read(p []byte) (int, error) {
	if s.begin.Len() > 0 {
		return s.begin.Read(p)
	}
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}
func (s *stalled) Close() error { return nil }

func TestStalledBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := s3blob.Options{Timeout: 7 * time.Second, Bucket: "b", Endpoint: "http://s3.test", AccessKeyID: "k", SecretAccessKey: "s"}
		o.WrapTransport = func(http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				return &http.Response{
					StatusCode: 206, ContentLength: 10, Request: r,
					Header: http.Header{"Content-Range": {"bytes 0-9/100"}},
					Body:   &stalled{r.Context(), bytes.NewReader([]byte("01234"))},
				}, nil
			})
		}
		b := mustOpen(t, o)
		r, err := b.GetRange(t.Context(), "k", 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		time.Sleep(time.Hour) // a slow consumer is not a stalled server
		began := time.Now()
		got, err := io.ReadAll(r)
		if string(got) != "01234" || blob.KindOf(err) != blob.KindUnreachable || time.Since(began) != o.Timeout {
			t.Errorf("stalled stream: %q, %v after %v", got, err, time.Since(began))
		}
	})
}

// TestNoAnswer lets a server accept requests and say nothing.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := s3blob.Options{Timeout: 5 * time.Second, Bucket: "b", Endpoint: "http://s3.test", AccessKeyID: "k", SecretAccessKey: "s"}
		o.WrapTransport = func(http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
		}
		b := mustOpen(t, o)
		began := time.Now()
		_, err := b.Create(t.Context(), "k", []byte("x"))
		if blob.KindOf(err) != blob.KindUnreachable || time.Since(began) != o.Timeout {
			t.Errorf("create: %v after %v, want unreachable after %v", err, time.Since(began), o.Timeout)
		}
	})
}
