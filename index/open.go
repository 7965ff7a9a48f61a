package index

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

const (
	// indexFormat is the version of the bookkeeping rows. A newer one is not ours
	// to read; an older one is not worth reading: both are made again.
	indexFormat = 1

	// pebbleFormat is the newest format of the Pebble we are built with, pinned so
	// that a newer Pebble does not change files without anybody deciding so.
	pebbleFormat = pebble.FormatValueSeparation

	// defaultCacheBytes of blocks hold the bloom filters and the hot paths of a
	// store of a few million paths.
	defaultCacheBytes = 64 << 20

	// memTableBytes bounds what is in memory only. Two of them may be there at once.
	memTableBytes = 8 << 20

	// defaultFlushSegments fetched 64 at a time take well below a second.
	defaultFlushSegments = 256

	// stopWritesRuns is how many layers of tables, each to be asked for a row, may lie over
	// each other before writes wait for Pebble to merge them: more than a snapshot has, with
	// up to seven runs of each size (compact.Options.Ratio), for what follows it is to be
	// applied at once. The price is that on a disk that cannot keep up a lookup asks as many
	// filters before anybody is slowed down; celler_index_layers tells.
	stopWritesRuns = 64

	// blockBytes trades a larger index in memory against reading more for a row.
	blockBytes = 16 << 10

	// maxOpenFiles leaves most of the usual 1,024 descriptors to connections.
	maxOpenFiles = 256

	// defaultFetchParallel hides the latency of a bucket behind its bandwidth.
	defaultFetchParallel = 32

	dbDir      = "db"
	asideDir   = "db.aside"
	liveTag    = "LIVE"
	rebuildTag = "REBUILD"
)

// Options tune a DB. The zero value is right for a server.
type Options struct {
	FS         vfs.FS           // nil: the operating system's
	Now        func() time.Time // for the metrics; nil: time.Now
	CacheBytes int64            // of blocks held in memory; 0: 64 MiB
	// FlushSegments bounds how many segments a crash can make the log fetch again;
	// 0: 256, a quarter of a minute of a busy log.
	FlushSegments int
	Bucket        blob.Bucket  // where snapshots are; nil: Reset cannot load any
	FetchParallel int          // tables fetched at once; 0: 32
	Logger        *slog.Logger // nil: discard
	Metrics       *metrics.Set // nil: a private set
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.FlushSegments == 0 {
		o.FlushSegments = defaultFlushSegments
	}
	if o.FetchParallel == 0 {
		o.FetchParallel = defaultFetchParallel
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	return o
}

// Open opens the index of the bucket store in dir. If there is none that can be
// used it begins an empty one, which the log then fills, and logs one line that
// says why. It fails with a [LockedError] or a [DiskError] if a new index would
// not help.
func Open(dir string, store wal.StoreID, o Options) (*DB, error) {
	o = o.withDefaults()
	if err := o.FS.MkdirAll(dir, 0o755); err != nil {
		return nil, &DiskError{Dir: dir, Err: err}
	}
	lock, err := pebble.LockDirectory(dir, o.FS)
	switch {
	case err == nil:
	case isLockError(err):
		return nil, &LockedError{Dir: dir, Err: err}
	default:
		return nil, &DiskError{Dir: dir, Err: err}
	}
	db := &DB{dir: dir, store: store, o: o, fs: o.FS, lock: lock, flushSegments: o.FlushSegments, now: o.Now, log: o.Logger, failedCh: make(chan struct{})}
	if err := db.open(o); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	db.metrics = newMetricSet(o.Metrics, db)
	return db, nil
}

func (db *DB) open(o Options) error {
	db.logger = newPebbleLogger(o.Logger, db)
	rebuild := db.readRebuildNote()
	if rebuild == nil {
		err := db.openFiles()
		switch {
		case err == nil:
			return nil
		case isLockError(err):
			return &LockedError{Dir: db.dir, Err: err}
		case isDiskError(err):
			return &DiskError{Dir: db.dir, Err: err}
		}
		rebuild = err
	}
	o.Logger.Warn("the index cannot be used and is made again from the log; the old one is moved aside",
		"err", fmt.Errorf("index directory %s: %w", db.dir, rebuild))
	if err := db.moveAside(); err != nil {
		return &DiskError{Dir: db.dir, Err: err}
	}
	db.forget()
	if err := db.openFiles(); err != nil {
		return &DiskError{Dir: db.dir, Err: err}
	}
	return nil
}

// openFiles opens db/ and checks that it is ours, or begins it if there is
// nothing. What it returns is an error of the disk or a reason to start afresh.
func (db *DB) openFiles() error {
	live := db.liveName()
	if err := db.removeOthers(live); err != nil {
		return fmt.Errorf("remove what is left of another index: %w", err)
	}
	p, err := db.openFresh(live)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	db.current.Store(newFiles(db, p, live))
	if err := db.identify(); err != nil {
		return errors.Join(err, p.Close())
	}
	return nil
}

// openPebble turns panics of Pebble into errors: on damaged files it has a few.
func openPebble(dir string, o Options, cache *pebble.Cache, db *DB) (p *pebble.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("panic: %v", r)
			if disk, ok := r.(*DiskError); ok && isDiskError(disk) {
				err = disk.Err // what a full disk does to Pebble is no damage
			}
		}
	}()
	opts := &pebble.Options{
		FS:                          o.FS,
		Cache:                       cache,
		FormatMajorVersion:          pebbleFormat,
		DisableWAL:                  true,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 3,
		L0StopWritesThreshold:       stopWritesRuns,
		MaxOpenFiles:                maxOpenFiles,
		Logger:                      db.logger,
		EventListener:               db.logger.listener(),
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].FilterType = pebble.TableFilter
		opts.Levels[i].BlockSize = blockBytes
	}
	return pebble.Open(dir, opts)
}

