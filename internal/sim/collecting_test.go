package sim

import (
	"os"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

// collectingTrial is the trial of all that looks after a bucket: pushes, reads, pins,
// deletions, bookmarks and restores on nodes that crash and sleep, next to collectors and
// compactors that are killed and stopped.
func collectingTrial(seed uint64) Collecting {
	return Collecting{
		Seed: seed, Nodes: 2, Pushers: 3, Ops: 8, Readers: 1, Collectors: int(1 + seed%2), Rounds: 6, Operators: int(seed / 2 % 2), Checkers: int(seed / 3 % 2),
		Compactors: int(seed / 4 % 3), Restarts: int(seed % 3), Freezes: int(seed % 5), FaultRate: 0.02 * float64(seed%4),
	}
}

// crowdedTrial is the same with many collectors, which fence each other all the time.
func crowdedTrial(seed uint64) Collecting {
	c := collectingTrial(seed)
	c.Collectors, c.Rounds = 4, 8
	return c
}

func runCollecting(t *testing.T, c Collecting) (res CollectingResult) {
	t.Helper()
	if *trace {
		c.Trace = os.Stdout
	}
	t.Run("run", func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, c.Seed)
		synctest.Test(t, func(t *testing.T) { res = c.Run(t.Context()) })
	})
	return res
}

func TestCollectingFreshSeeds(t *testing.T) {
	collectSeeds(t, "TestCollectingFreshSeeds", *seeds/3, collectingTrial, (*CollectingResult).idle)
}

func TestCrowdedFreshSeeds(t *testing.T) {
	collectSeeds(t, "TestCrowdedFreshSeeds", *seeds/6, crowdedTrial, (*CollectingResult).idle)
}

// Seeds that once found something stay.
func TestCollectingPinnedSeeds(t *testing.T) {
	for _, seed := range []uint64{
		5002, // a check took a table for missing that was younger than its listing
	} {
		if res := runCollecting(t, collectingTrial(seed)); res.Violation != "" {
			t.Errorf("seed %d: %s", seed, res.Violation)
		}
	}
}

func collectSeeds(t *testing.T, name string, n int, mk func(uint64) Collecting, idle func(*CollectingResult) bool) {
	begin := firstSeed()
	if testing.Short() {
		n /= 5
	}
	var sum CollectingResult
	for seed := begin; seed < begin+uint64(n); seed++ {
		res := runCollecting(t, mk(seed))
		sum.add(res)
		if res.Violation != "" {
			t.Fatalf("seed %d: %s\nagain: go test ./internal/sim -run %s -sim.first %d -sim.seeds 6 -sim.trace", seed, res.Violation, name, seed)
		}
	}
	t.Logf("%d seeds from %d: %+v", n, begin, sum)
	if n >= 20 && idle(&sum) {
		t.Error("something of this never happened: the trial does not test it")
	}
}

// The chunk store and the checks have goroutines of their own, two of which may be ready at
// once: one run in fifty takes another turn. More would make seeds worthless.
func TestCollectingRunsAreReproducible(t *testing.T) { wantReproducible(t, collectingTrial, 2) }

// wantReproducible runs ten trials twice, of which some may differ.
func wantReproducible(t *testing.T, mk func(uint64) Collecting, some int) {
	t.Helper()
	differ := 0
	for seed := uint64(1); seed <= 10; seed++ {
		a, b := runCollecting(t, mk(seed)), runCollecting(t, mk(seed))
		if a != b {
			differ++
			t.Logf("seed %d: two runs differ:\n%+v\n%+v", seed, a, b)
		}
	}
	if differ > some {
		t.Errorf("%d of 10 runs did not repeat", differ)
	}
}
