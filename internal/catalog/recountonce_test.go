package catalog

import (
	"testing"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// TestRecountsAtOnce has several nodes find a store uncounted at the same time, as those
// that are upgraded together do, and put it right one after the other.
func TestRecountsAtOnce(t *testing.T) {
	b := mkTimed(t)
	n, other := mkNode(t, b), mkNode(t, b)
	ctx := t.Context()
	n.mustCreate("a")
	n.mustPublish(mkPublication(t, "a", "x", mkPack(1, 1, 3)))
	for _, p := range []byte{keyspace.TotalsPrefix, keyspace.NarPrefix, keyspace.LastUsePrefix, keyspace.UseOrderPrefix, keyspace.GrowthPrefix} {
		n.commit(wal.Entry{Kind: wal.DeleteRange, Key: []byte{p}, Value: []byte{p + 1}})
	}
	slow, err := n.beginRecount(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.snapshot.Close() }()
	if _, err := other.Recount(ctx); err != nil {
		t.Fatal(err)
	}
	fixed, err := slow.putRight(ctx)
	wantErr(t, "what a recount found before another began", err, ErrFenced)
	if fixed != 0 {
		t.Errorf("%d counts were put right twice", fixed)
	}
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}
