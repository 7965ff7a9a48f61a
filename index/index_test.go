package index

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/celler/celler/wal"
)

var testStore = wal.StoreID{1}

func mustOpen(t testing.TB, dir string, o Options) *DB {
	t.Helper()
	db, err := Open(dir, testStore, o)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func mustClose(t testing.TB, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func mustDigest(t testing.TB, db *DB) [32]byte {
	t.Helper()
	d, err := db.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// history is a log of n segments, made from a seed.
type history struct {
	segments []*wal.Segment
	digests  []wal.Digest // of the objects; [0] is of none
}

func mkHistory(n int, seed uint64) *history {
	r := rand.New(rand.NewPCG(seed, 0))
	h := &history{digests: []wal.Digest{{}}}
	for i := range n {
		s := &wal.Segment{
			Store: testStore, Seq: wal.Seq(i + 1), Prev: h.digests[i], Writer: wal.WriterID{byte(r.IntN(3))},
			Batch: uint64(i + 1), Time: time.UnixMilli(int64(1000 * i)),
		}
		for range r.IntN(6) {
			key := fmt.Appendf(nil, "k%02d", r.IntN(40))
			switch r.IntN(10) {
			case 0:
				s.Entries = append(s.Entries, wal.Entry{Kind: wal.Delete, Key: key})
			case 1:
				s.Entries = append(s.Entries, wal.Entry{Kind: wal.DeleteRange, Key: key, Value: append(bytes.Clone(key), 'x')})
			case 2:
				s.Entries = append(s.Entries, wal.Entry{Kind: wal.PushBoundary, Key: []byte("op"), Value: []byte("!seq")})
			default:
				s.Entries = append(s.Entries, wal.Entry{Kind: wal.Set, Key: key, Value: bytes.Repeat([]byte{byte(i)}, r.IntN(300))})
			}
		}
		h.segments = append(h.segments, s)
		h.digests = append(h.digests, wal.DigestOf(fmt.Appendf(nil, "%d %v", seed, i)))
	}
	return h
}

// applyTo applies segments until db is at slot to.
func (h *history) applyTo(t testing.TB, db *DB, to int) {
	t.Helper()
	seq, digest, err := db.Position()
	if err != nil || digest != h.digests[seq] {
		t.Fatalf("position %v, %v, %v; want digest %v", seq, digest, err, h.digests[seq])
	}
	for i := int(seq); i < to; i++ {
		if err := db.Apply(h.segments[i], h.digests[i+1]); err != nil {
			t.Fatal(err)
		}
	}
}

// states returns the digest of the state after each slot.
func (h *history) states(t testing.TB) [][32]byte {
	t.Helper()
	db := mustOpen(t, "ref", Options{FS: vfs.NewMem()})
	defer mustClose(t, db)
	states := [][32]byte{mustDigest(t, db)}
	for i := range h.segments {
		h.applyTo(t, db, i+1)
		states = append(states, mustDigest(t, db))
	}
	return states
}

func TestApplyThenRead(t *testing.T) {
	db := mustOpen(t, t.TempDir(), Options{})
	defer mustClose(t, db)
	w := wal.WriterID{9}
	seg := &wal.Segment{Store: testStore, Seq: 1, Writer: w, Batch: 4, Entries: []wal.Entry{
		{Kind: wal.Set, Key: []byte("a1"), Value: []byte("x")},
		{Kind: wal.Set, Key: []byte("a2"), Value: nil},
		{Kind: wal.Set, Key: []byte("a3"), Value: []byte("gone")},
		{Kind: wal.Set, Key: []byte("b"), Value: []byte("y")},
		{Kind: wal.Delete, Key: []byte("a3")},
		{Kind: 200, Key: []byte("!seq"), Value: []byte("a kind that may be ignored")},
	}}
	if err := db.Apply(seg, wal.Digest{1}); err != nil {
		t.Fatal(err)
	}
	if seq, d, err := db.Position(); seq != 1 || d != (wal.Digest{1}) || err != nil {
		t.Errorf("Position is %v, %v, %v", seq, d, err)
	}
	if b, ok, err := db.Session(w); b != 4 || !ok || err != nil {
		t.Errorf("Session is %d, %v, %v", b, ok, err)
	}
	if _, ok, err := db.Session(wal.WriterID{8}); ok || err != nil {
		t.Errorf("Session of a stranger is %v, %v", ok, err)
	}
	for key, want := range map[string]string{"a1": "x", "a2": "", "b": "y"} {
		if v, ok, err := db.Get([]byte(key)); !ok || v == nil || string(v) != want || err != nil {
			t.Errorf("Get %s is %q, %v, %v", key, v, ok, err)
		}
	}
	if _, ok, err := db.Get([]byte("a3")); ok || err != nil {
		t.Errorf("Get a3 is %v, %v", ok, err)
	}
	scan := func(prefix, after string) string {
		var got []string
		var a []byte
		if after != "" {
			a = []byte(after)
		}
		for kv, err := range db.Scan([]byte(prefix), a) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(kv.Key)+"="+string(kv.Value))
		}
		return strings.Join(got, " ")
	}
	for _, c := range []struct{ prefix, after, want string }{
		{"a", "", "a1=x a2="}, {"a", "a1", "a2="}, {"a", "a2", ""}, {"a", "a", "a1=x a2="}, {"a", "Z", "a1=x a2="}, {"c", "", ""}, {"b", "", "b=y"},
	} {
		if got := scan(c.prefix, c.after); got != c.want {
			t.Errorf("Scan(%q, %q) is %q, want %q", c.prefix, c.after, got, c.want)
		}
	}
	for range db.Scan([]byte("a"), nil) {
		break // must let go of the iterator
	}
}

func TestApplyRefuses(t *testing.T) {
	db := mustOpen(t, t.TempDir(), Options{})
	defer mustClose(t, db)
	good := func() *wal.Segment { return &wal.Segment{Store: testStore, Seq: 1, Batch: 1} }
	bad := func(why string, change func(*wal.Segment)) {
		t.Helper()
		s := good()
		change(s)
		if err := db.Apply(s, wal.Digest{1}); err == nil {
			t.Errorf("%s: no error", why)
		}
		if seq, _, _ := db.Position(); seq != 0 {
			t.Fatalf("%s: position moved to %v", why, seq)
		}
	}
	bad("a gap", func(s *wal.Segment) { s.Seq = 2 })
	bad("another bucket", func(s *wal.Segment) { s.Store = wal.StoreID{7} })
	for _, e := range []wal.Entry{
		{Kind: wal.Set, Key: []byte("!seq")},
		{Kind: wal.Delete, Key: []byte("!store")},
		{Kind: wal.Set, Key: []byte("!session/x")},
		{Kind: wal.Set},
		{Kind: wal.DeleteRange, Key: []byte(" "), Value: []byte("b")},
		{Kind: wal.DeleteRange, Key: []byte("!s"), Value: []byte("!t")},
		{Kind: wal.DeleteRange, Key: []byte("b"), Value: []byte("a")},
	} {
		bad(fmt.Sprintf("%v %q %q", e.Kind, e.Key, e.Value), func(s *wal.Segment) {
			s.Entries = []wal.Entry{{Kind: wal.Set, Key: []byte("k"), Value: []byte("v")}, e}
		})
	}
	if _, ok, _ := db.Get([]byte("k")); ok {
		t.Error("part of a refused segment was applied")
	}
	s := good()
	s.Entries = []wal.Entry{{Kind: wal.Delete, Key: wal.SessionKey(wal.WriterID{3})}}
	if err := db.Apply(s, wal.Digest{1}); err != nil {
		t.Errorf("dropping a session: %v", err)
	}
}

func TestAbsent(t *testing.T) {
	db := mustOpen(t, t.TempDir(), Options{})
	defer mustClose(t, db)
	seg := &wal.Segment{Store: testStore, Seq: 1}
	for i := 0; i < 1000; i += 3 {
		seg.Entries = append(seg.Entries, wal.Entry{Kind: wal.Set, Key: fmt.Appendf(nil, "p%04d", i)})
	}
	seg.Entries = append(seg.Entries, wal.Entry{Kind: wal.Set, Key: []byte("o9999")}, wal.Entry{Kind: wal.Set, Key: []byte("q0000")})
	if err := db.Apply(seg, wal.Digest{1}); err != nil {
		t.Fatal(err)
	}
	for _, ask := range [][]int{{}, {0}, {1}, {999, 1000, 2000}, {0, 1, 2, 3, 4, 5, 6, 7}, {1, 500, 501}, {2000}} {
		var got, want []int
		for i, err := range db.Absent([]byte("p"), len(ask), func(dst []byte, i int) []byte { return fmt.Appendf(dst, "p%04d", ask[i]) }) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, ask[i])
		}
		for _, a := range ask {
			if a%3 != 0 || a > 999 {
				want = append(want, a)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("of %v are absent %v, want %v", ask, got, want)
		}
	}
}

