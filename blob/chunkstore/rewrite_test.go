package chunkstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/blob/pack"
)

// condemn takes from the directory what no recipe names any more, as a collector does,
// and returns what is dead of every pack that it knows.
func (d *directory) condemn(recipes []*chunk.Recipe) map[chunk.PackID][]chunk.Range {
	d.mu.Lock()
	defer d.mu.Unlock()
	live := make(map[chunk.PackID][]bool)
	for id, l := range d.packs {
		live[id] = make([]bool, len(l.Sizes))
	}
	for _, r := range recipes {
		for _, run := range r.Runs {
			for i := range run.Count {
				live[run.Pack][run.First+i] = true
			}
		}
	}
	dead := maps.Clone(d.dead) // with those of packs that are gone
	for id := range live {
		dead[id] = nil
	}
	for id, alive := range live {
		for i, ok := range alive {
			if ok {
				continue
			}
			if at := (chunk.Location{Pack: id, Index: uint32(i)}); d.chunks[d.ids[id][i]] == at {
				delete(d.chunks, d.ids[id][i])
			}
			if r := dead[id]; len(r) > 0 && r[len(r)-1].First+r[len(r)-1].Count == uint32(i) {
				r[len(r)-1].Count++
			} else {
				dead[id] = append(r, chunk.Range{First: uint32(i), Count: 1})
			}
		}
	}
	d.dead = dead
	return dead
}

// mustPush writes a NAR until it is accepted. What was collected since the store saw
// it last may cost one more try, and no more.
func mustPush(t testing.TB, s *chunkstore.Store, d *directory, nar []byte) chunkstore.Result {
	t.Helper()
	for range 2 {
		res, err := s.Write(t.Context(), bytes.NewReader(nar))
		if err != nil {
			t.Fatalf("write: %v", err)
		}
		if ok, err := d.publish(&res); err != nil {
			t.Fatalf("publish: %v", err)
		} else if ok {
			wantRecipe(t, &res, nar)
			return res
		}
		s.Refused(&res.Recipe)
	}
	panic("a push was refused twice")
}

// jobs returns a job for every pack.
func (d *directory) jobs(dead map[chunk.PackID][]chunk.Range) []chunkstore.RewriteJob {
	var jobs []chunkstore.RewriteJob
	for _, id := range d.packIDs() {
		l, _ := d.PackLayout(context.Background(), id)
		jobs = append(jobs, chunkstore.RewriteJob{Layout: l, Dead: dead[id]})
	}
	return jobs
}

// move puts the layouts of a rewrite in place of the old ones and deletes the objects
// that nothing lies in any more.
func (d *directory) move(t fataler, b blob.Bucket, res *chunkstore.RewriteResult) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range res.Empty {
		delete(d.packs, id)
	}
	for _, o := range res.Objects {
		for _, l := range o.Layouts {
			again, rest, err := chunk.DecodeLayout(chunk.AppendLayout(nil, &l))
			if err != nil || len(rest) > 0 || again.Where() != o.ID || again.Bytes != o.Bytes {
				t.Fatalf("layout of pack %v in %v does not survive its codec: %v", l.ID, o.ID, err)
			}
			d.packs[l.ID] = again
		}
	}
	used := make(map[blob.Key]bool)
	for _, l := range d.packs {
		used[pack.Key(l.Where())] = true
	}
	for info, err := range b.List(context.Background(), pack.Prefix, "") {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if !used[info.Key] {
			if err := b.Delete(context.Background(), info.Key); err != nil {
				t.Fatalf("delete: %v", err)
			}
		}
	}
}

func mustRewrite(t fataler, s *chunkstore.Store, jobs []chunkstore.RewriteJob) chunkstore.RewriteResult {
	t.Helper()
	res, err := s.Rewrite(context.Background(), jobs)
	if err != nil || len(res.Failed) > 0 {
		t.Fatalf("rewrite: %v, %v", err, res.Failed)
	}
	moved := len(res.Empty)
	for _, o := range res.Objects {
		moved += len(o.Layouts)
	}
	if moved != len(jobs) {
		t.Fatalf("%d packs were given, %d came back", len(jobs), moved)
	}
	return res
}

// served is a NAR and what was served of it when it was new.
type served struct {
	nar    []byte
	recipe chunk.Recipe
	bytes  []byte
}

// wantSame reads a NAR in every way there is and compares.
func wantSame(t testing.TB, rt *rapid.T, s *chunkstore.Store, n *served) {
	t.Helper()
	if got := wantServed(t, s, &n.recipe, n.nar); !bytes.Equal(got, n.bytes) {
		rt.Fatalf("other bytes are served than at first: %d, not %d", len(got), len(n.bytes))
	}
	wantPlain(t, s, &n.recipe, n.nar)
	rd, err := s.Open(t.Context(), &n.recipe)
	if err != nil {
		rt.Fatal(err)
	}
	defer rd.Close()
	for range 2 {
		from := rapid.IntRange(0, len(n.bytes)).Draw(rt, "from")
		to := rapid.IntRange(from, len(n.bytes)).Draw(rt, "to")
		got := make([]byte, to-from)
		if _, err := rd.Seek(int64(from), io.SeekStart); err != nil {
			rt.Fatal(err)
		}
		if _, err := io.ReadFull(rd, got); err != nil || !bytes.Equal(got, n.bytes[from:to]) {
			rt.Fatalf("bytes %d to %d of %d: %v, or others than at first", from, to, len(n.bytes), err)
		}
	}
}

