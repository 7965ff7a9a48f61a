package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/celler/celler/wal"
)

// sessionPrefix begins the keys of the rows that remember writers.
const sessionPrefix = "!session/"

// Position returns the last applied slot and the digest of its object.
func (db *DB) Position() (wal.Seq, wal.Digest, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.seq, db.digest, nil
}

func (db *DB) readPosition() (seq wal.Seq, digest wal.Digest, err error) {
	value, ok, err := db.Get([]byte(wal.SeqKey))
	if err != nil || !ok {
		return 0, wal.Digest{}, err
	}
	n, err := wal.DecodeUint64(value)
	if err != nil {
		return 0, wal.Digest{}, fmt.Errorf("row %s: %w", wal.SeqKey, err)
	}
	value, ok, err = db.Get([]byte(wal.DigestKey))
	if err != nil {
		return 0, wal.Digest{}, err
	}
	if !ok || len(value) != len(digest) {
		return 0, wal.Digest{}, fmt.Errorf("row %s has %d bytes, want %d", wal.DigestKey, len(value), len(digest))
	}
	return wal.Seq(n), wal.Digest(value), nil
}

// Session returns the number of the last batch of w that was applied.
func (db *DB) Session(w wal.WriterID) (batch uint64, ok bool, err error) {
	ok, err = db.Lookup(wal.SessionKey(w), func(value []byte) error {
		if len(value) != wal.SessionBytes {
			return fmt.Errorf("session of writer %v has %d bytes, want %d", w, len(value), wal.SessionBytes)
		}
		batch, _ = wal.DecodeUint64(value[:8])
		return nil
	})
	return batch, ok, err
}

// Apply performs the entries of seg and moves the position to it, in one batch.
func (db *DB) Apply(seg *wal.Segment, digest wal.Digest) error {
	start := db.now()
	if err := db.Err(); err != nil {
		return fmt.Errorf("apply segment %v: %w", seg.Seq, err)
	}
	seq, _, _ := db.Position()
	if seg.Store != db.store {
		return fmt.Errorf("apply segment %v: it is of bucket %v, want %v", seg.Seq, seg.Store, db.store)
	}
	if seg.Seq != seq+1 { // that it also follows the right object is for the log to check (I5)
		return fmt.Errorf("apply segment %v: the index is at slot %v, want slot %v", seg.Seq, seq, seq+1)
	}
	b := db.current.Load().pebble.NewBatch()
	defer func() { _ = b.Close() }()
	if err := fill(b, seg, digest); err != nil {
		return fmt.Errorf("apply segment %v: %w", seg.Seq, err)
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return db.classify(fmt.Sprintf("apply segment %v", seg.Seq), err)
	}
	db.mu.Lock()
	db.seq, db.digest = seg.Seq, digest
	db.mu.Unlock()
	db.metrics.entries.Add(len(seg.Entries))
	db.metrics.apply.Update(db.now().Sub(start).Seconds())
	return db.maybeFlush()
}

// fill writes what seg does into b.
func fill(b *pebble.Batch, seg *wal.Segment, digest wal.Digest) error {
	for i, e := range seg.Entries {
		if err := checkEntry(&e); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		var err error
		switch e.Kind {
		case wal.Set:
			err = b.Set(e.Key, e.Value, nil)
		case wal.Delete:
			err = b.Delete(e.Key, nil)
		case wal.DeleteRange:
			err = b.DeleteRange(e.Key, e.Value, nil)
		case wal.PushBoundary: // for people
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return errors.Join(
		b.Set(wal.SessionKey(seg.Writer), wal.AppendSession(nil, seg), nil),
		b.Set([]byte(wal.SeqKey), wal.AppendUint64(nil, uint64(seg.Seq)), nil),
		b.Set([]byte(wal.DigestKey), digest[:], nil),
	)
}

// checkEntry keeps segments from touching the bookkeeping, which would make this
// copy lie about what it is.
func checkEntry(e *wal.Entry) error {
	const first, end = "!", "\""
	key := string(e.Key)
	switch e.Kind {
	case wal.Set, wal.Delete:
		if key == "" {
			return errors.New("it has no key")
		}
		if e.Kind == wal.Delete && strings.HasPrefix(key, sessionPrefix) {
			return nil
		}
		if strings.HasPrefix(key, first) {
			return fmt.Errorf("it would %v the bookkeeping row %q", e.Kind, key)
		}
	case wal.DeleteRange:
		if key >= string(e.Value) {
			return fmt.Errorf("its range ends at %x, before it begins at %x", e.Value, e.Key)
		}
		if key < end && string(e.Value) > first {
			return fmt.Errorf("its range %x to %x covers the bookkeeping", e.Key, e.Value)
		}
	case wal.PushBoundary:
	}
	return nil
}

func (db *DB) maybeFlush() error {
	if !db.tidied {
		// The log goes on from here, so nobody comes back for tables that a
		// bootstrap before the last restart has fetched.
		db.tidied = true
		if err := db.fs.RemoveAll(db.fs.PathJoin(db.dir, fetchDir)); err != nil && !errors.Is(err, os.ErrNotExist) {
			db.log.Warn("fetched tables could not be removed", "err", err)
		}
	}
	if db.unflushed++; db.unflushed < db.flushSegments {
		return nil
	}
	db.unflushed = 0
	if _, err := db.current.Load().pebble.AsyncFlush(); err != nil {
		return db.classify("flush index", err)
	}
	return nil
}

// Reset forgets everything and loads the snapshot that root names; without one, the
// log can apply segments from the first. While a snapshot is loaded, reads are
// answered from what was there before.
func (db *DB) Reset(ctx context.Context, root wal.Root) error {
	if root.Store != db.store {
		return fmt.Errorf("reset index: ROOT is of bucket %v, want %v", root.Store, db.store)
	}
	if root.Snapshot.Seq != 0 {
		if db.o.Bucket == nil {
			return fmt.Errorf("reset index to snapshot %v: it was opened without a bucket to load it from", root.Snapshot.Seq)
		}
		if err := db.bootstrap(ctx, root); err != nil {
			return fmt.Errorf("load snapshot %s into the index: %w", root.Snapshot.Key, err)
		}
		return nil
	}
	seq, _, _ := db.Position()
	if seq != 0 {
		db.log.Warn("the index is emptied and made again from the log", "seq", uint64(seq))
	}
	last, err := db.lastKey()
	if err != nil {
		return db.classify("reset index", err)
	}
	b := db.current.Load().pebble.NewBatch()
	defer func() { _ = b.Close() }()
	err = errors.Join(
		b.DeleteRange([]byte{0}, append(last, 0), nil), // no key is empty
		b.Set([]byte(storeKey), append(wal.AppendUint64(nil, indexFormat), db.store[:]...), nil),
	)
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	if err != nil {
		return db.classify("reset index", err)
	}
	db.mu.Lock()
	db.seq, db.digest = 0, wal.Digest{}
	db.mu.Unlock()
	return nil
}

func (db *DB) lastKey() ([]byte, error) {
	it, err := db.current.Load().pebble.NewIter(nil)
	if err != nil {
		return nil, err
	}
	var key []byte
	if it.Last() {
		key = append(key, it.Key()...)
	}
	return key, errors.Join(it.Error(), it.Close())
}
