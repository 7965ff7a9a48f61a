//go:build mutant

package sim

import (
	"testing"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/internal/catalog"
)

// Each rule that pushes by chunks stand on, left out, must be missed within a bound of
// seeds. Nobody else pushes in these trials, so it is these that find it.
func TestDeltaMutantsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name   string
		broken func(*Collecting)
		from   uint64
	}{
		{"a commit does not look for condemned chunks", func(c *Collecting) { c.Catalog = catalog.Mutants{NoChunkCheck: true} }, 1},
		{"a collector does not look at touches", func(c *Collecting) { c.Catalog = catalog.Mutants{NoTouchCheck: true} }, 1},
		{"commits leave no touches", func(c *Collecting) { c.Catalog = catalog.Mutants{NoTouches: true} }, 1},
		{"batches of old uploads are committed", func(c *Collecting) { c.Catalog = catalog.Mutants{NoUploadFence: true} }, 70},
		{"receipts are given before packs are committed", func(c *Collecting) { c.Unsettled = true }, 1},
		{"names are taken for proofs", func(c *Collecting) { c.Catalog = catalog.Mutants{NoProofs: true} }, 1},
		{"batches are swept early", func(c *Collecting) { c.GC = gc.Mutants{SweepEarly: true} }, 1},
		{"receipts are good for anybody", func(c *Collecting) { c.HTTP = httpapi.Mutants{AnybodysReceipts: true} }, 1},
		{"a chain begins anywhere", func(c *Collecting) { c.HTTP = httpapi.Mutants{NoStart: true} }, 1},
		{"a chain has gaps", func(c *Collecting) { c.HTTP = httpapi.Mutants{NoLinks: true} }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := c.from
			if *first > 0 {
				from = *first
			}
			for seed := from; seed < from+mutantSeeds; seed++ {
				tr := deltaTrial(seed)
				tr.Pushers, tr.Operators = 0, 0
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
