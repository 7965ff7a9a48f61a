package catalog

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// TestCheckKnowsAllRows wants every type of row to be checked.
func TestCheckKnowsAllRows(t *testing.T) {
	c := &rowCheck{caches: map[CacheID]string{}}
	for b := range 256 {
		key := []byte{byte(b)}
		if keyspace.Kind(key) == "" || b == keyspace.ChunkPrefix {
			continue
		}
		if err := c.check(wal.KV{Key: key}); errors.Is(err, errNoSuchRow) {
			t.Errorf("rows of type %q (%s) are not checked", string(key), keyspace.Kind(key))
		}
	}
	if err := c.check(wal.KV{Key: []byte("\x01x")}); !errors.Is(err, errNoSuchRow) {
		t.Errorf("a row of no type: %v", err)
	}
}

func (n *node) badRows() (bad []string) {
	n.t.Helper()
	s, err := n.Snapshot(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	tell := func(b BadRow) bool {
		bad = append(bad, fmt.Sprint(b.Row, ": ", b.Problem))
		return true
	}
	if _, err := s.CheckRows(n.t.Context(), tell); err != nil {
		n.t.Fatal(err)
	}
	for _, err := range s.AllChunks(func(b BadRow) { tell(b) }) {
		if err != nil {
			n.t.Fatal(err)
		}
	}
	return bad
}

// TestCheckRows spoils one row of each kind and wants it to be told, and no other.
func TestCheckRows(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	ctx := t.Context()
	n.mustCreate("a")
	n.mustPublish(mkPublication(t, "a", "x", mkPack(1, 1, 3)))
	n.mustTick(TickOptions{})
	if _, err := n.SetPin(ctx, PinChange{Cache: "a", Name: "pin", StorePath: mkStorePath(t, "x"), By: "me"}); err != nil {
		t.Fatal(err)
	}
	if bad := n.badRows(); len(bad) > 0 {
		t.Fatalf("of a sound store: %v", bad)
	}
	hp := mkStorePath(t, "x").HashPart()
	id := chunk.PackID{Epoch: 1, Rand: 1}
	junk := []byte{99, 1, 2}
	revision := keyspace.AppendPinRevision(nil, &keyspace.PinRevision{Cache: 1, Pin: "pin", Number: 2, StorePath: mkStorePath(t, "x"), Day: 1, At: time.UnixMilli(5)})
	for what, row := range map[string]wal.Entry{
		"cache row":            set(keyspace.AppendCacheKey(nil, "b"), junk),
		"number 1 is":          set(keyspace.AppendDestroyedKey(nil, 1), keyspace.AppendDestroyed(nil, &keyspace.Destroyed{ID: 1, Name: "a", At: time.UnixMilli(5)})),
		"the next cache gets":  set(keyspace.AppendDestroyedKey(nil, 9), keyspace.AppendDestroyed(nil, &keyspace.Destroyed{ID: 9, Name: "a", At: time.UnixMilli(5)})),
		"path row":             set(keyspace.AppendPathKey(nil, 1, hp), junk),
		"there is no cache 7":  set(keyspace.AppendLastUseKey(nil, 7, hp), keyspace.AppendLastUse(nil, 1)),
		"there is no cache 8":  set(keyspace.AppendTotalsKey(nil, 8), keyspace.AppendTotals(nil, &Totals{Cache: 8})),
		"chunk row":            set(keyspace.AppendChunkKey(nil, chunk.Sum([]byte("c"))), junk),
		"pack row":             set(keyspace.AppendPackKey(nil, id), junk),
		"condemned row":        set(keyspace.AppendCondemnedKey(nil, id), junk),
		"recipe row":           set(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: [32]byte{1}}), junk),
		"nar row":              set(keyspace.AppendNarKey(nil, [32]byte{1}), junk),
		"unreferenced row":     set(keyspace.AppendUnreferencedKey(nil, [32]byte{1}), junk),
		"former row":           set(keyspace.AppendFormerKey(nil, [32]byte{1}, 1, hp), junk),
		"use row":              set(keyspace.AppendUseOrderKey(nil, Use{Cache: 1, HashPart: hp, Day: 1}), junk),
		"growth row":           set(keyspace.AppendGrowthKey(nil, 1, 1), junk),
		"mark row":             set(keyspace.AppendMarkKey(nil), junk),
		"touch row":            set(keyspace.AppendTouchKey(nil, 1, 1), junk),
		"object row":           set(keyspace.AppendObjectKey(nil, id), junk),
		"buried row":           set(keyspace.AppendBuriedKey(nil, id), junk),
		"verified row":         set(keyspace.AppendVerifiedKey(nil, id), junk),
		"round row":            set(keyspace.AppendRoundKey(nil), junk),
		"secret row":           set(keyspace.AppendSecretKey(nil, "s"), junk),
		"counter row":          set(keyspace.AppendCounterKey(nil, keyspace.Ticks), junk),
		"counter row 757a7a7a": set([]byte("uzzz"), keyspace.AppendCount(nil, 3)),
		"and the open day is":  set(keyspace.AppendDayKey(nil, 77), keyspace.AppendDay(nil, &keyspace.Day{})),
		"day row":              set(keyspace.AppendDayKey(nil, 1), junk),
		"the newest of pin":    set(keyspace.AppendPinRevisionKey(nil, 1, "pin", 2), revision),
		"there is no pin":      set(keyspace.AppendPinRevisionKey(nil, 1, "nip", 2), revision),
		"pin row":              set(keyspace.AppendPinKey(nil, 1, "nip"), junk),
		"unknown row 01":       set([]byte{1}, junk),
	} {
		before, had, err := n.db.Get(row.Key)
		if err != nil {
			t.Fatal(err)
		}
		n.commit(row)
		if bad := n.badRows(); len(bad) != 1 || !strings.Contains(bad[0], what) {
			t.Errorf("%s: told %v", what, bad)
		}
		if row = remove(row.Key); had {
			row = set(row.Key, before)
		}
		n.commit(row)
	}
	if bad := n.badRows(); len(bad) > 0 {
		t.Errorf("after all was put back: %v", bad)
	}
}

