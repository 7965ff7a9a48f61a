package gc_test

import (
	"testing"

	"github.com/celler/celler/gc"
)

// A secret that died before, in a pack that is mostly alive, is gone with the one that is
// deleted by name.
func TestPurgeOfEveryCopy(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 0)
	c := n.collector()
	n.live(1, c)
	n.push("main", "mixed", "a", "b", "secret", "c", "d")
	n.push("main", "keep", "a", "b", "c", "d")
	if _, err := n.cat.Withdraw(t.Context(), "main", part("mixed")); err != nil {
		t.Fatal(err)
	}
	n.live(14, c)
	if !w.holds("secret") {
		t.Fatal("a pack was rewritten that is mostly alive")
	}
	n.push("main", "again", "secret")
	if _, err := c.Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("again"), Now: true}); err != nil {
		t.Fatal(err)
	}
	n.live(4, c)
	if w.holds("secret") {
		t.Error("the secret is still in the bucket")
	}
	n.wantPaths("main", "keep")
	n.wantSound()
}

// A secret that two nodes stored at once is gone from both packs, although a recipe names
// only one of them.
func TestPurgeOfWhatWasStoredTwice(t *testing.T) {
	w := mkWorld(t)
	d := &doorstep{Bucket: w.bucket}
	other := w.mkNode(t)
	other.create("main", 0)
	n, err := w.openNode(t, d)
	if err != nil {
		t.Fatal(err)
	}
	d.act = func() { other.push("main", "twin", "secret") }
	n.push("main", "twin", "secret")
	if packs := len(w.objects("pack/")); packs != 2 {
		t.Fatalf("%d packs, want 2", packs)
	}
	c := n.collector()
	if _, err := c.Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("twin"), Now: true}); err != nil {
		t.Fatal(err)
	}
	n.live(3, c) // not long enough for an upload epoch to end twice
	if w.holds("secret") {
		t.Error("the secret is still in the bucket")
	}
	n.wantSound()
}
