package index

import (
	"context"
	"errors"
	"iter"
	"log/slog"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/wal"
)

var errUnimplemented = errors.New("not implemented yet")

// Options tune a DB. The zero value is right for a server.
type Options struct {
	FS         vfs.FS       // nil: the operating system's
	CacheBytes int64        // of blocks held in memory; 0: 64 MiB
	Logger     *slog.Logger // nil: discard
	Metrics    *metrics.Set // nil: a private set
}

// DB is one replica's copy of the state.
type DB struct{}

var _ wal.State = (*DB)(nil)

// Open opens the copy in dir, or begins an empty one if there is none that can be used.
func Open(dir string, store wal.StoreID, o Options) (*DB, error) { return nil, errUnimplemented }

// Close writes what is only in memory and lets go of the directory.
func (db *DB) Close() error { return errUnimplemented }

func (db *DB) Get(key []byte) (value []byte, ok bool, err error) { return nil, false, errUnimplemented }

func (db *DB) Scan(prefix, after []byte) iter.Seq2[wal.KV, error] { return nil }

func (db *DB) Position() (wal.Seq, wal.Digest, error) { return 0, wal.Digest{}, errUnimplemented }

func (db *DB) Session(w wal.WriterID) (batch uint64, ok bool, err error) {
	return 0, false, errUnimplemented
}

func (db *DB) Apply(seg *wal.Segment, digest wal.Digest) error { return errUnimplemented }

func (db *DB) Reset(ctx context.Context, root wal.Root) error { return errUnimplemented }

// Digest returns a hash over the whole state: equal states at equal positions have equal digests.
func (db *DB) Digest() ([32]byte, error) { return [32]byte{}, errUnimplemented }
