package node

import (
	"testing"
	"time"

	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// mkUses is a node with a path in a cache, last used on a store day that is over. The cache
// has no retention of its own if keep is negative.
func mkUses(t *testing.T, keep time.Duration) (*rig, nix.HashPart) {
	t.Helper()
	r := mkRig(t, memblob.New())
	cache := catalog.Cache{Name: "a", StoreDir: nix.DefaultStoreDir}
	if keep >= 0 {
		cache.Retention = &keep
	}
	_, err := r.cat.CreateCache(t.Context(), cache)
	r.must(err)
	_, err = r.publish("a", "p", "content")
	r.must(err)
	_, err = r.cat.Tick(t.Context(), catalog.TickOptions{})
	r.must(err)
	r.collectOptions(&httpapi.Options{})
	return r, storePath("p").HashPart()
}

// TestPresentIsWrittenDown: what a pusher is told to be there may be collected by others a
// moment later, so its use must not be known to this node alone.
func TestPresentIsWrittenDown(t *testing.T) {
	const long = 1000 * time.Hour
	for name, c := range map[string]struct {
		own, usual time.Duration // retention of the cache, and of those that have none
		quota      bool
		want       bool
	}{
		"for ever":            {0, long, false, false},
		"for ever, and quota": {0, 0, true, true},
		"for a minute":        {time.Minute, 0, false, true},
		"for long":            {long, 0, false, true},
		"by default":          {-1, long, false, true},
		"by default for ever": {-1, 0, false, false},
	} {
		r, hp := mkUses(t, c.own)
		r.uses.keep, r.uses.quota = c.usual, c.quota
		for i, want := range []bool{c.want, false} { // once a day
			recorded, err := r.uses.Present(t.Context(), "a", []nix.HashPart{hp})
			if err != nil || recorded != want {
				t.Errorf("%s, answer %d: written down %v, %v; want %v", name, i+1, recorded, err, want)
			}
		}
		news, err := r.cat.UnrecordedUses(t.Context(), "a", []nix.HashPart{hp})
		if err != nil || (len(news) == 0) != c.want {
			t.Errorf("%s: the use of %v is not known, %v", name, news, err)
		}
		if !c.want {
			r.must(r.uses.flush(t.Context()))
			if news, err := r.cat.UnrecordedUses(t.Context(), "a", []nix.HashPart{hp}); err != nil || len(news) > 0 {
				t.Errorf("%s: the use of %v is not known after all were written down, %v", name, news, err)
			}
		}
	}
}

// TestRoundKnowsDownloads: a round of this node knows what this node knows.
func TestRoundKnowsDownloads(t *testing.T) {
	r, hp := mkUses(t, time.Hour)
	r.uses.Downloaded("a", hp)
	r.collectOnce(t.Context(), time.Hour)
	news, err := r.cat.UnrecordedUses(t.Context(), "a", []nix.HashPart{hp})
	if err != nil || len(news) > 0 {
		t.Errorf("after a round the use of %v is not known, %v", news, err)
	}
}
