package wal_test

import (
	"testing"
	"time"

	"github.com/celler/celler/wal"
)

func TestPace(t *testing.T) {
	t0 := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const commit = 100 * time.Millisecond
	busy := func(arrivals, lastOps int) *wal.Pace {
		p := &wal.Pace{}
		p.Arrivals(t0.Add(-20*time.Second), 0)
		for range 10 { // smoothed
			p.Committed(t0, commit, lastOps)
		}
		for i := range 20 {
			p.Arrivals(t0.Add(time.Duration(i-19)*time.Second), arrivals)
		}
		return p
	}
	wait := func(p *wal.Pace, queued int) time.Duration {
		return max(0, p.HoldUntil(queued, t0).Sub(t0))
	}
	if d := wait(&wal.Pace{}, 1); d != 0 {
		t.Errorf("an idle log waits %v", d)
	}
	if d := wait(busy(10, 1), 1); d != 0 {
		t.Errorf("one client that waits for each commit is made to wait %v", d)
	}
	if d := wait(busy(50, 1), 1); d < commit/2 || d > commit {
		t.Errorf("a busy log with small batches waits %v, want up to the time of a commit", d)
	}
	if d := wait(busy(50, 20), 1); d != 0 {
		t.Errorf("a log with large batches waits %v", d)
	}
	if d := wait(busy(50, 1), 8); d != 0 {
		t.Errorf("a full queue waits %v", d)
	}

	p := busy(1, 1)
	p.SawForeign(wal.WriterID{1}, t0)
	p.SawForeign(wal.WriterID{2}, t0)
	p.SawForeign(wal.WriterID{1}, t0)
	p.Committed(t0, commit, 1)
	if d := wait(p, 1); d != 2*commit {
		t.Errorf("the winner among three writers yields for %v, want %v", d, 2*commit)
	}

	p = busy(1, 1)
	p.Want(wal.WriterID{3})
	if d := wait(p, 1); d != 0 {
		t.Errorf("who asks for a turn is left the slot of a batch that waits already, for %v", d)
	}
	p.Committed(t0, commit, 1)
	if d := wait(p, 1); d != commit {
		t.Errorf("who asked for a turn is left %v, want %v", d, commit)
	}
	p.Committed(t0, commit, 1)
	if d := wait(p, 1); d != 0 {
		t.Errorf("who asked once is left a second turn, of %v", d)
	}
	p.Want(wal.WriterID{3})
	p.Relieve(wal.WriterID{3})
	p.Committed(t0, commit, 1)
	if d := wait(p, 1); d != commit {
		t.Errorf("who has us commit, and asks for a turn for what we cannot, is left %v, want %v", d, commit)
	}

	p.SawForeign(wal.WriterID{1}, t0)
	p.Committed(t0.Add(time.Minute), commit, 1)
	if d := p.HoldUntil(1, t0).Sub(t0.Add(time.Minute)); d > 0 {
		t.Errorf("after a minute alone it still yields for %v", d)
	}
}
