package client

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemoryIsShared has three pushes ask for more than there is.
func TestMemoryIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acquire := func(r room, n int64) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return r.Acquire(ctx, n)
		}
		m := NewMemory()
		one, two, three := newRoom(m), newRoom(m), newRoom(m)
		if err := acquire(one, deltaMemory/2); err != nil {
			t.Fatal(err)
		}
		if err := acquire(one, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one push has got more than half: %v", err)
		}
		if err := acquire(two, deltaMemory/2); err != nil {
			t.Errorf("another has to wait for the one that is slow: %v", err)
		}
		if err := acquire(three, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("three pushes have more in hand than there is: %v", err)
		}
		two.close()
		if err := acquire(three, deltaMemory/2); err != nil {
			t.Errorf("what a push gave back is not there: %v", err)
		}
	})
}

// TestMemoryOfPushThatFails looks whether a push that is given up halfway gives back what
// it had in hand.
func TestMemoryOfPushThatFails(t *testing.T) {
	f := newDeltaServer(t)
	m := NewMemory()
	f.meddle = func(call string, n int, w http.ResponseWriter, _ []byte) bool {
		if call == "chunks" && m.all.TryAcquire(deltaMemory) {
			t.Error("chunks are sent, and nothing is in hand")
			m.all.Release(deltaMemory)
		}
		if call == "chunks" && n > 2 {
			refuse(w, http.StatusUnauthorized, "Unauthorized", "the token has expired")
			return true
		}
		return false
	}
	var s fakeStore
	for i := range uint64(5) {
		s.add(bytesOf(i, 1_000_000))
	}
	if _, _, err := pushAll(t, mustServe(t, f, WithMemory(m)), &s, PushOptions{}); err == nil {
		t.Error("the push succeeded")
	}
	if !m.all.TryAcquire(deltaMemory) {
		t.Error("not all memory was given back")
	}
}