func TestReopenKeepsTheState(t *testing.T) {
	dir, h := t.TempDir(), mkHistory(50, 1)
	want := h.states(t)
	for to := 0; to <= 50; to += 10 {
		db := mustOpen(t, dir, Options{})
		if seq, _, _ := db.Position(); int(seq) != max(0, to-10) {
			t.Fatalf("opened at %v, want %d: Close has to keep everything", seq, to-10)
		}
		h.applyTo(t, db, to)
		if mustDigest(t, db) != want[to] {
			t.Fatalf("state %d differs", to)
		}
		mustClose(t, db)
	}
}

// TestCrash loses power at random moments and wants a prefix to survive.
func TestCrash(t *testing.T) {
	h := mkHistory(120, 2)
	want := h.states(t)
	r := rand.New(rand.NewPCG(7, 7))
	survived := 0
	for trial := range 12 {
		fs := vfs.NewCrashableMem()
		db := mustOpen(t, "idx", Options{FS: fs, FlushSegments: 1 + r.IntN(20)})
		for at := 0; at < len(h.segments); {
			next := min(len(h.segments), at+1+r.IntN(30))
			h.applyTo(t, db, next)
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: rand.New(rand.NewPCG(uint64(trial), uint64(next)))})
			mustClose(t, db)
			fs = crashed
			db = mustOpen(t, "idx", Options{FS: fs, FlushSegments: 1 + r.IntN(20)})
			seq, _, _ := db.Position()
			if int(seq) > next || mustDigest(t, db) != want[seq] {
				t.Fatalf("trial %d: after a crash at %d it is at %v with another state", trial, next, seq)
			}
			survived += int(seq)
			if at = next; r.IntN(4) == 0 {
				break
			}
		}
		h.applyTo(t, db, len(h.segments))
		if mustDigest(t, db) != want[len(h.segments)] {
			t.Fatalf("trial %d: another final state", trial)
		}
		mustClose(t, db)
	}
	if survived == 0 {
		t.Error("nothing ever survived a crash: flushing does not work")
	}
}

