package blobtest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/celler/celler/blob"
)

func (s *suite) list(prefix, after blob.Key) []blob.Key {
	s.t.Helper()
	var keys []blob.Key
	for info, err := range s.b.List(s.ctx, prefix, after) {
		if err != nil {
			s.t.Fatalf("list %q after %q: %v", prefix, after, err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func (s *suite) wantList(prefix, after blob.Key, want ...blob.Key) {
	s.t.Helper()
	if got := s.list(prefix, after); !slices.Equal(got, want) {
		s.t.Errorf("list %q after %q: %q, want %q", prefix, after, got, want)
	}
}

func (s *suite) listOrder() {
	// '-' and '.' sort before '/', digits and letters after it: a walk through
	// directories has to take care.
	keys := []blob.Key{
		"A", "a-b", "a-b.c/d", "a.b", "a/-", "a/b", "a/c-", "a/c/d", "a/c0", "a0", "aa/x", "b/1", "b/10", "b/2", "log/00", "log/01",
	}
	if !slices.IsSorted(keys) {
		s.t.Fatal("the test's own keys are not sorted")
	}
	before := time.Now()
	for i := range keys {
		// Written in an order that is not the one they are listed in.
		key := keys[(i*7)%len(keys)]
		s.mustPut(key, random(9, len(key)))
	}
	s.wantList("", "", keys...)
	s.wantList("a", "", keys[1:11]...)
	s.wantList("a/", "", "a/-", "a/b", "a/c-", "a/c/d", "a/c0")
	s.wantList("a/c", "", "a/c-", "a/c/d", "a/c0")
	s.wantList("a/c/", "", "a/c/d")
	s.wantList("b/1", "", "b/1", "b/10")
	s.wantList("A", "", "A")
	s.wantList("nothing", "")
	s.wantList("nothing/at/all", "")
	s.wantList("A/", "")

	for info, err := range s.b.List(s.ctx, "", "") {
		if err != nil {
			s.t.Fatal(err)
		}
		if info.Size != int64(len(info.Key)) {
			s.t.Errorf("%s: size %d, want %d", info.Key, info.Size, len(info.Key))
		}
		// The bucket's clock may be another machine's: only the day must be right.
		if d := info.ModTime.Sub(before).Abs(); d > 24*time.Hour {
			s.t.Errorf("%s: time %v, %v away from now", info.Key, info.ModTime, d)
		}
		if info.Tag != "" {
			if _, tag, err := s.b.Get(s.ctx, info.Key); err != nil || tag != info.Tag {
				s.t.Errorf("%s: listed with tag %s, get says %s (%v)", info.Key, info.Tag, tag, err)
			}
		}
	}
}

func (s *suite) listAfter() {
	keys := []blob.Key{"a-b", "a.b", "a/b", "a/d", "a0", "log/1"}
	for _, key := range keys {
		s.mustPut(key, nil)
	}
	for i, key := range keys {
		s.wantList("", key, keys[i+1:]...)
	}
	s.wantList("", "A", keys...)
	s.wantList("", "a", keys...)
	s.wantList("", "a/", "a/b", "a/d", "a0", "log/1")
	s.wantList("", "a/c", "a/d", "a0", "log/1")
	s.wantList("a/", "a/b", "a/d")
	s.wantList("a/", "a-b", "a/b", "a/d")
	s.wantList("a/", "a0")
	s.wantList("log/", "a0", "log/1")
	s.wantList("", "zzz")
}

// pages is more than one page of an S3 listing (1000 keys).
const pages = 1100

func (s *suite) fill(n int) []blob.Key {
	keys := make([]blob.Key, n)
	queue := make(chan blob.Key)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for key := range queue {
				if _, err := s.b.Put(s.ctx, key, []byte(key)); err != nil {
					s.t.Errorf("put %s: %v", key, err)
				}
			}
		})
	}
	for i := range keys {
		keys[i] = blob.Key(fmt.Sprintf("log/%016x", i))
		queue <- keys[i]
	}
	close(queue)
	wg.Wait()
	return keys
}

func (s *suite) listPages() {
	keys := s.fill(pages)
	s.wantList("log/", "", keys...)
	s.wantList("log/", keys[50], keys[51:]...)
}

func (s *suite) listWhileDeleting() {
	keys := s.fill(30)
	var got []blob.Key
	for info, err := range s.b.List(s.ctx, "log/", "") {
		if err != nil {
			s.t.Fatal(err)
		}
		got = append(got, info.Key)
		if err := s.b.Delete(s.ctx, info.Key); err != nil {
			s.t.Fatal(err)
		}
		if len(got) == 20 {
			break
		}
	}
	if !slices.Equal(got, keys[:20]) {
		s.t.Errorf("listed %q, want the first 20 of %q", got, keys)
	}
	s.wantList("log/", "", keys[20:]...)
}
