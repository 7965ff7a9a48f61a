package wal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/wal"
)

// turns lets one goroutine of a bubble go on at a time. Whoever calls the bucket,
// sleeps, or begins an operation waits for its turn, and a seed says whose it is.
type turns struct {
	mu     sync.Mutex // guards the fields below
	parked []turn
	trace  []string
	free   bool // nobody has to wait any more
	now    time.Time
}

type turn struct {
	who string
	on  chan struct{}
}

func (s *turns) wait(who string) {
	s.mu.Lock()
	if s.free {
		s.mu.Unlock()
		return
	}
	on := make(chan struct{})
	s.parked = append(s.parked, turn{who, on})
	s.mu.Unlock()
	<-on
}

// run gives turns until done returns true while everybody waits.
func (s *turns) run(seed uint64, done func() bool) {
	pick := rand.New(rand.NewPCG(seed, 2))
	for {
		synctest.Wait()
		if done() {
			break
		}
		s.mu.Lock()
		slices.SortFunc(s.parked, func(a, b turn) int { return strings.Compare(a.who, b.who) })
		i := pick.IntN(len(s.parked))
		next := s.parked[i]
		s.parked = slices.Delete(s.parked, i, i+1)
		s.trace = append(s.trace, next.who)
		s.mu.Unlock()
		close(next.on)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = true
	for _, t := range s.parked {
		close(t.on)
	}
}

func (s *turns) env(name string, seed uint64) wal.Env {
	return wal.Env{
		Rand: mkRand(seed),
		Now: func() time.Time {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.now
		},
		Sleep: func(ctx context.Context, d time.Duration, wake <-chan struct{}) {
			if d < 0 {
				select {
				case <-ctx.Done():
				case <-wake:
				}
				return
			}
			s.wait(fmt.Sprintf("%s sleeps %v", name, d))
			s.mu.Lock()
			defer s.mu.Unlock()
			s.now = s.now.Add(d)
		},
	}
}

// slowly is a bucket whose callers wait for their turn. Every third create, by a
// count of its own, gets no answer.
type slowly struct {
	blob.Bucket
	turns   *turns
	name    string
	creates int
}

func (b *slowly) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	b.turns.wait(fmt.Sprintf("%s get %s", b.name, short(key)))
	return b.Bucket.Get(ctx, key)
}

func (b *slowly) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	b.turns.wait(fmt.Sprintf("%s get_if %s", b.name, key))
	return b.Bucket.GetIf(ctx, key, old)
}

func (b *slowly) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	b.turns.wait(fmt.Sprintf("%s create %s %v", b.name, short(key), wal.DigestOf(body)))
	tag, err := b.Bucket.Create(ctx, key, body)
	if b.creates++; b.creates%3 == 0 {
		return "", errDenied
	}
	return tag, err
}

func (s *turns) client(t *testing.T, l *wal.Log, name string) {
	for n := range 4 {
		s.wait(fmt.Sprintf("%s commits %d", name, n))
		if _, err := l.Commit(t.Context(), set(fmt.Sprintf("%s.%d", name, n), "x")); err != nil {
			t.Error(err)
		}
		s.wait(fmt.Sprintf("%s reads %d", name, n))
		if _, err := l.CatchUp(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestARunIsAFunctionOfItsSeed plays the same schedules twice, down to the bytes of
// the segments. Only then can a simulation repeat what it has found.
func TestARunIsAFunctionOfItsSeed(t *testing.T) {
	play := func(seed uint64) []string {
		s := &turns{now: newClock().now}
		synctest.Test(t, func(t *testing.T) {
			bucket := memblob.New()
			if _, err := (wal.Founding{Env: newClock().env(9)}).Found(t.Context(), bucket, wal.Format{Profile: "p"}); err != nil {
				t.Fatal(err)
			}
			var logs []*wal.Log
			s.free = true // Open does not wait
			for i := range 3 {
				name := fmt.Sprintf("log %d", i)
				l, _ := mustOpen(t, &slowly{Bucket: bucket, turns: s, name: name}, wal.Options{Env: s.env(name, seed+uint64(i))})
				logs = append(logs, l)
			}
			s.free = false
			running := 2 * len(logs)
			var mu sync.Mutex // guards running
			for i, l := range logs {
				for c := range 2 {
					go func() {
						s.client(t, l, fmt.Sprintf("client %d.%d", i, c))
						mu.Lock()
						defer mu.Unlock()
						running--
					}()
				}
			}
			s.run(seed, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return running == 0
			})
		})
		return s.trace
	}
	for seed := range uint64(20) {
		first, second := play(seed), play(seed)
		if !slices.Equal(first, second) {
			t.Fatalf("seed %d: %s", seed, cmp.Diff(first, second))
		}
	}
}