// TestDamagedFiles damages each file in each of several ways. Whatever Open makes
// of it, what is read must be a state that was, and in the end the log can make
// the index whole.
func TestDamagedFiles(t *testing.T) {
	h := mkHistory(60, 3)
	want := h.states(t)
	src := vfs.NewMem()
	db := mustOpen(t, "idx", Options{FS: src, FlushSegments: 8})
	h.applyTo(t, db, 60)
	mustClose(t, db)
	files, err := src.List("idx/db")
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string]func([]byte) []byte{
		"emptied":   func(b []byte) []byte { return nil },
		"halved":    func(b []byte) []byte { return b[:len(b)/2] },
		"one short": func(b []byte) []byte { return b[:max(0, len(b)-1)] },
		"flipped": func(b []byte) []byte {
			b = bytes.Clone(b)
			for i := 0; i < len(b); i += 97 {
				b[i] ^= 0x40
			}
			return b
		},
		"zeroed":  func(b []byte) []byte { return make([]byte, len(b)) },
		"garbage": func(b []byte) []byte { return []byte("not what it was") },
		"removed": nil,
	}
	rebuilt := 0
	for _, name := range files {
		for how, damage := range damages {
			t.Run(name+" "+how, func(t *testing.T) {
				fs := vfs.NewMem()
				if ok, err := vfs.Clone(src, fs, "idx", "idx"); !ok || err != nil {
					t.Fatal(ok, err)
				}
				damageFile(t, fs, "idx/db/"+name, damage)
				if reopenUntilSound(t, fs, want) {
					rebuilt++
				}
				db := mustOpen(t, "idx", Options{FS: fs})
				defer mustClose(t, db)
				h.applyTo(t, db, 60)
				if mustDigest(t, db) != want[60] {
					t.Error("another state after the log was applied again")
				}
			})
		}
	}
	t.Logf("%d files, rebuilt %d times", len(files), rebuilt)
	if rebuilt == 0 {
		t.Error("no damage was ever noticed")
	}
}

func damageFile(t *testing.T, fs vfs.FS, name string, damage func([]byte) []byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, info.Size())
	if len(body) > 0 {
		if _, err := f.ReadAt(body, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Close(), fs.Remove(name)); err != nil {
		t.Fatal(err)
	}
	if damage == nil {
		return
	}
	out, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = out.Write(damage(body))
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}

