package catalog

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

const (
	// maxDays is how many store days are remembered, older ones further apart.
	maxDays = 4096
	// maxGrowthDays is for how many store days growth is remembered.
	maxGrowthDays = 400

	defaultEpoch = 24 * time.Hour
)

// Clock is the time of the bucket, in store days. It is a value: what is asked of it
// does not change.
type Clock struct {
	Now time.Time // by the bucket's clock, a little before the question; zero if unknown
	Day uint32    // the day that is open

	days []keyspace.Day // that are over, in order
}

// Age returns for how long, at least, the given day has been over. That of the open
// day is 0. Nothing that happened on a day is younger than that.
func (k *Clock) Age(day uint32) time.Duration {
	if ended := k.ended(day); !ended.IsZero() {
		return max(0, k.Now.Sub(ended))
	}
	return 0
}

// Begins reports whether no day has ended yet.
func (k *Clock) Begins() bool { return len(k.days) == 0 && k.Day <= keyspace.FirstCount }

// Ended returns a time by which the given day was over; zero if it is not, or if
// nothing is known.
func (k *Clock) Ended(day uint32) time.Time {
	if day >= k.Day {
		return time.Time{}
	}
	return k.ended(day)
}

// ended returns when the first day from the given one on ended of which that is
// known: a later end makes everything younger, which is the safe side.
func (k *Clock) ended(day uint32) time.Time {
	for i := range k.days {
		if y := &k.days[i]; y.Number >= day && !y.Ended.IsZero() {
			return y.Ended
		}
	}
	return time.Time{}
}

// scanner is what a clock is read from: the index, a snapshot, or the state an
// operation is built against.
type scanner interface {
	Get(key []byte) ([]byte, bool, error)
	Scan(prefix, after []byte) iter.Seq2[wal.KV, error]
}

// readClock reads the store days. Now is when the last one ended.
func readClock(v scanner) (Clock, error) {
	var k Clock
	var err error
	if k.Day, err = counter(v, keyspace.OpenDay); err != nil {
		return Clock{}, err
	}
	for row, err := range v.Scan([]byte{keyspace.DayPrefix}, nil) {
		if err != nil {
			return Clock{}, fmt.Errorf("read the store days: %w", err)
		}
		day, err := keyspace.DecodeDay(row.Key, row.Value)
		if err != nil {
			return Clock{}, fmt.Errorf("read the store days: %w", err)
		}
		k.days = append(k.days, day)
		if day.Ended.After(k.Now) {
			k.Now = day.Ended
		}
	}
	return k, nil
}

// Clock returns the time of the bucket as the index knows it, without a request: Now
// is when the last day ended.
func (c *Catalog) Clock(context.Context) (Clock, error) { return readClock(c.db) }

// TickOptions say when a store day is to end.
type TickOptions struct {
	Day   time.Duration // how long the open day must have lasted; 0: it ends now
	Epoch time.Duration // how long an upload epoch lasts at least. Default 24 h
}

// Tick asks the bucket for the time, by a commit, and ends the open store day if it
// has lasted long enough; the upload epoch ends with it if that has. A collection
// begins with it.
//
// A day ends with the operation that says so, and when that was is noted afterwards,
// because only the bucket can tell. Whatever happens in between, nothing seems older
// than it is.
func (c *Catalog) Tick(ctx context.Context, o TickOptions) (Clock, error) {
	if o.Epoch <= 0 {
		o.Epoch = defaultEpoch
	}
	before, err := readClock(c.db)
	if err != nil {
		return Clock{}, err
	}
	seq, now, err := c.askTime(ctx)
	if err != nil {
		return Clock{}, err
	}
	for _, day := range before.days {
		// It was over before we asked. Whoever ended it did not come to say when.
		if day.Ended.IsZero() {
			if err := c.stampDay(ctx, day.Number, seq, now); err != nil {
				return Clock{}, err
			}
		}
	}
	k, err := readClock(c.db)
	if err != nil {
		return Clock{}, err
	}
	if k.Day == keyspace.FirstCount || o.Day == 0 || k.lasted(now) >= o.Day {
		seq, ended, err := c.endDay(ctx, k.Day, now, o.Epoch)
		if err != nil {
			return Clock{}, err
		}
		if ended {
			if now, err = c.wal.SlotTime(ctx, seq); err != nil {
				return Clock{}, err
			}
			now = now.UTC().Truncate(time.Millisecond)
			if err := c.stampDay(ctx, k.Day, seq, now); err != nil {
				return Clock{}, err
			}
		}
		if k, err = readClock(c.db); err != nil {
			return Clock{}, err
		}
	}
	k.Now = now // also if days seem to have ended later: then the clock was wrong, and nothing is old
	return k, nil
}

