package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// timed is a bucket whose clock a test sets.
type timed struct {
	blob.Bucket
	mu   sync.Mutex
	now  time.Time
	made map[blob.Key]time.Time
	fail bool // listings fail
}

func mkTimed(t testing.TB) *timed {
	return &timed{Bucket: mkBucket(t), now: mkTime(), made: map[blob.Key]time.Time{}}
}

func (b *timed) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	tag, err := b.Bucket.Create(ctx, key, body)
	if err == nil {
		b.mu.Lock()
		b.made[key] = b.now
		b.mu.Unlock()
	}
	return tag, err
}

func (b *timed) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for info, err := range b.Bucket.List(ctx, prefix, after) {
			b.mu.Lock()
			info.ModTime = b.made[info.Key]
			if b.fail {
				err = errors.New("no listing today")
			}
			b.mu.Unlock()
			if !yield(info, err) {
				return
			}
		}
	}
}

func (b *timed) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func (n *node) mustTick(o TickOptions) Clock {
	n.t.Helper()
	k, err := n.Tick(n.t.Context(), o)
	if err != nil {
		n.t.Fatal(err)
	}
	return k
}

const day = 24 * time.Hour

func TestStoreDays(t *testing.T) {
	b := mkTimed(t)
	n := mkNode(t, b)
	o := TickOptions{Day: day}
	k := n.mustTick(o)
	if k.Day != 2 || !k.Now.Equal(b.now) || k.Age(2) != 0 || k.Age(1) != 0 {
		t.Fatalf("after the first tick: %+v, want day 2 to be open and nothing to be old", k)
	}
	b.pass(day - time.Second)
	if k = n.mustTick(o); k.Day != 2 || k.Age(1) != day-time.Second || k.Age(2) != 0 {
		t.Fatalf("after less than a day: day %d, ages %v and %v", k.Day, k.Age(1), k.Age(2))
	}
	b.pass(time.Second)
	if k = n.mustTick(o); k.Day != 3 || k.Age(1) != day || k.Age(2) != 0 || k.Age(3) != 0 {
		t.Fatalf("after a day: day %d, ages %v, %v and %v", k.Day, k.Age(1), k.Age(2), k.Age(3))
	}
	b.pass(10 * day) // nobody ticks
	if k = n.mustTick(o); k.Day != 4 || k.Age(2) != 10*day || k.Age(3) != 0 {
		t.Fatalf("after ten days: day %d, ages %v and %v", k.Day, k.Age(2), k.Age(3))
	}
	if k = n.mustTick(TickOptions{}); k.Day != 5 {
		t.Errorf("ended at once: day %d, want 5", k.Day)
	}
	b.pass(-1000 * day) // the bucket's clock goes wrong
	n.mustTick(TickOptions{})
	k = n.mustTick(TickOptions{})
	for d := uint32(1); d <= k.Day; d++ {
		if age := k.Age(d); age > 20*day {
			t.Errorf("day %d seems %v old", d, age)
		}
	}
}

