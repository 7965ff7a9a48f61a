package blobtest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/celler/celler/blob"
)

// The races have the shape of the probe's.
const (
	raceRounds = 16
	racers     = 32
)

// race lets racers write different bodies at once and expects one winner. A
// racer may be left without an answer; it may then even be the winner.
func (s *suite) race(key blob.Key, size int, lost error, write func(body []byte) (blob.Tag, error)) {
	s.t.Helper()
	bodies, tags, errs := make([][]byte, racers), make([]blob.Tag, racers), make([]error, racers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range racers {
		bodies[i] = random(uint64(i), size)
		wg.Go(func() {
			<-start
			tags[i], errs[i] = write(bodies[i])
		})
	}
	close(start)
	wg.Wait()

	body, tag, err := s.b.Get(s.ctx, key)
	if err != nil {
		s.t.Fatalf("get %s after the race: %v", key, err)
	}
	won := 0
	for i, err := range errs {
		mine := bytes.Equal(body, bodies[i])
		switch {
		case err == nil:
			won++
			if !mine || tags[i] != tag {
				s.t.Errorf("%s: racer %d won with tag %s, but the object has tag %s and another body: %v", key, i, tags[i], tag, !mine)
			}
		case errors.Is(err, lost):
			if mine {
				s.t.Errorf("%s: racer %d lost, but the object is its own", key, i)
			}
		default:
			if mine {
				won++
			}
			s.t.Logf("%s: racer %d got no answer: %v", key, i, err)
		}
	}
	if won != 1 {
		s.t.Errorf("%s: %d racers won", key, won)
	}
}

func (s *suite) rounds() int {
	if testing.Short() {
		return 4
	}
	return raceRounds
}

func (s *suite) createRace() {
	for round := range s.rounds() {
		key := blob.Key(fmt.Sprintf("log/%04d", round))
		s.race(key, raceSize(round), blob.ErrExist, func(body []byte) (blob.Tag, error) {
			return s.b.Create(s.ctx, key, body)
		})
	}
}

func (s *suite) swapRace() {
	for round := range s.rounds() {
		key := blob.Key(fmt.Sprintf("root/%04d", round))
		tag := s.mustCreate(key, []byte("start"))
		s.race(key, raceSize(round), blob.ErrChanged, func(body []byte) (blob.Tag, error) {
			return s.b.Swap(s.ctx, key, tag, body)
		})
	}
}

func raceSize(round int) int {
	if round%2 == 1 {
		return 1 << 20
	}
	return 1 << 10
}

// counter lets several writers add to a number until each was told of ten
// successes. Steps without an answer may or may not have counted.
func (s *suite) counter() {
	const writers, steps = 8, 10
	s.mustCreate("ROOT", []byte("0"))
	var mu sync.Mutex
	told, unknown := 0, 0
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for mine := 0; mine < steps; {
				body, tag, err := s.b.Get(s.ctx, "ROOT")
				if err != nil {
					s.t.Errorf("get: %v", err)
					return
				}
				n, err := strconv.Atoi(string(body))
				if err != nil {
					s.t.Errorf("torn counter: %v", err)
					return
				}
				_, err = s.b.Swap(s.ctx, "ROOT", tag, []byte(strconv.Itoa(n+1)))
				mu.Lock()
				switch {
				case err == nil:
					mine++
					told++
				case !errors.Is(err, blob.ErrChanged):
					unknown++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	body, _, err := s.b.Get(s.ctx, "ROOT")
	if err != nil {
		s.t.Fatal(err)
	}
	if n, err := strconv.Atoi(string(body)); err != nil || n < told || n > told+unknown {
		s.t.Errorf("counter is %q after %d steps that succeeded and %d without an answer", body, told, unknown)
	}
}

// wholeVersions lets readers look while an object changes its length and
// vanishes: what they get is one version, with its tag.
func (s *suite) wholeVersions() {
	const versions = 60
	valid := func(body []byte) bool { return len(body) > 0 && bytes.Count(body, body[:1]) == len(body) }
	version := func(n int) []byte { return bytes.Repeat([]byte{byte('A' + n%26)}, 1+n*37%9000) }
	s.mustPut("ROOT", version(0))
	done := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[blob.Tag][]byte{}
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				body, tag, err := s.b.Get(s.ctx, "ROOT")
				if errors.Is(err, blob.ErrNotExist) {
					continue
				}
				if err != nil || !valid(body) {
					s.t.Errorf("get of a changing object: %s, error %v", show(body), err)
					return
				}
				mu.Lock()
				if other, ok := seen[tag]; ok && !bytes.Equal(other, body) {
					s.t.Errorf("tag %s stands for %s and for %s", tag, show(other), show(body))
				}
				seen[tag] = body
				mu.Unlock()
			}
		})
	}
	for n := range versions {
		if n%5 == 4 {
			if err := s.b.Delete(s.ctx, "ROOT"); err != nil {
				s.t.Errorf("delete: %v", err)
			}
		}
		s.mustPut("ROOT", version(n))
	}
	close(done)
	wg.Wait()
}

// createDelete alternates: every successful create needs a delete before the
// next one can succeed.
func (s *suite) createDelete() {
	const creators, attempts = 8, 30
	var mu sync.Mutex
	created, deletes := 0, 0
	var wg sync.WaitGroup
	for c := range creators {
		wg.Go(func() {
			for i := range attempts {
				if i%3 == 2 {
					mu.Lock()
					deletes++
					mu.Unlock()
					if err := s.b.Delete(s.ctx, "log/1"); err != nil {
						s.t.Errorf("delete: %v", err)
					}
					continue
				}
				_, err := s.b.Create(s.ctx, "log/1", fmt.Appendf(nil, "%d %d", c, i))
				if err == nil {
					mu.Lock()
					created++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if created == 0 || created > deletes+1 {
		s.t.Errorf("%d creates succeeded with %d deletes", created, deletes)
	}
}
