package chunkstore_test

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

// stuckPut is a bucket whose first upload is never answered, as on a connection
// whose other end is gone.
type stuckPut struct {
	blob.Bucket
	calls atomic.Int32
}

func (b *stuckPut) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if b.calls.Add(1) == 1 {
		<-ctx.Done()
		return "", ctx.Err()
	}
	return b.Bucket.Put(ctx, key, body)
}

// TestStuckUpload writes NARs while an upload hangs. They may wait for it for a
// moment, in order to share a pack, but not as long as it takes to time out.
func TestStuckUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		s := mkStore(t, &stuckPut{Bucket: mem}, d, chunkstore.Options{})
		failed := make(chan error)
		go func() {
			_, err := s.Write(t.Context(), bytes.NewReader(text(1, 10_000)))
			failed <- err
		}()
		synctest.Wait()
		for i := range uint64(3) {
			nar := text(2+i, 10_000)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			res, err := s.Write(ctx, bytes.NewReader(nar))
			cancel()
			if err != nil {
				t.Errorf("write %d: %v", i, err)
				continue
			}
			if err := d.CommitPacks(t.Context(), res.Packs); err != nil {
				t.Fatal(err)
			}
			wantServed(t, s, &res.Recipe, nar)
		}
		s.Close()
		if err := <-failed; err == nil {
			t.Error("written although its upload was never answered")
		}
	})
}

// farBucket answers every GET after five seconds.
type farBucket struct{ blob.Bucket }

func (b *farBucket) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	select {
	case <-time.After(5 * time.Second):
		return b.Bucket.GetRange(ctx, key, off, n)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestFarBucket reads from a bucket that is slower from the start than any that
// the store has an idea of: it must come to see that this is how it is.
func TestFarBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		nar, recipe := mkGenerations(t, mem, d)
		s := mkStore(t, &farBucket{mem}, d, chunkstore.Options{})
		defer s.Close()
		wantServed(t, s, &recipe, nar)
	})
}

// TestRecentBounded writes small NARs one after another that nobody publishes. What
// the packer remembers of their packs must not grow with them.
func TestRecentBounded(t *testing.T) {
	s := mkStore(t, memblob.New(), newDirectory(), chunkstore.Options{})
	write := func(seed uint64) chunkstore.Result {
		t.Helper()
		res, err := s.Write(t.Context(), bytes.NewReader(text(seed, 100)))
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	write(0)
	if again := write(0); again.NewBytes != 0 {
		t.Fatal("not found although it was just written")
	}
	for i := range uint64(1100) {
		write(1 + i)
	}
	if again := write(0); again.NewBytes == 0 {
		t.Error("still remembered after 1100 other packs")
	}
}
