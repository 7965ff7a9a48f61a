//go:build mutant

package compact_test

import (
	"testing"

	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
)

// Each rule of folding and merging, left out, must be missed.
func TestFoldMutantsAreCaught(t *testing.T) {
	for name, broken := range map[string]compact.Mutants{
		"drops tombstones too early": {DropTombstones: true},
		"tables of the lowest level": {LowestLevel: true},
		"no sessions in snapshots":   {NoSessions: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				b := memblob.New()
				h := mkHistory(t, b, seed)
				h.grow(60)
				o := aggressive()
				o.FlushSegments = 100
				o.Mutants = broken
				for range 10 {
					h.grow(1 + h.rng.IntN(12))
					_, err := compact.New(b, o).Round(t.Context(), compact.Mode{Steal: true})
					if d := h.differs(); err != nil || d != "" {
						t.Logf("caught at seed %d: %v %.200s", seed, err, d)
						return
					}
				}
			}
			t.Error("survived 20 histories")
		})
	}
}
