package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/celler/celler/compact"
	"github.com/celler/celler/wal"
)

// tableCompactor performs rounds of the real compactor. It folds a few segments at a
// time, merges as soon as there are two runs, keeps nothing, and takes epochs away
// from others without waiting, so that in a short run everything happens.
func (r *run) tableCompactor(ctx context.Context, c int) {
	name := fmt.Sprintf("compact%d", c)
	rng := rand.New(rand.NewPCG(r.Seed, 3000+uint64(c)))
	o := compact.Options{
		Env: r.w.Env(name, r.Seed*100+60+uint64(c), time.Duration(rng.IntN(48)-24)*time.Hour), By: name,
		FlushSegments: 3, Ratio: 2, Parallel: 2, StealAfter: 1,
		KeepSegments: -1, LogRetention: -1, KeepAll: -1, KeepHourly: -1, KeepDaily: -1,
		Mutants: r.Compact,
	}
	compactor := compact.New(r.w.Bucket(name), o)
	for range r.Rounds {
		r.w.Pause(name, "round")
		if rng.IntN(3) == 0 { // another process
			compactor = compact.New(r.w.Bucket(name), o)
		}
		_, err := compactor.Round(ctx, compact.Mode{Steal: rng.IntN(2) == 0})
		var sum *compact.SumError
		var corrupt *wal.CorruptError
		if errors.As(err, &sum) || errors.As(err, &corrupt) {
			r.violate("%s: %v", name, err)
		}
	}
}
