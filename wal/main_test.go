package wal_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a world in which sleeping costs no time: whoever sleeps moves the
// clock on and goes on at once.
type clock struct {
	mu  sync.Mutex // guards now and slept
	now time.Time

	slept time.Duration
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.slept += d
}

// env returns an Env on the clock whose randomness comes from seed.
func (c *clock) env(seed uint64) wal.Env {
	return wal.Env{
		Now:  c.Now,
		Rand: mkRand(seed),
		Sleep: func(ctx context.Context, d time.Duration, wake <-chan struct{}) {
			if d >= 0 {
				c.advance(d)
				return
			}
			select {
			case <-ctx.Done():
			case <-wake:
			}
		},
	}
}

func mkRand(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	for i := range key {
		key[i] = byte(seed >> (i % 8 * 8))
	}
	return rand.NewChaCha8(key)
}

// mkBucket returns a founded bucket in memory.
func mkBucket(t testing.TB) *memblob.Bucket {
	t.Helper()
	b := memblob.New()
	mustFound(t, b)
	return b
}

func mustFound(t testing.TB, b blob.Bucket) wal.Format {
	t.Helper()
	f, err := wal.Found(t.Context(), b, wal.Format{Profile: "fast2016-16k"})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// mustOpen opens a log on a new state, and closes it with the test.
func mustOpen(t testing.TB, b blob.Bucket, o wal.Options) (*wal.Log, *waltest.State) {
	t.Helper()
	st := waltest.NewState(b)
	return mustOpenState(t, b, st, o), st
}

func mustOpenState(t testing.TB, b blob.Bucket, st wal.State, o wal.Options) *wal.Log {
	t.Helper()
	l, err := wal.Open(t.Context(), b, st, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// set is an operation that sets one key.
func set(key, value string) wal.Op {
	return wal.Op{Name: "set " + key, Cost: len(key) + len(value), Build: func(wal.View) ([]wal.Entry, error) {
		return []wal.Entry{{Kind: wal.Set, Key: []byte(key), Value: []byte(value)}}, nil
	}}
}

// errTaken is what create reports.
var errTaken = errors.New("taken")

// create is an operation that sets a key which must be absent.
func create(key, value string) wal.Op {
	op := set(key, value)
	build := op.Build
	op.Build = func(v wal.View) ([]wal.Entry, error) {
		if _, ok, err := v.Get([]byte(key)); err != nil || ok {
			return nil, errors.Join(err, fmt.Errorf("%s is %w", key, errTaken))
		}
		return build(v)
	}
	return op
}

func mustCommit(t testing.TB, l *wal.Log, op wal.Op) wal.Seq {
	t.Helper()
	seq, err := l.Commit(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func mustCatchUp(t testing.TB, l *wal.Log) wal.Seq {
	t.Helper()
	seq, err := l.CatchUp(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func wantDump(t testing.TB, st *waltest.State, want string) {
	t.Helper()
	if got := st.Dump(); got != want {
		t.Errorf("state is %q, want %q", got, want)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}
