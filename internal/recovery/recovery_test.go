package recovery_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/internal/recovery"
	"github.com/celler/celler/wal"
)

// mkStore makes a bucket with two snapshots: of the slots up to b, and of those up to d;
// e and f are in the log alone. The log is kept from the beginning if keep is set.
func mkStore(t testing.TB, keep bool) *world {
	t.Helper()
	w := mkWorld(t)
	w.fill(keep)
	return w
}

func (w *world) fill(keep bool) {
	w.t.Helper()
	w.with(func(n *node) { n.create("ci"); n.push("a", "b") })
	w.compact(keep)
	w.with(func(n *node) { n.push("c", "d") })
	w.compact(keep)
	w.with(func(n *node) { n.push("e", "f") })
}

const all = "a b c d e f"

func (w *world) snapshots() (older, newer blob.Key) {
	w.t.Helper()
	keys := w.keys("snap/")
	if len(keys) != 2 {
		w.t.Fatalf("snapshots %v, want two", keys)
	}
	return keys[0], keys[1]
}

// twin puts a copy of the newest snapshot in its place, which ROOT says is being deleted.
func (w *world) twin() {
	w.t.Helper()
	_, newer := w.snapshots()
	body := w.get(newer)
	key := newer[:len(newer)-1] + "x"
	_, err := w.bucket.Put(w.t.Context(), key, []byte(body))
	if err == nil {
		_, err = wal.RootChange{}.Swap(w.t.Context(), w.bucket, func(r *wal.Root) error { r.Doomed = []blob.Key{key}; return nil })
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.remove(newer)
}

// tables returns the tables that only the newer snapshot has.
func (w *world) newTables() []blob.Key {
	w.t.Helper()
	older, newer := w.snapshots()
	old := map[blob.Key]bool{}
	var out []blob.Key
	for _, key := range []blob.Key{older, newer} {
		s, err := wal.DecodeSnapshot([]byte(w.get(key)))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, run := range s.Runs {
			for _, t := range run.Tables {
				if key == newer && !old[t.Key] {
					out = append(out, t.Key)
				}
				old[t.Key] = true
			}
		}
	}
	return out
}

func TestRecover(t *testing.T) {
	type want struct {
		refused bool   // by a server that begins afresh
		finding string // in the plan
		write   string
		loss    string // "" for none
		paths   string
	}
	root := wal.RootKey
	format := wal.FormatKey
	tests := []struct {
		name string
		keep bool // the log
		harm func(w *world)
		o    recovery.Options
		want want
	}{
		{"nothing is wrong", true, func(*world) {}, recovery.Options{}, want{write: "", paths: all}},
		{"nothing is wrong, short log", false, func(*world) {}, recovery.Options{}, want{write: "", paths: all}},
		{
			"ROOT is gone", false, func(w *world) { w.remove(root) },
			recovery.Options{},
			want{true, "ROOT: missing", "ROOT", "", all},
		},
		{
			"ROOT is damaged", true, func(w *world) { w.damage(root) },
			recovery.Options{},
			want{true, "ROOT: damaged", "ROOT", "", all},
		},
		{
			"FORMAT is gone", false, func(w *world) { w.remove(format) },
			recovery.Options{},
			want{true, "FORMAT: missing", "FORMAT", "", all},
		},
		{
			"FORMAT is damaged", false, func(w *world) { w.damage(format) },
			recovery.Options{},
			want{true, "FORMAT: damaged", "FORMAT", "", all},
		},
		{
			"ROOT and FORMAT are gone", true, func(w *world) { w.remove(root, format) },
			recovery.Options{},
			want{true, "ROOT: missing", "ROOT FORMAT", "", all},
		},
		{
			"the newest snapshot is gone, the log is not", true, func(w *world) { _, k := w.snapshots(); w.remove(k) },
			recovery.Options{},
			want{false, ": missing", "state ROOT", "", all},
		},
		{
			"the newest snapshot is damaged, the log is not", true, func(w *world) { _, k := w.snapshots(); w.damage(k) },
			recovery.Options{},
			want{false, ": damaged", "state ROOT", "", all},
		},
		{
			"the newest snapshot is gone, but not one of its slot that was to go", true, func(w *world) { w.twin() },
			recovery.Options{},
			want{false, ": missing", "ROOT", "", all},
		},
		{
			"a table is gone, the log is not", true, func(w *world) { w.remove(w.newTables()[0]) },
			recovery.Options{},
			want{false, ": missing (snapshot of slot", "state ROOT", "", all},
		},
		{
			"a table is damaged, the log is not", true, func(w *world) { w.damage(w.newTables()[0]) },
			recovery.Options{},
			want{false, ": damaged: its SHA-256", "state ROOT", "", all},
		},
		{
			"ROOT and the newest snapshot are gone", true, func(w *world) { _, k := w.snapshots(); w.remove(root, k) },
			recovery.Options{},
			want{true, "ROOT: missing", "ROOT", "", all},
		},
		{"ROOT and all snapshots and tables are gone", true, func(w *world) {
			w.remove(append(append(w.keys("snap/"), w.keys("tab/")...), root)...)
		}, recovery.Options{}, want{true, "ROOT: missing", "ROOT", "", all}},
		{
			"all snapshots are gone", true, func(w *world) { w.remove(w.keys("snap/")...) },
			recovery.Options{},
			want{false, ": missing", "state ROOT", "", all},
		},
		{
			"the newest snapshot is gone and the log was folded", false, func(w *world) { _, k := w.snapshots(); w.remove(k) },
			recovery.Options{},
			want{true, ": missing", "state ROOT", "slots: ", "a b"},
		},
		{
			"ROOT and the newest snapshot are gone and the log was folded", false, func(w *world) { _, k := w.snapshots(); w.remove(root, k) },
			recovery.Options{},
			want{true, "ROOT: missing", "state ROOT", "slots: ", "a b"},
		},
		{
			"a slot in the tail is gone", false, func(w *world) { w.remove((w.seq() - 1).Key()) },
			recovery.Options{},
			want{true, "", "state ROOT", "slots: ", "a b c d"},
		},
		{
			"a slot in the tail is damaged", false, func(w *world) { w.damage((w.seq() - 1).Key()) },
			recovery.Options{},
			want{true, ": damaged", "state ROOT", "lost with them; they published 1 paths", "a b c d"},
		},
		{
			"a slot in the tail is gone, salvage", false, func(w *world) { w.remove((w.seq() - 1).Key()) },
			recovery.Options{Salvage: true},
			want{true, "", "state ROOT", "slots: ", "a b c d f"},
		},
		{
			"the last slot is gone", true, func(w *world) { w.remove(w.seq().Key()) },
			recovery.Options{},
			// Nothing tells that it was ever there.
			want{false, "", "", "", "a b c d e"},
		},
		{
			"a slot that was folded is gone", true, func(w *world) { w.remove(wal.Seq(3).Key()) },
			recovery.Options{},
			want{true, ": missing", "ROOT", "history: the log can be read from slot 4 on", all},
		},
		{"the slot of the snapshot is gone", true, func(w *world) {
			r, _ := wal.ReadRoot(w.t.Context(), w.bucket)
			w.remove(r.Snapshot.Seq.Key())
		}, recovery.Options{}, want{true, ": missing", "ROOT", "history: ", all}},
		{
			"the log is gone", true, func(w *world) { w.remove(w.keys("log/")...) },
			recovery.Options{},
			want{true, ": missing", "state ROOT", "slots: any after slot", "a b c d"},
		},
		{"all but the log is gone", true, func(w *world) {
			w.remove(append(append(w.keys("snap/"), w.keys("tab/")...), root, format)...)
		}, recovery.Options{}, want{true, "ROOT: missing", "ROOT FORMAT", "", all}},
		{"all but the packs is gone", false, func(w *world) {
			w.remove(append(append(append(w.keys("snap/"), w.keys("tab/")...), w.keys("log/")...), root, format)...)
		}, recovery.Options{Profile: profile}, want{true, "ROOT: missing", "state ROOT FORMAT", "everything the log said", "no cache"}},
		{"snapshots, tables and the beginning of the log are gone", true, func(w *world) {
			w.remove(append(append(w.keys("snap/"), w.keys("tab/")...), wal.Seq(1).Key())...)
		}, recovery.Options{}, want{true, ": missing", "state ROOT", "slots: 1 to", all}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := mkStore(t, tt.keep)
			before := map[blob.Key]string{}
			tt.harm(w)
			for _, key := range append(w.keys("log/"), root, format) {
				before[key] = w.get(key)
			}
			n, err := w.open(vfs.NewMem())
			if err == nil {
				n.close()
			}
			if (err != nil) != tt.want.refused {
				t.Errorf("a server that begins afresh: %v", err)
			}
			p, res := w.recover(tt.o)
			got := text(p)
			if !strings.Contains(got, tt.want.finding) || !strings.Contains(got, "write "+tt.want.write+"\n") || !strings.Contains(got, tt.want.loss) || (len(p.Losses) > 0) != (tt.want.loss != "") {
				t.Errorf("want finding %q, write %q, loss %q; the plan is\n%s", tt.want.finding, tt.want.write, tt.want.loss, got)
			}
			lost := strings.Contains(tt.want.write, "state") && tt.want.loss != ""
			if res.Check != lost {
				t.Errorf("check %v, want %v", res.Check, lost)
			}
			w.with(func(n *node) {
				if got := n.paths(); got != tt.want.paths {
					t.Errorf("paths %q, want %q", got, tt.want.paths)
				}
			})
			w.wantEvidence(p, before)
			w.wantUsable(lost)
		})
	}
}

