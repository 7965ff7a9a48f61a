package compact

import (
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/wal"
)

// Options tune a Compactor. The zero value is right for a server.
type Options struct {
	Env     wal.Env
	By      string       // stands in ROOT and in snapshots, for people
	Logger  *slog.Logger // nil: discard
	Metrics *metrics.Set // nil: a private set

	// FlushSegments and FlushBytes bound what one flush holds in memory; what is
	// beyond goes into the next. Default 1000 segments, 24 MiB of rows, of some 160
	// bytes each beside their keys and values.
	FlushSegments int
	FlushBytes    int64
	// TableBytes is where a table ends. A merge holds one table of each of its
	// runs in memory. Default 8 MiB: a server has better uses for its memory.
	TableBytes int64
	// Ratio is how many runs of about one size become one of the next size. Default 8.
	Ratio int
	// SmallBytes is the size below which runs count as equally small. Default 64 KiB.
	SmallBytes int64

	// InstallBytes is how much is merged between two installs. Default 512 MiB.
	InstallBytes int64

	// KeepSegments is how many slots before the tail stay in the log, so that
	// servers that were away for a while need no snapshot. Default 1000.
	KeepSegments int
	// LogRetention is how long slots stay in the log, for looking back. It is
	// measured by the bucket's clock. Default 7 days; negative for none.
	LogRetention time.Duration
	// KeepAll, KeepHourly and KeepDaily are the ages up to which every snapshot,
	// one an hour, and one a day is kept. Defaults: a day, a week, 30 days; negative
	// for none. The newest is always kept, and one a day for LogRetention.
	KeepAll, KeepHourly, KeepDaily time.Duration

	// StealAfter is for how long ROOT must not have changed before another
	// compactor's claim is taken to be given up, but for Mode.Steal. Default 10 minutes.
	// Any value is safe; a short one only wastes work.
	StealAfter time.Duration
	// CallTimeout bounds one call of the bucket. Default 2 minutes.
	CallTimeout time.Duration
	// Parallel is how many objects are moved at once. Default 16.
	Parallel int

	// Mutants breaks single rules in builds with the tag "mutant". It is empty in
	// all others.
	Mutants Mutants
}

func (o Options) withDefaults() Options {
	o.Env = o.Env.WithDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	const day = 24 * time.Hour
	orDefault(&o.FlushSegments, 1000)
	orDefault(&o.FlushBytes, 24<<20)
	orDefault(&o.TableBytes, 8<<20)
	orDefault(&o.Ratio, 8)
	o.Ratio = max(o.Ratio, 2)
	orDefault(&o.SmallBytes, 64<<10)
	orDefault(&o.InstallBytes, 512<<20)
	orDefault(&o.KeepSegments, 1000)
	orDefault(&o.LogRetention, 7*day)
	orDefault(&o.KeepAll, day)
	orDefault(&o.KeepHourly, 7*day)
	orDefault(&o.KeepDaily, 30*day)
	if o.LogRetention > 0 {
		// The floor goes up to a snapshot of that age, so there must be one.
		o.KeepDaily = max(o.KeepDaily, o.LogRetention+2*day)
	}
	orDefault(&o.StealAfter, 10*time.Minute)
	orDefault(&o.CallTimeout, 2*time.Minute)
	orDefault(&o.Parallel, 16)
	return o
}

// orDefault fills in zero; a negative number is a wish for none, and stays.
func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