// reopenUntilSound opens the index and reads all of it; a CorruptError must be
// cured by opening it once more. It reports whether anything was rebuilt.
func reopenUntilSound(t *testing.T, fs vfs.FS, want [][32]byte) bool {
	t.Helper()
	for range 2 {
		db := mustOpen(t, "idx", Options{FS: fs})
		seq, _, _ := db.Position()
		got, err := db.Digest()
		closeErr := db.Close()
		if err == nil && closeErr == nil {
			if got != want[seq] {
				t.Fatalf("at %v with a state that never was", seq)
			}
			return seq == 0
		}
		var corrupt *CorruptError
		if err != nil && !errors.As(err, &corrupt) {
			t.Fatalf("reading it: %v, want a CorruptError", err)
		}
	}
	t.Fatal("still damaged after it was opened again")
	return false
}

func TestRebuildsWhatIsNotOurs(t *testing.T) {
	h := mkHistory(20, 4)
	mk := func(t *testing.T, fs vfs.FS) {
		db := mustOpen(t, "idx", Options{FS: fs})
		h.applyTo(t, db, 20)
		mustClose(t, db)
	}
	tests := map[string]func(t *testing.T, fs vfs.FS) wal.StoreID{
		"of another bucket": func(t *testing.T, fs vfs.FS) wal.StoreID { return wal.StoreID{2} },
		"of a newer format": func(t *testing.T, fs vfs.FS) wal.StoreID {
			db := mustOpen(t, "idx", Options{FS: fs})
			if err := db.current.Load().pebble.Set([]byte(storeKey), append(wal.AppendUint64(nil, indexFormat+1), testStore[:]...), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			mustClose(t, db)
			return testStore
		},
		"of a newer pebble": func(t *testing.T, fs vfs.FS) wal.StoreID {
			files, _ := fs.List("idx/db")
			for _, f := range files {
				if strings.HasPrefix(f, "marker.format-version.") {
					if err := fs.Rename("idx/db/"+f, "idx/db/marker.format-version.000999.999"); err != nil {
						t.Fatal(err)
					}
				}
			}
			return testStore
		},
		"without identity": func(t *testing.T, fs vfs.FS) wal.StoreID {
			db := mustOpen(t, "idx", Options{FS: fs})
			if err := db.current.Load().pebble.Delete([]byte(storeKey), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			mustClose(t, db)
			return testStore
		},
		"noted to be damaged": func(t *testing.T, fs vfs.FS) wal.StoreID {
			f, err := fs.Create("idx/"+rebuildTag, vfs.WriteCategoryUnspecified)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			return testStore
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			mk(t, fs)
			store := change(t, fs)
			for range 2 { // and the second time there is nothing to rebuild
				var log bytes.Buffer
				db, err := Open("idx", store, Options{FS: fs, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					t.Fatal(err)
				}
				seq, _, _ := db.Position()
				if _, ok, _ := db.Get([]byte("k01")); seq != 0 || ok {
					t.Fatalf("opened at %v, want an empty index", seq)
				}
				mustClose(t, db)
				lines := strings.Count(log.String(), "made again from the log")
				if want := 1; lines != want && log.Len() > 0 {
					t.Errorf("%d lines, want %d:\n%s", lines, want, log.String())
				}
				log.Reset()
				if files, err := fs.List("idx/" + asideDir); err != nil || len(files) == 0 {
					t.Errorf("nothing was moved aside: %v", err)
				}
			}
			if files, _ := fs.List("idx"); len(files) > 3 {
				t.Errorf("the directory has %v, want LOCK, db and one copy aside", files)
			}
		})
	}
}

// TestDamageFoundLater flips a byte that Open does not look at.
func TestDamageFoundLater(t *testing.T) {
	fs, r := vfs.NewMem(), rand.New(rand.NewPCG(1, 2))
	db := mustOpen(t, "idx", Options{FS: fs})
	seg := &wal.Segment{Store: testStore, Seq: 1}
	for i := range 200 {
		value := make([]byte, 10_000) // random, so that blocks stay large
		for j := range value {
			value[j] = byte(r.Uint32())
		}
		seg.Entries = append(seg.Entries, wal.Entry{Kind: wal.Set, Key: fmt.Appendf(nil, "k%03d", i), Value: value})
	}
	if err := db.Apply(seg, wal.Digest{1}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	files, _ := fs.List("idx/db")
	for _, f := range files {
		if strings.HasSuffix(f, ".sst") {
			damageFile(t, fs, "idx/db/"+f, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}
	}
	db = mustOpen(t, "idx", Options{FS: fs})
	var corrupt *CorruptError
	if _, err := db.Digest(); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "start again") {
		t.Fatalf("reading: %v, want a CorruptError that says what to do", err)
	}
	if err := db.Apply(&wal.Segment{Store: testStore, Seq: 2}, wal.Digest{2}); !errors.As(err, &corrupt) {
		t.Errorf("Apply after it was noticed: %v, want a CorruptError", err)
	}
	_ = db.Close()
	db = mustOpen(t, "idx", Options{FS: fs})
	defer mustClose(t, db)
	if seq, _, _ := db.Position(); seq != 0 || db.Err() != nil {
		t.Errorf("opened again it is at %v, %v; want a new index", seq, db.Err())
	}
	if _, err := db.Digest(); err != nil {
		t.Error(err)
	}
}

// TestTwoBucketsTakeTurns has two nodes use one directory by mistake, one after
// the other: each rebuilds, and the disk does not fill up with what they discard.
func TestTwoBucketsTakeTurns(t *testing.T) {
	dir, h := t.TempDir(), mkHistory(5, 9)
	for i := range 6 {
		store := wal.StoreID{byte(1 + i%2)}
		db, err := Open(dir, store, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if store == testStore {
			h.applyTo(t, db, 5)
		}
		mustClose(t, db)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Errorf("the directory has %v, %v; want LOCK, db and one copy aside", files, err)
	}
}

func TestReset(t *testing.T) {
	fs, h := vfs.NewMem(), mkHistory(30, 5)
	want := h.states(t)
	db := mustOpen(t, "idx", Options{FS: fs})
	h.applyTo(t, db, 30)
	if err := db.Reset(t.Context(), wal.Root{Store: testStore, Snapshot: wal.SnapshotRef{Seq: 9}}); err == nil {
		t.Error("reset to a snapshot without a bucket: no error")
	}
	if err := db.Reset(t.Context(), wal.Root{Store: testStore}); err != nil {
		t.Fatal(err)
	}
	if seq, _, _ := db.Position(); seq != 0 || mustDigest(t, db) != want[0] {
		t.Errorf("after Reset it is at %v with another state", seq)
	}
	h.applyTo(t, db, 12)
	mustClose(t, db)
	db = mustOpen(t, "idx", Options{FS: fs})
	defer mustClose(t, db)
	if seq, _, _ := db.Position(); seq != 12 || mustDigest(t, db) != want[12] {
		t.Errorf("after Reset, 12 segments and Close it is at %v with another state", seq)
	}
}

func TestOneProcessADirectory(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, Options{})
	var locked *LockedError
	if _, err := Open(dir, testStore, Options{}); !errors.As(err, &locked) {
		t.Errorf("second Open: %v, want a LockedError", err)
	}
	other := func() (string, error) {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), holdDir+"="+dir)
		out, err := cmd.Output()
		return string(out), err
	}
	if out, err := other(); err == nil || !strings.Contains(out, "is in use by another celler") {
		t.Errorf("another process: %v, %q", err, out)
	}
	mustClose(t, db)
	if out, err := other(); err != nil {
		t.Errorf("another process, after Close: %v, %q", err, out)
	}
}

// brokenDisk fails the operations that fails says so of, with errno, once on.
type brokenDisk struct {
	on    atomic.Bool
	errno syscall.Errno
	fails func(errorfs.Op) bool
}

func (d *brokenDisk) String() string { return d.errno.Error() }

func (d *brokenDisk) MaybeError(op errorfs.Op) error {
	if d.on.Load() && d.fails(op) {
		return &os.PathError{Op: "write", Path: op.Path, Err: d.errno}
	}
	return nil
}

func TestDiskFullWhileRunning(t *testing.T) {
	disk := &brokenDisk{errno: syscall.ENOSPC, fails: func(op errorfs.Op) bool {
		return strings.HasSuffix(op.Path, ".sst") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite
	}}
	var log bytes.Buffer
	mem := vfs.NewMem()
	db := mustOpen(t, "idx", Options{FS: errorfs.Wrap(mem, disk), FlushSegments: 4, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	h := mkHistory(400, 6)
	h.applyTo(t, db, 10)
	disk.on.Store(true)
	var err error
	for i := 10; i < 400 && err == nil; i++ {
		if err = db.Apply(h.segments[i], h.digests[i+1]); i%4 == 3 && err == nil {
			<-orTimeout(t, db.failedCh)
		}
	}
	var full *DiskError
	if !errors.As(err, &full) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the bucket is untouched") || !strings.Contains(err.Error(), "free some space") {
		t.Fatalf("Apply: %v, want a DiskError that says what to do", err)
	}
	if _, _, err := db.Get([]byte("k01")); err != nil {
		t.Errorf("reading: %v, want it to go on", err)
	}
	_ = db.Close()
	if n := strings.Count(log.String(), "can take no more segments"); n != 1 {
		t.Errorf("said %d times, want once:\n%.2000s", n, log.String())
	}
	db = mustOpen(t, "idx", Options{FS: mem})
	defer mustClose(t, db)
	h.applyTo(t, db, 400)
}

// orTimeout gives a flush the time to fail.
func orTimeout(t *testing.T, ch <-chan struct{}) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		timer := time.NewTimer(10 * time.Second)
		defer timer.Stop()
		select {
		case <-ch:
		case <-timer.C:
		}
	}()
	return done
}

