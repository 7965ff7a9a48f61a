package wal

import (
	"slices"
	"time"
)

const (
	// smallBatch is what a batch of a busy writer should at least hold: below it
	// the price of a commit is spread over too few operations.
	smallBatch = 8
	// maxLinger and maxYield bound the waits, whatever was measured.
	maxLinger = 250 * time.Millisecond
	maxYield  = time.Second
	// minMeasured is the shortest span from which a rate of arrivals is told.
	minMeasured = time.Millisecond
	// foreignMemory is how long a writer counts as competing after its last segment.
	foreignMemory = 2 * time.Second
)

// pace decides when to begin the next batch. Nothing depends on it but speed and
// fairness: any answer it gives is correct (I10).
//
// It waits for two reasons. To linger: if operations arrive much faster than they
// are committed and the batches are small all the same, waiting up to the time of
// one commit makes fewer and fuller segments. To yield: who has won a slot knows
// the next one first and tends to win that too, so losers starve; after a win each
// competitor is left the time of one commit. So is a peer that asks for a slot: it does
// not compete as a rule, and would not be seen to.
type pace struct {
	commit   time.Duration // smoothed duration of a commit
	lastOps  int           // operations in the last batch
	rate     float64       // smoothed arrivals per second
	measured time.Time     // when rate was last brought up to date
	rivals   []rival       // in order of appearance
	wanted   []WriterID    // who have asked for a turn since the last slot was won
	turns    []WriterID    // who had asked before that: it is their turn
	won      time.Time     // when the last slot was won, if it was
	losing   bool          // the last batch lost its slot
}

type rival struct {
	writer WriterID
	seen   time.Time
}

// sawForeign notes a segment of another writer.
func (p *pace) sawForeign(w WriterID, now time.Time) {
	p.forget(w)
	for i := range p.rivals {
		if p.rivals[i].writer == w {
			p.rivals[i].seen = now
			return
		}
	}
	p.rivals = append(p.rivals, rival{w, now})
}

// maxTurns bounds how many are left a turn because they asked for one.
const maxTurns = 64

// want notes that a writer asks for a turn. It is left the time of one commit once the slot
// under way is won, and has to ask again if that was not enough.
func (p *pace) want(w WriterID) {
	if !slices.Contains(p.wanted, w) && len(p.wanted) < maxTurns {
		p.wanted = append(p.wanted, w)
	}
}

// relieve notes that a writer leaves its operations to us, so it does not compete. If it
// wants a turn all the same that is for what it cannot leave to us.
func (p *pace) relieve(w WriterID) {
	p.rivals = slices.DeleteFunc(p.rivals, func(r rival) bool { return r.writer == w })
}

// forget forgets that a writer wanted a turn.
func (p *pace) forget(w WriterID) {
	same := func(a WriterID) bool { return a == w }
	p.wanted, p.turns = slices.DeleteFunc(p.wanted, same), slices.DeleteFunc(p.turns, same)
}

// committed notes a slot that was won in d with so many operations.
func (p *pace) committed(now time.Time, d time.Duration, ops int) {
	p.lastOps, p.losing = ops, false
	if p.commit == 0 {
		p.commit = d
	}
	p.commit = (3*p.commit + d) / 4
	live := p.rivals[:0]
	for _, r := range p.rivals {
		if now.Sub(r.seen) <= foreignMemory {
			live = append(live, r)
		}
	}
	p.rivals = live
	for _, r := range live {
		p.forget(r.writer) // who is left a turn anyway
	}
	p.turns, p.wanted = p.wanted, p.turns[:0]
	p.won = now
}

// arrivals notes how many operations came since it last returned true. It returns
// false if that was too short a while ago to tell a rate.
func (p *pace) arrivals(now time.Time, n int) bool {
	elapsed := now.Sub(p.measured)
	if elapsed < minMeasured {
		return false
	}
	p.rate = (p.rate + float64(n)/elapsed.Seconds()) / 2
	p.measured = now
	return true
}

// holdUntil returns when a batch may begin, given how many operations wait and
// since when the first does. A time that has passed means at once.
func (p *pace) holdUntil(queued int, oldest time.Time) time.Time {
	notBefore := p.won // and leave each rival the time of a commit
	if !p.won.IsZero() {
		notBefore = p.won.Add(min(time.Duration(len(p.rivals)+len(p.turns))*p.commit, maxYield))
	}
	expected := p.rate * p.commit.Seconds() // arrivals during one commit
	if queued >= smallBatch || p.lastOps >= smallBatch || expected < float64(2*queued+1) {
		return notBefore
	}
	fill := time.Duration(float64(smallBatch-queued) / p.rate * float64(time.Second))
	linger := oldest.Add(min(fill, p.commit, maxLinger))
	if linger.Before(notBefore) {
		return notBefore
	}
	return linger
}
