package catalog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

func TestSweepSessions(t *testing.T) {
	b := mkTimed(t)
	quiet := mkNode(t, b)
	quiet.mustCreate("a")
	n := mkNode(t, b)
	for i := range 5 {
		n.mustCreate(CacheName(fmt.Sprint("b", i)))
	}
	n.mustTick(TickOptions{})
	b.pass(silentTime - time.Second)
	if swept, err := n.sweepSessions(t.Context(), n.mustTick(TickOptions{}), 5); err != nil || swept != 0 {
		t.Errorf("swept %d sessions before their time, %v", swept, err)
	}
	b.pass(time.Second)
	k := n.mustTick(TickOptions{})
	if swept, err := n.sweepSessions(t.Context(), k, 1000); err != nil || swept != 0 {
		t.Errorf("swept %d sessions that were silent for few slots, %v", swept, err)
	}
	if swept, err := n.sweepSessions(t.Context(), k, 5); err != nil || swept != 1 {
		t.Errorf("swept %d sessions, %v; want that of the quiet writer", swept, err)
	}
	quiet.mustCreate("c") // under another id
	n.wantSound()

	// What has written since it was looked at stays.
	if _, err := n.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := collect(rowsOf(n.db, "sessions", []byte(sessionPrefix), func(key, value []byte) (wal.KV, error) { return wal.KV{Key: key, Value: value}, nil }))
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d sessions, %v; want 2", len(rows), err)
	}
	rows[0].Value[0]++
	entries, dropped, err := dropSessions(n.db, rows)
	if err != nil || dropped != 1 || string(entries[0].Key) != string(rows[1].Key) {
		t.Errorf("%d sessions dropped, %v; want the one that is as it was", dropped, err)
	}
}

// TestOrphanParts leaves parts of recipes behind whose head never came, or is another.
func TestOrphanParts(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("a")
	big := func(name string, seed uint64, runs int) Publication {
		pack := mkPack(1, seed, 3)
		pub := mkPublication(t, "a", name, pack)
		pub.Recipe.Runs = nil
		for i := range uint32(runs) {
			pub.Recipe.Runs = append(pub.Recipe.Runs, chunk.Run{Pack: pack.Layout.ID, First: (i + uint32(seed)) % 3, Count: 1})
		}
		return pub
	}
	whole := big("whole", 1, 200_000)
	n.mustPublish(whole)
	n.mustPublish(mkPublication(t, "a", "small", mkPack(1, 4, 1)))
	add := func(r *chunk.Recipe) RecipeParts {
		t.Helper()
		values, tag, err := keyspace.EncodeRecipe(r)
		if err != nil || len(values) < 3 {
			t.Fatal(len(values), err)
		}
		for i := 1; i < len(values); i++ {
			n.commit(set(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: r.NarHash, Tag: tag, Part: i}), values[i]))
		}
		return RecipeParts{NarHash: r.NarHash, Tag: tag, Parts: len(values) - 1}
	}
	headless, other := big("headless", 2, 200_000), big("whole", 3, 300_000)
	ofSmall := big("small", 5, 200_000)
	want := []RecipeParts{add(&headless.Recipe), add(&other.Recipe), add(&ofSmall.Recipe)}
	slices.SortFunc(want, func(a, b RecipeParts) int { return slices.Compare(a.NarHash[:], b.NarHash[:]) })
	m := n.mustMark()
	got, err := collect(m.Snapshot().OrphanParts())
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("orphans %+v, %v; want %+v", got, err, want)
	}
	_, tag, err := keyspace.EncodeRecipe(&whole.Recipe)
	if err != nil {
		t.Fatal(err)
	}
	parts := 0
	for _, p := range want {
		parts += p.Parts
	}
	removed, err := m.RemoveParts(ctx, append(want, RecipeParts{NarHash: whole.Path.NarHash, Tag: tag, Parts: 1}))
	if err != nil || removed != parts {
		t.Errorf("removed %d parts, %v; want %d", removed, err, parts)
	}
	if got, err := collect(m.mustCurrent(t).OrphanParts()); err != nil || len(got) != 0 {
		t.Errorf("orphans %+v, %v; want none", got, err)
	}
	n.wantSound()
	// A recipe that is removed takes its parts along.
	if _, err := n.Withdraw(ctx, "a", whole.Path.StorePath.HashPart()); err != nil {
		t.Fatal(err)
	}
	if removed, err := m.RemoveRecipes(ctx, []Unreferenced{{NarHash: whole.Path.NarHash, Day: 1}}); err != nil || len(removed) != 1 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if rows := n.countRows(keyspace.RecipePrefix); rows != 1 {
		t.Errorf("%d rows of recipes are left, want that of the small one", rows)
	}
}
