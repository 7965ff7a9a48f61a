//go:build mutant

package sim

import (
	"testing"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
)

// Each rule of collection, left out, must be missed within a bound of seeds.
func TestCollectingMutantsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name   string
		broken func(*Collecting)
		bound  uint64
	}{
		{"a push is not checked for condemned chunks", func(c *Collecting) { c.Catalog = catalog.Mutants{NoChunkCheck: true} }, 300},
		{"a collector does not look at touches", func(c *Collecting) { c.Catalog = catalog.Mutants{NoTouchCheck: true} }, 300},
		{"nothing leaves touches", func(c *Collecting) { c.Catalog = catalog.Mutants{NoTouches: true} }, 300},
		{"a later collector does not fence", func(c *Collecting) {
			*c = crowdedTrial(c.Seed)
			c.Catalog = catalog.Mutants{NoFence: true}
		}, 300},
		{"old uploads are committed", func(c *Collecting) { c.Catalog = catalog.Mutants{NoUploadFence: true} }, 300},
		{"packs are moved unseen", func(c *Collecting) { c.Catalog = catalog.Mutants{NoMoveCheck: true} }, 1000},
		{"objects are deleted under readers", func(c *Collecting) { c.GC = gc.Mutants{DeleteBeforeGrace: true} }, 300},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := max(1, *first); seed <= c.bound; seed++ {
				tr := collectingTrial(seed)
				c.broken(&tr)
				if res := runCollecting(t, tr); res.Violation != "" {
					t.Logf("caught at seed %d: %.300s", seed, res.Violation)
					return
				}
			}
			t.Errorf("survived %d seeds", c.bound)
		})
	}
}
