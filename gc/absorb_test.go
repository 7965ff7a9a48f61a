package gc_test

import (
	"fmt"
	"testing"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/wal"
)

// TestWhatComesWhileTouchesAreRead pushes a path that shares a chunk with a removed NAR at
// the moment between the two reads of a collector that takes in touches: what they are, and
// what they concern.
func TestWhatComesWhileTouchesAreRead(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", -1)
	n.push("main", "old", "shared", "own")
	for i := range 90 {
		n.pin("main", fmt.Sprint("p", i))
	}
	if _, err := n.cat.WithdrawPaths(t.Context(), catalog.Withdrawal{Cache: "main", HashParts: hashParts("old"), Purge: true, Now: true}); err != nil {
		t.Fatal(err)
	}
	flooded, pushed := false, false
	c := n.collector(func(o *gc.Options) {
		o.Progress = func(p gc.Progress) {
			switch {
			case p.Phase == "condemn chunks" && !flooded:
				flooded = true
				n.flood("main")
			case p.Phase == "look again" && !pushed:
				pushed = true
				// Both nodes know the chunk; only the bucket lies between them.
				n.push("main", "new", "shared")
			}
		}
	})
	rep := n.mustRound(c)
	if !flooded || !pushed || rep.Retries == 0 {
		t.Fatalf("flooded %v, pushed %v, report %+v: want that the collector looked again", flooded, pushed, rep)
	}
	n.live(5, c)
	n.wantPaths("main", "new")
}

// TestNowDoesNotWaitForYoungPacks deletes a path minutes after its push: the chunks of
// pushes that may not have ended are left alone, and those of the path are not.
func TestNowDoesNotWaitForYoungPacks(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", -1)
	c := n.collector()
	n.mustRound(c)
	n.push("main", "secret", "secret", "shared")
	n.push("main", "other", "shared")
	if _, err := c.Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("secret"), Now: true}); err != nil {
		t.Fatal(err)
	}
	if rep := n.mustRound(c); rep.Recipes != 1 || rep.Condemned == 0 || rep.Rewritten == 0 {
		t.Errorf("the round after the deletion removed %d NARs, condemned %d chunks and wrote %d packs again; want some of each", rep.Recipes, rep.Condemned, rep.Rewritten)
	}
	w.pass(3 * day)
	n.mustRound(c)
	if w.holds("secret") {
		t.Error("the bytes are still there after the grace of readers")
	}
	n.wantPaths("main", "other")
}

// TestCollectingWhatWasNeverCounted collects from a bucket that an earlier celler has
// written: it is counted first, by the collector, and nobody has to be asked.
func TestCollectingWhatWasNeverCounted(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 10*day)
	n.push("main", "a", "a", "shared")
	n.push("main", "b", "b", "shared")
	_, err := n.log.Commit(t.Context(), wal.Op{Name: "forget", Cost: 64, Build: func(wal.View) (entries []wal.Entry, err error) {
		for _, prefix := range "tnlog" {
			entries = append(entries, wal.Entry{Kind: wal.DeleteRange, Key: []byte{byte(prefix)}, Value: []byte{byte(prefix) + 1}})
		}
		return entries, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := n.collector()
	n.mustRound(c)
	n.live(8, c)
	n.wantPaths("main", "a b")
	n.use("main", "b")
	n.live(5, c)
	n.wantPaths("main", "b")
}

// pin makes a further revision of the pin "many".
func (n *node) pin(cache, name string) {
	n.t.Helper()
	if _, err := n.cat.SetPin(n.t.Context(), catalog.PinChange{Cache: catalog.CacheName(cache), Name: "many", StorePath: mkPath(name), By: "test"}); err != nil {
		n.t.Fatal(err)
	}
}

// flood leaves more touches than an operation looks at by itself.
func (n *node) flood(cache string) {
	n.t.Helper()
	for i := range 50 {
		if _, err := n.cat.SetPinPolicy(n.t.Context(), catalog.CacheName(cache), "many", catalog.PinPolicy{KeepRevisions: uint32(1 + i%2)}); err != nil {
			n.t.Fatal(err)
		}
	}
}