// wantEvidence checks that whatever was replaced can still be read.
func (w *world) wantEvidence(p *recovery.Plan, before map[blob.Key]string) {
	w.t.Helper()
	for key, body := range before {
		if strings.HasSuffix(body, blob.ErrNotExist.Error()) {
			continue
		}
		seq, err := wal.ParseSeq(strings.TrimPrefix(string(key), "log/"))
		givenUp := err == nil && slices.Contains(p.Write, "state") && len(p.Losses) > 0 && seq > wal.Seq(p.Last)
		if now := w.get(key); (now != body || givenUp) && w.get(blob.Key(p.Evidence)+key) != body {
			w.t.Errorf("%s was replaced, and is not under %s", key, p.Evidence)
		}
	}
}

// wantUsable goes on with a recovered bucket: what is pushed again is not stored again,
// and what is new can be compacted and is found by others.
func (w *world) wantUsable(lost bool) {
	w.t.Helper()
	var want string
	w.with(func(n *node) {
		if n.paths() == "no cache" {
			n.create("ci")
		}
		if stored := n.push(strings.Fields(all)...); stored > 0 && lost {
			w.t.Errorf("%d packs were stored again", stored)
		}
		n.push("new")
		want = n.paths()
	})
	if want != all+" new" {
		w.t.Errorf("after pushing again: %q", want)
	}
	w.compact(false)
	w.with(func(n *node) {
		if got := n.paths(); got != want {
			w.t.Errorf("after compaction %q, want %q", got, want)
		}
	})
}

