package s3blob_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/s3blob"
)

// listening opens a bucket on a server of this process, over real connections.
func listening(t *testing.T, o s3blob.Options, handler http.HandlerFunc) *s3blob.Bucket {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	o.Bucket, o.Endpoint, o.Region, o.AccessKeyID, o.SecretAccessKey = "bucket", server.URL, "us-east-1", "k", "s"
	return mustOpen(t, o)
}

// TestLostAnswer closes connections that have been used before without an
// answer. That is the one case in which net/http sends a request again on its
// own, and it must not do so for a conditional write.
func TestLostAnswer(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "large": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			var creates atomic.Int64
			b := listening(t, s3blob.Options{MaxAttempts: 1}, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("If-None-Match") == "" {
					w.Header().Set("Etag", `"t"`)
					return
				}
				creates.Add(1)
				_, _ = io.Copy(io.Discard, r.Body)
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				conn.Close()
			})
			const rounds = 20
			for range rounds {
				if _, err := b.Put(t.Context(), "pack/1", []byte("x")); err != nil {
					t.Fatal(err)
				}
				if _, err := b.Create(t.Context(), "log/1", make([]byte, size)); blob.KindOf(err) != blob.KindUnreachable {
					t.Fatalf("create without an answer: %v", err)
				}
			}
			if creates.Load() != rounds {
				t.Errorf("%d creates arrived, %d were made", creates.Load(), rounds)
			}
		})
	}
}

// TestBodyIsKeptBack refuses large conditional writes at once: thanks to
// Expect: 100-continue the client hears of it every time, whether the server
// announces that it will close the connection or just does it.
func TestBodyIsKeptBack(t *testing.T) {
	const refusal = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 40\r\n"
	for name, header := range map[string]string{
		"by a server that says it will close": refusal + "Connection: close\r\n\r\n",
		"by a server that just closes":        refusal + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var got atomic.Int64
			b := listening(t, s3blob.Options{}, func(w http.ResponseWriter, r *http.Request) {
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				got.Add(int64(rw.Reader.Buffered()))
				if _, err := io.WriteString(conn, header+"<Error><Code>Precondition</Code></Error>"); err != nil {
					t.Error(err)
				}
			})
			for range 50 {
				if _, err := b.Create(t.Context(), "log/1", make([]byte, 4<<20)); !errors.Is(err, blob.ErrExist) {
					t.Fatalf("refused create: %v, want %v", err, blob.ErrExist)
				}
			}
			if got.Load() > 0 {
				t.Errorf("%d bytes of bodies arrived unasked", got.Load())
			}
		})
	}
}

// TestBodyIsSentWhenAsked checks that what is held back is also let go: when
// the server asks, and when it does not know the header and waits.
func TestBodyIsSentWhenAsked(t *testing.T) {
	body := make([]byte, 1<<20)
	for i := range body {
		body[i] = byte(i * 7)
	}
	t.Run("asked", func(t *testing.T) {
		b := listening(t, s3blob.Options{}, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Expect") == "" {
				t.Error("the client did not ask")
			}
			if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes arrived, error %v", len(got), err)
			}
			w.Header().Set("Etag", `"t"`)
		})
		for range 10 {
			if tag, err := b.Create(t.Context(), "log/1", body); err != nil || tag != `"t"` {
				t.Fatalf("create: tag %s, %v", tag, err)
			}
		}
	})
	t.Run("not asked", func(t *testing.T) {
		b := listening(t, s3blob.Options{}, func(w http.ResponseWriter, r *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			got := make([]byte, len(body))
			if _, err := io.ReadFull(rw, got); err != nil || !bytes.Equal(got, body) {
				t.Errorf("the body did not come: %v", err)
			}
			if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nEtag: \"t\"\r\nContent-Length: 0\r\n\r\n"); err != nil {
				t.Error(err)
			}
		})
		began := time.Now()
		if tag, err := b.Create(t.Context(), "log/1", body); err != nil || tag != `"t"` {
			t.Fatalf("create: tag %s, %v", tag, err)
		}
		if waited := time.Since(began); waited < time.Second {
			t.Errorf("the body was sent after %v without being asked for", waited)
		}
	})
}

// TestSilentServer accepts connections and reads, but never answers.
func TestSilentServer(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := s3blob.Options{
		Timeout: 100 * time.Millisecond, MaxAttempts: 1,
		Bucket: "bucket", Endpoint: "http://" + l.Addr().String(), AccessKeyID: "k", SecretAccessKey: "s",
	}
	b := mustOpen(t, o)
	_, errCreate := b.Create(t.Context(), "log/1", []byte("x"))
	_, _, errGet := b.Get(t.Context(), "log/1")
	for _, err := range []error{errCreate, errGet} {
		if blob.KindOf(err) != blob.KindUnreachable {
			t.Errorf("silent server: %v, want unreachable", err)
		}
	}
}
