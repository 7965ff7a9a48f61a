package node

import (
	"testing"
	"time"

	"github.com/celler/celler/gc"
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
