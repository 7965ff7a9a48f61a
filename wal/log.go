package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/celler/celler/blob"
)

// Log is a replica's end of the log: it claims slots and keeps a State up to date.
type Log struct {
	bucket blob.Bucket
	state  State
	store  StoreID
	o      Options // with defaults
	env    Env
	log    *slog.Logger
	m      *logMetrics

	// Owned by the sequencer, and by Open before it starts the sequencer.
	codec   codec
	seq     Seq    // last applied slot
	digest  Digest // of its object
	root    Root   // as last read
	rootTag blob.Tag
	writer  WriterID
	cloned  bool   // somebody else commits under our writer id
	ownSeen uint64 // last own batch that was met in the log; only mutants ask
	pending *batch // the batch whose fate is not known yet
	draft   *draft // the batch after that, in the making, or nil
	pace    pace
	creates hedge
	reads   hedge
	patient hedge // that of requests that are never hedged
	caught  bool  // the last thing the sequencer did was a catch-up
	fw      forwarding

	poll poller // of Run; used by nobody else
	stop context.CancelFunc
	done chan struct{} // closed by the sequencer when it ends

	sending sync.WaitGroup // messages to peers, and requests; the sequencer adds and waits
	wake    chan struct{}  // holds one token; never closed

	mu       sync.Mutex // guards the fields below; no I/O under it
	queue    []*call    // operations that wait for a batch
	arrived  int        // operations queued since pace last asked
	wanted   []WriterID // peers that have asked for a turn
	waiters  []*waiter  // for a catch-up that has not started
	applied  Seq
	advanced chan struct{} // closed, and replaced, when applied grows
	fresh    time.Time     // when the last successful catch-up began
	hints    hints
	doubt    *InDoubtError
	fatal    error // why the log is read-only for good
	ended    error // what callers are told once the sequencer has ended
}

// Open makes st a copy of the log in bucket and keeps it one: it catches up with
// the tail and starts the sequencer, which Close stops. The state is the Log's
// until then; others may Get and Scan.
//
// Open writes nothing. It fails if the bucket is not founded (blob.ErrNotExist), if
// a later celler must be used (ErrTooOld), and if the state has applied something
// that is not in the log (ErrForked, ErrRolledBack).
func Open(ctx context.Context, bucket blob.Bucket, st State, o Options) (*Log, error) {
	o = o.withDefaults()
	format, err := ReadFormat(ctx, bucket)
	if err != nil {
		return nil, err
	}
	l := &Log{
		bucket: bucket, state: st, store: format.Store, o: o, env: o.Env, log: o.Logger,
		m:        newLogMetrics(o.Metrics),
		done:     make(chan struct{}),
		wake:     make(chan struct{}, 1),
		advanced: make(chan struct{}),
	}
	l.creates = hedge{least: o.HedgeAfter, share: o.HedgeShare, counts: l.m.hedgedCreates}
	l.reads = hedge{least: (o.HedgeAfter - 1) / 2, share: o.HedgeShare, counts: l.m.hedgedReads}
	l.patient = hedge{least: -1}
	if err := l.prepare(ctx); err != nil {
		return nil, err
	}
	if err := l.catchUpPatiently(ctx); err != nil {
		l.codec.close()
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	l.env.Spawn(func() { l.sequence(run) })
	return l, nil
}

// prepare sets up what the sequencer owns.
func (l *Log) prepare(ctx context.Context) error {
	var seed [16]byte
	if _, err := io.ReadFull(l.env.Rand, seed[:]); err != nil {
		return fmt.Errorf("draw a seed: %w", err)
	}
	l.poll.rand = rand.New(rand.NewPCG(binary.BigEndian.Uint64(seed[:8]), binary.BigEndian.Uint64(seed[8:])))
	var err error
	if l.seq, l.digest, err = l.state.Position(); err != nil {
		return fmt.Errorf("read the state's position: %w", err)
	}
	l.advance(l.seq, l.digest)
	return l.checkPosition(ctx)
}

// Close stops the sequencer and waits for it. Operations that wait for a slot get
// ErrClosed; a batch that is in doubt stays so, and its callers get ErrUnknown.
func (l *Log) Close() error {
	l.stop()
	<-l.done
	return nil
}

// Op is one operation: a push, or an administrative change.
type Op struct {
	// Name says what it is, for errors and for people who read the log. It
	// becomes a PushBoundary entry before the operation's own.
	Name string
	// About says what it concerns, a cache's name as a rule, and By on whose behalf it
	// is done; Commit takes By from its context ([As]) if it is empty. Both go into
	// the PushBoundary entry. About must not have a space.
	About, By string
	// Cost is roughly how many bytes its entries will have. It only helps to
	// cut batches.
	Cost int
	// Build returns the entries that the operation comes to, given everything
	// before it. The sequencer calls it, again after each lost slot, so it must
	// depend on the view alone and do no I/O of its own. No entries means that
	// there is nothing to do. An error rejects this operation and no other.
	Build func(View) ([]Entry, error)
	// Intent, if set, returns what a peer needs to perform the operation in our place
	// (Options.Forward), which makes an Op of it and of Name. Build is then not called,
	// or what it did is void, so it must have no other result than its entries, and
	// always some.
	Intent func() ([]byte, error)
}

// Commit performs op and returns its slot once it is durable there and applied
// here: everybody who catches up from now on sees it.
//
// If Build rejects op its error is returned unchanged; if Build returns no entries,
// Commit returns a slot whose state asked for none. Either was decided on a state
// that was current at some moment during the call. All other errors are to be told
// apart with errors.Is: ErrConflict, ErrUnavailable, ErrClosed and the fatal ones
// mean that nothing happened, ErrUnknown that it may have.
//
// When ctx ends first, Commit returns at once. If the operation has been sent to
// the bucket the error is ErrUnknown, and the sequencer goes on until the slot is settled.
func (l *Log) Commit(ctx context.Context, op Op) (Seq, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrConflict, err)
	}
	if op.By == "" {
		op.By = Who(ctx)
	}
	c := &call{op: op, done: make(chan struct{})}
	if err := l.enqueue(c); err != nil {
		return 0, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	return l.outcome(ctx, c)
}

