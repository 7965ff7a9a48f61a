package blob_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
)

func TestObserve(t *testing.T) {
	type seen struct {
		Op    string
		Key   blob.Key
		Bytes int64
		Count int
		Err   error
	}
	var got []seen
	b := blob.Observe(memblob.New(), func(_ context.Context, c blob.Call) {
		if c.Start.IsZero() || c.Dur < 0 {
			t.Errorf("%s: start %v, duration %v", c.Op, c.Start, c.Dur)
		}
		var sentinel error
		for _, s := range []error{blob.ErrNotExist, blob.ErrExist, blob.ErrChanged, blob.ErrUnchanged, io.ErrUnexpectedEOF} {
			if errors.Is(c.Err, s) {
				sentinel = s
			}
		}
		got = append(got, seen{c.Op, c.Key, c.Bytes, c.Count, sentinel})
	})
	ctx := t.Context()
	tag, _ := b.Create(ctx, "log/1", []byte("hello"))
	_, _ = b.Create(ctx, "log/1", []byte("hello"))
	_, _, _ = b.Get(ctx, "log/1")
	_, _, _ = b.GetIf(ctx, "log/1", tag)
	_, _ = b.Swap(ctx, "log/1", "other", []byte("bye"))
	_, _ = b.Put(ctx, "log/2", []byte("four"))
	r, err := b.GetRange(ctx, "log/1", 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got); n != 6 {
		t.Errorf("%d calls reported before the reader was closed, want 6", n)
	}
	_, _ = io.ReadAll(r)
	r.Close()
	r.Close()
	_, _ = b.GetRange(ctx, "log/3", 1, 3)
	if r, err = b.GetRange(ctx, "log/1", 1, 30); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(r)
	r.Close()
	for range b.List(ctx, "log/", "") {
	}
	for range b.List(ctx, "log/", "") {
		break
	}
	_ = b.Delete(ctx, "log/1", "log/2")

	want := []seen{
		{"create", "log/1", 5, 1, nil},
		{"create", "log/1", 5, 1, blob.ErrExist},
		{"get", "log/1", 5, 1, nil},
		{"get_if", "log/1", 0, 1, blob.ErrUnchanged},
		{"swap", "log/1", 3, 1, blob.ErrChanged},
		{"put", "log/2", 4, 1, nil},
		{"get_range", "log/1", 3, 1, nil},
		{"get_range", "log/3", 0, 1, blob.ErrNotExist},
		{"get_range", "log/1", 4, 1, io.ErrUnexpectedEOF},
		{"list", "log/", 0, 2, nil},
		{"list", "log/", 0, 1, nil},
		{"delete", "log/1", 0, 2, nil},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y error) bool { return errors.Is(x, y) })); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// TestObserveCloseWhileReading closes a reader under a Read, as who has sent a
// request twice does with the slower answer. It fails under the race detector.
func TestObserveCloseWhileReading(t *testing.T) {
	calls := make(chan blob.Call, 1)
	b := blob.Observe(&endless{memblob.New()}, func(_ context.Context, c blob.Call) { calls <- c })
	r, err := b.GetRange(t.Context(), "pack/1", 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	begun, done := make(chan struct{}), make(chan error)
	go func() {
		_, err := r.Read(make([]byte, 10))
		close(begun)
		for err == nil {
			_, err = r.Read(make([]byte, 10))
		}
		done <- err
	}()
	<-begun
	r.Close()
	if err := <-done; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read from a closed reader: %v", err)
	}
	if c := <-calls; c.Bytes < 10 || c.Op != "get_range" {
		t.Errorf("reported %+v, want a get_range of 10 bytes or more", c)
	}
}

// endless is a bucket whose objects have no end.
type endless struct{ blob.Bucket }

func (*endless) GetRange(context.Context, blob.Key, int64, int64) (io.ReadCloser, error) {
	return &endlessReader{closed: make(chan struct{})}, nil
}

type endlessReader struct{ closed chan struct{} }

func (r *endlessReader) Read(p []byte) (int, error) {
	select {
	case <-r.closed:
		return 0, io.ErrClosedPipe
	default:
		return len(p), nil
	}
}

func (r *endlessReader) Close() error {
	close(r.closed)
	return nil
}
