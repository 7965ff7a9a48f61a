package catalog

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunk"
)

// TestEveryRequestFails breaks each request of a scenario in turn, in each way.
// What was acknowledged must be there for a node that comes later, what was
// refused must not, and the state must be sound whatever happened.
func TestEveryRequestFails(t *testing.T) {
	for _, fault := range []blobtest.Fault{blobtest.LostRequest, blobtest.LostResponse, blobtest.DelayedApply, blobtest.Throttled} {
		t.Run(fault.String(), func(t *testing.T) {
			t.Parallel()
			for k := 0; ; k++ {
				done := false
				synctest.Test(t, func(t *testing.T) { done = breakAt(t, k, fault) })
				if done {
					t.Logf("%d requests", k)
					return
				}
			}
		})
	}
}

// breakAt reports whether the scenario has no k-th request.
func breakAt(t *testing.T, k int, fault blobtest.Fault) bool {
	bucket := mkBucket(t)
	faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{Decide: blobtest.FailAt(k, fault)})
	n := &node{t: t, bucket: faulty, fs: vfs.NewMem()}
	// The one whose recipe takes several operations costs most of the time.
	pubs, outcome := scenario(t, n, fault == blobtest.LostResponse)
	calls := faulty.Calls()
	faulty.Release(t.Context(), faulty.Pending())
	n.close()
	faulty.Release(t.Context(), faulty.Pending())

	later := &node{t: t, bucket: bucket, fs: vfs.NewMem()}
	later.open()
	defer later.close()
	if err := later.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, pub := range pubs {
		_, err := later.Path(t.Context(), pub.Path.Cache, pub.Path.StorePath.HashPart())
		switch {
		case outcome[i] == nil && err != nil:
			t.Errorf("request %d, %v: publication %d was acknowledged and is not there: %v", k, fault, i, err)
		case outcome[i] != nil && !errors.Is(outcome[i], ErrUnknown) && err == nil:
			t.Errorf("request %d, %v: publication %d was refused (%v) and is there", k, fault, i, outcome[i])
		}
	}
	if _, err := later.Cache(t.Context(), "gone"); err == nil && outcome[len(pubs)] == nil {
		t.Errorf("request %d, %v: the cache was destroyed and is there", k, fault)
	}
	later.wantSound()
	if t.Failed() {
		t.FailNow()
	}
	return calls <= k
}

// scenario opens n, creates two caches, publishes a few paths, one of them in many
// operations, and destroys one of the caches. long adds one with a recipe in two
// parts. outcome has an error for each publication and one for the destruction.
func scenario(t *testing.T, n *node, long bool) (pubs []Publication, outcome []error) {
	ctx := context.Background()
	pubs = []Publication{
		mkPublication(t, "ci", "small", mkPack(1, 1, 3)),
		mkPublication(t, "ci", "large", mkPack(1, 2, 3000)),
	}
	if long {
		pub := mkPublication(t, "ci", "long", mkPack(1, 3, 100))
		for range 900 {
			for i := range uint32(100) {
				pub.Recipe.Runs = append(pub.Recipe.Runs, chunk.Run{Pack: pub.Packs[0].Layout.ID, First: 99 - i, Count: 1})
			}
		}
		pubs = append(pubs, pub)
	}
	outcome = make([]error, len(pubs)+1)
	for i := range outcome {
		outcome[i] = errors.New("not tried")
	}
	if err := n.tryOpen(ctx); err != nil {
		return pubs, outcome
	}
	for _, name := range []CacheName{"ci", "gone"} {
		if _, err := n.CreateCache(ctx, Cache{Name: name}); err != nil {
			return pubs, outcome
		}
	}
	_, _ = n.Publish(ctx, mkPublication(t, "gone", "x", mkPack(1, 7, 1)))
	_, outcome[len(pubs)] = n.DestroyCache(ctx, "gone")
	for i := range pubs {
		_, outcome[i] = n.Publish(ctx, pubs[i])
	}
	return pubs, outcome
}

// TestRetryAfterUnknown retries publications whose outcome is not known: they are
// idempotent.
func TestRetryAfterUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mkBucket(t)
		faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{})
		n := &node{t: t, bucket: faulty, fs: vfs.NewMem()}
		n.open()
		defer n.close()
		n.mustCreate("ci")
		faulty.Set(blobtest.Seeded(1, 0.5, blobtest.LostRequest, blobtest.LostResponse, blobtest.Throttled))
		unknown := 0
		for i := range 40 {
			pub := mkPublication(t, "ci", fmt.Sprint("p", i), mkPack(1, uint64(i), 5))
			for {
				_, err := n.Publish(t.Context(), pub)
				if err == nil {
					break
				}
				if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrConflict) && !errors.Is(err, blobtest.ErrInjected) {
					t.Fatal(err)
				}
				unknown++
			}
		}
		faulty.Set(nil)
		if unknown == 0 {
			t.Error("nothing ever failed")
		}
		n.wantSound()
		later := &node{t: t, bucket: bucket, fs: vfs.NewMem()}
		later.open()
		defer later.close()
		if paths, err := later.Paths(t.Context(), "ci", nil, 100); err != nil || len(paths) != 40 {
			t.Errorf("%d paths, %v; want 40", len(paths), err)
		}
	})
}