func TestDiskFailsAtOpen(t *testing.T) {
	for _, c := range []struct {
		errno  syscall.Errno
		within string // what the disk refuses to write
	}{{syscall.ENOSPC, ""}, {syscall.ENOSPC, "idx/db/"}, {syscall.EROFS, ""}, {syscall.EROFS, "idx/db/"}, {syscall.EACCES, ""}, {syscall.EIO, "idx/db/"}} {
		t.Run(c.errno.Error()+" "+c.within, func(t *testing.T) {
			errno := c.errno
			mem := vfs.NewMem()
			h := mkHistory(10, 8)
			db := mustOpen(t, "idx", Options{FS: mem})
			h.applyTo(t, db, 10)
			mustClose(t, db)
			disk := &brokenDisk{errno: errno, fails: func(op errorfs.Op) bool {
				return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasPrefix(op.Path, c.within)
			}}
			disk.on.Store(true)
			_, err := Open("idx", testStore, Options{FS: errorfs.Wrap(mem, disk)})
			var diskErr *DiskError
			if !errors.As(err, &diskErr) || !errors.Is(err, errno) || !strings.Contains(err.Error(), "the bucket is untouched") {
				t.Fatalf("Open: %v, want a DiskError", err)
			}
			db = mustOpen(t, "idx", Options{FS: mem}) // and nothing was thrown away
			defer mustClose(t, db)
			if seq, _, _ := db.Position(); seq != 10 {
				t.Errorf("afterwards it is at %v, want 10", seq)
			}
		})
	}
}

