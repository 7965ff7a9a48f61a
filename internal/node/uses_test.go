package node

import (
	"testing"
	"time"

	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// mkUses is a node with a path in a cache, last used on a store day that is over.
func mkUses(t *testing.T, keep time.Duration) (*rig, nix.HashPart) {
	t.Helper()
	r := mkRig(t, memblob.New())
	_, err := r.cat.CreateCache(t.Context(), catalog.Cache{Name: "a", StoreDir: nix.DefaultStoreDir, Retention: &keep})
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
	for _, c := range []struct {
		keep time.Duration
		want bool
	}{{0, false}, {time.Minute, true}, {1000 * time.Hour, true}} {
		r, hp := mkUses(t, c.keep)
		for i, want := range []bool{c.want, false} { // once a day
			recorded, err := r.uses.Present(t.Context(), "a", []nix.HashPart{hp})
			if err != nil || recorded != want {
				t.Errorf("retention %v, answer %d: written down %v, %v; want %v", c.keep, i+1, recorded, err, want)
			}
		}
		news, err := r.cat.UnrecordedUses(t.Context(), "a", []nix.HashPart{hp})
		if err != nil || (len(news) == 0) != c.want {
			t.Errorf("retention %v: the use of %v is not known, %v", c.keep, news, err)
		}
		if c.keep == 0 {
			r.must(r.uses.flush(t.Context()))
			if news, err := r.cat.UnrecordedUses(t.Context(), "a", []nix.HashPart{hp}); err != nil || len(news) > 0 {
				t.Errorf("the use of %v is not known after all were written down, %v", news, err)
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
