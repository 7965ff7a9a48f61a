package wal_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// applied makes o tell the slots that are applied.
func applied(o *wal.Options) <-chan wal.Seq {
	ch := make(chan wal.Seq, 100)
	o.OnApply = func(s *wal.Segment) { ch <- s.Seq }
	return ch
}

func TestHintLeadsToCatchUp(t *testing.T) {
	b := mkBucket(t)
	a, _ := mustOpen(t, b, wal.Options{})
	var o wal.Options
	seen := applied(&o)
	l, st := mustOpen(t, b, o)
	last := mustCommit(t, a, set("k", "v"))
	l.Hint(last)
	for seq := range seen {
		if seq == last {
			break
		}
	}
	wantDump(t, st, "k=v\n")
	// One that is known already, and one about what is not there, do no harm.
	l.Hint(last)
	l.Hint(last + 1000)
	if seq := mustCatchUp(t, l); seq != last {
		t.Errorf("at slot %v, want %v", seq, last)
	}
}

// reads counts what is asked of a bucket.
type reads struct {
	blob.Bucket
	n    atomic.Int64
	take time.Duration
}

func (b *reads) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	b.n.Add(1)
	time.Sleep(b.take)
	return b.Bucket.Get(ctx, key)
}

func (b *reads) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	b.n.Add(1)
	time.Sleep(b.take)
	return b.Bucket.GetIf(ctx, key, old)
}

// A wrong hint must not be a way to make a replica ask for much.
func TestHintCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &reads{Bucket: mkBucket(t), take: time.Millisecond} // so that all hints come within one read
		l, _ := mustOpen(t, b, wal.Options{})
		before := b.n.Load()
		for range 1000 {
			l.Hint(1 << 40)
		}
		time.Sleep(time.Second)
		if n := b.n.Load() - before; n == 0 || n > 2*5 {
			t.Errorf("1000 hints at once cost %d reads, want at most two catch-ups of 5", n)
		}
	})
}

func TestIdleHour(t *testing.T) {
	idle := func(t *testing.T, o wal.Options, during func(t *testing.T, b blob.Bucket)) (n int64) {
		synctest.Test(t, func(t *testing.T) {
			b := &reads{Bucket: mkBucket(t)}
			l, _ := mustOpen(t, b, o)
			before := b.n.Load()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if during != nil {
				go during(t, b.Bucket)
			}
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
			n = b.n.Load() - before
		})
		return n
	}
	yes := func() bool { return true }
	if n := idle(t, wal.Options{}, nil); n < 7000 || n > 7400 {
		t.Errorf("an idle hour costs %d reads, want about 7200", n)
	}
	if n := idle(t, wal.Options{Hinted: yes}, nil); n < 1380 || n > 1500 {
		t.Errorf("an idle hour with peers costs %d reads, want about 1440", n)
	}
	if n := idle(t, wal.Options{Hinted: yes, MaxStaleness: 3 * time.Second}, nil); n < 4600 || n > 5000 {
		t.Errorf("an idle hour with peers costs %d reads, want about 4800: the state must not get as old as it may", n)
	}
	if n := idle(t, wal.Options{Hinted: func() bool { return false }}, nil); n < 7000 {
		t.Errorf("an idle hour while a peer is silent costs %d reads, want about 7200", n)
	}
	// Somebody who does not hint writes each half a minute: there is no relying on hints.
	silent := func(t *testing.T, b blob.Bucket) {
		l, _ := mustOpen(t, b, wal.Options{})
		for range 119 {
			time.Sleep(30 * time.Second)
			mustCommit(t, l, set("k", "v"))
		}
	}
	if n := idle(t, wal.Options{Hinted: yes}, silent); n < 6500 {
		t.Errorf("an hour with a writer that gives no hints costs %d reads, want about 7200", n)
	}
}

// What others and commits make sure of need not be made sure of again.
func TestBusyReplicaDoesNotPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &reads{Bucket: mkBucket(t)}
		l, _ := mustOpen(t, b, wal.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { _ = l.Run(ctx); close(done) }()
		before := b.n.Load()
		for range 1000 {
			time.Sleep(100 * time.Millisecond)
			mustCommit(t, l, set("k", "v"))
		}
		if n := b.n.Load() - before; n > 1010 {
			t.Errorf("1000 commits cost %d reads, want one each", n)
		}
		cancel()
		<-done
	})
}

func TestSegmentsCarryAddress(t *testing.T) {
	b := mkBucket(t)
	var won []wal.Seq
	l, _ := mustOpen(t, b, wal.Options{Address: "http://a/", OnWon: func(s wal.Seq) { won = append(won, s) }})
	if err := l.Announce(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := mustCommit(t, l, set("k", "v"))
	var addresses []string
	for seg, err := range wal.ReadSegments(t.Context(), b, 1, last) {
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, seg.Address())
	}
	if diff := cmp.Diff([]string{"http://a/", "http://a/", "http://a/"}, addresses); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]wal.Seq{1, 2, 3}, won); diff != "" {
		t.Error(diff)
	}
	// Without an address nothing is said, and there is nothing to announce.
	quiet, _ := mustOpen(t, b, wal.Options{})
	if err := quiet.Announce(t.Context()); err == nil {
		t.Error("a replica without an address announced itself")
	}
}