// lasted returns for how long the open day has, at least.
func (k *Clock) lasted(now time.Time) time.Duration {
	if len(k.days) == 0 || k.days[len(k.days)-1].Number+1 != k.Day || k.days[len(k.days)-1].Ended.IsZero() {
		return 0
	}
	return now.Sub(k.days[len(k.days)-1].Ended)
}

// askTime commits something and asks the bucket when it did.
func (c *Catalog) askTime(ctx context.Context) (Seq, time.Time, error) {
	key := keyspace.AppendCounterKey(nil, keyspace.Ticks)
	seq, err := c.wal.Commit(ctx, wal.Op{Name: "tick", Cost: 32, Build: func(v wal.View) ([]wal.Entry, error) {
		n, err := counter(v, keyspace.Ticks)
		return []wal.Entry{set(key, keyspace.AppendCount(nil, max(n+1, keyspace.FirstCount)))}, err
	}})
	if err != nil {
		return 0, time.Time{}, err
	}
	now, err := c.wal.SlotTime(ctx, seq)
	return seq, now.UTC().Truncate(time.Millisecond), err
}

// endDay ends a store day, unless somebody else has, and reports whether it was us.
func (c *Catalog) endDay(ctx context.Context, day uint32, now time.Time, epochLasts time.Duration) (seq Seq, ended bool, err error) {
	seq, err = c.wal.Commit(ctx, wal.Op{Name: "end store day", Cost: 128, Build: func(v wal.View) ([]wal.Entry, error) {
		ended = false
		k, err := readClock(v)
		if err != nil || k.Day != day {
			return nil, err
		}
		epoch, err := counter(v, keyspace.UploadEpoch)
		if err != nil {
			return nil, err
		}
		ended = true
		entries := []wal.Entry{
			set(keyspace.AppendDayKey(nil, day), keyspace.AppendDay(nil, &keyspace.Day{Epoch: epoch})),
			set(keyspace.AppendCounterKey(nil, keyspace.OpenDay), keyspace.AppendCount(nil, day+1)),
		}
		if k.epochLasted(epoch, now) >= epochLasts {
			entries = append(entries, set(keyspace.AppendCounterKey(nil, keyspace.UploadEpoch), keyspace.AppendCount(nil, epoch+1)))
		}
		if len(k.days)+1 > maxDays {
			entries = append(entries, thin(k.days)...)
		}
		if day > maxGrowthDays {
			entries = append(entries, wal.Entry{
				Kind: wal.DeleteRange, Key: keyspace.AppendGrowthPrefix(nil, 0), Value: keyspace.AppendGrowthPrefix(nil, day-maxGrowthDays),
			})
		}
		return entries, nil
	}})
	return seq, ended && err == nil, err
}

// thin forgets days, those further apart that are longer ago. What happened on one that is
// forgotten counts as having happened on the next that is not: it seems younger, by a
// small share of its age, however short days are.
func thin(days []keyspace.Day) (entries []wal.Entry) {
	const share = 32
	last := days[len(days)-1].Ended
	before := days[0].Ended
	for i := 1; i < len(days)-1; i++ {
		y, next := &days[i], days[i+1].Ended
		if y.Ended.IsZero() || next.IsZero() || next.Sub(before) > last.Sub(next)/share {
			before = y.Ended
			continue
		}
		entries = append(entries, remove(keyspace.AppendDayKey(nil, y.Number)))
	}
	return entries
}

// epochLasted returns for how long an upload epoch has been in force, at least: since
// the end of the last day that saw an earlier one, or of the first that is known.
func (k *Clock) epochLasted(epoch uint32, now time.Time) time.Duration {
	var since time.Time
	for i := range k.days {
		if y := &k.days[i]; since.IsZero() && y.Epoch == epoch || y.Epoch < epoch {
			since = y.Ended
		}
	}
	if since.IsZero() {
		return 0
	}
	return now.Sub(since)
}

// stampDay notes when a day ended, if nobody has, never before the one before it.
func (c *Catalog) stampDay(ctx context.Context, day uint32, seq Seq, ended time.Time) error {
	key := keyspace.AppendDayKey(nil, day)
	_, err := c.wal.Commit(ctx, wal.Op{Name: "note when a store day ended", Cost: 32, Build: func(v wal.View) ([]wal.Entry, error) {
		y, ok, err := read(v, key, keyspace.DecodeDay)
		if !ok || err != nil || !y.Ended.IsZero() {
			return nil, err
		}
		before, _, err := read(v, keyspace.AppendDayKey(nil, day-1), keyspace.DecodeDay)
		if err != nil {
			return nil, err
		}
		y.Slot = uint64(seq)
		if y.Ended = ended; before.Ended.After(ended) {
			y.Ended = before.Ended
		}
		return []wal.Entry{set(key, keyspace.AppendDay(nil, &y))}, nil
	}})
	return err
}