// identify checks the row that says whose index this is, and writes it into an
// empty one.
func (db *DB) identify() error {
	want := append(wal.AppendUint64(nil, indexFormat), db.store[:]...)
	have, ok, err := db.Get([]byte(storeKey))
	if err != nil {
		return err
	}
	if !ok {
		empty, err := db.empty()
		if err != nil {
			return err
		}
		if !empty {
			return errors.New("it has rows but does not say of which bucket")
		}
		return db.current.Load().pebble.Set([]byte(storeKey), want, pebble.NoSync)
	}
	if len(have) < 8 {
		return fmt.Errorf("row %s has %d bytes, want %d", storeKey, len(have), len(want))
	}
	if v, _ := wal.DecodeUint64(have[:8]); v != indexFormat {
		return fmt.Errorf("it has format %d, want %d", v, indexFormat)
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("it is of bucket %x, want %v", have[8:], db.store)
	}
	db.seq, db.digest, err = db.readPosition()
	return err
}

func (db *DB) empty() (bool, error) {
	it, err := db.current.Load().pebble.NewIter(nil)
	if err != nil {
		return false, err
	}
	empty := !it.First()
	return empty, it.Close()
}

// readRebuildNote returns why the files must not be used, if a process before us
// found a reason.
func (db *DB) readRebuildNote() error {
	f, err := db.fs.Open(db.fs.PathJoin(db.dir, rebuildTag))
	if err != nil {
		return nil
	}
	const longest = 4 << 10
	text, _ := io.ReadAll(io.LimitReader(f, longest))
	_ = f.Close()
	return fmt.Errorf("noted earlier: %s", bytes.TrimSpace(text))
}

// moveAside gives up db/, in place of the copy that was given up before it.
func (db *DB) moveAside() error {
	from, to := db.fs.PathJoin(db.dir, db.liveName()), db.fs.PathJoin(db.dir, asideDir)
	if err := db.fs.RemoveAll(to); err != nil {
		return fmt.Errorf("remove the index given up before: %w", err)
	}
	if err := db.fs.Rename(from, to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("move the index aside: %w", err)
	}
	if err := db.fs.Remove(db.fs.PathJoin(db.dir, liveTag)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the name of the index: %w", err)
	}
	if err := db.fs.RemoveAll(db.fs.PathJoin(db.dir, rebuildTag)); err != nil {
		return fmt.Errorf("remove the note to rebuild: %w", err)
	}
	return nil
}
