//go:build mutant

package catalog

import (
	"errors"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// Each rule that simulations reach too seldom, left out, must do harm that somebody would
// notice; the rules as they are must not.
func TestMutantsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name   string
		broken Mutants
		harm   func(t *testing.T, m Mutants) bool
	}{
		{"a late collection says that what another purges is done", Mutants{NoPurgeFence: true}, purgeIsForgotten},
		{"what is to be purged is said to be gone before it is", Mutants{NoHoleCheck: true}, purgeEndsEarly},
		{"two recounts put the same right", Mutants{NoRecountFence: true}, countsAreWrong},
		{"recipes go that paths have come to name", Mutants{NoRecipeCheck: true}, pushedAgainIsLost},
		{"packs are moved into what may have been swept", Mutants{NoMoveFence: true}, movedIntoNothing},
		{"what is beside a path goes although the path has come", Mutants{NoSideCheck: true}, sideIsLost},
		{"a cache is shown whose rows were swept", Mutants{NoRebuildFence: true}, restoredIsEmpty},
		{"paths come back without their NARs", Mutants{NoSoundCheck: true}, restoredWithoutNar},
		{"a restore removes what has changed meanwhile", Mutants{NoDiffCheck: true}, restoreMiscounts},
		{"a restore does not see what has gone meanwhile", Mutants{NoMomentCheck: true}, restoreLacks},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.harm(t, Mutants{}) {
				t.Error("harm is done without the mutant")
			}
			if !c.harm(t, c.broken) {
				t.Error("nobody notices the mutant")
			}
		})
	}
}

// breakRules has a node that is open obey fewer rules.
func (n *node) breakRules(m Mutants) *node {
	n.mutants = m
	return n
}

func (n *node) mustWithdraw(name string, purge bool) {
	n.t.Helper()
	w := Withdrawal{Cache: "ci", HashParts: []nix.HashPart{mkStorePath(n.t, name).HashPart()}, Purge: purge, Pinned: true}
	if _, err := n.WithdrawPaths(n.t.Context(), w); err != nil {
		n.t.Fatal(err)
	}
}

