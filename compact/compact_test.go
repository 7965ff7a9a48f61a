package compact_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/index"
	"github.com/celler/celler/wal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// history writes segments straight into a bucket, and into an index that never saw a
// snapshot, which is what every other index must equal.
type history struct {
	t      testing.TB
	bucket blob.Bucket
	store  wal.StoreID
	replay *index.DB
	seq    wal.Seq
	prev   wal.Digest
	rng    *rand.Rand
	ranges bool // with range deletions
	narrow bool // in one shard
}

func mkHistory(t testing.TB, bucket blob.Bucket, seed uint64) *history {
	t.Helper()
	f, err := wal.Found(t.Context(), bucket, wal.Format{Profile: "fast2016-16k"})
	if err != nil {
		t.Fatal(err)
	}
	h := &history{t: t, bucket: bucket, store: f.Store, replay: mustIndex(t, nil, f.Store), rng: rand.New(rand.NewPCG(seed, 1))}
	return h
}

func mustIndex(t testing.TB, bucket blob.Bucket, store wal.StoreID) *index.DB {
	t.Helper()
	db, err := index.Open("idx", store, index.Options{FS: vfs.NewMem(), Bucket: bucket, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// write appends one segment.
func (h *history) write(entries ...wal.Entry) {
	h.t.Helper()
	h.seq++
	seg := &wal.Segment{
		Store: h.store, Seq: h.seq, Prev: h.prev, Writer: wal.WriterID{byte(1 + h.seq%3)}, Batch: uint64(h.seq),
		Time: time.UnixMilli(int64(h.seq) * 1000), Entries: entries,
	}
	body, err := wal.AppendSegment(nil, seg)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.bucket.Create(h.t.Context(), h.seq.Key(), body); err != nil {
		h.t.Fatal(err)
	}
	h.prev = wal.DigestOf(body)
	if err := h.replay.Apply(seg, h.prev); err != nil {
		h.t.Fatal(err)
	}
}

// grow appends n segments of random entries.
func (h *history) grow(n int) {
	h.t.Helper()
	for range n {
		var entries []wal.Entry
		for range 1 + h.rng.IntN(5) {
			entries = append(entries, h.entry())
		}
		h.write(entries...)
	}
}

func (h *history) entry() wal.Entry {
	key := []byte{"acp"[h.rng.IntN(3)], byte(h.rng.IntN(2) << 5), byte(h.rng.IntN(40))}
	if h.narrow {
		key[0], key[1] = 'c', 0
	}
	switch k := h.rng.IntN(20); {
	case k < 6:
		return wal.Entry{Kind: wal.Delete, Key: key}
	case k == 6 && h.ranges:
		end := append(bytes.Clone(key), 0)
		end[h.rng.IntN(3)] += byte(1 + h.rng.IntN(40))
		return wal.Entry{Kind: wal.DeleteRange, Key: key, Value: end}
	case k == 7:
		return wal.Entry{Kind: wal.PushBoundary, Key: []byte("push")}
	case k == 8:
		return wal.Entry{Kind: wal.Delete, Key: wal.SessionKey(wal.WriterID{byte(h.rng.IntN(4))})}
	}
	value := make([]byte, h.rng.IntN(300)) // that does not compress, so that runs differ in size
	for i := range value {
		value[i] = byte(h.rng.Uint32())
	}
	return wal.Entry{Kind: wal.Set, Key: key, Value: value}
}

// check wants an index made of nothing but the bucket to equal the replay.
func (h *history) check(what string) {
	h.t.Helper()
	if d := h.differs(); d != "" {
		h.t.Fatalf("%s: %s", what, d)
	}
}

// differs says how an index made of nothing but the bucket differs from the replay.
func (h *history) differs() string {
	h.t.Helper()
	db, err := index.Open("idx", h.store, index.Options{FS: vfs.NewMem(), Bucket: h.bucket, CacheBytes: 1 << 20})
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	l, err := wal.Open(h.t.Context(), h.bucket, db, wal.Options{})
	if err != nil {
		return fmt.Sprintf("open a fresh index: %v", err)
	}
	defer func() { _ = l.Close() }()
	got, gerr := db.Digest()
	want, werr := h.replay.Digest()
	if gerr != nil || werr != nil {
		h.t.Fatal(gerr, werr)
	}
	if got == want {
		return ""
	}
	return fmt.Sprintf("the index at slot %v differs from the replay at %v:\n%s--- want\n%s", l.Seq(), h.seq, dump(db), dump(h.replay))
}

func dump(db *index.DB) string {
	var b bytes.Buffer
	for kv, err := range db.Scan(nil, nil) {
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&b, "%q %.20q\n", kv.Key, kv.Value)
	}
	return b.String()
}

// aggressive options make every part of a round happen with few entries.
func aggressive() compact.Options {
	return compact.Options{
		FlushSegments: 5, TableBytes: 2000, Ratio: 2, SmallBytes: 600,
		KeepSegments: -1, LogRetention: -1, KeepAll: -1, KeepHourly: -1, KeepDaily: -1,
	}
}

func mustRound(t testing.TB, c *compact.Compactor, mode compact.Mode) compact.Report {
	t.Helper()
	rep, err := c.Round(t.Context(), mode)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func objects(t testing.TB, b blob.Bucket, prefix blob.Key) (keys []blob.Key) {
	t.Helper()
	for info, err := range b.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func TestSnapshotEqualsReplay(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			b := memblob.New()
			h := mkHistory(t, b, seed)
			h.ranges = seed%2 == 1
			c := compact.New(b, aggressive())
			var total compact.Report
			h.grow(60)
			for i := range 10 {
				h.grow(1 + h.rng.IntN(12))
				rep := mustRound(t, c, compact.Mode{})
				total.Merges += rep.Merges
				total.TablesDeleted += rep.TablesDeleted
				if rep.Snapshot != h.seq || rep.Floor != h.seq && h.seq > 1 {
					t.Fatalf("round %d: snapshot %v, floor %v, want both %v", i, rep.Snapshot, rep.Floor, h.seq)
				}
				h.check(fmt.Sprint("round ", i))
			}
			if total.Merges == 0 || total.TablesDeleted == 0 {
				t.Errorf("%d merges, %d tables deleted: the test tests nothing", total.Merges, total.TablesDeleted)
			}
			if left := objects(t, b, "log/"); len(left) != 1 {
				t.Errorf("slots left: %v, want the one at the floor", left)
			}
			if left := objects(t, b, "snap/"); len(left) != 1 {
				t.Errorf("snapshots left: %v", left)
			}
		})
	}
}

func TestIdleRoundWritesNothing(t *testing.T) {
	b := memblob.New()
	h := mkHistory(t, b, 1)
	c := compact.New(b, aggressive())
	mustRound(t, c, compact.Mode{}) // nothing was ever written
	h.grow(20)
	for range 3 {
		mustRound(t, c, compact.Mode{})
	}
	count := blobtest.Count(b)
	rep, err := compact.New(count, aggressive()).Round(t.Context(), compact.Mode{})
	if err != nil || !rep.Idle() {
		t.Errorf("an idle round: %+v, %v", rep, err)
	}
	calls := count.Calls()
	if n := calls["put"] + calls["create"] + calls["swap"] + calls["delete"]; n != 0 {
		t.Errorf("an idle round wrote: %v", calls)
	}
	t.Log(calls)
}

func TestDryRunChangesNothing(t *testing.T) {
	b := memblob.New()
	h := mkHistory(t, b, 1)
	h.grow(4)
	before := objects(t, b, "")
	rep := mustRound(t, compact.New(b, aggressive()), compact.Mode{DryRun: true})
	if rep.Segments != 4 || rep.Flushes != 1 || !rep.DryRun {
		t.Errorf("dry run of 4 segments: %+v", rep)
	}
	if after := objects(t, b, ""); len(after) != len(before) {
		t.Errorf("a dry run left %v", after)
	}
}

func TestRetentionKeepsTheLog(t *testing.T) {
	b := memblob.New()
	h := mkHistory(t, b, 1)
	h.grow(30)
	o := aggressive()
	o.KeepSegments = 10
	rep := mustRound(t, compact.New(b, o), compact.Mode{})
	if rep.Floor != 21 {
		t.Errorf("floor %v after 30 slots, 10 to be kept; want 21", rep.Floor)
	}
	h.check("kept segments")
	o.KeepSegments, o.LogRetention = -1, time.Hour
	rep = mustRound(t, compact.New(b, o), compact.Mode{})
	if rep.Floor != 21 {
		t.Errorf("floor %v with a log retention of an hour, want 21 as before", rep.Floor)
	}
}

// Two compactors with one bucket: the younger claim wins, the older is fenced, and
// what the older one left is swept.
func TestSteal(t *testing.T) {
	b := memblob.New()
	h := mkHistory(t, b, 7)
	h.grow(10)
	var slow blob.Bucket
	stolen := errors.New("not stolen")
	slow = &hook{Bucket: b, before: func(op string, key blob.Key) {
		if op != "put" || stolen == nil || key[:5] != "snap/" {
			return
		}
		stolen = nil
		busy := mustRound(t, compact.New(b, aggressive()), compact.Mode{})
		if busy.Busy == nil || busy.Flushes != 0 {
			t.Errorf("a young claim was not left alone: %+v", busy)
		}
		mustRound(t, compact.New(b, aggressive()), compact.Mode{Steal: true})
	}}
	_, err := compact.New(slow, aggressive()).Round(t.Context(), compact.Mode{})
	var fenced *compact.FencedError
	if !errors.As(err, &fenced) || !errors.Is(err, wal.ErrFenced) || stolen != nil {
		t.Fatalf("the older compactor: %v, want it fenced", err)
	}
	h.check("after the steal")
	h.grow(3)
	mustRound(t, compact.New(b, aggressive()), compact.Mode{})
	h.check("after the next round")
	root, err := wal.ReadRoot(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range objects(t, b, "tab/") {
		if e, err := wal.ParseTableKey(key); err != nil || e < 2 {
			t.Errorf("%s is left of the fenced compactor (epoch now %v)", key, root.CompactEpoch)
		}
	}
}

// hook calls before ahead of each write.
type hook struct {
	blob.Bucket
	before func(op string, key blob.Key)
}

func (k *hook) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	k.before("put", key)
	return k.Bucket.Put(ctx, key, body)
}
