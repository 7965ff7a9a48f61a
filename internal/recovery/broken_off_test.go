package recovery_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/internal/recovery"
	"github.com/celler/celler/wal"
)

// harm is one of the ways in which a bucket can be damaged, with what is served
// afterwards.
type harm struct {
	name  string
	keep  bool // the log
	do    func(w *world)
	o     recovery.Options
	paths string
}

func harms() []harm {
	root, format := wal.RootKey, wal.FormatKey
	return []harm{
		{"no ROOT", true, func(w *world) { w.remove(root) }, recovery.Options{}, all},
		{"no FORMAT, ROOT is damaged", false, func(w *world) { w.remove(format); w.damage(root) }, recovery.Options{}, all},
		{"no snapshot, log whole", true, func(w *world) { _, k := w.snapshots(); w.remove(k) }, recovery.Options{}, all},
		{"no snapshot, log folded", false, func(w *world) { _, k := w.snapshots(); w.remove(k) }, recovery.Options{}, "a b"},
		{"damaged snapshot, no ROOT, log folded", false, func(w *world) { _, k := w.snapshots(); w.remove(root); w.damage(k) }, recovery.Options{}, "a b"},
		{"no table, salvage", false, func(w *world) { w.remove(w.newTables()[0]) }, recovery.Options{Salvage: true}, ""},
		{"no slot in the tail, salvage", false, func(w *world) { w.remove((w.seq() - 1).Key()) }, recovery.Options{Salvage: true}, "a b c d f"},
		{"packs alone", false, func(w *world) {
			w.remove(append(append(append(w.keys("snap/"), w.keys("tab/")...), w.keys("log/")...), root, format)...)
		}, recovery.Options{Profile: profile}, "no cache"},
	}
}

// copyOf returns a world of its own with the same objects.
func (w *world) copyOf(t testing.TB) *world {
	t.Helper()
	b := memblob.New()
	for info, err := range w.bucket.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Put(t.Context(), info.Key, []byte(w.get(info.Key))); err != nil {
			t.Fatal(err)
		}
	}
	return &world{t: t, bucket: b, data: b, nars: maps.Clone(w.nars)}
}

// served is what a fresh server has.
func (w *world) served() (paths string) {
	w.t.Helper()
	w.with(func(n *node) { paths = n.paths() })
	return paths
}

// A recovery is broken off at each of its calls: not made, made without an answer, or
// made much later. Another one, from the beginning, ends as if there had been no first.
func TestBrokenOff(t *testing.T) {
	for i, h := range harms() {
		if testing.Short() && i%2 == 1 {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			harmed := mkStore(t, h.keep)
			h.do(harmed)
			calls, writes := 0, map[int]bool{}
			{
				w := harmed.copyOf(t)
				counted := blobtest.NewFaulty(w.bucket, blobtest.FaultyOptions{})
				w.bucket, w.data = counted, counted
				p := w.examine(h.o)
				tables := 0
				counted.Set(func(n int, op string, key blob.Key) blobtest.Fault {
					writes[n] = op == "create" || op == "swap" || op == "put" || op == "delete"
					if strings.HasPrefix(string(key), "tab/") { // they are all alike
						writes[n], tables = writes[n] && tables%16 == 1, tables+1
					}
					return blobtest.None
				})
				if _, err := p.Execute(t.Context()); err != nil {
					t.Fatal(err)
				}
				calls = counted.Calls()
				if h.paths == "" {
					h.paths = w.served()
				}
				if got := w.served(); got != h.paths {
					t.Fatalf("undisturbed it ends with %q, want %q", got, h.paths)
				}
			}
			if calls < 3 {
				t.Fatalf("%d calls", calls)
			}
			for _, fault := range []blobtest.Fault{blobtest.LostRequest, blobtest.LostResponse, blobtest.DelayedApply} {
				for k := range calls {
					// What the bucket holds changes nowhere else; and before a write is after the one
					// before it.
					if writes[k] && (fault != blobtest.LostRequest || k < 8) {
						brokenOff(t, harmed, &h, fault, k)
					}
				}
			}
		})
	}
}

func brokenOff(t *testing.T, harmed *world, h *harm, fault blobtest.Fault, k int) {
	t.Helper()
	at := fmt.Sprintf("%v at call %d", fault, k)
	w := harmed.copyOf(t)
	plain := w.bucket
	faulty := blobtest.NewFaulty(plain, blobtest.FaultyOptions{})
	w.bucket, w.data = faulty, faulty
	p := w.examine(h.o)
	// Once dead, it makes no further calls.
	faulty.Set(func(n int, _ string, _ blob.Key) blobtest.Fault {
		switch {
		case n < k:
			return blobtest.None
		case n == k:
			return fault
		}
		return blobtest.LostRequest
	})
	_, err := p.Execute(t.Context())
	faulty.Set(nil)
	w.bucket, w.data = plain, plain
	second := w.examine(h.o)
	if err == nil && !second.Sound() {
		t.Errorf("%s: the first run said that it was done, the second would %v", at, second.Write)
	}
	if second.Sound() {
		if again, first := w.get(wal.RootKey), harmed.get(wal.RootKey); strings.Contains(strings.Join(p.Write, " "), "ROOT") && again == first {
			t.Errorf("%s: ROOT is what it was, and nothing is to be done", at)
		}
	} else if _, err := second.Execute(t.Context()); err != nil {
		t.Errorf("%s: the second run: %v", at, err)
	}
	faulty.Release(t.Context(), -1)
	if third := w.examine(recovery.Options{}); !third.Sound() {
		t.Errorf("%s: a third run would %v: %s", at, third.Write, text(third))
	}
	if got := w.served(); got != h.paths {
		t.Errorf("%s: a server has %q, want %q", at, got, h.paths)
	}
	w.wantEvidence(p, map[blob.Key]string{})
	if h.paths != "no cache" && k%6 == 0 {
		w.with(func(n *node) { n.push("new") })
		w.compact(false)
		w.with(func(n *node) {
			if got := n.paths(); !strings.Contains(got+" ", " new ") {
				t.Errorf("%s: what was pushed afterwards is not there: %q", at, got)
			}
		})
	}
}
