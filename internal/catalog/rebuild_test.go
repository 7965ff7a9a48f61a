package catalog

import (
	"errors"
	"testing"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// then is a cache with one path and one pin, as an earlier state may have had it.
func mkThen(t *testing.T, n *node) (Cache, []Path, []Pin) {
	t.Helper()
	n.mustCreate("ci")
	p := mkPublication(t, "ci", "a", mkPack(1, 1, 3))
	n.mustPublish(p)
	n.mustPin(PinChange{Cache: "ci", Name: "rel", StorePath: p.Path.StorePath, By: "me"})
	s, err := n.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cache, _, err1 := s.Cache("ci")
	paths, err2 := collect(s.Paths(cache.ID))
	pins, err3 := s.Pins(cache.ID)
	if err := errors.Join(err1, err2, err3, s.Close()); err != nil || len(paths) != 1 || len(pins) != 1 {
		t.Fatalf("%v, %d paths, %d pins", err, len(paths), len(pins))
	}
	return cache, paths, pins
}

// TestRebuildThatIsGivenUp: what is built aside is spared by sweeps for some days, and
// then, or once it is given up, all of it goes. It cannot be shown any more.
func TestRebuildThatIsGivenUp(t *testing.T) {
	for _, how := range []string{"abandoned", "forgotten"} {
		t.Run(how, func(t *testing.T) {
			n := mkNode(t, mkBucket(t))
			ctx := t.Context()
			cache, paths, pins := mkThen(t, n)
			r, err := n.BeginRebuild(ctx, cache)
			if err != nil {
				t.Fatal(err)
			}
			done, err := r.AddPaths(ctx, paths)
			if err != nil || done.Paths != 1 || len(done.Lost) != 0 {
				t.Fatalf("%+v, %v", done, err)
			}
			if _, err := r.AddPaths(ctx, paths); err != nil { // repeated after an unknown outcome
				t.Fatal(err)
			}
			if err := errors.Join(r.AddPins(ctx, pins), n.Sweep(ctx)); err != nil {
				t.Fatal(err)
			}
			if _, there, err := n.db.Get(keyspace.AppendPathKey(nil, r.ID, paths[0].StorePath.HashPart())); !there || err != nil {
				t.Fatalf("a sweep took what is being built: %v", err)
			}
			if how == "abandoned" {
				err = r.Abandon(ctx)
			} else {
				for range buildingDays + 1 {
					n.mustTick(TickOptions{})
				}
				err = n.Sweep(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.AddPaths(ctx, paths); !errors.Is(err, ErrConflict) {
				t.Errorf("paths were added to what is gone: %v", err)
			}
			if _, err := n.Restore(ctx, []CacheRestore{{Name: "ci", Then: &cache, Aside: r}}); !errors.Is(err, ErrConflict) {
				t.Errorf("what is gone was shown: %v", err)
			}
			n.wantSound()
			if err := n.wantCounted(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRestoreRefusesWhatHasMoved: a difference that is out of date changes nothing.
func TestRestoreRefusesWhatHasMoved(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	cache, paths, pins := mkThen(t, n)
	before := n.Seq()
	other := cache
	other.Priority++
	changed := paths[0]
	changed.Deriver = "x.drv"
	pin := pins[0]
	pin.Newest++
	for what, r := range map[string]CacheRestore{
		"there is a cache":            {Name: "ci", Then: &cache},
		"there is none":               {Name: "no", Now: &cache, Then: &cache},
		"other settings":              {Name: "ci", Now: &other, Then: &cache},
		"a path is there":             {Name: "ci", Now: &cache, Then: &cache, Set: []PathRestore{{Then: paths[0]}}},
		"a path is another":           {Name: "ci", Now: &cache, Then: &cache, Set: []PathRestore{{Then: paths[0], Now: &changed}}},
		"a path to go is another":     {Name: "ci", Now: &cache, Then: &cache, Drop: []Path{changed}},
		"a pin to go is another":      {Name: "ci", Now: &cache, Then: &cache, DropPins: []Pin{pin}},
		"a cache to go is another":    {Name: "ci", Now: &other},
		"a cache to go is gone":       {Name: "no", Now: &cache},
		"one of two, the other right": {Name: "ci", Now: &cache, Then: &other, Drop: []Path{changed}},
	} {
		right := CacheRestore{Name: "new", Then: &Cache{Name: "new", SecretKey: cache.SecretKey, StoreDir: cache.StoreDir, Created: cache.Created, ID: 99}}
		if _, err := n.Restore(ctx, []CacheRestore{right, r}); !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n.Seq() != before {
		t.Errorf("slots %d to %d were written", before+1, n.Seq())
	}
	n.wantSound()
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}

// TestRestoreLeavesOutWhatIsLost: a path whose chunks have been condemned does not come
// back, whether it is restored in place or aside, and is named.
func TestRestoreLeavesOutWhatIsLost(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	cache, paths, _ := mkThen(t, n)
	if _, err := n.WithdrawPaths(ctx, Withdrawal{Cache: "ci", HashParts: []nix.HashPart{paths[0].StorePath.HashPart()}, Pinned: true}); err != nil {
		t.Fatal(err)
	}
	pack := mkPack(1, 1, 3).Layout.ID
	n.commit(set(keyspace.AppendCondemnedKey(nil, pack), keyspace.AppendCondemned(nil, &keyspace.Condemned{Pack: pack, Bytes: 1000, Ranges: []keyspace.Range{{First: 1, Count: 1}}})))
	done, err := n.Restore(ctx, []CacheRestore{{Name: "ci", Now: &cache, Then: &cache, Set: []PathRestore{{Then: paths[0]}}}})
	if err != nil || done.Paths != 0 || len(done.Lost) != 1 || done.Lost[0].StorePath != paths[0].StorePath {
		t.Errorf("in place: %+v, %v", done, err)
	}
	r, err := n.BeginRebuild(ctx, cache)
	if err != nil {
		t.Fatal(err)
	}
	if done, err = r.AddPaths(ctx, paths); err != nil || done.Paths != 0 || len(done.Lost) != 1 {
		t.Errorf("aside: %+v, %v", done, err)
	}
	s, err := n.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Servable(paths[0].NarHash); ok || err != nil {
		t.Errorf("it is said to be servable: %v", err)
	}
	if err := errors.Join(s.Close(), r.Abandon(ctx)); err != nil {
		t.Error(err)
	}
}
