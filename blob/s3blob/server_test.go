package s3blob_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/s3blob"
)

// answer is what a played server says.
type answer struct {
	status int
	code   string // of the XML error, if any
	header map[string]string
	body   string
	err    error // instead of an answer
}

func (a answer) response(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	if a.err != nil {
		return nil, a.err
	}
	body := a.body
	if a.code != "" {
		body = fmt.Sprintf("<Error><Code>%s</Code><Message>Message of the server.</Message></Error>", a.code)
	}
	h := http.Header{"X-Amz-Request-Id": {"REQ1"}, "Content-Length": {strconv.Itoa(len(body))}}
	for k, v := range a.header {
		h.Set(k, v)
	}
	return &http.Response{
		StatusCode: a.status, Status: http.StatusText(a.status), ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: h, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

// played opens a bucket on a server that is played by the function.
func played(t testing.TB, o s3blob.Options, play func(n int, r *http.Request) answer) *s3blob.Bucket {
	t.Helper()
	var n atomic.Int64
	o.WrapTransport = func(http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			return play(int(n.Add(1))-1, r).response(r)
		})
	}
	if o.Bucket == "" {
		o.Bucket = "b"
	}
	if o.AccessKeyID == "" {
		o.AccessKeyID, o.SecretAccessKey = "key", "secret"
	}
	if o.Endpoint == "" && o.Region == "" {
		o.Endpoint = "http://s3.test"
	}
	return mustOpen(t, o)
}

func always(a answer) func(int, *http.Request) answer {
	return func(int, *http.Request) answer { return a }
}

