package wal

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
)

var errUnimplemented = errors.New("not implemented yet")

// Options tune a Log. The zero value is right for a server.
type Options struct {
	Env     Env
	Logger  *slog.Logger // nil: discard
	Metrics *metrics.Set // nil: a private set

	// MaxSegmentBytes is where a batch of several operations stops growing, in
	// bytes of encoded entries. Default 1 MiB.
	MaxSegmentBytes int
	// MaxOpBytes is what the entries of one operation may have, alone in its
	// segment. Default 8 MiB, which is also the most.
	MaxOpBytes int
	// MaxBatch is how many operations a batch may have. Default 4096.
	MaxBatch int
	// PollInterval is how often Run looks for new segments, ± 10 %. Default 1 s.
	PollInterval time.Duration
	// MaxStaleness is the age of the last successful catch-up at which Fresh
	// turns false. Default 60 s.
	MaxStaleness time.Duration
	// CallTimeout bounds one call of the bucket. Default 15 s.
	CallTimeout time.Duration
	// GiveUp is how long a batch may be in doubt before its callers are told
	// ErrUnknown. The batch itself is never given up. Default 10 s.
	GiveUp time.Duration
	// By stands in ROOT and names this node for people.
	By string

	// OnApply, if set, is called after each segment was applied, by the goroutine
	// that applied it. It must not call the Log.
	OnApply func(*Segment)

	// Mutants breaks single rules of the protocol in builds with the tag
	// "mutant". It is empty in all others.
	Mutants Mutants
}

// Op is one operation: a push, or an administrative change.
type Op struct {
	// Name says what it is, for errors and PushBoundary entries.
	Name string
	// Cost is roughly how many bytes its entries will have. It only helps to
	// cut batches.
	Cost int
	// Build returns the entries that the operation comes to, given everything
	// before it. The sequencer calls it, again after each lost slot, so it must
	// depend on the view alone and do no I/O of its own. No entries means that
	// there is nothing to do. An error rejects this operation and no other.
	Build func(View) ([]Entry, error)
}

// Log is a replica's end of the log: it claims slots and keeps a State up to date.
type Log struct{}

// Open catches up with the tail and starts the sequencer. The caller closes it.
func Open(ctx context.Context, bucket blob.Bucket, st State, o Options) (*Log, error) {
	return nil, errUnimplemented
}

// Close stops the sequencer and waits for it.
func (l *Log) Close() error { return errUnimplemented }

// Commit returns nil once the operation is durable in a slot and applied here.
func (l *Log) Commit(ctx context.Context, op Op) (Seq, error) { return 0, errUnimplemented }

// CatchUp performs, or joins, a catch-up that starts after the call.
func (l *Log) CatchUp(ctx context.Context) (Seq, error) { return 0, errUnimplemented }

// Wait returns when slot seq has been applied.
func (l *Log) Wait(ctx context.Context, seq Seq) error { return errUnimplemented }

// Seq returns the last applied slot.
func (l *Log) Seq() Seq { return 0 }

// Staleness returns how old the replica's knowledge of the tail is.
func (l *Log) Staleness(now time.Time) time.Duration { return 0 }

// Fresh reports whether Staleness is within Options.MaxStaleness.
func (l *Log) Fresh(now time.Time) bool { return false }

// Err returns why the log cannot be written: for good, or at the moment.
func (l *Log) Err() error { return errUnimplemented }

// Run polls the tail until ctx is done or the log fails for good.
func (l *Log) Run(ctx context.Context) error { return errUnimplemented }

// ReadSegments yields the segments of slots from to to, both inclusive.
func ReadSegments(ctx context.Context, bucket blob.Bucket, from, to Seq) iter.Seq2[*Segment, error] {
	return func(yield func(*Segment, error) bool) { yield(nil, errUnimplemented) }
}