// mustUnreferenced returns the NARs that no path names.
func (n *node) mustUnreferenced() []Unreferenced {
	n.t.Helper()
	s, err := n.Snapshot(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	nars, err := collect(s.Unreferenced())
	if err := errors.Join(err, s.Close()); err != nil {
		n.t.Fatal(err)
	}
	return nars
}

func (m *Mark) mustRemoveRecipes(t *testing.T, nars []Unreferenced) {
	t.Helper()
	if _, err := m.RemoveRecipes(t.Context(), nars); err != nil {
		t.Fatal(err)
	}
}

// purgeIsForgotten has two NARs in one pack purged by two collections, of which the first is
// slow to say that it is done.
func purgeIsForgotten(t *testing.T, m Mutants) bool {
	bucket := mkBucket(t)
	n, other := mkNode(t, bucket).breakRules(m), mkNode(t, bucket)
	n.mustCreate("ci")
	pack := mkPack(1, 1, 6)
	n.mustPublish(mkPublication(t, "ci", "first", pack))
	n.mustPublish(mkPublication(t, "ci", "second", pack))
	slow := n.mustMark()
	n.mustWithdraw("first", true)
	slow.mustRemoveRecipes(t, n.mustUnreferenced())
	next := other.mustMark()
	n.mustWithdraw("second", true)
	next.mustRemoveRecipes(t, n.mustUnreferenced())
	if err := slow.PurgeDone(t.Context(), []chunk.PackID{pack.Layout.ID}); err != nil && !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	p, _, err := readPack(n.db, pack.Layout.ID)
	if err != nil {
		t.Fatal(err)
	}
	return !p.Condemned.Purge // though nothing of the second is even condemned
}

// purgeEndsEarly has a chunk die in a pack that was written again, before that is noted.
func purgeEndsEarly(t *testing.T, m Mutants) bool {
	n := mkNode(t, mkBucket(t)).breakRules(m)
	n.mustCreate("ci")
	pack := mkPack(1, 1, 2)
	n.mustPublish(mkPublication(t, "ci", "x", pack))
	mark := n.mustMark()
	n.mustWithdraw("x", true)
	mark.mustRemoveRecipes(t, n.mustUnreferenced())
	if _, err := mark.Condemn(t.Context(), mark.Seen(), []DeadChunks{{Pack: pack.Layout.ID, Chunks: []DeadChunk{{Index: 1}}}}); err != nil {
		t.Fatal(err)
	}
	if err := mark.PurgeDone(t.Context(), []chunk.PackID{pack.Layout.ID}); err != nil {
		t.Fatal(err)
	}
	p, known, err := readPack(n.db, pack.Layout.ID)
	if err != nil || !known {
		t.Fatalf("the pack is known: %v, %v", known, err)
	}
	return !p.Condemned.Purge && !onlyHoles(&p)
}

// countsAreWrong has a node count while another does.
func countsAreWrong(t *testing.T, m Mutants) bool {
	b := mkTimed(t)
	n, other := mkNode(t, b).breakRules(m), mkNode(t, b)
	n.mustCreate("ci")
	n.mustPublish(mkPublication(t, "ci", "x", mkPack(1, 1, 3)))
	for _, p := range []byte{keyspace.TotalsPrefix, keyspace.NarPrefix, keyspace.LastUsePrefix, keyspace.UseOrderPrefix, keyspace.GrowthPrefix} {
		n.commit(wal.Entry{Kind: wal.DeleteRange, Key: []byte{p}, Value: []byte{p + 1}})
	}
	slow, err := n.beginRecount(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.snapshot.Close() }()
	if _, err := other.Recount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := slow.putRight(t.Context()); err != nil && !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	return n.wantCounted() != nil
}

// pushedAgainIsLost pushes a path whose NAR is about to go.
func pushedAgainIsLost(t *testing.T, m Mutants) bool {
	n := mkNode(t, mkTimed(t)).breakRules(m)
	n.mustCreate("ci")
	pub := mkPublication(t, "ci", "x", mkPack(1, 1, 1))
	n.mustPublish(pub)
	n.mustWithdraw("x", false)
	nars := n.mustUnreferenced()
	mark := n.mustMark()
	n.mustPublish(pub)
	mark.mustRemoveRecipes(t, nars)
	_, err := n.Recipe(t.Context(), pub.Path.NarHash)
	return err != nil
}

// movedIntoNothing moves a pack into an object of two upload epochs ago, of which a sweep has
// found that nobody can commit it any more.
func movedIntoNothing(t *testing.T, m Mutants) bool {
	n := mkNode(t, mkBucket(t)).breakRules(m)
	n.setCounter(keyspace.UploadEpoch, 5)
	pack := mkPack(5, 1, 2)
	if err := n.CommitPacks(t.Context(), []chunk.NewPack{pack}); err != nil {
		t.Fatal(err)
	}
	object := chunk.PackID{Epoch: 5, Rand: 9}
	l := pack.Layout
	l.Object, l.Bytes, l.Footer, l.Frames = object, 900, 800, mkFrames(l.Sizes)
	n.setCounter(keyspace.UploadEpoch, 7)
	if known, err := knowsObject(n.db, object); known || err != nil {
		t.Fatalf("known: %v, %v", known, err)
	}
	_, err := n.MovePacks(t.Context(), Move{Object: object, Bytes: 900, Packs: []MovedPack{{Old: pack.Layout, New: l}}})
	if err != nil && !errors.Is(err, ErrChunksMissing) {
		t.Fatal(err)
	}
	return err == nil
}

// sideIsLost has the path of a side object come back while it is swept.
func sideIsLost(t *testing.T, m Mutants) bool {
	b := mkTimed(t)
	n := mkNode(t, b).breakRules(m)
	n.mustCreate("ci")
	pub := mkPublication(t, "ci", "x", mkPack(1, 1, 1))
	n.mustPublish(pub)
	n.mustPutSide(SideUpload{Cache: "ci", Side: Side{
		Kind: SideBuildTrace, Name: "x/trace", OwnerKind: OwnerPath, Owner: PathOwner(pub.Path.StorePath.HashPart()),
	}})
	n.mustWithdraw("x", false)
	n.mustTick(TickOptions{})
	b.pass(3 * day)
	n.mustTick(TickOptions{})
	mark := n.mustMark()
	clock, err := n.Clock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.mustPublish(pub)
	if _, err := mark.SweepSides(t.Context(), 1, clock, day, mark.Seen()); err != nil {
		t.Fatal(err)
	}
	return len(n.sideNames(1)) == 0
}

// restoredIsEmpty shows a cache that was being put together for so long that it was swept.
func restoredIsEmpty(t *testing.T, m Mutants) bool {
	n := mkNode(t, mkBucket(t)).breakRules(m)
	ctx := t.Context()
	cache, paths, _ := mkThen(t, n)
	r, err := n.BeginRebuild(ctx, cache)
	if err == nil {
		_, err = r.AddPaths(ctx, paths)
	}
	if err == nil {
		err = r.Abandon(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Restore(ctx, []CacheRestore{{Name: "ci", Then: &cache, Aside: r}})
	if err != nil && !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	_, err = n.Path(ctx, "ci", paths[0].StorePath.HashPart())
	return err != nil
}

// restoredWithoutNar restores a path whose recipe has gone.
func restoredWithoutNar(t *testing.T, m Mutants) bool {
	n := mkNode(t, mkBucket(t)).breakRules(m)
	cache, paths, _ := mkThen(t, n)
	n.mustWithdraw("a", true)
	n.mustMark().mustRemoveRecipes(t, n.mustUnreferenced())
	if _, err := n.Restore(t.Context(), []CacheRestore{{Name: "ci", Now: &cache, Then: &cache, Set: []PathRestore{{Then: paths[0]}}}}); err != nil {
		t.Fatal(err)
	}
	_, err := n.Path(t.Context(), "ci", paths[0].StorePath.HashPart())
	_, lost := n.Recipe(t.Context(), paths[0].NarHash)
	return err == nil && lost != nil
}

// restoreMiscounts drops a path that has gone since the difference was made.
func restoreMiscounts(t *testing.T, m Mutants) bool {
	n := mkNode(t, mkBucket(t)).breakRules(m)
	cache, paths, _ := mkThen(t, n)
	n.mustPublish(mkPublication(t, "ci", "other", mkPack(1, 2, 3)))
	n.mustWithdraw("a", false)
	_, err := n.Restore(t.Context(), []CacheRestore{{Name: "ci", Now: &cache, Then: &cache, Drop: paths}})
	if err != nil && !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	return n.wantCounted() != nil
}

// restoreLacks restores to a state with a path that was there when the difference was made
// and has gone since.
func restoreLacks(t *testing.T, m Mutants) bool {
	n := mkNode(t, mkBucket(t)).breakRules(m)
	ctx := t.Context()
	cache, paths, _ := mkThen(t, n)
	n.mustPublish(mkPublication(t, "ci", "new", mkPack(1, 2, 3)))
	s, err := n.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	since, err := s.Moment(cache.ID)
	there, _, err1 := s.Path(cache.ID, mkStorePath(t, "new").HashPart())
	if err := errors.Join(err, err1, s.Close()); err != nil {
		t.Fatal(err)
	}
	n.mustWithdraw("a", false)
	_, err = n.Restore(ctx, []CacheRestore{{Name: "ci", Now: &cache, Then: &cache, Since: &since, Drop: []Path{there}}})
	if errors.Is(err, ErrConflict) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Path(ctx, "ci", paths[0].StorePath.HashPart())
	return err != nil
}
