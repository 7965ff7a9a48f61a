package s3blob_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/s3blob"
)

// TestStalledUpload sends to a server that stops reading in the middle of a body, as
// it looks when the other end of a connection is gone.
func TestStalledUpload(t *testing.T) {
	// More than the buffers of both ends take.
	body := bytes.Repeat([]byte("x"), 32<<20)
	end := make(chan struct{})
	var puts atomic.Int64
	b := listening(t, s3blob.Options{Timeout: 200 * time.Millisecond, MaxAttempts: 2}, func(w http.ResponseWriter, r *http.Request) {
		if puts.Add(1) == 1 {
			<-end
			return
		}
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != int64(len(body)) {
			t.Errorf("%d bytes arrived, error %v", n, err)
		}
		w.Header().Set("Etag", `"t"`)
	})
	t.Cleanup(func() { close(end) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	began := time.Now()
	if _, err := b.Put(ctx, "pack/1", body); err != nil {
		t.Fatalf("put: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a stalled attempt was given up after %v, want within moments", took)
	}

	// A conditional write is not sent again, and nobody knows what became of it.
	puts.Store(0)
	if _, err := b.Create(ctx, "log/1", body); blob.KindOf(err) != blob.KindUnreachable {
		t.Errorf("stalled create: %v, want unreachable", err)
	}
	if n := puts.Load(); n != 1 {
		t.Errorf("%d creates arrived, want 1", n)
	}
	if ctx.Err() != nil {
		t.Error("the stalled create ended with its context and not before")
	}
}
