package wal

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// What replicas tell each other beside the log only makes them faster. A hint says
// where to look and is forgotten; what a replica does about it is a catch-up, which
// believes the bucket alone.

const (
	// maxHintWindow bounds how many slots are asked for at once because of a hint: a
	// wrong one must not cost more than a right one. Who is further behind catches up.
	maxHintWindow = 4
	// surpriseMemory is how long hints are not relied upon after a slot was found
	// that nobody had hinted at.
	surpriseMemory = time.Minute
	// maxAddressBytes bounds what a segment says of where its writer can be reached.
	maxAddressBytes = 1024
)

// errNoAddress is what Announce returns if there is nothing to announce.
var errNoAddress = errors.New("announce this replica: it has no address")

// hints is what Log knows from others. Log.mu guards it.
type hints struct {
	best   Seq  // the newest slot that anybody hinted at
	queued bool // it has not been looked for
}

// Hint says that somebody seems to have filled slot seq. If that is news the log
// catches up soon. Hint does not wait, and any number of them costs no more than
// catching up without a pause.
func (l *Log) Hint(seq Seq) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq <= l.applied || l.ended != nil {
		l.m.hints[hintKnown].Inc()
		return
	}
	l.m.hints[hintNews].Inc()
	l.hints.best = max(l.hints.best, seq)
	l.hints.queued = true
	l.wakeSequencer()
}

// hinted reports whether there is a hint to follow. Log.mu is held.
func (l *Log) hinted() bool { return l.hints.queued && l.hints.best > l.applied }

// follow applies what was hinted at, and no more: it does not look for the tail. That a
// slot is missing that should be there means nothing. The order is that of a catch-up.
func (l *Log) follow(ctx context.Context) error {
	l.mu.Lock()
	l.hints.queued = false
	n := l.hints.best - l.seq
	l.mu.Unlock()
	if n > maxHintWindow {
		return l.serveWaiters(ctx)
	}
	return l.look(ctx, int(n))
}

// look applies the next n slots, as far as they are there.
func (l *Log) look(ctx context.Context, n int) error {
	first := l.seq + 1
	var reads []slotRead
	if n == 1 {
		reads = []slotRead{l.readSlot(ctx, first)}
	} else {
		reads = l.readSlots(ctx, first, n)
	}
	if reads[0].err != nil {
		return nil
	}
	if err := l.confirmRoot(ctx); err != nil {
		return err
	}
	if l.root.Floor > first {
		return l.serveWaiters(ctx)
	}
	for _, r := range reads {
		if r.err != nil {
			break
		}
		if err := l.applyObject(r.body); err != nil {
			return err
		}
	}
	return l.settle()
}

// Announce commits a segment without effect, so that peers that follow the log learn
// Options.Address, and tell theirs in turn.
func (l *Log) Announce(ctx context.Context) error {
	if l.o.Address == "" {
		return errNoAddress
	}
	_, err := l.Commit(ctx, Op{Build: func(View) ([]Entry, error) {
		return []Entry{{Kind: PushBoundary, Key: []byte("announce")}}, nil // seal adds the address
	}})
	return err
}

func (l *Log) addressEntry() Entry { return Entry{Kind: PeerAddress, Key: []byte(l.o.Address)} }

// address returns where the writer of a segment says that it can be reached, or "".
func (s *Segment) address() string {
	for i := range s.Entries {
		if s.Entries[i].Kind == PeerAddress && len(s.Entries[i].Key) <= maxAddressBytes {
			return string(s.Entries[i].Key)
		}
	}
	return ""
}

// Address returns where the writer of the segment says that its peers can reach it, or
// "". Whoever may write to the bucket may write anything there.
func (s *Segment) Address() string { return s.address() }

// poller decides when Run looks at the tail. It is used by one goroutine.
type poller struct {
	rand      *rand.Rand
	found     Seq // the newest slot that a poll found, 0 once it was looked at
	surprised time.Time
}

// next returns how long to wait before the next look. The interval is the long one
// only while peers are there to say what is new, and as long as they do.
func (l *Log) nextPoll(now time.Time) time.Duration {
	p := &l.poll
	l.mu.Lock()
	best, fresh := l.hints.best, l.fresh
	l.mu.Unlock()
	if p.found > best {
		p.surprised = now
	}
	p.found = 0
	interval := l.o.PollInterval
	if l.o.Hinted != nil && l.o.Hinted() && now.Sub(p.surprised) > surpriseMemory {
		interval = max(interval, min(l.o.HintedPollInterval, l.o.MaxStaleness/2))
	}
	tenth := interval / 10
	interval += time.Duration(p.rand.Int64N(int64(2*tenth)+1)) - tenth
	// What a commit or a reader has made sure of since counts as a look.
	if ago := now.Sub(fresh); ago > 0 && ago < interval {
		interval -= ago
	}
	return max(interval, tenth)
}