// TestDayOfAStoppedTicker ends a day and stops before it was noted when. However long
// that takes, what was used meanwhile does not seem older than it is.
func TestDayOfAStoppedTicker(t *testing.T) {
	b := mkTimed(t)
	n := mkNode(t, b)
	n.mustCreate("a")
	n.mustTick(TickOptions{})
	seq, ended, err := n.endDay(t.Context(), 2, b.now, day)
	if err != nil || !ended {
		t.Fatal(ended, err)
	}
	then, err := n.log.SlotTime(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	k, err := n.Clock(t.Context())
	if err != nil || k.Day != 3 || k.Age(2) != 0 {
		t.Fatalf("day %d, age of the one before %v, %v; want 3, and none that is known", k.Day, k.Age(2), err)
	}
	b.pass(20 * day)
	k = n.mustTick(TickOptions{Day: day})
	if k.Age(2) != 0 {
		t.Errorf("day 2 seems %v old, and nobody can tell", k.Age(2))
	}
	if err := n.stampDay(t.Context(), 2, seq, then); err != nil { // it wakes up
		t.Fatal(err)
	}
	if k = n.mustTick(TickOptions{}); k.Age(2) != 0 {
		t.Errorf("day 2 seems %v old after its ticker woke up", k.Age(2))
	}
	if _, ended, err := n.endDay(t.Context(), 2, then, day); ended || err != nil {
		t.Errorf("the day was ended twice, %v", err)
	}
}

func TestTickFails(t *testing.T) {
	b := mkTimed(t)
	n := mkNode(t, b)
	n.mustTick(TickOptions{})
	b.fail = true
	if _, err := n.Tick(t.Context(), TickOptions{}); err == nil {
		t.Error("a tick without an answer from the bucket: no error")
	}
	b.fail = false
	if k := n.mustTick(TickOptions{Day: day}); k.Day != 2 {
		t.Errorf("day %d, want that a failed tick ends none", k.Day)
	}
}

func TestUploadEpochsEnd(t *testing.T) {
	b := mkTimed(t)
	n := mkNode(t, b)
	epochs := map[uint32]int{}
	for range 24 * 10 { // ten days of hours
		n.mustTick(TickOptions{Day: time.Hour})
		b.pass(time.Hour)
		e, err := n.UploadEpoch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		epochs[e]++
	}
	if len(epochs) < 9 || len(epochs) > 11 {
		t.Errorf("%d upload epochs in ten days, want one a day", len(epochs))
	}
	for e, hours := range epochs {
		if hours < 24 && e < uint32(len(epochs)) {
			t.Errorf("upload epoch %d lasted %d hours, want 24 at least", e, hours)
		}
	}
}

func TestDaysAreForgotten(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	n.mustCreate("a")
	var many []wal.Entry
	for i := range uint32(maxDays + 10) {
		many = append(many, set(keyspace.AppendDayKey(nil, i+1), keyspace.AppendDay(nil, &keyspace.Day{Ended: mkTime().Add(-100 * day), Slot: 1, Epoch: 1})))
	}
	many = append(many,
		set(keyspace.AppendGrowthKey(nil, 5, 1), keyspace.AppendGrowth(nil, &Growth{AddedPaths: 1})),
		set(keyspace.AppendGrowthKey(nil, maxDays, 1), keyspace.AppendGrowth(nil, &Growth{AddedPaths: 1})),
	)
	n.commit(many...)
	n.setCounter(keyspace.OpenDay, maxDays+11)
	k := n.mustTick(TickOptions{})
	if len(k.days) > maxDays || k.Age(1) != 100*day {
		t.Errorf("%d days, age of the first %v; want at most %d, and that it is as old as the oldest", len(k.days), k.Age(1), maxDays)
	}
	g, err := n.Growth(t.Context(), "a", 10000)
	if err != nil || len(g) != 1 || g[0].Day != maxDays {
		t.Errorf("growth %+v, %v; want that of day %d", g, err, maxDays)
	}
}

func TestUses(t *testing.T) {
	b := mkTimed(t)
	n := mkNode(t, b)
	ctx := t.Context()
	n.mustCreate("a")
	var hps []nix.HashPart
	for i := range 4 {
		pub := mkPublication(t, "a", fmt.Sprint("x", i), mkPack(1, uint64(i), 1))
		n.mustPublish(pub)
		hps = append(hps, pub.Path.StorePath.HashPart())
	}
	n.mustTick(TickOptions{})
	before := n.Seq()
	uses := []PathKey{{"a", hps[1]}, {"a", hps[2]}, {"a", hps[1]}, {"none", hps[0]}, {"a", nix.HashPart{}}}
	for range 2 { // the second time there is nothing to do
		if err := n.RecordUses(ctx, uses); err != nil {
			t.Fatal(err)
		}
	}
	if n.Seq() != before+1 {
		t.Errorf("%d slots for the uses of one day, want 1", n.Seq()-before)
	}
	s, err := n.Stats(ctx, "a")
	if err != nil || s.Oldest == nil || s.Oldest.Day != 1 || s.Oldest.HashPart != hps[0] && s.Oldest.HashPart != hps[3] {
		t.Errorf("oldest %+v, %v; want one of the paths that were not used, on day 1", s.Oldest, err)
	}
	b.pass(10 * day)
	n.mustTick(TickOptions{})
	b.pass(10 * day)
	n.mustTick(TickOptions{})
	if err := n.RecordUses(ctx, []PathKey{{"a", hps[3]}}); err != nil {
		t.Fatal(err)
	}
	got, err := n.UnrecordedUses(ctx, "a", append([]nix.HashPart{{}}, hps...))
	if want := hps[:3]; err != nil || !slices.Equal(got, want) {
		t.Errorf("news are the uses of %v, %v; want those of %v", got, err, want)
	}
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}
