package sim

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds = flag.Int("sim.seeds", 40, "how many fresh seeds each trial gets; scripts/sim gives it more")
	first = flag.Uint64("sim.first", 0, "first seed; 0 takes the clock")
	trace = flag.Bool("sim.trace", false, "print every step")
)

// truncating is the trial of the log protocol: compactors truncate under the replicas.
func truncating(seed uint64) Trial {
	return Trial{
		Seed: seed, Nodes: 3, Clients: 4, Ops: 5, Compactors: 2, Rounds: 4, Restarts: int(seed % 3),
		FaultRate: 0.1 + 0.3*float64(seed%7)/6,
	}
}

// indexed is the trial of the real index and the real compactor: replicas crash, lose
// what was not synced, and find the log truncated.
func indexed(seed uint64) Trial {
	return Trial{
		Seed: seed, Nodes: 3, Clients: 3, Ops: 5, Restarts: 3, Pebble: true,
		Compactors: int(1 + seed%2), Rounds: 5, Tables: true, FaultRate: 0.05 * float64(seed%6),
	}
}

// forking is the trial of a bucket that lets two creates win.
func forking(seed uint64) Trial {
	t := truncating(seed)
	t.DoubleWins, t.Compactors = 0.4, int(seed%2)
	return t
}

// restored is the trial of a bucket whose ROOT an operator puts back.
func restored(seed uint64) Trial {
	t := truncating(seed)
	t.Rollback = true
	return t
}

// forwarding is the trial of nodes that commit for each other.
func forwarding(seed uint64) Trial {
	t := truncating(seed)
	if seed%5 == 0 {
		t = indexed(seed)
	}
	t.Forward, t.Ops = true, 8
	return t
}

// hedging is the trial of nodes that send requests twice, and of a network that performs
// either of them first, or one long after.
func hedging(seed uint64) Trial {
	t := truncating(seed)
	if seed%4 == 0 {
		t = forwarding(seed)
	}
	t.Hedge, t.Ops = true, 8
	return t
}

func trials() map[string]func(uint64) Trial {
	return map[string]func(uint64) Trial{"truncating": truncating, "indexed": indexed, "forking": forking, "restored": restored, "forwarding": forwarding, "hedging": hedging}
}

func runTrial(t *testing.T, tr Trial) (res Result) {
	t.Helper()
	if *trace {
		tr.Trace = os.Stdout
	}
	synctest.Test(t, func(t *testing.T) { res = tr.Run(t.Context()) })
	return res
}

func firstSeed() uint64 {
	if *first != 0 {
		return *first
	}
	return uint64(time.Now().UnixNano()) % 1e12
}

// Fresh seeds on every run; a failure prints the command that repeats it.
func TestFreshSeeds(t *testing.T) {
	for name, mk := range trials() {
		t.Run(name, func(t *testing.T) {
			begin := firstSeed()
			var steps int64
			var commits, unknown int
			n := *seeds
			if testing.Short() {
				n /= 5
			}
			for seed := begin; seed < begin+uint64(n); seed++ {
				res := runTrial(t, mk(seed))
				steps += res.Steps
				commits += res.Commits
				unknown += res.Unknown
				if res.Violation != "" {
					t.Fatalf("seed %d: %s\nagain: go test ./internal/sim -run 'TestFreshSeeds/%s' -sim.first %d -sim.seeds 1 -sim.trace", seed, res.Violation, name, seed)
				}
			}
			t.Logf("%d seeds from %d: %d steps, %d operations acknowledged, %d unknown", n, begin, steps, commits, unknown)
			if commits == 0 {
				t.Error("no operation was ever acknowledged: the trial tests nothing")
			}
		})
	}
}

// Seeds that once found something stay.
func TestPinnedSeeds(t *testing.T) {
	for _, c := range []struct {
		name string
		mk   func(uint64) Trial
		seed uint64
	}{
		{"truncating", truncating, 16463},
		{"truncating", truncating, 387},
		{"indexed", indexed, 1},
		{"indexed", indexed, 2},
	} {
		t.Run(fmt.Sprint(c.name, c.seed), func(t *testing.T) {
			if res := runTrial(t, c.mk(c.seed)); res.Violation != "" {
				t.Error(res.Violation)
			}
		})
	}
}

// A seed is worth something only if it repeats.
func TestRunsAreReproducible(t *testing.T) {
	for name, mk := range trials() {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= 20; seed++ {
				a, b := runTrial(t, mk(seed)), runTrial(t, mk(seed))
				if a != b {
					t.Fatalf("seed %d: two runs differ: %+v and %+v", seed, a, b)
				}
			}
		})
	}
}