// wantSameOrGone opens a NAR that was forgotten. What is gone of it is not made up.
func wantSameOrGone(t testing.TB, rt *rapid.T, s *chunkstore.Store, n *served) {
	t.Helper()
	rd, err := s.Open(t.Context(), &n.recipe)
	if err != nil {
		if !errors.Is(err, chunkstore.ErrGone) && !errors.Is(err, chunk.ErrNoPack) {
			rt.Fatalf("open a NAR that was forgotten: %v", err)
		}
		return
	}
	defer rd.Close()
	if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, n.bytes) {
		rt.Fatalf("a NAR that was forgotten is opened, and read as %d other bytes, not %d (%v)", len(got), len(n.bytes), err)
	}
}

// TestRewriteProperties writes versions of NARs, lets some of them be forgotten, moves
// packs without what is dead then, in several rounds with pushes in between, and reads
// what is left. It must be what it was, byte for byte, for readers that know nothing
// of the moves as well.
func TestRewriteProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b, d := memblob.New(), newDirectory()
		o := chunkstore.Options{
			FrameBytes:   rapid.SampledFrom([]int{1, 4 << 10, 16 << 10}).Draw(rt, "frame"),
			RestoreBytes: rapid.SampledFrom([]int{-1, 2 << 10}).Draw(rt, "restore"),
			PackBytes:    rapid.SampledFrom([]int{8 << 10, 64 << 10, 1 << 20}).Draw(rt, "pack"),
		}
		old := mkStore(t, b, d, o) // it has the layouts of the first round in memory
		nar := text(rapid.Uint64Range(0, 1<<20).Draw(rt, "seed"), rapid.IntRange(1, 100_000).Draw(rt, "len"))
		var nars []*served
		for range rapid.IntRange(1, 3).Draw(rt, "rounds") {
			for range rapid.IntRange(1, 3).Draw(rt, "pushes") {
				pusher := old
				if rapid.Bool().Draw(rt, "push to another store") {
					pusher = mkStore(t, b, d, o)
				}
				res := mustPush(t, pusher, d, nar)
				nars = append(nars, &served{nar: nar, recipe: res.Recipe, bytes: wantServed(t, old, &res.Recipe, nar)})
				if nar = edit(rt, nar); len(nar) == 0 {
					nar = []byte{1}
				}
			}
			var forgotten []*served
			nars = slices.DeleteFunc(nars, func(n *served) bool {
				forget := rapid.Bool().Draw(rt, "forget")
				if forget {
					forgotten = append(forgotten, n)
				}
				return forget
			})
			var recipes []*chunk.Recipe
			for _, n := range nars {
				recipes = append(recipes, &n.recipe)
			}
			jobs := d.jobs(d.condemn(recipes))
			jobs = slices.DeleteFunc(jobs, func(chunkstore.RewriteJob) bool { return rapid.IntRange(0, 4).Draw(rt, "leave") == 0 })
			mover := mkStore(t, b, d, o)
			res := mustRewrite(rt, mover, jobs)
			d.move(rt, b, &res)
			wantExplained(rt, b, d, mover)
			fresh := mkStore(t, b, d, o)
			for _, n := range nars {
				wantSame(t, rt, old, n)
				wantSame(t, rt, fresh, n)
			}
			for _, n := range forgotten {
				wantSameOrGone(t, rt, fresh, n)
			}
			fresh.Close()
			mover.Close()
		}
		old.Close()
	})
}

// wantExplained rebuilds what the directory has from the objects alone.
func wantExplained(t fataler, b blob.Bucket, d *directory, s *chunkstore.Store) {
	t.Helper()
	type place struct{ pack, object chunk.PackID } // an object may still have a pack that moved on
	found := make(map[place]chunk.NewPack)
	for o, err := range s.Objects(context.Background(), chunk.PackID{}) {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		f, err := s.Footer(context.Background(), o.ID, o.Bytes)
		if err != nil {
			t.Fatalf("footer: %v", err)
		}
		for i := range f.Sections {
			np := f.NewPack(&f.Sections[i])
			found[place{np.Layout.ID, o.ID}] = np
		}
		again := pack.AppendFooter(nil, &f)
		object, _, err := b.Get(context.Background(), pack.Key(o.ID))
		if err != nil || !bytes.HasSuffix(object, again) {
			t.Fatalf("footer of %v would be written in another way (%v)", o.ID, err)
		}
	}
	for _, id := range d.packIDs() {
		want, _ := d.PackLayout(context.Background(), id)
		got := found[place{id, want.Where()}]
		if !bytes.Equal(chunk.AppendLayout(nil, &got.Layout), chunk.AppendLayout(nil, &want)) {
			t.Fatalf("pack %v is explained as %+v, want %+v", id, got.Layout, want)
		}
		for i, n := range want.Sizes {
			if n != 0 && got.IDs[i] != d.ids[id][i] {
				t.Fatalf("chunk %d of pack %v is explained as %v, want %v", i, id, got.IDs[i], d.ids[id][i])
			}
		}
	}
}