// A full disk often makes files and takes no byte. Pebble panics on that.
func TestDiskTakesNoByteAtOpen(t *testing.T) {
	disk := &brokenDisk{errno: syscall.ENOSPC, fails: func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite }}
	disk.on.Store(true)
	var log bytes.Buffer
	_, err := Open("idx", testStore, Options{FS: errorfs.Wrap(vfs.NewMem(), disk), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	var full *DiskError
	if !errors.As(err, &full) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Open: %v, want a DiskError", err)
	}
	if text := err.Error(); strings.Contains(text, "panic") || strings.Count(text, "the bucket is untouched") != 1 || !strings.Contains(text, "free some space") {
		t.Errorf("Open: %v; want it said once, and what to do", text)
	}
	if strings.Contains(log.String(), "moved aside") {
		t.Errorf("the log says that an index is made again because the disk is full:\n%s", log.String())
	}
}

func TestFormatIsTheNewest(t *testing.T) {
	if pebbleFormat != pebble.FormatNewest {
		t.Errorf("pebble's newest format is %v, ours is %v: decide whether to move, and what older cellers make of it", pebble.FormatNewest, pebbleFormat)
	}
}

func BenchmarkGet(b *testing.B) {
	db := mustOpen(b, b.TempDir(), Options{})
	defer mustClose(b, db)
	const n = 100_000
	seg := &wal.Segment{Store: testStore, Seq: 1}
	r := rand.New(rand.NewPCG(1, 1))
	key := func(i int) []byte {
		h := wal.DigestOf(wal.AppendUint64(nil, uint64(i)))
		return append([]byte{'c'}, h[:]...)
	}
	for i := range n {
		seg.Entries = append(seg.Entries, wal.Entry{Kind: wal.Set, Key: key(i), Value: make([]byte, 14)})
	}
	if err := db.Apply(seg, wal.Digest{1}); err != nil {
		b.Fatal(err)
	}
	if err := db.flush(); err != nil {
		b.Fatal(err)
	}
	for name, offset := range map[string]int{"hit": 0, "miss": n} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := db.Get(key(r.IntN(n) + offset)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