// TestNoteVerified notes what was read back, and forgets it with the object.
func TestNoteVerified(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	ctx := t.Context()
	n.mustCreate("a")
	n.mustPublish(mkPublication(t, "a", "x", mkPack(1, 1, 3)))
	id, other := chunk.PackID{Epoch: 1, Rand: 1}, chunk.PackID{Epoch: 1, Rand: 9}
	now, err := n.BucketTime(ctx)
	if err != nil || now.IsZero() {
		t.Fatal(now, err)
	}
	want := func(what, want string) {
		t.Helper()
		s, err := n.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		got := ""
		for v, err := range s.Verified() {
			if err != nil {
				t.Fatal(err)
			}
			got += fmt.Sprint(v.Object, " ", v.At.Sub(now), " ", v.Damaged, ";")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	note := func(v ...Verified) {
		t.Helper()
		if err := n.NoteVerified(ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	note(Verified{Object: id, At: now, Damaged: true}, Verified{Object: other, At: now})
	want("one that is known and one that is not", fmt.Sprint(id, " 0s true;"))
	note(Verified{Object: id, At: now.Add(-time.Hour)})
	want("an earlier one", fmt.Sprint(id, " 0s true;"))
	note(Verified{Object: id, At: now.Add(time.Hour)})
	want("a later one", fmt.Sprint(id, " 1h0m0s false;"))
	if _, err := n.MarkDamaged(ctx, []DeadChunks{{Pack: id, Chunks: []DeadChunk{{Index: 0}, {Index: 1}, {Index: 2}}}}); err != nil {
		t.Fatal(err)
	}
	if err := n.Forget(ctx, []Buried{{Object: id}}); err != nil {
		t.Fatal(err)
	}
	want("after the object was deleted", "")
	n.commit(set(keyspace.AppendVerifiedKey(nil, other), keyspace.AppendVerified(nil, &Verified{At: now})))
	note(Verified{Object: other, At: now})
	want("one that is gone", "")
}
