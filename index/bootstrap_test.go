package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/wal"
)

// mkCompacted writes a history into a bucket as a log and compacts it, in several
// rounds so that the snapshot has many layers. It returns ROOT.
func mkCompacted(t *testing.T, b blob.Bucket, h *history) wal.Root {
	t.Helper()
	if _, err := wal.Found(t.Context(), b, wal.Format{Store: testStore, Profile: "fast2016-16k"}); err != nil {
		t.Fatal(err)
	}
	prev := wal.Digest{}
	c := compact.New(b, compact.Options{FlushSegments: 7, Ratio: 3, TableBytes: 2000, SmallBytes: 500, KeepSegments: -1, LogRetention: -1})
	for i, s := range h.segments {
		s.Prev = prev
		body, err := wal.AppendSegment(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Create(t.Context(), s.Seq.Key(), body); err != nil {
			t.Fatal(err)
		}
		prev = wal.DigestOf(body)
		h.digests[i+1] = prev
		if i%20 == 19 {
			if _, err := c.Round(t.Context(), compact.Mode{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := c.Round(t.Context(), compact.Mode{}); err != nil {
		t.Fatal(err)
	}
	root, err := wal.ReadRoot(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// While a snapshot is loaded, readers see the state before it or the one after it,
// and iterators that are open stay good.
func TestBootstrapUnderReaders(t *testing.T) {
	h := mkHistory(100, 11)
	b := memblob.New()
	root := mkCompacted(t, b, h)
	want := h.states(t)
	dir := t.TempDir()
	db := mustOpen(t, dir, Options{Bucket: b})
	h.applyTo(t, db, 30)

	var wg sync.WaitGroup
	var stop atomic.Bool
	reading := make(chan struct{})
	var once sync.Once
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				d, err := db.Digest()
				if err != nil || d != want[30] && d != want[100] {
					t.Errorf("a reader saw a state that never was: %v", err)
					return
				}
				once.Do(func() { close(reading) })
			}
		})
	}
	<-reading
	for row, err := range db.Scan(nil, nil) { // an iterator that outlives the files
		if err != nil || len(row.Key) == 0 {
			t.Fatal(err)
		}
		if err := db.Reset(t.Context(), root); err != nil {
			t.Fatal(err)
		}
		if seq, d, _ := db.Position(); seq != 100 || d != root.Snapshot.Digest {
			t.Errorf("after Reset it is at %v", seq)
		}
		break
	}
	stop.Store(true)
	wg.Wait()
	if mustDigest(t, db) != want[100] {
		t.Error("the loaded state is not the replayed one")
	}
	mustClose(t, db)

	db = mustOpen(t, dir, Options{Bucket: b})
	if seq, _, _ := db.Position(); seq != 100 || mustDigest(t, db) != want[100] {
		t.Errorf("after a restart it is at %v with another state", seq)
	}
	// And once more, from the directory of the first.
	if err := db.Reset(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	names, err := vfs.Default.List(dir)
	slices.Sort(names)
	if err != nil || fmt.Sprint(names) != "[LIVE LOCK db.2]" {
		t.Errorf("the directory has %v, %v", names, err)
	}
}

// slowTables is a disk on which a merge takes long.
type slowTables struct{}

func (slowTables) String() string { return "slow tables" }

func (slowTables) MaybeError(op errorfs.Op) error {
	if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") {
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}

// A snapshot of many runs that lie over each other is loaded without waiting until Pebble
// has merged them.
func TestBootstrapDoesNotWait(t *testing.T) {
	h := mkHistory(60, 14)
	b := memblob.New()
	prev := wal.Digest{}
	if _, err := wal.Found(t.Context(), b, wal.Format{Store: testStore, Profile: "fast2016-16k"}); err != nil {
		t.Fatal(err)
	}
	c := compact.New(b, compact.Options{FlushSegments: 1, Ratio: 1000, SmallBytes: 1, KeepSegments: -1, LogRetention: -1})
	for i, s := range h.segments[:50] {
		s.Prev = prev
		body, err := wal.AppendSegment(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Create(t.Context(), s.Seq.Key(), body); err != nil {
			t.Fatal(err)
		}
		prev = wal.DigestOf(body)
		h.digests[i+1] = prev
		if _, err := c.Round(t.Context(), compact.Mode{}); err != nil {
			t.Fatal(err)
		}
	}
	root, err := wal.ReadRoot(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := wal.ReadSnapshot(t.Context(), b, testStore, root.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if len(snapshot.Runs) < 40 {
		t.Fatalf("the snapshot has %d runs, too few to show anything", len(snapshot.Runs))
	}
	var said bytes.Buffer
	slow := errorfs.Wrap(vfs.Default, slowTables{})
	db := mustOpen(t, t.TempDir(), Options{FS: slow, Bucket: b, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err := db.Reset(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	h.applyTo(t, db, 60)
	if mustDigest(t, db) != h.states(t)[60] {
		t.Error("another state")
	}
	mustClose(t, db)
	if strings.Contains(said.String(), "waits") {
		t.Error(said.String())
	}
}

// TestBootstrapCrash loses power at random moments of loading a snapshot.
func TestBootstrapCrash(t *testing.T) {
	h := mkHistory(60, 12)
	b := memblob.New()
	root := mkCompacted(t, b, h)
	want := h.states(t)
	r := rand.New(rand.NewPCG(3, 3))
	before, after := 0, 0
	for range 30 {
		fs := vfs.NewCrashableMem()
		mkSynced(t, fs, "idx")
		db := mustOpen(t, "idx", Options{FS: fs})
		h.applyTo(t, db, 20)
		mustClose(t, db)
		db = mustOpen(t, "idx", Options{FS: fs, Bucket: b, FetchParallel: 2})
		var crashed *vfs.MemFS
		at := r.IntN(6) // 0: after all of them
		fetches := 0
		db.o.Bucket = &spy{Bucket: b, fetch: func() error {
			if fetches++; fetches == at {
				crashed = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
			}
			return nil
		}}
		if err := db.Reset(t.Context(), root); err != nil {
			t.Fatal(err)
		}
		atEnd := crashed == nil
		if atEnd {
			crashed = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
		}
		mustClose(t, db)
		db = mustOpen(t, "idx", Options{FS: crashed, Bucket: b})
		seq, _, _ := db.Position()
		if seq != 20 && seq != 60 && seq != 0 || atEnd && seq != 60 || mustDigest(t, db) != want[seq] {
			t.Fatalf("after a crash it is at %v with another state; everything was loaded: %v", seq, atEnd)
		}
		if atEnd {
			after++
		} else if seq == 20 {
			before++
		}
		if err := db.Reset(t.Context(), root); err != nil {
			t.Fatal(err)
		}
		if mustDigest(t, db) != want[60] {
			t.Error("another state once the snapshot was loaded after all")
		}
		mustClose(t, db)
	}
	if before == 0 || after == 0 {
		t.Errorf("crashed %d times before and %d times after: the test tests one side only", before, after)
	}
}

// mkSynced makes a directory that is there after a crash, as an operator's is.
func mkSynced(t *testing.T, fs vfs.FS, dir string) {
	t.Helper()
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := fs.OpenDir("")
	if err := errors.Join(err, root.Sync(), root.Close()); err != nil {
		t.Fatal(err)
	}
}

// spy is told of each table that is fetched.
type spy struct {
	blob.Bucket
	mu    sync.Mutex
	fetch func() error
}

func (s *spy) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	s.mu.Lock()
	err := s.fetch()
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.Bucket.GetRange(ctx, key, off, n)
}

// What fails leaves the index as it was, and is not fetched twice.
func TestBootstrapFails(t *testing.T) {
	h := mkHistory(60, 13)
	b := memblob.New()
	root := mkCompacted(t, b, h)
	want := h.states(t)
	fs := vfs.NewMem()
	fetches, failAt := 0, 2
	s := &spy{Bucket: b}
	broken := errors.New("broken")
	s.fetch = func() error {
		if fetches++; fetches == failAt {
			return broken
		}
		return nil
	}
	db := mustOpen(t, "idx", Options{FS: fs, Bucket: s, FetchParallel: 1})
	defer func() { mustClose(t, db) }()
	h.applyTo(t, db, 10)
	if err := db.Reset(t.Context(), root); !errors.Is(err, broken) {
		t.Fatalf("Reset: %v, want the bucket's error", err)
	}
	if seq, _, _ := db.Position(); seq != 10 || mustDigest(t, db) != want[10] {
		t.Errorf("after a failed Reset it is at %v with another state", seq)
	}
	first := fetches
	failAt = -1
	h.applyTo(t, db, 11) // it can still be applied to
	if err := db.Reset(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	snapshot, err := wal.ReadSnapshot(t.Context(), b, testStore, root.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	for i := range snapshot.Runs {
		tables += len(snapshot.Runs[i].Tables)
	}
	if fetches != tables+1 || first != 2 {
		t.Errorf("%d tables took %d fetches with one failure", tables, fetches)
	}
	if mustDigest(t, db) != want[60] {
		t.Error("another state")
	}

	// A table that is not what it was is named.
	key := snapshot.Runs[0].Tables[0].Key
	if err := b.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := db.Reset(t.Context(), root); !errors.Is(err, blob.ErrNotExist) || !strings.Contains(err.Error(), string(key)) {
		t.Errorf("Reset without a table: %v", err)
	}
	if _, err := b.Put(t.Context(), key, make([]byte, snapshot.Runs[0].Tables[0].Size)); err != nil {
		t.Fatal(err)
	}
	var corrupt *wal.CorruptError
	if err := db.Reset(t.Context(), root); !errors.As(err, &corrupt) || corrupt.Key != key {
		t.Errorf("Reset with a damaged table: %v, want a CorruptError of %s", err, key)
	}
	if mustDigest(t, db) != want[60] {
		t.Error("another state after resets that failed")
	}
}
