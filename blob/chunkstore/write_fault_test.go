package chunkstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
)

// TestWriteFaults lets the k-th upload fail. The Write fails, nothing of it is
// known, and the next one succeeds.
func TestWriteFaults(t *testing.T) {
	nar := text(6, 200_000)
	for k := 0; ; k++ {
		mem, d := memblob.New(), newDirectory()
		faulty := blobtest.NewFaulty(mem, blobtest.FaultyOptions{Decide: blobtest.FailAt(k, blobtest.LostRequest)})
		s := mkStore(t, faulty, d, chunkstore.Options{FrameBytes: 8 << 10, PackBytes: 32 << 10})
		res, err := s.Write(t.Context(), bytes.NewReader(nar))
		if faulty.Calls() <= k {
			if err != nil || k < 3 {
				t.Fatalf("after %d uploads: %v", k, err)
			}
			return
		}
		if !errors.Is(err, blobtest.ErrInjected) || !strings.Contains(err.Error(), "pack/") {
			t.Fatalf("upload %d fails: %v, want an error that names the object", k, err)
		}
		if len(res.Packs) > 0 {
			t.Fatalf("upload %d fails: %d packs to be committed", k, len(res.Packs))
		}
		res = mustWrite(t, s, d, nar)
		wantServed(t, s, &res.Recipe, nar)
	}
}

func TestWriteCommitFails(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	s := mkStore(t, mem, d, chunkstore.Options{FrameBytes: 8 << 10, PackBytes: 32 << 10})
	d.fail = errors.New("no such luck")
	if _, err := s.Write(t.Context(), bytes.NewReader(text(6, 200_000))); !errors.Is(err, d.fail) {
		t.Errorf("commit of a full pack fails: %v", err)
	}
	d.fail = nil
	nar := text(6, 200_000)
	res := mustWrite(t, s, d, nar)
	wantServed(t, s, &res.Recipe, nar)
}

func TestWriteBrokenReader(t *testing.T) {
	mem, d := memblob.New(), newDirectory()
	s := mkStore(t, mem, d, chunkstore.Options{Dir: t.TempDir()})
	broken := errors.New("connection reset")
	for _, n := range []int64{0, 1, 1000, 200_000, 900_000} {
		r := io.MultiReader(io.LimitReader(bytes.NewReader(text(7, 1_000_000)), n), iotest.ErrReader(broken))
		if _, err := s.Write(t.Context(), r); !errors.Is(err, broken) || !strings.Contains(err.Error(), fmt.Sprint("byte ", n)) {
			t.Errorf("reader breaks after %d bytes: %v", n, err)
		}
	}
	nar := text(7, 1_000_000)
	res := mustWrite(t, s, d, nar)
	wantServed(t, s, &res.Recipe, nar)
}

// TestWriteCancelled checks that a Write whose client has gone disturbs nobody.
func TestWriteCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, d := memblob.New(), newDirectory()
		slow := blobtest.NewFaulty(mem, blobtest.FaultyOptions{Decide: blobtest.Seeded(1, 1, blobtest.Slow)})
		s := mkStore(t, slow, d, chunkstore.Options{})
		defer s.Close()
		nar := text(8, 50_000)
		var wg sync.WaitGroup
		for i := range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*200*time.Millisecond)
			defer cancel()
			wg.Go(func() {
				data := append(bytes.Clone(nar), byte(i))
				res, err := s.Write(ctx, bytes.NewReader(data))
				switch {
				case errors.Is(err, context.DeadlineExceeded):
				case err != nil:
					t.Errorf("write %d: %v", i, err)
				default:
					d.CommitPacks(t.Context(), res.Packs)
					wantServed(t, s, &res.Recipe, data)
				}
			})
		}
		wg.Wait()
	})
}
