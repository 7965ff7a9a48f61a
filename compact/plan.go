package compact

import "github.com/celler/celler/wal"

// job is a merge: count runs of a snapshot from index first on, all of one shard,
// the newest of that shard among them.
type job struct {
	first, count int
	oldest       bool // the oldest run of the shard is among them
}

// nextMerge chooses the next merge, or none (count 0).
//
// Runs are sorted into tiers by size, each Ratio times as large as the one before.
// Once Ratio runs of one tier have gathered, they and all that is newer become one
// run, of the next tier as a rule. So every entry is rewritten once a tier, however
// large the index is, and a shard never has more than Ratio-1 runs of each tier.
func (o *Options) nextMerge(s *wal.Snapshot) job {
	for first := 0; first < len(s.Runs); {
		n := 1
		for first+n < len(s.Runs) && s.Runs[first+n].Shard == s.Runs[first].Shard {
			n++
		}
		if count := o.mergeIn(s.Runs[first : first+n]); count > 0 {
			return job{first: first, count: count, oldest: count == n}
		}
		first += n
	}
	return job{}
}

// mergeIn returns how many of the runs of a shard, from the newest on, are to be merged.
func (o *Options) mergeIn(runs []wal.Run) int {
	tiers := make([]int, len(runs))
	highest := 0
	for i := range runs {
		tiers[i] = o.tier(runs[i].Bytes())
		highest = max(highest, tiers[i])
	}
	for t := 0; t <= highest; t++ {
		n, same := 0, 0
		for n < len(runs) && tiers[n] <= t {
			if tiers[n] == t {
				same++
			}
			n++
		}
		if same >= o.Ratio {
			return n
		}
	}
	return 0
}

func (o *Options) tier(bytes int64) int {
	t := 0
	for limit := o.SmallBytes; bytes > limit; limit *= int64(o.Ratio) {
		t++
	}
	return t
}
