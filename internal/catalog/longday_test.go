package catalog

import (
	"testing"
	"time"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// TestShortDaysForgetNoAges has store days of eight minutes for years, as a cache with a
// retention of an hour makes them, next to something that is to be kept for months. It
// must grow old all the same, and nothing may seem older than it is.
func TestShortDaysForgetNoAges(t *testing.T) {
	const short = 8 * time.Minute
	b := mkTimed(t)
	n := mkNode(t, b)
	begin := b.now
	next := uint32(1)
	for b.now.Sub(begin) < 200*day {
		var entries []wal.Entry
		for range 1024 {
			b.pass(short)
			entries = append(entries, set(keyspace.AppendDayKey(nil, next), keyspace.AppendDay(nil, &keyspace.Day{Ended: b.now, Slot: 1, Epoch: 1})))
			next++
		}
		n.commit(entries...)
		n.setCounter(keyspace.OpenDay, next)
		if n.countRows(keyspace.DayPrefix) >= maxDays { // some are forgotten
			b.pass(short)
			n.mustTick(TickOptions{Day: short})
			next++
		}
	}
	k := n.mustTick(TickOptions{Day: day})
	if len(k.days) > maxDays {
		t.Errorf("%d days are remembered, want at most %d", len(k.days), maxDays)
	}
	for d := uint32(1); d < k.Day; d++ {
		is, seems := k.Now.Sub(begin)-time.Duration(d)*short, k.Age(d)
		if seems > is || seems < is-is/10-short {
			t.Fatalf("day %d of %d seems %v old and is %v", d, k.Day, seems, is)
		}
	}
}

// TestClockThatIsPutBack has the bucket's clock jump ahead by years for one tick.
func TestClockThatIsPutBack(t *testing.T) {
	b := mkTimed(t)
	n := mkNode(t, b)
	for range 3 {
		n.mustTick(TickOptions{Day: day})
		b.pass(day)
	}
	b.pass(5000 * day)
	n.mustTick(TickOptions{Day: day})
	b.pass(-5000 * day)
	k := n.mustTick(TickOptions{Day: day})
	for d := uint32(1); d <= k.Day; d++ {
		if age := k.Age(d); age > 3*day {
			t.Errorf("day %d seems %v old once the clock is right again", d, age)
		}
	}
}
