package wal

import (
	"context"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Options tune a Log. The zero value is right for a server.
type Options struct {
	Env     Env
	Logger  *slog.Logger // nil: discard
	Metrics *metrics.Set // nil: a private set

	// MaxSegmentBytes is where a batch of several operations stops growing, in
	// bytes of encoded entries. Large segments cost little on a healthy bucket, but
	// a loser of the slot may see its connection reset instead of an answer.
	// Default 1 MiB.
	MaxSegmentBytes int
	// MaxOpBytes is what the entries of one operation may have, alone in its
	// segment. Default 8 MiB, which is also the most.
	MaxOpBytes int
	// MaxBatch is how many operations a batch may have. Default 4096.
	MaxBatch int
	// PollInterval is how often Run looks for new segments, ± 10 %. Default 1 s.
	PollInterval time.Duration
	// HintedPollInterval takes its place while Hinted says so, as far as half of
	// MaxStaleness. Default 5 s.
	HintedPollInterval time.Duration
	// Hinted, if set, reports whether all known peers of this replica are alive and
	// tell it what they commit. It is asked before each pause.
	Hinted func() bool
	// MaxStaleness is the age of the last successful catch-up at which Fresh
	// turns false. Default 60 s.
	MaxStaleness time.Duration
	// CallTimeout bounds one call of the bucket. Default 15 s.
	CallTimeout time.Duration
	// GiveUp is how long a batch may be in doubt before its callers are told
	// ErrUnknown. The batch itself is never given up. Default 20 s.
	GiveUp time.Duration

	// HedgeAfter is how long a request that others wait for must have been without an
	// answer, at the least, before it may be sent a second time: a create for so long, a
	// read for half of it. Default 100 ms; negative: nothing is sent twice.
	HedgeAfter time.Duration
	// HedgeShare is the share of requests that may be sent twice: only those are that take
	// longer than all others but this share, and about as many of them. While few have been
	// answered, that are those that take longer than all. Default 0.05. With 1 each may be,
	// once HedgeAfter has passed.
	HedgeShare float64

	// Address is where peers can reach this replica. Every segment of ours says so, in
	// an entry that changes nothing. Empty, the default: they are told nothing.
	Address string
	// Forward, if set, sends a message to the peer at an address, whose Log.Accept is to
	// get it, and returns what that returns; any error but ErrRefused may mean that it
	// did. It is called for operations that have an Intent while another replica, whose
	// address is known, wins the slots. See forward.go.
	Forward func(ctx context.Context, address string, message []byte) (Seq, error)
	// OnWon, if set, is called by the sequencer as soon as a create has succeeded:
	// others are likely to find something in that slot. It must not block.
	OnWon func(Seq)

	// OnApply, if set, is called after each segment was applied, by the goroutine
	// that applied it. It must not call the Log.
	OnApply func(*Segment)

	// Mutants breaks single rules of the protocol in builds with the tag
	// "mutant". It is empty in all others.
	Mutants Mutants
}

func (o Options) withDefaults() Options {
	o.Env = o.Env.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	orDefault(&o.MaxSegmentBytes, 1<<20)
	orDefault(&o.MaxOpBytes, maxPlainBytes/2)
	o.MaxOpBytes = min(o.MaxOpBytes, maxPlainBytes/2)
	o.MaxSegmentBytes = min(o.MaxSegmentBytes, o.MaxOpBytes)
	orDefault(&o.MaxBatch, 4096)
	orDefault(&o.PollInterval, time.Second)
	orDefault(&o.HintedPollInterval, 5*time.Second)
	orDefault(&o.MaxStaleness, time.Minute)
	orDefault(&o.CallTimeout, 15*time.Second)
	orDefault(&o.GiveUp, 20*time.Second)
	if o.HedgeAfter == 0 {
		o.HedgeAfter = 100 * time.Millisecond
	}
	if o.HedgeShare <= 0 {
		o.HedgeShare = 0.05
	}
	return o
}

func orDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}
