//go:build mutant

package sim

import (
	"testing"

	"github.com/celler/celler/compact"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
)

// Each rule of collection, compaction and restoring, left out, must be missed within a
// bound of seeds. from is where to begin: the seed that is known to find it, or one not far
// from it. The rules that the trials of the log and the tests of packages compact and gc miss
// more quickly have their mutants there, as has the one that a restore looks at the rows it
// changes (package catalog): here a path has the same row whenever it is pushed, so that
// nothing is undone that anybody would miss.
func TestCollectingMutantsAreCaught(t *testing.T) {
	crowded := func(c *Collecting) { *c = crowdedTrial(c.Seed) }
	read := func(c *Collecting) { *c = readTrial(c.Seed) }
	restoring := func(c *Collecting) { *c = restoringTrial(c.Seed) }
	for _, c := range []struct {
		name   string
		broken func(*Collecting)
		from   uint64
	}{
		{"a push is not checked for condemned chunks", func(c *Collecting) { c.Catalog = catalog.Mutants{NoChunkCheck: true} }, 71},
		{"a collector does not look at touches", func(c *Collecting) { c.Catalog = catalog.Mutants{NoTouchCheck: true} }, 24},
		{"nothing leaves touches", func(c *Collecting) { c.Catalog = catalog.Mutants{NoTouches: true} }, 24},
		{"a later collector does not fence", func(c *Collecting) { crowded(c); c.Catalog = catalog.Mutants{NoFence: true} }, 78},
		{"old uploads are committed", func(c *Collecting) { c.Catalog = catalog.Mutants{NoUploadFence: true} }, 49},
		{"uploads are swept early", func(c *Collecting) { c.GC = gc.Mutants{SweepEarly: true} }, 1},
		{"packs are moved unseen", func(c *Collecting) { crowded(c); c.Catalog = catalog.Mutants{NoMoveCheck: true} }, 20},
		{"NARs are removed that clients may ask for", func(c *Collecting) { read(c); c.GC = gc.Mutants{IgnoreGrace: true} }, 139},
		{"pins keep nothing", func(c *Collecting) { c.GC, c.Catalog = gc.Mutants{NoPins: true}, catalog.Mutants{NoPinCheck: true} }, 1},
		{"references keep nothing", func(c *Collecting) { c.GC = gc.Mutants{NoReferences: true} }, 1},
		{"bookmarks keep no NARs", func(c *Collecting) { c.GC = gc.Mutants{NoBookmarks: true} }, 10},
		{"paths are restored without their NARs", func(c *Collecting) { restoring(c); c.Catalog = catalog.Mutants{NoSoundCheck: true} }, 63},
		{"a restore does not see what has gone", func(c *Collecting) { restoring(c); c.Catalog = catalog.Mutants{NoMomentCheck: true} }, 127},
		{"bookmarks keep no snapshots", func(c *Collecting) { c.Compact = compact.Mutants{NoBookmarks: true} }, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := c.from
			if *first > 0 {
				from = *first
			}
			for seed := from; seed < from+mutantSeeds; seed++ {
				tr := collectingTrial(seed)
				c.broken(&tr)
				if res := runCollecting(t, tr); res.Violation != "" {
					t.Logf("caught at seed %d: %.300s", seed, res.Violation)
					return
				}
			}
			t.Errorf("survived %d seeds", mutantSeeds)
		})
	}
}

// mutantSeeds is how many seeds a mutant may survive.
const mutantSeeds = 250

// readTrial is one with many readers, who are slow, and of paths that are deleted.
func readTrial(seed uint64) Collecting {
	c := collectingTrial(seed)
	c.Readers, c.Ops, c.Deletes, c.Rounds = 8, 16, 2, 20
	c.Compactors, c.Operators, c.Checkers, c.Restarts, c.Freezes, c.FaultRate = 0, 0, 0, 0, 0, 0
	return c
}
