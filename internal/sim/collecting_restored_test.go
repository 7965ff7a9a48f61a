package sim

import "testing"

// restoringTrial is one of many who restore, next to who deletes and collects, in which
// nothing of the past is truncated.
func restoringTrial(seed uint64) Collecting {
	c := collectingTrial(seed)
	c.Operators, c.Deletes, c.Collectors, c.Rounds = 4, 3, 2, 8
	c.Compactors, c.Readers, c.Checkers, c.Restarts, c.Freezes, c.FaultRate = 0, 0, 0, 0, 0, 0
	return c
}

func TestCollectingRestoringSeeds(t *testing.T) {
	collectSeeds(t, "TestCollectingRestoringSeeds", *seeds/6, restoringTrial, func(r *CollectingResult) bool { return r.Restored == 0 || r.Expired == 0 })
}