func (l *Log) enqueue(c *call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended != nil {
		return l.ended
	}
	c.since = l.env.Now()
	l.queue = append(l.queue, c)
	l.arrived++
	l.m.queue.Set(float64(len(l.queue)))
	l.wakeSequencer()
	return nil
}

// countArrivals tells pace how many operations have come.
func (l *Log) countArrivals() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pace.arrivals(l.env.Now(), l.arrived) {
		l.arrived = 0
	}
}

// outcome returns what became of c, or abandons it because ctx has ended.
func (l *Log) outcome(ctx context.Context, c *call) (Seq, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.settled:
		return c.seq, c.err
	case c.sent:
		c.abandoned = true
		l.m.results[resultUnknown].Inc()
		return 0, fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	default:
		c.abandoned = true
		l.m.results[resultUnavailable].Inc()
		return 0, fmt.Errorf("%w: %w", ErrConflict, context.Cause(ctx))
	}
}

// CatchUp performs a catch-up that starts after the call, alone or together with
// others, and returns the last applied slot. Afterwards the state has everything
// that anybody was acknowledged before the call: it is what must precede a "no".
func (l *Log) CatchUp(ctx context.Context) (Seq, error) {
	w := &waiter{done: make(chan struct{})}
	l.mu.Lock()
	if l.ended != nil {
		defer l.mu.Unlock()
		return l.applied, l.ended
	}
	l.waiters = append(l.waiters, w)
	l.wakeSequencer()
	l.mu.Unlock()

	select {
	case <-w.done:
		return w.seq, w.err
	case <-ctx.Done():
		return l.Seq(), fmt.Errorf("catch up: %w", context.Cause(ctx))
	}
}

// Wait returns once slot seq has been applied. It looks for the slot itself, once;
// if it is not there, nobody has been acknowledged it, and Wait waits for Run or
// another caller to find it.
func (l *Log) Wait(ctx context.Context, seq Seq) error {
	if l.Seq() >= seq {
		return nil
	}
	if have, err := l.CatchUp(ctx); err != nil || have >= seq {
		return err
	}
	for {
		l.mu.Lock()
		have, advanced, ended := l.applied, l.advanced, l.ended
		l.mu.Unlock()
		if have >= seq || ended != nil {
			return ended
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fmt.Errorf("wait for slot %v, now at %v: %w", seq, l.Seq(), context.Cause(ctx))
		}
	}
}

// Seq returns the last applied slot.
func (l *Log) Seq() Seq {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.applied
}

// Staleness returns how long before now the state was known to be current.
func (l *Log) Staleness(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, now.Sub(l.fresh))
}

// Fresh reports whether Staleness is within Options.MaxStaleness. A replica that
// is not fresh should not answer: what it has may refer to data that is gone.
func (l *Log) Fresh(now time.Time) bool { return l.Staleness(now) <= l.o.MaxStaleness }

// Err returns why the log cannot be written: for good, after ErrForked,
// ErrRolledBack, ErrTooOld or a segment that could not be applied; or for as long
// as an *InDoubtError says. The state can still be read.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal != nil {
		return l.fatal
	}
	if l.doubt != nil {
		return l.doubt
	}
	return nil
}

// Run catches up whenever nobody has for Options.PollInterval, until ctx is done or
// the Log is closed, when it returns nil, or until the log fails for good. The caller
// owns the goroutine.
func (l *Log) Run(ctx context.Context) error {
	failing := false
	for l.fatalErr() == nil {
		l.env.Sleep(ctx, l.nextPoll(l.env.Now()), nil)
		if ctx.Err() != nil {
			return nil
		}
		if l.Staleness(l.env.Now()) < l.o.PollInterval/2 && !failing {
			continue // somebody else has looked meanwhile
		}
		before := l.Seq()
		seq, err := l.CatchUp(ctx)
		if err == nil && seq > before {
			l.poll.found = seq
		}
		switch {
		case errors.Is(err, ErrClosed), ctx.Err() != nil:
			return nil
		case err != nil && !failing:
			l.log.Warn("cannot read the log", "err", err, "seq", uint64(l.Seq()))
		case err == nil && failing:
			l.log.Info("reading the log again", "seq", uint64(l.Seq()))
		}
		failing = err != nil
	}
	return l.fatalErr()
}

// fail makes err the reason why the log is read-only for good.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == nil {
		l.fatal = err
		l.m.failed.Set(1)
		l.log.Error("the log is read-only from now on", "err", err, "seq", uint64(l.seq))
	}
	return l.fatal
}

func (l *Log) fatalErr() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

func (l *Log) wakeSequencer() {
	select {
	case l.wake <- struct{}{}:
	default: // a token is there already
	}
}

// renewWriter draws a new writer id, whose session is then to be opened. A Log that
// never commits has none.
func (l *Log) renewWriter() error {
	if _, err := io.ReadFull(l.env.Rand, l.writer[:]); err != nil {
		return fmt.Errorf("draw a writer id: %w", err)
	}
	l.cloned, l.ownSeen, l.fw.opened = false, 0, false
	return nil
}
