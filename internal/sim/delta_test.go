package sim

import "testing"

// deltaTrial is the trial of pushes by chunks: clients that ask, wait, send, commit, break
// off and go on, at nodes that crash and sleep, next to a pusher of whole NARs, somebody
// who has only hashes, and collectors that are killed and stopped.
func deltaTrial(seed uint64) Collecting {
	return Collecting{
		Seed: seed, Nodes: int(2 + seed%2), Deltas: 3, Thieves: 1, Ops: 6, Pushers: int(seed / 2 % 2), Collectors: int(1 + seed/3%2), Rounds: 8,
		Operators: int(seed / 5 % 2), Compactors: int(seed / 4 % 2),
		Restarts: int(seed % 3), Freezes: int(seed % 5), FaultRate: 0.02 * float64(seed%4),
	}
}

func TestDeltaFreshSeeds(t *testing.T) {
	collectSeeds(t, "TestDeltaFreshSeeds", *seeds/6, deltaTrial, func(r *CollectingResult) bool { return r.Delta.idle() })
}

// See TestCollectingRunsAreReproducible. Here requests also wait for one another's uploads and
// commits, and go on together: one run in fifteen takes another turn.
func TestDeltaRunsAreReproducible(t *testing.T) { wantReproducible(t, deltaTrial, 4) }
