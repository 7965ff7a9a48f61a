//go:build mutant

package sim

import (
	"testing"

	"github.com/celler/celler/compact"
	"github.com/celler/celler/wal"
)

// Each rule of the protocol, left out, must be missed: some seed within the bound
// finds lost, doubled, stale or diverged data. A mutant that survives means that
// the rule is not needed or, more likely, that the simulation has lost a tooth.
//
// The seeds are fixed, so that a pass is not luck.
func TestMutantsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name   string
		broken wal.Mutants
		mk     func(uint64) Trial
		bound  uint64
	}{
		{"no writer check", wal.Mutants{NoWriterCheck: true}, truncating, 20000},
		{"no reader check", wal.Mutants{NoReaderCheck: true}, truncating, 2000},
		{"exists means lost", wal.Mutants{LostOnExist: true}, truncating, 2000},
		{"a miss concludes", wal.Mutants{MissConcludes: true}, truncating, 2000},
		{"no sessions", wal.Mutants{NoSessions: true}, truncating, 20000},
		{"no digest chain", wal.Mutants{NoPrevCheck: true}, forking, 2000},
		{"no revalidation", wal.Mutants{NoRevalidation: true}, truncating, 2000},
		{"renumbers in doubt", wal.Mutants{RenumberInDoubt: true}, truncating, 2000},
		{"skips the slot in doubt", wal.Mutants{SkipInDoubtSlot: true}, truncating, 2000},
		{"joins a running catch-up", wal.Mutants{JoinRunningCatchUp: true}, truncating, 2000},
		{"no rollback check", wal.Mutants{NoRollbackCheck: true}, restored, 2000},
		{"rejects without proof", wal.Mutants{RejectWithoutProof: true}, truncating, 2000},
		{"sees only the state before the batch", wal.Mutants{SeesOnlyStateBefore: true}, truncating, 2000},
		{"no check of lanes", wal.Mutants{NoLaneCheck: true}, forwarding, 2000},
		{"takes back without making void", wal.Mutants{NoLaneVoid: true}, forwarding, 2000},
		{"encodes anew what is sent again", wal.Mutants{HedgeAnew: true}, hedging, 2000},
		{"believes any answer", wal.Mutants{AnyAnswer: true}, hedging, 2000},
		{"sends a draft whatever became of the batch before", wal.Mutants{DraftUnchecked: true}, hedging, 2000},
		{"exists means lost, of what was sent twice", wal.Mutants{LostOnExist: true}, hedging, 2000},
		{"no writer check, of what was sent twice", wal.Mutants{NoWriterCheck: true}, hedging, 20000},
		{"checks lanes only once", wal.Mutants{LaneCheckedOnce: true}, forwarding, 20000},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= c.bound; seed++ {
				tr := c.mk(seed)
				tr.Mutants = c.broken
				if res := runTrial(t, tr); res.Violation != "" {
					t.Logf("caught at seed %d: %.300s", seed, res.Violation)
					return
				}
			}
			t.Errorf("survived %d seeds", c.bound)
		})
	}
}

// The same for the rules of compaction, with the real index and the real compactor.
// That tombstones are dropped too early needs more data: see the test of package compact.
func TestCompactionMutantsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name   string
		broken compact.Mutants
		bound  uint64
	}{
		{"deletes before the floor is raised", compact.Mutants{DeleteBeforeFloor: true}, 2000},
		{"no epoch fence", compact.Mutants{NoEpochFence: true}, 2000},
		{"sweeps what somebody may yet install", compact.Mutants{SweepAll: true}, 2000},
		{"tables of the lowest level", compact.Mutants{LowestLevel: true}, 2000},
		{"no sessions in snapshots", compact.Mutants{NoSessions: true}, 2000},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= c.bound; seed++ {
				tr := indexed(seed)
				tr.Compact = c.broken
				if res := runTrial(t, tr); res.Violation != "" {
					t.Logf("caught at seed %d: %.300s", seed, res.Violation)
					return
				}
			}
			t.Errorf("survived %d seeds", c.bound)
		})
	}
}