// TestOutcomes holds what a server says against what the caller may conclude.
func TestOutcomes(t *testing.T) {
	type ops map[string]func(ctx context.Context, b *s3blob.Bucket) error
	get := func(ctx context.Context, b *s3blob.Bucket) error { _, _, err := b.Get(ctx, "log/1"); return err }
	getIf := func(ctx context.Context, b *s3blob.Bucket) error {
		_, _, err := b.GetIf(ctx, "log/1", `"t"`)
		return err
	}
	getRange := func(ctx context.Context, b *s3blob.Bucket) error {
		_, err := b.GetRange(ctx, "log/1", 5, 5)
		return err
	}
	create := func(ctx context.Context, b *s3blob.Bucket) error {
		_, err := b.Create(ctx, "log/1", []byte("x"))
		return err
	}
	swap := func(ctx context.Context, b *s3blob.Bucket) error {
		_, err := b.Swap(ctx, "log/1", `"t"`, []byte("x"))
		return err
	}
	put := func(ctx context.Context, b *s3blob.Bucket) error {
		_, err := b.Put(ctx, "log/1", []byte("x"))
		return err
	}
	del := func(ctx context.Context, b *s3blob.Bucket) error { return b.Delete(ctx, "log/1") }
	list := func(ctx context.Context, b *s3blob.Bucket) error {
		for _, err := range b.List(ctx, "", "") {
			return err
		}
		return nil
	}
	all := ops{"get": get, "get_if": getIf, "get_range": getRange, "create": create, "swap": swap, "put": put, "delete": del, "list": list}
	for _, c := range []struct {
		name string
		a    answer
		ops  ops
		want error // a sentinel, or nil for an error of kind
		kind blob.Kind
		hint string
	}{
		{"412 of create", answer{status: 412, code: "PreconditionFailed"}, ops{"create": create}, blob.ErrExist, 0, ""},
		{"412 of swap", answer{status: 412, code: "PreconditionFailed"}, ops{"swap": swap}, blob.ErrChanged, 0, ""},
		{"412 without a body", answer{status: 412}, ops{"create": create}, blob.ErrExist, 0, ""},
		{"404 of swap", answer{status: 404, code: "NoSuchKey"}, ops{"swap": swap}, blob.ErrChanged, 0, ""},
		{"404 of reads", answer{status: 404, code: "NoSuchKey"}, ops{"get": get, "get_if": getIf, "get_range": getRange}, blob.ErrNotExist, 0, ""},
		{"304", answer{status: 304}, ops{"get_if": getIf}, blob.ErrUnchanged, 0, ""},
		{"404 of no bucket", answer{status: 404, code: "NoSuchBucket"}, all, nil, blob.KindNoBucket, "create the bucket"},
		{"404 of a proxy", answer{status: 404, body: "<html>"}, ops{"get": get, "swap": swap}, nil, blob.KindOther, ""},
		{"409", answer{status: 409, code: "ConditionalRequestConflict"}, ops{"create": create, "swap": swap}, nil, blob.KindOther, ""},
		{"429", answer{status: 429, code: "TooManyRequests"}, all, nil, blob.KindThrottled, ""},
		{"503", answer{status: 503, code: "SlowDown"}, all, nil, blob.KindThrottled, ""},
		{"500", answer{status: 500, code: "InternalError"}, all, nil, blob.KindUnreachable, ""},
		{"no right to read", answer{status: 403, code: "AccessDenied"}, ops{"get": get}, nil, blob.KindDenied, "s3:ListBucket"},
		{"no right to write", answer{status: 403, code: "AccessDenied"}, ops{"create": create, "put": put}, nil, blob.KindDenied, "docs/buckets.md"},
		{"wrong key", answer{status: 403, code: "InvalidAccessKeyId"}, all, nil, blob.KindDenied, "AWS_ACCESS_KEY_ID"},
		{"wrong secret", answer{status: 403, code: "SignatureDoesNotMatch"}, all, nil, blob.KindDenied, "AWS_SECRET_ACCESS_KEY"},
		{"old session", answer{status: 400, code: "ExpiredToken"}, all, nil, blob.KindDenied, "AWS_SESSION_TOKEN"},
		{"wrong clock", answer{status: 403, code: "RequestTimeTooSkewed"}, ops{"create": create}, nil, blob.KindDenied, "clock"},
		{"redirect", answer{status: 301, code: "PermanentRedirect", header: map[string]string{"X-Amz-Bucket-Region": "eu-west-1"}}, all, nil, blob.KindNoBucket, "region=eu-west-1"},
		{"wrong region", answer{status: 400, code: "AuthorizationHeaderMalformed", header: map[string]string{"X-Amz-Bucket-Region": "eu-west-1"}}, all, nil, blob.KindNoBucket, "region=eu-west-1"},
		{"not implemented", answer{status: 501, code: "NotImplemented"}, ops{"create": create, "swap": swap}, nil, blob.KindUnsupported, "docs/buckets.md"},
		{"full", answer{status: 507, code: "XMinioStorageFull"}, ops{"create": create, "put": put}, nil, blob.KindFull, "space"},
		{"reset", answer{err: errors.New("connection reset by peer")}, all, nil, blob.KindUnreachable, ""},
	} {
		for name, op := range c.ops {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				b := played(t, s3blob.Options{MaxAttempts: 1}, always(c.a))
				err := op(t.Context(), b)
				for _, sentinel := range []error{blob.ErrNotExist, blob.ErrExist, blob.ErrChanged, blob.ErrUnchanged} {
					if errors.Is(err, sentinel) != (sentinel == c.want) {
						t.Errorf("got %v, want %v", err, c.want)
					}
				}
				if c.want != nil {
					return
				}
				e, ok := errors.AsType[*blob.Error](err)
				if !ok {
					t.Fatalf("got %v, want a *blob.Error", err)
				}
				if e.Op != name || e.Kind != c.kind || !strings.Contains(e.Hint, c.hint) || !strings.HasPrefix(e.Bucket, "s3://b") {
					t.Errorf("got op %s, kind %v, hint %q, bucket %q; want op %s, kind %v, a hint with %q", e.Op, e.Kind, e.Hint, e.Bucket, name, c.kind, c.hint)
				}
				if c.a.code != "" && !strings.Contains(err.Error(), c.a.code) || strings.Contains(err.Error(), "operation error") {
					t.Errorf("message %q", err)
				}
			})
		}
	}
}

// TestAttempts counts how often a request is sent to a server that is never ready.
func TestAttempts(t *testing.T) {
	for name, c := range map[string]struct {
		want int
		call func(ctx context.Context, b *s3blob.Bucket) error
	}{
		"create": {1, func(ctx context.Context, b *s3blob.Bucket) error { _, err := b.Create(ctx, "k", nil); return err }},
		"swap":   {1, func(ctx context.Context, b *s3blob.Bucket) error { _, err := b.Swap(ctx, "k", `"t"`, nil); return err }},
		"put":    {3, func(ctx context.Context, b *s3blob.Bucket) error { _, err := b.Put(ctx, "k", nil); return err }},
		"get":    {3, func(ctx context.Context, b *s3blob.Bucket) error { _, _, err := b.Get(ctx, "k"); return err }},
		"delete": {3, func(ctx context.Context, b *s3blob.Bucket) error { return b.Delete(ctx, "k") }},
	} {
		for what, a := range map[string]answer{"503": {status: 503, code: "SlowDown"}, "reset": {err: io.ErrUnexpectedEOF}} {
			t.Run(name+"/"+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var n atomic.Int64
					b := played(t, s3blob.Options{MaxAttempts: 3}, func(int, *http.Request) answer { n.Add(1); return a })
					if err := c.call(t.Context(), b); err == nil {
						t.Error("no error")
					}
					if int(n.Load()) != c.want {
						t.Errorf("sent %d times, want %d", n.Load(), c.want)
					}
				})
			})
		}
	}
}

