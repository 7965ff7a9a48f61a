package catalog

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/index"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// The nouns of this package's signatures, so that callers need not import the
// packages below.
type (
	Seq       = wal.Seq
	CacheName = keyspace.CacheName
	Cache     = keyspace.Cache
	Path      = keyspace.Path
)

// ParseCacheName accepts the name of a cache.
func ParseCacheName(s string) (CacheName, error) { return keyspace.ParseCacheName(s) }

const (
	// opBytes is how many bytes of entries go into one operation, roughly: a
	// quarter of a segment, so that other operations find room beside it.
	opBytes = 256 << 10

	// rowOverhead is what an entry of the log costs beside its key and value.
	rowOverhead = 8
)

// Options tune a Catalog. The zero value is right for a server.
type Options struct {
	Now     func() time.Time // nil: time.Now
	Rand    io.Reader        // for key pairs; nil: crypto/rand
	Logger  *slog.Logger     // nil: discard
	Metrics *metrics.Set     // nil: a private set

	// Mutants breaks single rules in builds with the tag "mutant". It is empty in
	// all others.
	Mutants Mutants
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	return o
}

// Catalog is what the log says, in terms of caches and paths.
type Catalog struct {
	wal     *wal.Log
	db      *index.DB
	now     func() time.Time
	rand    io.Reader
	log     *slog.Logger
	metrics *metricSet
	mutants Mutants
	keys    keyring
	sigs    sigMemo
	carried carriers
}

// New returns a Catalog that commits to log and reads from db, which must be the
// state that log keeps up to date. The caller closes both, after the last use of
// the Catalog.
func New(log *wal.Log, db *index.DB, o Options) *Catalog {
	o = o.withDefaults()
	return &Catalog{
		wal: log, db: db, now: o.Now, rand: o.Rand, log: o.Logger,
		metrics: newMetricSet(o.Metrics), mutants: o.Mutants,
	}
}

// Seq returns the last slot of the log that reads see.
func (c *Catalog) Seq() Seq { return c.wal.Seq() }

// Wait returns when reads see slot seq.
func (c *Catalog) Wait(ctx context.Context, seq Seq) error { return c.wal.Wait(ctx, seq) }

// CatchUp makes everything visible that was acknowledged before the call, and
// fails with ErrUnreachable if the bucket cannot be asked.
func (c *Catalog) CatchUp(ctx context.Context) (Seq, error) {
	err := c.catchUp(ctx, "catch up")
	return c.Seq(), err
}

// catchUp is CatchUp with the reason for it.
func (c *Catalog) catchUp(ctx context.Context, doing string) error {
	c.metrics.catchUps.Inc()
	if _, err := c.wal.CatchUp(ctx); err != nil {
		return fmt.Errorf("%s: look for newer segments: %w: %w", doing, ErrUnreachable, err)
	}
	return nil
}

// lookup decodes the row at key in the index. If it is not there it looks again
// after a catch-up.
func lookup[T any](ctx context.Context, c *Catalog, doing string, key []byte, decode func(key, value []byte) (T, error)) (T, bool, error) {
	row, ok, err := local(c, key, decode)
	if ok || err != nil {
		return row, ok, err
	}
	if err := c.catchUp(ctx, doing); err != nil {
		return row, false, err
	}
	return local(c, key, decode)
}

// local decodes the row at key in the index, if it is there.
func local[T any](c *Catalog, key []byte, decode func(key, value []byte) (T, error)) (row T, ok bool, err error) {
	ok, err = c.db.Lookup(key, func(value []byte) error {
		row, err = decode(key, value)
		return err
	})
	return row, ok && err == nil, err
}

// getter looks up one row in some state.
type getter interface {
	Get(key []byte) ([]byte, bool, error)
}

// read decodes the row at key in the state an operation is built against.
func read[T any](v getter, key []byte, decode func(key, value []byte) (T, error)) (row T, ok bool, err error) {
	value, ok, err := v.Get(key)
	if !ok || err != nil {
		return row, false, err
	}
	row, err = decode(key, value)
	return row, err == nil, err
}

func set(key, value []byte) wal.Entry { return wal.Entry{Kind: wal.Set, Key: key, Value: value} }
func remove(key []byte) wal.Entry     { return wal.Entry{Kind: wal.Delete, Key: key} }

// counter reads a counter in the state an operation is built against.
func counter(v getter, which keyspace.Counter) (uint32, error) {
	n, ok, err := read(v, keyspace.AppendCounterKey(nil, which), keyspace.DecodeCount)
	if !ok {
		n = keyspace.FirstCount
	}
	return n, err
}

// timestamp is the time a row gets: rows keep milliseconds.
func (c *Catalog) timestamp() time.Time { return c.now().UTC().Truncate(time.Millisecond) }

// invalid marks err as the fault of the request.
func invalid(err error) error { return fmt.Errorf("%w: %w", ErrInvalid, err) }
