package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/wal"
)

// storeKey is the row that says of which bucket this is the index.
const storeKey = "!store"

// DB is one node's copy of the state.
type DB struct {
	dir    string
	store  wal.StoreID
	fs     vfs.FS
	lock   *pebble.Lock
	now    func() time.Time
	log    *slog.Logger
	logger *pebbleLogger

	o       Options // with defaults
	current atomic.Pointer[files]
	metrics *metricSet

	flushSegments int
	unflushed     int  // segments applied since the last flush; of the applying goroutine
	tidied        bool // something was applied since Open; of the applying goroutine

	failedCh chan struct{} // closed by the first call of fail

	mu     sync.Mutex // guards what follows
	seq    wal.Seq
	digest wal.Digest
	failed error // why nothing more can be applied
	closed bool
}

var _ wal.State = (*DB)(nil)

// Close writes what is only in memory and lets go of the directory. Nobody may
// read any more.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return errors.New("close index: closed already")
	}
	db.closed = true
	db.mu.Unlock()

	db.metrics.close()
	flushErr := db.flush()
	if err := db.current.Load().pebble.Close(); flushErr == nil && err != nil {
		flushErr = db.classify("close index", err)
	}
	return errors.Join(flushErr, db.lock.Close())
}

// flush writes the memory table out, unless writing has failed already: Pebble
// would try for ever.
func (db *DB) flush() error {
	if db.Err() != nil {
		return nil // told to whoever applied
	}
	return db.flushFiles(db.current.Load().pebble)
}

func (db *DB) flushFiles(p *pebble.DB) error {
	done, err := p.AsyncFlush()
	if err != nil {
		return db.classify("flush index", err)
	}
	if done == nil { // nothing to write
		return nil
	}
	select {
	case <-done:
		return nil
	case <-db.failedCh:
		return fmt.Errorf("flush index: %w", db.Err())
	}
}

// Err returns why the index can take no more segments, if so: the disk failed or
// what is on it is damaged.
func (db *DB) Err() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.failed
}

// DiskBytes returns how much space the index takes on the disk.
func (db *DB) DiskBytes() int64 {
	if m := db.pebbleMetrics(); m != nil {
		return int64(m.DiskSpaceUsage())
	}
	return 0
}

// layers returns in how many tables a row may lie.
func (db *DB) layers() int {
	if m := db.pebbleMetrics(); m != nil {
		return m.ReadAmp()
	}
	return 0
}

// pebbleMetrics returns nil once db is closed.
func (db *DB) pebbleMetrics() *pebble.Metrics {
	db.mu.Lock()
	closed := db.closed
	db.mu.Unlock()
	if closed {
		return nil
	}
	f := db.acquire()
	defer f.release()
	return f.pebble.Metrics()
}

// Get returns a copy of the value of key, and false if there is none.
func (db *DB) Get(key []byte) (value []byte, ok bool, err error) {
	ok, err = db.Lookup(key, func(v []byte) error {
		value = slices.Clone(v)
		if value == nil {
			value = []byte{}
		}
		return nil
	})
	return value, ok, err
}

// Lookup calls use with the value of key, if there is one. The value is only
// valid until use returns.
func (db *DB) Lookup(key []byte, use func(value []byte) error) (ok bool, err error) {
	f := db.acquire()
	defer f.release()
	value, closer, err := f.pebble.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, db.classify("look up a row of the index", err)
	}
	defer func() { // also if use panics: an open value would keep Close from closing
		if closeErr := closer.Close(); closeErr != nil && err == nil {
			err = db.classify("look up a row of the index", closeErr)
		}
	}()
	return true, use(value)
}

// Scan yields copies of the rows that start with prefix and sort strictly after
// after, all from the same moment.
func (db *DB) Scan(prefix, after []byte) iter.Seq2[wal.KV, error] {
	return func(yield func(wal.KV, error) bool) {
		f := db.acquire()
		defer f.release()
		db.scan(f.pebble, prefix, after, yield)
	}
}

func (db *DB) scan(r pebble.Reader, prefix, after []byte, yield func(wal.KV, error) bool) {
	it, err := r.NewIter(scanBounds(prefix, after))
	if err != nil {
		yield(wal.KV{}, db.classify("scan the index", err))
		return
	}
	defer func() { _ = it.Close() }() // repeats the error told below
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			yield(wal.KV{}, db.classify("scan the index", err))
			return
		}
		key := it.Key()
		row := append(append(make([]byte, 0, len(key)+len(value)), key...), value...)
		if !yield(wal.KV{Key: row[:len(key):len(key)], Value: row[len(key):]}, nil) {
			return
		}
	}
	if err := it.Error(); err != nil {
		yield(wal.KV{}, db.classify("scan the index", err))
	}
}

