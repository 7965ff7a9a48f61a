package compact

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/wal"
)

// TestTombstonesSurviveIngest keeps the trap in view that tableOptions avoids: a
// table written with the options of the lowest level loses its tombstones when it is
// ingested. If the second half fails, Pebble has changed and the rule may be looked
// at again.
func TestTombstonesSurviveIngest(t *testing.T) {
	const keys, every = 10000, 20
	inEffect := func(lowest bool) int {
		fs := vfs.NewMem()
		db, err := pebble.Open("db", &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatValueSeparation, DisableWAL: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}()
		ingest := func(name string, step int, deletes bool) {
			obj := &objstorage.MemObj{}
			o := tableOptions(Mutants{})
			o.WritingToLowestLevel = lowest
			w := sstable.NewWriter(obj, o)
			for i := 0; i < keys; i += step {
				key := fmt.Appendf(nil, "c%08d", i)
				if deletes && i%(2*step) == 0 {
					err = w.Delete(key)
				} else {
					err = w.Set(key, []byte(name))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.Write(obj.Data())
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				t.Fatal(err)
			}
			if err := db.Ingest(t.Context(), []string{name}); err != nil {
				t.Fatal(err)
			}
		}
		ingest("base", 1, false)
		ingest("delta0", every, false)
		ingest("delta1", every, true)
		it, err := db.NewIter(nil)
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		for ok := it.First(); ok; ok = it.Next() {
			left++
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
		return keys - left
	}
	const want = keys / every / 2
	if got := inEffect(false); got != want {
		t.Errorf("with the options of level 0 %d deletes are in effect, want %d", got, want)
	}
	if got := inEffect(true); got == want {
		t.Error("the trap is gone: tables of the lowest level keep their tombstones")
	}
}

// mkTables writes the given entries, "key" or "key=value", as one run.
func mkTables(t *testing.T, limit int64, ranges []span, entries ...string) []built {
	t.Helper()
	var out []built
	w := newRunWriter(wal.ShardOf([]byte("ka")), ranges, limit, Mutants{}, func(b built) error {
		b.meta.Key = wal.TableKey(1, uint64(len(out)))
		out = append(out, b)
		return nil
	})
	for _, e := range entries {
		kind, value := wal.Set, []byte("v")
		if e[0] == '-' {
			kind, value, e = wal.Delete, nil, e[1:]
		}
		if err := w.add(kind, []byte(e), value); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTableRoundTrip(t *testing.T) {
	ranges := []span{{[]byte("k`"), []byte("kb")}, {[]byte("kc"), []byte("kn")}}
	tables := mkTables(t, 1, ranges, "ka", "-kd", "ke", "-kf")
	if len(tables) != 4 {
		t.Fatalf("%d tables with a limit of a byte, want 4", len(tables))
	}
	run := wal.Run{Shard: wal.ShardOf([]byte("ka")), First: 1, Last: 1}
	var spans []span
	for _, b := range tables {
		run.Tables = append(run.Tables, b.meta)
		r, err := openTable(b.meta, b.body)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := r.r.TableFormat(); err != nil || f != sstable.TableFormatPebblev4 {
			t.Errorf("table format %v, %v; want Pebble's v4", f, err)
		}
		got, err := r.ranges()
		if err != nil {
			t.Fatal(err)
		}
		spans = append(spans, got...)
		r.close()
	}
	if got := union(spans); fmt.Sprintf("%s", got) != fmt.Sprintf("%s", ranges) {
		t.Errorf("range deletions %s, want %s", got, ranges)
	}
	// The snapshot's own check knows what runs must look like.
	s := wal.Snapshot{Store: wal.StoreID{1}, Seq: 1, Digest: wal.Digest{1}, Epoch: 1, Runs: []wal.Run{run}}
	if _, err := wal.AppendSnapshot(nil, &s); err != nil {
		t.Error(err)
	}
}

// What a table has lost is noticed by its content sum.
func TestVerifyTable(t *testing.T) {
	good := mkTables(t, 1<<20, nil, "ka", "-kb", "kc", "-kd")[0]
	if err := verifyTable(good.meta, good.body, nil); err != nil {
		t.Fatal(err)
	}
	var sum *SumError
	other := mkTables(t, 1<<20, nil, "ka", "-kb", "kc")[0]
	if err := verifyTable(good.meta, other.body, nil); !errors.As(err, &sum) {
		t.Errorf("a table without one of its tombstones: %v, want a SumError", err)
	}
	if err := verifyTable(good.meta, good.body, []span{{[]byte("ka"), []byte("kb")}}); !errors.As(err, &sum) {
		t.Errorf("a table without its range deletion: %v, want a SumError", err)
	}
	obj := &objstorage.MemObj{}
	o := tableOptions(Mutants{})
	o.WritingToLowestLevel = true
	w := sstable.NewWriter(obj, o)
	for _, err := range []error{w.Set([]byte("ka"), []byte("v")), w.Delete([]byte("kb")), w.Set([]byte("kc"), []byte("v")), w.Delete([]byte("kd")), w.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := verifyTable(good.meta, obj.Data(), nil); !errors.As(err, &sum) {
		t.Errorf("a table of the lowest level: %v, want a SumError", err)
	}
}

func TestNextMerge(t *testing.T) {
	o := Options{}.withDefaults()
	mk := func(sizes ...int64) *wal.Snapshot {
		s := &wal.Snapshot{}
		for _, size := range sizes {
			s.Runs = append(s.Runs, wal.Run{Shard: 1, Tables: []wal.Table{{Size: size}}})
		}
		return s
	}
	small := func(n int, rest ...int64) []int64 {
		for range n {
			rest = append([]int64{1000}, rest...)
		}
		return rest
	}
	for _, c := range []struct {
		sizes []int64
		want  job
	}{
		{nil, job{}},
		{small(7), job{}},
		{small(8), job{count: 8, oldest: true}},
		{small(8, 1<<30), job{count: 8}},
		{small(3, 100<<10, 100<<10, 100<<10, 100<<10, 100<<10, 100<<10, 100<<10), job{}},
		{small(3, 100<<10, 100<<10, 100<<10, 100<<10, 100<<10, 100<<10, 100<<10, 100<<10, 1<<30), job{count: 11}},
		{[]int64{1 << 30, 1000, 1000}, job{}},
	} {
		if got := o.nextMerge(mk(c.sizes...)); got != c.want {
			t.Errorf("runs of %v bytes: %+v, want %+v", c.sizes, got, c.want)
		}
	}
	// A log of any length leaves few runs, and writes each byte a few times.
	s, written, flushed := &wal.Snapshot{}, int64(0), int64(0)
	for range 20000 {
		s.Runs = append(mk(50<<10).Runs, s.Runs...)
		flushed += 50 << 10
		for j := o.nextMerge(s); j.count > 0; j = o.nextMerge(s) {
			total := int64(0)
			for _, r := range s.Runs[:j.count] {
				total += r.Bytes()
			}
			written += total
			s.Runs = append(mk(total).Runs, s.Runs[j.count:]...)
		}
	}
	if len(s.Runs) > 40 || written > 6*flushed {
		t.Errorf("after 20,000 flushes: %d runs, each byte merged %.1f times", len(s.Runs), float64(written)/float64(flushed))
	}
	t.Logf("%d runs, each byte merged %.1f times", len(s.Runs), float64(written)/float64(flushed))
}