// TestRequests looks at what is sent.
func TestRequests(t *testing.T) {
	type sent struct{ Method, Path, Query, IfNoneMatch, IfMatch, Range, Expect string }
	var got []sent
	b := played(t, s3blob.Options{Prefix: "pre/fix"}, func(_ int, r *http.Request) answer {
		q := r.URL.Query()
		q.Del("x-id")
		got = append(got, sent{
			r.Method, r.URL.Path, q.Encode(),
			r.Header.Get("If-None-Match"), r.Header.Get("If-Match"), r.Header.Get("Range"), r.Header.Get("Expect"),
		})
		switch r.Method {
		case http.MethodGet:
			return answer{status: 200, body: "<ListBucketResult></ListBucketResult>"}
		case http.MethodPost:
			return answer{status: 200, body: "<DeleteResult></DeleteResult>"}
		}
		return answer{status: 200, header: map[string]string{"Etag": `"new"`}}
	})
	ctx := t.Context()
	tag, err := b.Create(ctx, "log/1", []byte("x"))
	if err != nil || tag != `"new"` {
		t.Errorf("create: tag %s, %v", tag, err)
	}
	_, _ = b.Create(ctx, "log/2", make([]byte, 100_000))
	_, _ = b.Swap(ctx, "ROOT", `"old"`, make([]byte, 100_000))
	_, _ = b.Swap(ctx, "ROOT", "", nil) // sends nothing
	_, _ = b.Put(ctx, "pack/1", make([]byte, 100_000))
	_, _, _ = b.GetIf(ctx, "ROOT", `"old"`)
	if r, err := b.GetRange(ctx, "pack/1", 10, 20); err == nil {
		r.Close()
	}
	for _, err := range b.List(ctx, "log/", "log/5") {
		t.Error(err)
	}
	_ = b.Delete(ctx, "log/1")
	_ = b.Delete(ctx, "log/1", "log/2")
	_ = b.Delete(ctx) // sends nothing
	want := []sent{
		{Method: "PUT", Path: "/b/pre/fix/log/1", IfNoneMatch: "*"},
		{Method: "PUT", Path: "/b/pre/fix/log/2", IfNoneMatch: "*", Expect: "100-continue"},
		{Method: "PUT", Path: "/b/pre/fix/ROOT", IfMatch: `"old"`, Expect: "100-continue"},
		{Method: "PUT", Path: "/b/pre/fix/pack/1"},
		{Method: "GET", Path: "/b/pre/fix/ROOT", IfNoneMatch: `"old"`},
		{Method: "GET", Path: "/b/pre/fix/pack/1", Range: "bytes=10-29"},
		{Method: "GET", Path: "/b", Query: "list-type=2&max-keys=1000&prefix=pre%2Ffix%2Flog%2F&start-after=pre%2Ffix%2Flog%2F5"},
		{Method: "DELETE", Path: "/b/pre/fix/log/1"},
		{Method: "POST", Path: "/b", Query: "delete="},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestRedirectIsNotFollowed: the SDK's client would send the body elsewhere.
func TestRedirectIsNotFollowed(t *testing.T) {
	n := 0
	b := played(t, s3blob.Options{}, func(int, *http.Request) answer {
		n++
		return answer{status: 307, header: map[string]string{"Location": "http://elsewhere.test/"}}
	})
	if _, err := b.Create(t.Context(), "log/1", []byte("x")); err == nil || n != 1 {
		t.Errorf("%d requests, error %v", n, err)
	}
}

func TestDeleteInBatches(t *testing.T) {
	keys := make([]blob.Key, 2500)
	for i := range keys {
		keys[i] = blob.Key(fmt.Sprintf("pack/%d", i))
	}
	t.Run("of a thousand", func(t *testing.T) {
		var batches []int
		b := played(t, s3blob.Options{}, func(_ int, r *http.Request) answer {
			body, _ := io.ReadAll(r.Body)
			batches = append(batches, strings.Count(string(body), "<Key>"))
			return answer{status: 200, body: "<DeleteResult></DeleteResult>"}
		})
		if err := b.Delete(t.Context(), keys...); err != nil || !slices.Equal(batches, []int{1000, 1000, 500}) {
			t.Errorf("batches %v, error %v", batches, err)
		}
	})
	for _, status := range []int{400, 405, 411, 501} {
		t.Run(fmt.Sprintf("that are refused with %d", status), func(t *testing.T) {
			var posts, deletes atomic.Int64
			b := played(t, s3blob.Options{}, func(_ int, r *http.Request) answer {
				if r.Method == http.MethodPost {
					posts.Add(1)
					return answer{status: status, code: "Whatever"}
				}
				deletes.Add(1)
				return answer{status: 204}
			})
			if err := b.Delete(t.Context(), keys...); err != nil {
				t.Error(err)
			}
			if posts.Load() != 1 || deletes.Load() != int64(len(keys)) {
				t.Errorf("%d batches tried and %d objects deleted, want 1 and %d", posts.Load(), deletes.Load(), len(keys))
			}
		})
	}
	t.Run("with errors for some", func(t *testing.T) {
		b := played(t, s3blob.Options{Prefix: "p"}, always(answer{status: 200, body: `<DeleteResult>
			<Error><Key>p/pack/1</Key><Code>NoSuchKey</Code></Error>
			<Error><Key>p/pack/7</Key><Code>AccessDenied</Code><Message>Locked</Message></Error></DeleteResult>`}))
		err := b.Delete(t.Context(), keys[:10]...)
		e, ok := errors.AsType[*blob.Error](err)
		if !ok || e.Key != "pack/7" || e.Kind != blob.KindDenied {
			t.Errorf("got %v, want denied for pack/7", err)
		}
	})
	t.Run("that are denied are not tried one by one", func(t *testing.T) {
		var n atomic.Int64
		b := played(t, s3blob.Options{}, func(int, *http.Request) answer { n.Add(1); return answer{status: 403, code: "AccessDenied"} })
		if err := b.Delete(t.Context(), keys...); blob.KindOf(err) != blob.KindDenied || n.Load() != 1 {
			t.Errorf("%d requests, error %v", n.Load(), err)
		}
	})
	t.Run("one by one, with an error", func(t *testing.T) {
		b := played(t, s3blob.Options{}, func(_ int, r *http.Request) answer {
			if r.Method == http.MethodPost {
				return answer{status: 501}
			}
			return answer{status: 403, code: "AccessDenied"}
		})
		if err := b.Delete(t.Context(), keys[:50]...); blob.KindOf(err) != blob.KindDenied {
			t.Errorf("got %v, want denied", err)
		}
	})
}

func TestListDistrustsTheServer(t *testing.T) {
	page := func(keys ...string) string {
		s := "<ListBucketResult>"
		for _, k := range keys {
			s += "<Contents><Key>" + k + "</Key><Size>1</Size></Contents>"
		}
		return s + "</ListBucketResult>"
	}
	list := func(body string, after blob.Key) (keys []blob.Key, err error) {
		b := played(t, s3blob.Options{Prefix: "p"}, always(answer{status: 200, body: body}))
		for info, err := range b.List(t.Context(), "", after) {
			if err != nil {
				return keys, err
			}
			keys = append(keys, info.Key)
		}
		return keys, nil
	}
	if keys, err := list(page("p/a", "p/dir/", "p/with space", "p/z"), ""); err != nil || !slices.Equal(keys, []blob.Key{"a", "z"}) {
		t.Errorf("foreign objects: %v, %v", keys, err)
	}
	if keys, err := list(page("p/b", "p/a"), ""); err == nil {
		t.Errorf("unsorted listing: %v", keys)
	}
	if keys, err := list(page("p/a", "p/b"), "a"); err == nil {
		t.Errorf("listing that ignores start-after: %v", keys)
	}
}

func TestRegionIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		head answer
		want string // in the host of later requests, or in the error
	}{
		"of a private bucket": {answer{status: 403, header: map[string]string{"X-Amz-Bucket-Region": "eu-north-1"}}, "bucket.s3.eu-north-1.amazonaws.com"},
		"of no bucket":        {answer{status: 404}, "NoSuchBucket"},
		"of a silent server":  {answer{status: 400}, "region=NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			host := ""
			o := s3blob.Options{Bucket: "bucket", Region: s3blob.RegionAuto, AccessKeyID: "k", SecretAccessKey: "s"}
			o.WrapTransport = func(http.RoundTripper) http.RoundTripper {
				return roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodHead {
						if r.Header.Get("Authorization") != "" {
							t.Error("the question for the region is signed")
						}
						return c.head.response(r)
					}
					host = r.URL.Host
					return answer{status: 200}.response(r)
				})
			}
			b, err := s3blob.Open(t.Context(), o)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want an error with %q", err, c.want)
				}
				return
			}
			defer b.Close()
			if _, err := b.Put(t.Context(), "k", nil); err != nil || host != c.want {
				t.Errorf("sent to %s (%v), want %s", host, err, c.want)
			}
		})
	}
}
