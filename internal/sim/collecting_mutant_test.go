//go:build mutant

package sim

import (
	"testing"

	"github.com/celler/celler/compact"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/wal"
)

// Each rule of collection, compaction and restoring, left out, must be missed within a
// bound of seeds. from is where to begin: not far from the seed that is known to find it.
func TestCollectingMutantsAreCaught(t *testing.T) {
	crowded := func(c *Collecting) { *c = crowdedTrial(c.Seed) }
	read := func(c *Collecting) { *c = readTrial(c.Seed) }
	for _, c := range []struct {
		name   string
		broken func(*Collecting)
		from   uint64
	}{
		{"a push is not checked for condemned chunks", func(c *Collecting) { c.Catalog = catalog.Mutants{NoChunkCheck: true} }, 43},
		{"a collector does not look at touches", func(c *Collecting) { c.Catalog = catalog.Mutants{NoTouchCheck: true} }, 127},
		{"nothing leaves touches", func(c *Collecting) { c.Catalog = catalog.Mutants{NoTouches: true} }, 127},
		{"a later collector does not fence", func(c *Collecting) { crowded(c); c.Catalog = catalog.Mutants{NoFence: true} }, 16},
		{"old uploads are committed", func(c *Collecting) { c.Catalog = catalog.Mutants{NoUploadFence: true} }, 1},
		{"uploads are swept early", func(c *Collecting) { c.GC = gc.Mutants{SweepEarly: true} }, 1},
		{"packs are moved unseen", func(c *Collecting) { crowded(c); c.Catalog = catalog.Mutants{NoMoveCheck: true} }, 1},
		{"objects are deleted under readers", func(c *Collecting) { read(c); c.GC = gc.Mutants{DeleteBeforeGrace: true} }, 1},
		{"NARs are removed that clients may ask for", func(c *Collecting) { read(c); c.GC = gc.Mutants{IgnoreGrace: true} }, 1},
		{"pins keep nothing", func(c *Collecting) { c.GC, c.Catalog = gc.Mutants{NoPins: true}, catalog.Mutants{NoPinCheck: true} }, 1},
		{"references keep nothing", func(c *Collecting) { c.GC = gc.Mutants{NoReferences: true} }, 1},
		{"bookmarks keep no NARs", func(c *Collecting) { c.GC = gc.Mutants{NoBookmarks: true} }, 1},
		{"bookmarks keep no snapshots", func(c *Collecting) { c.Compact = compact.Mutants{NoBookmarks: true} }, 1},
		{"the floor is raised past bookmarks unseen", func(c *Collecting) { c.Compact = compact.Mutants{NoMarkCheck: true} }, 1},
		{"paths are restored without their NARs", func(c *Collecting) { c.Catalog = catalog.Mutants{NoSoundCheck: true} }, 1},
		{"a restore does not see what has changed", func(c *Collecting) { c.Catalog = catalog.Mutants{NoDiffCheck: true} }, 1},
		{"slots are deleted before the floor is raised", func(c *Collecting) { c.Compact = compact.Mutants{DeleteBeforeFloor: true} }, 1},
		{"compactors are not fenced", func(c *Collecting) { c.Compact = compact.Mutants{NoEpochFence: true} }, 1},
		{"tables of the lowest level", func(c *Collecting) { c.Compact = compact.Mutants{LowestLevel: true} }, 1},
		{"tombstones are dropped too early", func(c *Collecting) { c.Compact = compact.Mutants{DropTombstones: true} }, 1},
		{"what was built for a slot goes into another", func(c *Collecting) { c.Wal = wal.Mutants{NoRevalidation: true} }, 1},
		{"a winner does not look back", func(c *Collecting) { c.Wal = wal.Mutants{NoWriterCheck: true} }, 1},
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
