package catalog

import (
	"fmt"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/nix"
)

// TestRepairLeavesWhatIsSound asks for everything to be withdrawn as broken, of which
// one chunk of one NAR is.
func TestRepairLeavesWhatIsSound(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("a")
	var hps []nix.HashPart
	var nars [][32]byte
	var chunks []Chunk
	for i := range 3 {
		pack := mkPack(1, uint64(i), 2)
		pub := mkPublication(t, "a", fmt.Sprint("x", i), pack)
		n.mustPublish(pub)
		hps, nars = append(hps, pub.Path.StorePath.HashPart()), append(nars, pub.Path.NarHash)
		for j, id := range pack.IDs {
			chunks = append(chunks, Chunk{ID: id, Location: chunk.Location{Pack: pack.Layout.ID, Index: uint32(j)}})
		}
	}
	if _, err := n.MarkDamaged(ctx, []DeadChunks{{Pack: chunk.PackID{Epoch: 1, Rand: 1}, Chunks: []DeadChunk{{Index: 1}}}}); err != nil {
		t.Fatal(err)
	}
	gone, err := n.WithdrawBroken(ctx, 1, append(hps, nix.HashPart{}))
	if err != nil || len(gone) != 1 || gone[0].StorePath.Name() != "x1" {
		t.Errorf("withdrew %+v, %v; want x1", gone, err)
	}
	if removed, err := n.RemoveBroken(ctx, append(nars, [32]byte{})); err != nil || removed != 1 {
		t.Errorf("removed %d recipes, %v; want 1", removed, err)
	}
	if removed, err := n.RemoveChunks(ctx, append(chunks, Chunk{})); err != nil || removed != 1 {
		t.Errorf("removed %d chunk rows, %v; want 1", removed, err)
	}
	for i, row := range chunks {
		if _, found, err := n.LookupChunks(ctx, []chunk.ID{row.ID}); err != nil || found[0] != (i != 3) {
			t.Errorf("chunk %d found %v, %v", i, found[0], err)
		}
	}
	n.wantSound()
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}
