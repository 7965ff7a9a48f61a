package node

import (
	"testing"
	"time"

	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/wal"
)

// TestDryRunKnowsHowLateItIs: in a bucket in which nothing happens for long, a dry run says
// what the round after it will do.
func TestDryRunKnowsHowLateItIs(t *testing.T) {
	r, _ := mkUses(t, time.Hour)
	for _, c := range []struct {
		later time.Duration
		want  int
	}{{0, 0}, {2 * time.Hour, 1}, {-2 * time.Hour, 0}} { // a clock that is late does no harm
		r.o.Now = func() time.Time { return time.Now().Add(c.later) }
		rep, err := gc.New(r.cat, r.chunks, r.gcOptions()).Round(t.Context(), gc.Mode{DryRun: true})
		if err != nil || rep.Removed != c.want {
			t.Errorf("%v later: %d paths would go, %v; want %d", c.later, rep.Removed, err, c.want)
		}
	}
	// Only the bucket's clock removes anything.
	r.o.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if rep, err := gc.New(r.cat, r.chunks, r.gcOptions()).Round(t.Context(), gc.Mode{}); err != nil || rep.Removed != 0 {
		t.Errorf("a wrong clock removed %d paths, %v", rep.Removed, err)
	}
}

// TestBucketTime: what a dry run takes for the time is that of the bucket, or this machine's
// if it is later, or if the bucket cannot say.
func TestBucketTime(t *testing.T) {
	stored := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	r := mkRig(t, memblob.NewAt(func() time.Time { return stored }))
	check := func(when string, late, early time.Time) {
		t.Helper()
		for now, want := range map[time.Time]time.Time{stored.Add(time.Hour): late, stored.Add(-time.Hour): early} {
			r.o.Now = func() time.Time { return now }
			if got, err := r.bucketTime(t.Context()); err != nil || !got.Equal(want) {
				t.Errorf("%s, at %v: %v, %v; want %v", when, now, got, err, want)
			}
		}
	}
	late, early := stored.Add(time.Hour), stored.Add(-time.Hour)
	check("in an empty bucket", late, early)
	_, err := r.cat.CreateCache(t.Context(), catalog.Cache{Name: "a"})
	r.must(err)
	check("after a commit", late, stored)
	r.must(r.logBucket.Delete(t.Context(), wal.Seq(r.Seq()).Key()))
	check("without the newest slot", late, early)
}
