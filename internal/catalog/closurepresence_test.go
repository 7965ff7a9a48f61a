package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// TestClosurePresence looks at closures in one of two caches.
func TestClosurePresence(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("ci")
	n.mustCreate("other")
	ctx := t.Context()
	all := n.mkAll("ci", "a", "b", "c", "d") // each refers to the one before
	elsewhere := mkStorePath(t, "elsewhere")
	all[1].Path.References = append(all[1].Path.References, elsewhere, all[1].Path.StorePath)
	for _, p := range n.mkAll("other", "elsewhere") {
		if _, _, err := n.PublishAll(ctx, []Publication{p}, PublishOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, done, err := n.PublishAll(ctx, all, PublishOptions{}); err != nil || len(done) != 4 {
		t.Fatal(done, err)
	}
	part := func(i int) nix.HashPart { return all[i].Path.StorePath.HashPart() }
	nothing := mkStorePath(t, "nothing").HashPart()
	check := func(what string, want ClosurePresence, ask ...nix.HashPart) {
		t.Helper()
		got, err := n.ClosurePresence(ctx, "ci", ask)
		if err != nil {
			t.Fatal(err)
		}
		want.Walked = true
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("whole", ClosurePresence{Missing: []bool{false}, Paths: 1}, part(0))
	check("what another cache has", ClosurePresence{Missing: []bool{false}, Paths: 4, Absent: []nix.HashPart{elsewhere.HashPart()}}, part(3))
	check("asked about as well", ClosurePresence{Missing: []bool{false, true, true, false}, Paths: 4}, part(3), elsewhere.HashPart(), nothing, part(3))
	check("nothing", ClosurePresence{Missing: []bool{}})
	check("none", ClosurePresence{Missing: []bool{true}}, nothing)
	if _, err := n.Withdraw(ctx, "ci", part(0)); err != nil {
		t.Fatal(err)
	}
	absent := []nix.HashPart{part(0), elsewhere.HashPart()}
	slices.SortFunc(absent, func(a, b nix.HashPart) int { return bytes.Compare(a[:], b[:]) })
	check("withdrawn", ClosurePresence{Missing: []bool{false}, Paths: 3, Absent: absent}, part(3))
	_, err := n.ClosurePresence(ctx, "none", []nix.HashPart{part(0)})
	wantErr(t, "no such cache", err, ErrNoCache)
}

// TestClosurePresenceAfterWithdrawal asks another node than the one that withdrew a path.
func TestClosurePresenceAfterWithdrawal(t *testing.T) {
	bucket := mkBucket(t)
	a, b := mkNode(t, bucket), mkNode(t, bucket)
	a.mustCreate("ci")
	all := a.mkAll("ci", "low", "top")
	if _, _, err := a.PublishAll(t.Context(), all, PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Withdraw(t.Context(), "ci", all[0].Path.StorePath.HashPart()); err != nil {
		t.Fatal(err)
	}
	got, err := b.ClosurePresence(t.Context(), "ci", []nix.HashPart{all[1].Path.StorePath.HashPart()})
	if err != nil || len(got.Absent) != 1 {
		t.Errorf("%+v, %v; want the withdrawn one to be absent", got, err)
	}
}

// rowsInMemory are paths of one cache, by number, and what they refer to.
type rowsInMemory struct {
	t    *testing.T
	refs func(i int) []int
	at   map[string]int
}

func mkRows(t *testing.T, n int, refs func(i int) []int) *rowsInMemory {
	t.Helper()
	r := &rowsInMemory{t: t, refs: refs, at: map[string]int{}}
	for i := range n {
		r.at[string(keyspace.AppendPathKey(nil, 7, r.path(i).HashPart()))] = i
	}
	return r
}

func (r *rowsInMemory) path(i int) nix.StorePath { return mkStorePath(r.t, fmt.Sprint("row", i)) }

func (r *rowsInMemory) Get(key []byte) ([]byte, bool, error) {
	i, ok := r.at[string(key)]
	if !ok {
		return nil, false, nil
	}
	p := &Path{StorePath: r.path(i), NarSize: 1, FileSize: 1}
	for _, ref := range r.refs(i) {
		p.References = append(p.References, r.path(ref))
	}
	return keyspace.AppendPath(nil, p), true, nil
}

// TestClosureWalk walks a deep chain, a circle, and more than may be walked.
func TestClosureWalk(t *testing.T) {
	walk := func(r *rowsInMemory, limit int, ask ...nix.HashPart) ClosurePresence {
		t.Helper()
		w := closureWalker{view: r, cache: 7, seen: map[nix.HashPart]bool{}, limit: limit}
		p, err := w.walk(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const n = 3000
	chain := mkRows(t, n, func(i int) []int { return []int{i + 1, i} }) // the last refers to what is not there
	top := chain.path(0).HashPart()
	end := chain.path(n).HashPart()
	for limit, want := range map[int]ClosurePresence{
		n:     {Missing: []bool{false}, Walked: true, Paths: n, Absent: []nix.HashPart{end}},
		n - 1: {Missing: []bool{false}},
	} {
		if diff := cmp.Diff(want, walk(chain, limit, top)); diff != "" {
			t.Errorf("a chain, of which %d may be walked (-want +got):\n%s", limit, diff)
		}
	}
	circle := mkRows(t, 5, func(i int) []int { return []int{(i + 1) % 5, i} })
	if got := walk(circle, 100, top); !got.Walked || got.Paths != 5 || len(got.Absent) != 0 {
		t.Errorf("a circle: %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := closureWalker{view: circle, cache: 7, seen: map[nix.HashPart]bool{}, limit: 100}
	if _, err := w.walk(ctx, []nix.HashPart{top}); !errors.Is(err, context.Canceled) {
		t.Errorf("who has gone away gets %v", err)
	}
}

// BenchmarkClosurePresence is what the closure of one root costs for each of its paths, below HTTP.
func BenchmarkClosurePresence(b *testing.B) {
	const paths = 20_000
	n, hps := mkFullCache(b, paths)
	row, err := n.Path(b.Context(), "ci", hps[0])
	if err != nil {
		b.Fatal(err)
	}
	var entries []wal.Entry
	for i := range paths {
		row.StorePath, row.References = mkStorePath(b, fmt.Sprint("path-", i)), nil
		for _, ref := range []int{i + 1, i + 2, i + 3, i + 10, i + 100, 2 * i, 3 * i, 5 * i, 7 * i, 9 * i} {
			if ref < paths {
				row.References = append(row.References, mkStorePath(b, fmt.Sprint("path-", ref)))
			}
		}
		entries = append(entries, set(keyspace.AppendPathKey(nil, 1, hps[i]), keyspace.AppendPath(nil, &row)))
		if len(entries) == 2000 {
			n.commit(entries...)
			entries = nil
		}
	}
	for b.Loop() {
		if p, err := n.ClosurePresence(b.Context(), "ci", hps[:1]); err != nil || p.Paths != paths {
			b.Fatal(p.Paths, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/paths, "ns/path")
}
