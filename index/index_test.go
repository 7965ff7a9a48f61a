package index

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

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

func TestFormatIsTheNewest(t *testing.T) {
	if pebbleFormat != pebble.FormatNewest {
		t.Errorf("pebble's newest format is %v, ours is %v: decide whether to move, and what older cellers make of it", pebble.FormatNewest, pebbleFormat)
	}
}
