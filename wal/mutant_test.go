//go:build mutant

package wal_test

import (
	"testing"
	"testing/synctest"

	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/wal"
)

// TestMutantsAreCaught runs the fault workload on each broken variant of the
// protocol: if none of the seeds shows anything wrong, the workload has lost its
// tooth for that rule.
func TestMutantsAreCaught(t *testing.T) {
	caught := func(name string, m wal.Mutants) {
		t.Run(name, func(t *testing.T) {
			const seeds = 400
			for seed := range uint64(seeds) {
				var wrong []string
				synctest.Test(t, func(t *testing.T) {
					wrong = runUnderFaults(t, seed, memblob.New(), wal.Options{Mutants: m})
				})
				if len(wrong) > 0 {
					t.Logf("seed %d: %s", seed, wrong[0])
					return
				}
			}
			t.Errorf("nothing was wrong in %d seeds", seeds)
		})
	}
	caught("no writer check", wal.Mutants{NoWriterCheck: true})
	caught("no reader check", wal.Mutants{NoReaderCheck: true})
	caught("lost on exist", wal.Mutants{LostOnExist: true})
	caught("miss concludes", wal.Mutants{MissConcludes: true})
	caught("no sessions", wal.Mutants{NoSessions: true})
	caught("no revalidation", wal.Mutants{NoRevalidation: true})
	caught("renumber in doubt", wal.Mutants{RenumberInDoubt: true})
	caught("skip in-doubt slot", wal.Mutants{SkipInDoubtSlot: true})
	caught("join running catch-up", wal.Mutants{JoinRunningCatchUp: true})
	caught("sees only the state before", wal.Mutants{SeesOnlyStateBefore: true})
}

// TestOtherMutants breaks the rules that need a bucket, or a caller, that is broken
// in a special way.
func TestOtherMutants(t *testing.T) {
	t.Run("no prev check", func(t *testing.T) {
		if _, err := fork(t, mkBucket(t), true, wal.Options{Mutants: wal.Mutants{NoPrevCheck: true}}); err != nil {
			t.Errorf("the fork was noticed all the same: %v", err)
		}
	})
	t.Run("no rollback check", func(t *testing.T) {
		bucket := mkBucket(t)
		l, _ := mustOpen(t, bucket, wal.Options{Mutants: wal.Mutants{NoRollbackCheck: true}})
		mustRewriteRoot(t, bucket, func(r *wal.Root) { r.Nonce = "another" })
		mustCatchUp(t, l)
	})
	t.Run("reject without proof", func(t *testing.T) {
		bucket := mkBucket(t)
		l, _ := mustOpen(t, bucket, wal.Options{Mutants: wal.Mutants{RejectWithoutProof: true}})
		other, _ := mustOpen(t, bucket, wal.Options{})
		mustCommit(t, other, set("x", "1"))
		_, err := l.Commit(t.Context(), wal.Op{Build: func(v wal.View) ([]wal.Entry, error) {
			if _, ok, _ := v.Get([]byte("x")); !ok {
				return nil, errTaken
			}
			return nil, nil
		}})
		wantErr(t, err, errTaken)
	})
}
