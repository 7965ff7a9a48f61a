package wal_test

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/wal"
)

func TestCommitIsVisibleToTheOthersAfterACatchUp(t *testing.T) {
	bucket := mkBucket(t)
	a, stA := mustOpen(t, bucket, wal.Options{})
	b, stB := mustOpen(t, bucket, wal.Options{})

	seq := mustCommit(t, a, set("x", "1"))
	if seq != 2 {
		t.Errorf("committed in slot %v, want 2: the first opens the session", seq)
	}
	wantDump(t, stA, "x=1\n")
	wantDump(t, stB, "")
	if got := mustCatchUp(t, b); got != seq {
		t.Errorf("caught up to %v, want %v", got, seq)
	}
	wantDump(t, stB, "x=1\n")
	mustCommit(t, b, set("y", "2"))
	mustCommit(t, a, set("x", "3"))
	wantDump(t, stA, "x=3\ny=2\n")
}

func TestRequestCounts(t *testing.T) {
	counter := blobtest.Count(mkBucket(t))
	c := newClock()
	want := func(what string, want map[string]int) {
		t.Helper()
		if got := counter.Calls(); !maps.Equal(got, want) {
			t.Errorf("%s takes %v, want %v", what, got, want)
		}
		counter.Reset()
	}
	l, _ := mustOpen(t, counter, wal.Options{Env: c.env(1)})
	// FORMAT; ROOT; the first slot, which is empty; ROOT again.
	want("opening an empty log", map[string]int{"get": 2, "get_if": 2})
	mustCatchUp(t, l)
	want("an idle poll", map[string]int{"get": 1, "get_if": 1})
	mustCommit(t, l, set("x", "1"))
	want("the first commit", map[string]int{"create": 2, "get_if": 2})
	mustCommit(t, l, set("x", "2"))
	want("a commit", map[string]int{"create": 1, "get_if": 1})
}

func TestConcurrentCommitsShareSegments(t *testing.T) {
	const writers, each = 8, 50
	bucket := mkBucket(t)
	// A create takes as long as it takes others to ask for one.
	slow := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{Delay: 5 * time.Millisecond})
	slow.Set(func(_ int, op string, _ blob.Key) blobtest.Fault {
		if op == "create" {
			return blobtest.Slow
		}
		return blobtest.None
	})
	counter := blobtest.Count(slow)
	l, st := mustOpen(t, counter, wal.Options{})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := l.Commit(t.Context(), set(fmt.Sprintf("k%d-%d", w, i), "v")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	creates := counter.Calls()["create"]
	if creates >= writers*each {
		t.Errorf("%d operations took %d segments: nothing was batched", writers*each, creates)
	}
	other, stOther := mustOpen(t, bucket, wal.Options{})
	if st.Dump() != stOther.Dump() || l.Seq() != other.Seq() {
		t.Error("a replica that reads the log differs from the one that wrote it")
	}
}