// A server that was ahead of what is left notices, whether it was running or not.
func TestStaleServer(t *testing.T) {
	w := mkStore(t, false)
	fs := vfs.NewMem()
	asleep := w.mustOpen(fs)
	asleep.close()
	running := w.mustOpen(vfs.NewMem())
	defer running.close()
	last := running.log.Seq()

	w.remove(last.Key(), (last - 1).Key(), (last - 2).Key())
	if n, err := w.open(fs); !errors.Is(err, wal.ErrRolledBack) {
		n.close()
		t.Errorf("a server that had seen more: %v", err)
	}
	// Its phantom write must not become part of the new history.
	_, err := running.log.Commit(t.Context(), wal.Op{Name: "phantom", Build: func(wal.View) ([]wal.Entry, error) {
		return []wal.Entry{{Kind: wal.Set, Key: []byte("zphantom"), Value: []byte{1}}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.recover(recovery.Options{})
	if got := running.paths(); got != "a b c d" {
		t.Errorf("the server that ran on has %q", got)
	}
	if _, ok, err := running.db.Get([]byte("zphantom")); ok || err != nil {
		t.Errorf("it has its phantom still: %v, %v", ok, err)
	}
	running.push("g")
	w.with(func(n *node) {
		if got := n.paths(); got != "a b c d g" {
			t.Errorf("others have %q", got)
		}
	})
}

// TestBookmarks: a bookmark whose snapshot is damaged or lacks tables is lost, and said to
// be; one whose snapshot is whole is kept.
func TestBookmarks(t *testing.T) {
	// rewrite changes what the older snapshot says of a table, which nobody needs to begin
	// with the newer one, and makes the recovery doubt all that it has not seen.
	rewrite := func(w *world, change func(*wal.Table)) {
		older, _ := w.snapshots()
		s, err := wal.DecodeSnapshot([]byte(w.get(older)))
		if err != nil {
			w.t.Fatal(err)
		}
		change(&s.Runs[0].Tables[0])
		body, err := wal.AppendSnapshot(nil, s)
		if err != nil {
			w.t.Fatal(err)
		}
		w.put(older, string(body))
		w.remove((w.seq() - 1).Key())
	}
	for name, tt := range map[string]struct {
		lost   string
		damage func(*world)
	}{
		"tables are missing":      {"newer", func(w *world) { w.remove(w.newTables()...) }},
		"a table is damaged":      {"newer", func(w *world) { w.damage(w.newTables()[0]) }},
		"the snapshot is damaged": {"newer", func(w *world) { _, newer := w.snapshots(); w.damage(newer) }},
		"the snapshot is missing": {"newer", func(w *world) { _, newer := w.snapshots(); w.remove(newer) }},
		"another table is missing": {"older", func(w *world) {
			rewrite(w, func(t *wal.Table) { t.Key = "tab/00000001/0000000000000000.sst" })
		}},
		"another table is cut short": {"older", func(w *world) { rewrite(w, func(t *wal.Table) { t.Size++ }) }},
		"the older snapshot is damaged": {"older", func(w *world) {
			older, _ := w.snapshots()
			w.damage(older)
			w.remove((w.seq() - 1).Key())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := mkStore(t, false)
			older, newer := w.snapshots()
			for name, key := range map[string]blob.Key{"older": older, "newer": newer} {
				seq, err := wal.ParseSeq(strings.TrimPrefix(string(key), "snap/")[:16])
				if err == nil {
					_, err = wal.RootChange{}.SetBookmark(t.Context(), w.bucket, wal.Bookmark{Name: name, Seq: seq})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			tt.damage(w)
			p, _ := w.recover(recovery.Options{})
			if said := text(p); strings.Count(said, "loss bookmark: ") != 1 || !strings.Contains(said, "loss bookmark: "+tt.lost+", of slot") {
				t.Errorf("the plan says:\n%s", said)
			}
			root, err := wal.ReadRoot(t.Context(), w.bucket)
			if err != nil {
				t.Fatal(err)
			}
			if _, kept := root.Bookmarks[tt.lost]; kept || len(root.Bookmarks) != 1 {
				t.Errorf("bookmarks %v, want only the one whose snapshot is whole", root.Bookmarks)
			}
		})
	}
}

// TestBookmarksOfAWholeLog: a bookmark needs no snapshot of its own when the log is whole.
func TestBookmarksOfAWholeLog(t *testing.T) {
	w := mkStore(t, true)
	if _, err := (wal.RootChange{}).SetBookmark(t.Context(), w.bucket, wal.Bookmark{Name: "early", Seq: 3}); err != nil {
		t.Fatal(err)
	}
	w.damage("ROOT")
	p, _ := w.recover(recovery.Options{})
	if said := text(p); strings.Contains(said, "loss bookmark") {
		t.Errorf("the plan says:\n%s", said)
	}
	root, err := wal.ReadRoot(t.Context(), w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	if len(root.Bookmarks) != 1 || root.Bookmarks["early"] != 3 {
		t.Errorf("bookmarks %v, want the one there was", root.Bookmarks)
	}
}
