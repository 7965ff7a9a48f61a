package index

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/wal"
)

const (
	// fetchDir holds tables on their way from the bucket into Pebble. What is
	// complete there when a bootstrap is broken off is not fetched again.
	fetchDir = "fetch"
	// copyBytes is how much of a table is in memory while it is written to disk.
	copyBytes = 256 << 10
)

// bootstrap loads the snapshot that root names into new files, beside those that are
// read meanwhile, and then puts them in their place.
//
//	fetch tables, verify, sync ─► ingest, oldest run first ─► position ─► flush ─► LIVE ─► swap
//
// It can be broken off at any point: until LIVE names the new files, the old ones
// are the index.
func (db *DB) bootstrap(ctx context.Context, root wal.Root) error {
	ref := root.Snapshot
	snapshot, err := wal.ReadSnapshot(ctx, db.o.Bucket, db.store, ref)
	if err != nil {
		return err
	}
	start := db.now()
	if err := db.fetchTables(ctx, snapshot); err != nil {
		return err
	}
	old := db.current.Load()
	name := generationName(generation(old.name) + 1)
	if err := db.fs.RemoveAll(db.fs.PathJoin(db.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return db.classify("make room for a snapshot", err)
	}
	fresh, err := db.openFresh(name)
	if err != nil {
		return db.classify("load a snapshot", err)
	}
	if err := db.fill(ctx, fresh, snapshot); err != nil {
		return errors.Join(err, fresh.Close())
	}
	if err := db.setLive(name); err != nil {
		return errors.Join(db.classify("load a snapshot", err), fresh.Close())
	}
	db.mu.Lock()
	db.seq, db.digest = snapshot.Seq, snapshot.Digest
	db.mu.Unlock()
	db.unflushed = 0
	db.current.Store(newFiles(db, fresh, name))
	old.release()
	if err := db.fs.RemoveAll(db.fs.PathJoin(db.dir, fetchDir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		db.log.Warn("fetched tables could not be removed", "err", err)
	}
	db.metrics.bootstrap.Update(db.now().Sub(start).Seconds())
	return nil
}

func (db *DB) openFresh(name string) (*pebble.DB, error) {
	cache := pebble.NewCache(db.o.CacheBytes)
	defer cache.Unref()
	return openPebble(db.fs.PathJoin(db.dir, name), db.o, cache, db)
}

// fetchTables brings every table of the snapshot to the local disk.
func (db *DB) fetchTables(ctx context.Context, s *wal.Snapshot) error {
	dir := db.fs.PathJoin(db.dir, fetchDir)
	if err := db.fs.MkdirAll(dir, 0o755); err != nil {
		return db.classify("fetch a snapshot", err)
	}
	var tables []*wal.Table
	wanted := map[string]bool{}
	for i := range s.Runs {
		for j := range s.Runs[i].Tables {
			tables = append(tables, &s.Runs[i].Tables[j])
			wanted[localName(&s.Runs[i].Tables[j])] = true
		}
	}
	if err := db.removeUnwanted(dir, wanted); err != nil {
		return db.classify("fetch a snapshot", err)
	}
	// The first failure stops the others, so that a full disk is reported at once.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errs := make([]error, len(tables))
	work := make(chan int, len(tables))
	for i := range tables {
		work <- i
	}
	close(work)
	var wg sync.WaitGroup
	for range min(db.o.FetchParallel, len(tables)) {
		wg.Go(func() {
			for i := range work {
				if errs[i] = db.fetchTable(ctx, dir, tables[i]); errs[i] != nil {
					cancel(errs[i])
					return
				}
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// localName is the name of a table's file. Tables never change, so that a file of
// that name and of the right sum is the table.
func localName(t *wal.Table) string {
	return strings.ReplaceAll(strings.TrimPrefix(string(t.Key), "tab/"), "/", "-")
}

func (db *DB) removeUnwanted(dir string, wanted map[string]bool) error {
	names, err := db.fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !wanted[name] {
			if err := db.fs.RemoveAll(db.fs.PathJoin(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (db *DB) fetchTable(ctx context.Context, dir string, t *wal.Table) error {
	path := db.fs.PathJoin(dir, localName(t))
	if db.fetched(path, t) {
		return nil
	}
	body, err := db.o.Bucket.GetRange(ctx, t.Key, 0, t.Size)
	if err != nil {
		return fmt.Errorf("fetch table: %w", err)
	}
	defer func() { _ = body.Close() }() // only read from
	f, err := db.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return db.classify("fetch table "+string(t.Key), err)
	}
	h := sha256.New()
	n, err := copyTable(f, h, body)
	if err != nil {
		err = errors.Join(err, f.Close())
		if isDiskError(err) {
			return db.classify("fetch table "+string(t.Key), err)
		}
		return fmt.Errorf("fetch table %s: %w", t.Key, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return db.classify("fetch table "+string(t.Key), err)
	}
	if sum := wal.Digest(h.Sum(nil)); sum != t.SHA256 {
		_ = db.fs.Remove(path)
		return &wal.CorruptError{Key: t.Key, What: "SHA-256", Want: fmt.Sprintf("%d bytes, %v", t.Size, t.SHA256), Got: fmt.Sprintf("%d bytes, %v", n, sum)}
	}
	db.metrics.fetched.AddInt64(n)
	return nil
}

// fetched reports whether the table is there already, whole and unharmed.
func (db *DB) fetched(path string, t *wal.Table) bool {
	f, err := db.fs.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	n, err := copyTable(io.Discard, h, f)
	return err == nil && n == t.Size && wal.Digest(h.Sum(nil)) == t.SHA256
}

func copyTable(w io.Writer, h hash.Hash, r io.Reader) (int64, error) {
	// The hash comes first: a vfs.File may change the bytes it is given to write. Only
	// io.Writer is shown, lest a reader's own WriteTo takes another way.
	return io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(h, w)}, r, make([]byte, copyBytes))
}

// fill makes p the state of the snapshot and makes that durable.
func (db *DB) fill(ctx context.Context, p *pebble.DB, s *wal.Snapshot) error {
	dir := db.fs.PathJoin(db.dir, fetchDir)
	for _, layer := range layers(s) {
		var paths []string
		for _, t := range layer {
			paths = append(paths, db.fs.PathJoin(dir, localName(t)))
		}
		if err := p.Ingest(ctx, paths); err != nil {
			return db.classify("ingest tables", err)
		}
	}
	b := p.NewBatch()
	defer func() { _ = b.Close() }()
	err := errors.Join(
		b.Set([]byte(storeKey), append(wal.AppendUint64(nil, indexFormat), db.store[:]...), nil),
		b.Set([]byte(wal.SeqKey), wal.AppendUint64(nil, uint64(s.Seq)), nil),
		b.Set([]byte(wal.DigestKey), s.Digest[:], nil),
	)
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	if err != nil {
		return db.classify("load a snapshot", err)
	}
	return db.flushFiles(p)
}

// layers sorts the tables into what can be ingested in one step: the oldest run of
// every shard, then the next oldest of each. Shards do not overlap, and a table
// that is ingested later is above those that were there.
func layers(s *wal.Snapshot) [][]*wal.Table {
	var out [][]*wal.Table
	depth := 0
	for i := range slices.Backward(s.Runs) { // sorted by shard, newest first
		if i+1 < len(s.Runs) && s.Runs[i+1].Shard == s.Runs[i].Shard {
			depth++
		} else {
			depth = 0
		}
		if depth == len(out) {
			out = append(out, nil)
		}
		for j := range s.Runs[i].Tables {
			out[depth] = append(out[depth], &s.Runs[i].Tables[j])
		}
	}
	return out
}
