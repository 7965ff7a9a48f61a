package gc

import (
	"context"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Options tune a Collector. The zero value keeps every path for ever, and removes only
// what nothing can reach.
type Options struct {
	Now     func() time.Time // for durations in metrics, and for nothing else; nil: time.Now
	By      string           // who collects, for people who read the log
	Logger  *slog.Logger     // nil: discard
	Metrics *metrics.Set     // nil: a private set

	// Retention is how long after its last use a path stays in a cache that has no
	// retention of its own; 0: for ever.
	Retention time.Duration
	// Quota bounds the stored bytes that the paths of all caches take together; 0: no bound.
	Quota int64
	// NarGrace is how long the NAR of a path that was removed can still be fetched.
	// Default 30 days; negative for none.
	NarGrace time.Duration
	// ReaderGrace is how long an object stays after nothing needs it any more.
	// Default 24 hours; negative for none.
	ReaderGrace time.Duration
	// KeptSince is the time of the oldest bookmark: NARs removed after it stay, unless
	// somebody asked for their removal by name. nil or false: there is none.
	KeptSince func(ctx context.Context) (at time.Time, ok bool, err error)

	// Clock, if set, tells the bucket's time without a commit, for dry runs and for
	// people. nil: the end of the last store day is taken for now.
	Clock func(ctx context.Context) (time.Time, error)
	// Pickup is how soon after it is due a round removes something, at the latest: what
	// Delete promises follows from it. Default 24 hours.
	Pickup time.Duration

	// RewriteAbove is the share of dead bytes in an object from which on it is written
	// again without them. Default 0.5.
	RewriteAbove float64
	// RewriteBytes bounds what one round writes again. Default 64 GiB.
	RewriteBytes int64
	// Batch is how many paths, recipes or chunks one operation removes. Default 8192,
	// at most 10,000.
	Batch int

	// Progress, if set, is called now and then with how far a round has come.
	Progress func(Progress)
	// Requests, if set, says how many requests the bucket got so far; what it says at the
	// end of a round less what it said at its beginning stands in the report.
	Requests func() map[string]int64

	// Mutants breaks single rules in builds with the tag "mutant". It is empty in
	// all others.
	Mutants Mutants
}

const (
	defaultNarGrace    = 30 * 24 * time.Hour
	defaultReaderGrace = 24 * time.Hour
	defaultBatch       = 8192
	maxBatch           = 10_000
	defaultRewrite     = 0.5
	defaultRewriteMax  = 64 << 30
	defaultPickup      = 24 * time.Hour
)

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.By == "" {
		o.By = "celler gc"
	}
	grace(&o.NarGrace, defaultNarGrace)
	grace(&o.ReaderGrace, defaultReaderGrace)
	if o.RewriteAbove <= 0 {
		o.RewriteAbove = defaultRewrite
	}
	if o.RewriteBytes <= 0 {
		o.RewriteBytes = defaultRewriteMax
	}
	if o.Batch <= 0 {
		o.Batch = defaultBatch
	}
	o.Batch = min(o.Batch, maxBatch)
	if o.Pickup <= 0 {
		o.Pickup = defaultPickup
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Requests == nil {
		o.Requests = func() map[string]int64 { return nil }
	}
	return o
}

// grace fills in the default; a negative one is a wish for none.
func grace(d *time.Duration, def time.Duration) {
	switch {
	case *d == 0:
		*d = def
	case *d < 0:
		*d = 0
	}
}

// Progress says how far a round has come.
type Progress struct {
	Phase string `json:"phase"`           // mark, condemn, …
	Done  int    `json:"done"`            // of the phase's own unit
	Total int    `json:"total,omitempty"` // 0: not known
}
