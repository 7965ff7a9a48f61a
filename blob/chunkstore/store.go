package chunkstore

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
)

// Directory is what the store asks of the metadata.
type Directory interface {
	// LookupChunks says for every id where the chunk lies, and whether it is known.
	LookupChunks(ctx context.Context, ids []chunk.ID) ([]chunk.Location, []bool, error)
	// PackLayout returns the layout of a known pack.
	PackLayout(ctx context.Context, id chunk.PackID) (chunk.Layout, error)
	// CommitPacks makes packs and their chunks known; it is durable when it
	// returns nil. Packs that are known already are left as they are.
	CommitPacks(ctx context.Context, packs []chunk.NewPack) error
	// UploadEpoch returns the upload epoch that names of new packs carry.
	UploadEpoch(ctx context.Context) (uint32, error)
}

// Options tune a Store. The zero value works.
type Options struct {
	Profile       chunk.Profile // how NARs are cut; zero = chunk.DefaultProfile
	FrameBytes    int           // plain bytes of one frame, at most; default 256 KiB
	PackBytes     int           // compressed bytes at which a pack is full; default 16 MiB
	WriteBytes    int64         // memory of all Writes together; default 64 MiB
	ReadBytes     int64         // memory of all open readers together; default 96 MiB
	ReadAhead     int64         // compressed bytes one reader fetches ahead; default 16 MiB
	Dir           string        // directory of the resident copies; empty = none
	ResidentBytes int64         // bound on their total; default 10 GiB
	Logger        *slog.Logger  // nil = none
	Metrics       *metrics.Set  // nil = a set of its own
	Now           func() time.Time
}

// Store stores NARs as chunks in packs and gives them back. Its methods may be
// used by many goroutines.
type Store struct{}

// Result tells what a Write did.
type Result struct {
	Recipe      chunk.Recipe
	Packs       []chunk.NewPack // durable, not yet known: commit them together with the recipe
	PlainBytes  int64           // length of the NAR
	NewBytes    int64           // of it, in chunks that were not known
	StoredBytes int64           // compressed bytes added to packs for it
	Chunks      int
	NewChunks   int
}

var errUnimplemented = errors.New("not implemented")

// New returns a Store on bucket whose metadata is dir.
func New(bucket blob.Bucket, dir Directory, o Options) (*Store, error) {
	return nil, errUnimplemented
}

// Close waits for what the store has started.
func (s *Store) Close() error { return nil }

// Write cuts, hashes, deduplicates, encodes and uploads one NAR read from r.
func (s *Store) Write(ctx context.Context, r io.Reader) (Result, error) {
	return Result{}, errUnimplemented
}

// Open plans a served NAR: everything is resolved before it returns.
func (s *Store) Open(ctx context.Context, r *chunk.Recipe) (io.ReadSeekCloser, error) {
	return nil, errUnimplemented
}

// Plain returns the decoded NAR, verified.
func (s *Store) Plain(ctx context.Context, r *chunk.Recipe) (io.ReadCloser, error) {
	return nil, errUnimplemented
}

// ETag returns the strong entity tag of the served form of r, quotes included.
func ETag(r *chunk.Recipe) string { return "" }
