package catalog

import (
	"testing"

	"github.com/celler/celler/index/keyspace"
)

// TestRestoreBeside destroys a cache and brings back its logs and URLs.
func TestRestoreBeside(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("a")
	pub := mkPublication(t, "a", "x", mkPack(1, 1, 4))
	up := mkUpload(pub, 7)
	n.mustUpload(up)
	pub.First, pub.Claim = true, &up.FileHash
	n.mustPublish(pub)
	unclaimed := mkPublication(t, "a", "y", mkPack(1, 2, 4))
	n.mustUpload(mkUpload(unclaimed, 8))
	short := SideUpload{Cache: "a", Side: Side{Kind: keyspace.SideLog, Name: "short", Size: 4, Zstd: []byte("zstd")}}
	n.mustPutSide(short)
	text := mkPublication(t, "a", "text", mkPack(1, 3, 4))
	n.mustPutSide(SideUpload{Cache: "a", Side: Side{Kind: keyspace.SideLog, Name: "long", Stored: true}, Recipe: text.Recipe, Packs: text.Packs})
	broken := mkPublication(t, "a", "broken", mkPack(1, 4, 4))
	n.mustPutSide(SideUpload{Cache: "a", Side: Side{Kind: keyspace.SideLog, Name: "broken", Stored: true}, Recipe: broken.Recipe, Packs: broken.Packs})
	then, err := n.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer then.Close()

	if _, err := n.DestroyCache(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RestoreBeside(ctx, then, "a"); err == nil {
		t.Error("without the cache: no error")
	}
	n.mustCreate("a")
	again := pub
	again.Claim, again.First, again.Packs = nil, false, nil
	n.mustPublish(again)
	if _, err := n.MarkDamaged(ctx, []DeadChunks{{Pack: broken.Packs[0].Layout.ID, Chunks: []DeadChunk{{Index: 1}}}}); err != nil {
		t.Fatal(err)
	}
	for want := range 2 { // the second time nothing is left to do
		got, err := n.RestoreBeside(ctx, then, "a")
		if err != nil || got != 3*(1-want) {
			t.Errorf("restored %d, %v; want %d", got, err, 3*(1-want))
		}
	}
	for _, name := range []string{"short", "long"} {
		if _, err := n.Side(ctx, "a", keyspace.SideLog, name); err != nil {
			t.Error(err)
		}
	}
	if u, err := n.Upload(ctx, "a", [32]byte{7}); err != nil || !u.Claimed {
		t.Errorf("upload %+v, %v", u, err)
	}
	if _, err := n.Upload(ctx, "a", [32]byte{8}); err == nil {
		t.Error("an upload that nobody claimed came back")
	}
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}
