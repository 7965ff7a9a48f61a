package catalog

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

func (n *node) mustMark() *Mark {
	n.t.Helper()
	m, err := n.BeginMark(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := m.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return m
}

func TestLaterMarkFences(t *testing.T) {
	bucket := mkBucket(t)
	n, other := mkNode(t, bucket), mkNode(t, bucket)
	ctx := t.Context()
	n.mustCreate("a")
	pack := mkPack(1, 1, 3)
	n.mustPublish(mkPublication(t, "a", "x", pack))
	if _, err := n.Withdraw(ctx, "a", mkStorePath(t, "x").HashPart()); err != nil {
		t.Fatal(err)
	}
	m := n.mustMark()
	o := other.mustMark()
	if m.Generation() >= o.Generation() {
		t.Errorf("generations %d and %d, want the later one to be higher", m.Generation(), o.Generation())
	}
	nars, err := collect(o.Snapshot().Unreferenced())
	if err != nil || len(nars) != 1 {
		t.Fatalf("%d NARs without a path, %v; want 1", len(nars), err)
	}
	_, err = m.Expire(ctx, 0, Expiry{Cache: 1, Paths: []Use{{Day: 1}}})
	wantErr(t, "Expire", err, ErrFenced)
	_, err = m.RemoveRecipes(ctx, nars)
	wantErr(t, "RemoveRecipes", err, ErrFenced)
	_, err = m.RemoveParts(ctx, []RecipeParts{{}})
	wantErr(t, "RemoveParts", err, ErrFenced)
	_, err = m.Condemn(ctx, 0, []DeadChunks{{Pack: pack.Layout.ID, Chunks: []DeadChunk{{}}}})
	wantErr(t, "Condemn", err, ErrFenced)
	_, _, err = m.Touches(ctx, 0)
	wantErr(t, "Touches", err, ErrFenced)
	if err := m.End(ctx); err != nil { // not its to end
		t.Errorf("End of what was fenced: %v", err)
	}
	if removed, err := o.RemoveRecipes(ctx, nars); err != nil || len(removed) != 1 {
		t.Errorf("the later collection removed %d recipes, %v; want 1", len(removed), err)
	}
}

func TestTooManyTouches(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("a")
	pack := mkPack(1, 1, 3)
	if err := n.CommitPacks(ctx, []chunk.NewPack{pack}); err != nil {
		t.Fatal(err)
	}
	m := n.mustMark()
	touch := func(count int) {
		n.t.Helper()
		op := wal.Op{Name: "test", Build: func(v wal.View) ([]wal.Entry, error) {
			b, err := newBooks(v)
			if err != nil {
				return nil, err
			}
			for range count {
				b.touch(Touch{Cache: 1})
			}
			return b.close()
		}}
		if _, err := n.log.Commit(ctx, op); err != nil {
			t.Fatal(err)
		}
	}
	dead := []DeadChunks{{Pack: pack.Layout.ID, Chunks: []DeadChunk{{Index: 1}}}}
	touch(buildTouches + 1)
	_, err := m.Condemn(ctx, 0, dead)
	wantErr(t, "Condemn", err, ErrTouched)
	touches, more, err := m.Touches(ctx, 0)
	if err != nil || more || len(touches) != buildTouches+1 || touches[len(touches)-1].Serial != buildTouches+1 {
		t.Fatalf("%d touches, more %v, %v", len(touches), more, err)
	}
	_, err = m.Condemn(ctx, buildTouches+2, dead)
	wantErr(t, "more touches than there are", err, ErrInvalid)
	if c, err := m.Condemn(ctx, 1, dead); err != nil || c.Chunks != 1 {
		t.Errorf("condemned %+v, %v; want 1", c, err)
	}
	// Whoever cannot keep up at all is ended, and costs pushes nothing any more.
	row := keyspace.Mark{Generation: m.Generation(), Running: true, Touches: maxTouches}
	n.commit(set(keyspace.AppendMarkKey(nil), keyspace.AppendMark(nil, &row)))
	touch(1)
	_, err = m.Condemn(ctx, maxTouches, dead)
	wantErr(t, "after a million touches", err, ErrFenced)
	before := n.countRows(keyspace.TouchPrefix)
	touch(1)
	if after := n.countRows(keyspace.TouchPrefix); after != before {
		t.Errorf("%d touches after the collection was ended, want none", after-before)
	}
	m = n.mustMark()
	if rows := n.countRows(keyspace.TouchPrefix); rows != 0 {
		t.Errorf("%d touches are left of the one before", rows)
	}
	touch(3)
	if err := m.End(ctx); err != nil || n.countRows(keyspace.TouchPrefix) != 0 {
		t.Errorf("%d touches after the end, %v", n.countRows(keyspace.TouchPrefix), err)
	}
}

func (n *node) countRows(prefix byte) (rows int) {
	n.t.Helper()
	for _, err := range n.db.Scan([]byte{prefix}, nil) {
		if err != nil {
			n.t.Fatal(err)
		}
		rows++
	}
	return rows
}

// TestExpireWalksFromTouches leaves it to Expire to find what a path leads to that was
// used since the collector looked.
func TestExpireWalksFromTouches(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	ctx := t.Context()
	n.mustCreate("a")
	var all []Use
	for i := range 6 { // each refers to the next
		pub := mkPublication(t, "a", fmt.Sprint("x", i), mkPack(1, uint64(i), 1))
		pub.Path.References = []nix.StorePath{mkStorePath(t, fmt.Sprint("x", i+1))}
		n.mustPublish(pub)
		all = append(all, Use{Cache: 1, HashPart: pub.Path.StorePath.HashPart(), Day: 1})
	}
	n.mustTick(TickOptions{})
	m := n.mustMark()
	if err := n.RecordUses(ctx, []PathKey{{"a", all[2].HashPart}}); err != nil {
		t.Fatal(err)
	}
	done, err := m.Expire(ctx, 0, Expiry{Cache: 1, Paths: append(all, all...)})
	if err != nil || done.Removed != 2 || len(done.Spared) != 4 || done.NarBytes != 2000 {
		t.Errorf("%+v, %v; want the two before the one that was used to go", done, err)
	}
	// Told that the touch was taken into account, it looks at the day of the path alone.
	done, err = m.Expire(ctx, 1, Expiry{Cache: 1, Paths: all})
	if err != nil || done.Removed != 3 || !slices.Equal(done.Spared, []nix.HashPart{all[2].HashPart}) {
		t.Errorf("%+v, %v; want all but the one that was used to go", done, err)
	}
	n.mustPin(PinChange{Cache: "a", Name: "p", StorePath: mkStorePath(t, "x2")})
	last := Use{Cache: 1, HashPart: all[2].HashPart, Day: 2}
	if done, err = m.Expire(ctx, 2, Expiry{Cache: 1, Paths: []Use{last}}); err != nil || done.Removed != 0 {
		t.Errorf("%+v, %v; want the pinned path to stay", done, err)
	}
	// Destroyed, and nobody gets around to sweeping.
	_, err = n.log.Commit(ctx, wal.Op{Name: "test", Build: func(v wal.View) ([]wal.Entry, error) {
		b, err := newBooks(v)
		if err != nil {
			return nil, err
		}
		cache, _, err := read(v, keyspace.AppendCacheKey(nil, "a"), keyspace.DecodeCache)
		if err == nil {
			err = b.destroy(&cache, mkTime())
		}
		if err != nil {
			return nil, err
		}
		return b.close()
	}})
	if err != nil {
		t.Fatal(err)
	}
	n.mustCreate("b")
	n.mustPublish(mkPublication(t, "b", "y", mkPack(1, 99, 1)))
	if done, err = m.Expire(ctx, 2, Expiry{Cache: 1, Paths: []Use{last}}); err != nil || done.Removed != 0 || len(done.Spared) != 0 {
		t.Errorf("%+v, %v; want nothing to be done in a destroyed cache", done, err)
	}
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}

// TestPinThatKeepsMore makes roots of old revisions after the collector has looked, and
// wants what these lead to spared as well.
func TestPinThatKeepsMore(t *testing.T) {
	keepMore := map[string]func(*node) error{
		"a policy": func(n *node) error {
			_, err := n.SetPinPolicy(t.Context(), "a", "p", PinPolicy{KeepForever: true})
			return err
		},
		"a revision with a policy": func(n *node) error {
			_, err := n.SetPin(t.Context(), PinChange{Cache: "a", Name: "p", StorePath: mkStorePath(t, "x8"), Policy: &PinPolicy{KeepForever: true}})
			return err
		},
	}
	for what, change := range keepMore {
		for _, looks := range []bool{false, true} {
			n := mkNode(t, mkTimed(t))
			n.mustCreate("a")
			for i, to := range []string{"x1", "x2", "x3"} { // x0 to x1, and so on
				pub := mkPublication(t, "a", fmt.Sprint("x", i), mkPack(1, uint64(i), 1))
				pub.Path.References = []nix.StorePath{mkStorePath(t, to)}
				n.mustPublish(pub)
			}
			n.mustPin(PinChange{Cache: "a", Name: "p", StorePath: mkStorePath(t, "x0")})
			n.mustPin(PinChange{Cache: "a", Name: "p", StorePath: mkStorePath(t, "x9")})
			n.mustTick(TickOptions{})
			m := n.mustMark()
			if err := change(n); err != nil {
				t.Fatal(err)
			}
			e := Expiry{Cache: 1}
			for i := range 3 {
				e.Paths = append(e.Paths, Use{Cache: 1, HashPart: mkStorePath(t, fmt.Sprint("x", i)).HashPart(), Day: 1})
			}
			touches, _, err := m.Touches(t.Context(), 0)
			if err != nil || !slices.ContainsFunc(touches, func(touch Touch) bool { return touch.HashPart == e.Paths[0].HashPart }) {
				t.Errorf("%s: touches %+v, %v; want the old revision to be among them", what, touches, err)
			}
			processed := uint32(0)
			if looks { // but takes nothing from it
				processed = uint32(len(touches))
			}
			done, err := m.Expire(t.Context(), processed, e)
			if err != nil || done.Removed != 0 || len(done.Spared) != 3 {
				t.Errorf("%s, touches seen %v: %+v, %v; want all three spared", what, looks, done, err)
			}
		}
	}
}

// TestRecipeSinceTheMark pushes a NAR of old chunks that the collector takes for dead.
func TestRecipeSinceTheMark(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	ctx := t.Context()
	n.mustCreate("a")
	pack := mkPack(1, 1, 4)
	if err := n.CommitPacks(ctx, []chunk.NewPack{pack}); err != nil {
		t.Fatal(err)
	}
	m := n.mustMark()
	pub := mkPublication(t, "a", "x", pack)
	pub.Packs, pub.Recipe.Runs = nil, []chunk.Run{{Pack: pack.Layout.ID, First: 1, Count: 2}}
	n.mustPublish(pub)
	dead := DeadChunks{Pack: pack.Layout.ID}
	for i, id := range pack.IDs {
		dead.Chunks = append(dead.Chunks, DeadChunk{Index: uint32(i), ID: id})
	}
	c, err := m.Condemn(ctx, 0, []DeadChunks{dead})
	if err != nil || c.Chunks != 2 || c.Spared != 2 || c.Bytes != 2000 || len(c.Objects) != 0 {
		t.Errorf("%+v, %v; want two of four chunks to die", c, err)
	}
	_, found, err := n.LookupChunks(ctx, pack.IDs)
	if err != nil || fmt.Sprint(found) != "[false true true false]" {
		t.Errorf("found %v, %v; want the chunks of the push", found, err)
	}
	again := mkPack(1, 2, 1) // what died comes back in another pack
	again.IDs[0] = pack.IDs[0]
	n.mustPublish(mkPublication(t, "a", "y", again))
	if l, found, err := n.LookupChunks(ctx, pack.IDs[:1]); err != nil || !found[0] || l[0].Pack != again.Layout.ID {
		t.Errorf("chunk is at %v, %v, %v; want it in the new pack", l, found, err)
	}
	n.wantSound()
}

// TestStrayChunkRow has a chunk row name a place that is dead: it counts for nothing.
func TestStrayChunkRow(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("a")
	pack := mkPack(1, 1, 2)
	n.mustPublish(mkPublication(t, "a", "x", pack))
	if _, err := n.MarkDamaged(ctx, []DeadChunks{{Pack: pack.Layout.ID, Chunks: []DeadChunk{{Index: 1}}}}); err != nil {
		t.Fatal(err)
	}
	if _, found, err := n.LookupChunks(ctx, pack.IDs); err != nil || !found[0] || found[1] {
		t.Errorf("found %v, %v; want the first alone", found, err)
	}
	again := mkPack(1, 2, 2)
	again.IDs = pack.IDs
	if err := n.CommitPacks(ctx, []chunk.NewPack{again}); err != nil {
		t.Fatal(err)
	}
	l, found, err := n.LookupChunks(ctx, pack.IDs)
	if err != nil || !found[1] || l[0].Pack != pack.Layout.ID || l[1].Pack != again.Layout.ID {
		t.Errorf("chunks are at %v, %v, %v; want the damaged one in the new pack", l, found, err)
	}
}

func TestUnreferencedIsCheckedByState(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	ctx := t.Context()
	n.mustCreate("a")
	pub := mkPublication(t, "a", "x", mkPack(1, 1, 1))
	hp := pub.Path.StorePath.HashPart()
	unreferenced := func() []Unreferenced {
		t.Helper()
		s, err := n.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		nars, err := collect(s.Unreferenced())
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		return nars
	}
	n.mustPublish(pub)
	if _, err := n.Withdraw(ctx, "a", hp); err != nil {
		t.Fatal(err)
	}
	first := unreferenced()
	if want := []Unreferenced{{NarHash: pub.Path.NarHash, Day: 1}}; !slices.Equal(first, want) {
		t.Fatalf("unreferenced %+v, want %+v", first, want)
	}
	m := n.mustMark()
	n.mustPublish(pub)
	if removed, err := m.RemoveRecipes(ctx, first); err != nil || len(removed) != 0 {
		t.Errorf("removed %+v, %v, of a NAR that was pushed again", removed, err)
	}
	n.mustTick(TickOptions{})
	if _, err := n.WithdrawPaths(ctx, Withdrawal{Cache: "a", HashParts: []nix.HashPart{hp}, Purge: true}); err != nil {
		t.Fatal(err)
	}
	if removed, err := m.RemoveRecipes(ctx, first); err != nil || len(removed) != 0 {
		t.Errorf("removed %+v, %v, of a NAR that went later", removed, err)
	}
	second := unreferenced()
	if want := []Unreferenced{{NarHash: pub.Path.NarHash, Day: 2, Purge: true}}; !slices.Equal(second, want) {
		t.Fatalf("unreferenced %+v, want %+v", second, want)
	}
	if removed, err := m.RemoveRecipes(ctx, append(second, second...)); err != nil || len(removed) != 1 {
		t.Errorf("removed %+v, %v; want one", removed, err)
	}
	p, ok, err := m.mustCurrent(t).Pack(pub.Packs[0].Layout.ID)
	if err != nil || !ok || !p.Condemned.Purge {
		t.Errorf("pack %+v, %v; want it to be purged", p.Condemned, err)
	}
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}

func (m *Mark) mustCurrent(t *testing.T) *Snapshot {
	t.Helper()
	s, err := m.Current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