func scanBounds(prefix, after []byte) *pebble.IterOptions {
	o := &pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)}
	if after != nil {
		if next := append(slices.Clone(after), 0); string(next) > string(prefix) {
			o.LowerBound = next
		}
	}
	return o
}

// prefixEnd returns the first key after all that start with prefix; nil if there
// is none.
func prefixEnd(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// Absent yields the positions of those of n keys that have no row. The keys, all
// of which start with prefix, must ascend; key appends the i-th to its argument.
// All are looked up at the same moment, and whichever of the two sorted lists is
// shorter, the keys or the rows, decides what it costs.
func (db *DB) Absent(prefix []byte, n int, key func(dst []byte, i int) []byte) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		f := db.acquire()
		defer f.release()
		it, err := f.pebble.NewIter(scanBounds(prefix, nil))
		if err != nil {
			yield(0, db.classify("look up rows of the index", err))
			return
		}
		defer func() { _ = it.Close() }() // repeats the error told below
		var k []byte
		more := it.First()
		for i := range n {
			k = key(k[:0], i)
			if more && string(it.Key()) < string(k) {
				more = it.SeekGE(k)
			}
			if !more {
				if err := it.Error(); err != nil {
					yield(0, db.classify("look up rows of the index", err))
					return
				}
			}
			if more && string(it.Key()) == string(k) {
				continue
			}
			if !yield(i, nil) {
				return
			}
		}
	}
}

// Prefixed calls use with every row whose key starts with one of n prefixes, in the order
// of the prefixes, all as of the same moment; prefix appends the i-th to its argument. It is
// fastest if they ascend. Key and value are only valid until use returns.
func (db *DB) Prefixed(n int, prefix func(dst []byte, i int) []byte, use func(i int, key, value []byte) error) error {
	f := db.acquire()
	defer f.release()
	it, err := f.pebble.NewIter(nil)
	if err != nil {
		return db.classify("look up rows of the index", err)
	}
	defer func() { _ = it.Close() }() // repeats the error told below
	var p []byte
	for i := range n {
		p = prefix(p[:0], i)
		for ok := it.SeekGE(p); ok && bytes.HasPrefix(it.Key(), p); ok = it.Next() {
			value, err := it.ValueAndErr()
			if err != nil {
				return db.classify("look up rows of the index", err)
			}
			if err := use(i, it.Key(), value); err != nil {
				return err
			}
		}
		if err := it.Error(); err != nil {
			return db.classify("look up rows of the index", err)
		}
	}
	return nil
}

// Digest returns a hash over the whole state, bookkeeping included: two copies at
// the same slot of the same log have the same digest. It reads every row.
func (db *DB) Digest() ([32]byte, error) {
	h := sha256.New()
	var lengths [16]byte
	for row, err := range db.Scan(nil, nil) {
		if err != nil {
			return [32]byte{}, err
		}
		binary.BigEndian.PutUint64(lengths[:8], uint64(len(row.Key)))
		binary.BigEndian.PutUint64(lengths[8:], uint64(len(row.Value)))
		h.Write(lengths[:])
		h.Write(row.Key)
		h.Write(row.Value)
	}
	return [32]byte(h.Sum(nil)), nil
}

// fail remembers the first reason why nothing more can be applied, and leaves a
// note for the next Open if the files are damaged. Pebble repeats a failing
// flush without end, so only the first is logged.
func (db *DB) fail(err error) {
	db.mu.Lock()
	first := db.failed == nil
	if first {
		db.failed = err
	}
	db.mu.Unlock()
	if !first {
		return
	}
	close(db.failedCh)
	db.log.Error("the index can take no more segments", "err", err)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		if err := db.writeRebuildNote(err.Error()); err != nil {
			db.log.Error("the note to rebuild the index could not be written", "err", err)
		}
	}
}

// forget undoes fail, after the files that failed were moved aside.
func (db *DB) forget() {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.failed != nil {
		db.failed, db.failedCh = nil, make(chan struct{})
	}
	db.seq, db.digest = 0, wal.Digest{}
}

// background classifies an error that Pebble met where nobody waits for it.
func (db *DB) background(err error) error {
	if isDiskError(err) && !pebble.IsCorruptionError(err) {
		return &DiskError{Dir: db.dir, Err: err}
	}
	return &CorruptError{Dir: db.dir, Err: err}
}

func (db *DB) writeRebuildNote(why string) error {
	f, err := db.fs.Create(db.fs.PathJoin(db.dir, rebuildTag), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, why+"\n")
	return errors.Join(err, f.Sync(), f.Close())
}
