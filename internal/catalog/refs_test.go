package catalog

import (
	"fmt"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
)

// proofs gives a pack made-up proofs.
func proofs(p *chunk.NewPack) []chunk.Ref {
	p.Proofs = make([]chunk.Proof, len(p.IDs))
	refs := make([]chunk.Ref, len(p.IDs))
	for i, id := range p.IDs {
		sum := chunk.Sum(id[:])
		p.Proofs[i] = chunk.Proof(sum[:8])
		refs[i] = chunk.Ref{Name: id.Name(), Proof: p.Proofs[i]}
	}
	return refs
}

func (n *node) wantRefs(why string, refs []chunk.Ref, want string) []chunk.Location {
	n.t.Helper()
	at, found, err := n.LookupRefs(n.t.Context(), refs)
	if err != nil || len(at) != len(refs) {
		n.t.Fatalf("%s: %v, %v", why, at, err)
	}
	if got := fmt.Sprint(found); got != want {
		n.t.Errorf("%s: found %s, want %s", why, got, want)
	}
	return at
}

func TestLookupRefs(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("ci")
	ctx := t.Context()
	pack := mkPack(1, 1, 3)
	refs := proofs(&pack)
	n.wantRefs("before", refs, "[false false false]")
	if err := n.CommitPacks(ctx, []chunk.NewPack{pack}); err != nil {
		t.Fatal(err)
	}
	at := n.wantRefs("after", []chunk.Ref{refs[2], refs[0], refs[2], refs[1]}, "[true true true true]")
	if at[0] != (chunk.Location{Pack: pack.Layout.ID, Index: 2}) || at[0] != at[2] || at[1].Index != 0 {
		t.Errorf("they lie at %v", at)
	}
	wrong := refs[1]
	wrong.Proof[7] ^= 1
	other := refs[1]
	other.Name[0] ^= 0x80
	n.wantRefs("wrong proof, other name, none at all", []chunk.Ref{wrong, other, {Name: refs[1].Name}, {}, refs[1]}, "[false false false false true]")

	// Two chunks of one name: each is found by its own proof.
	twin := pack.IDs[0]
	twin[31] ^= 1
	twinProof := chunk.Proof{42}
	n.commit(set(keyspace.AppendChunkKey(nil, twin), keyspace.AppendChunk(nil, chunk.Location{Pack: pack.Layout.ID, Index: 1}, twinProof)))
	at = n.wantRefs("twins", []chunk.Ref{refs[0], {Name: refs[0].Name, Proof: twinProof}}, "[true true]")
	if at[0].Index != 0 || at[1].Index != 1 {
		t.Errorf("twins lie at %v", at)
	}
	n.commit(remove(keyspace.AppendChunkKey(nil, twin)))

	// What is condemned, or lies in a pack that is gone, is not there.
	n.commit(set(keyspace.AppendCondemnedKey(nil, pack.Layout.ID), keyspace.AppendCondemned(nil, &keyspace.Condemned{Pack: pack.Layout.ID, Ranges: []keyspace.Range{{First: 1, Count: 1}}, Bytes: 1000})))
	n.wantRefs("condemned", refs, "[true false true]")
	n.commit(remove(keyspace.AppendPackKey(nil, pack.Layout.ID)))
	n.wantRefs("without its pack", refs, "[false false false]")
}

// TestProofsAreAdded: a chunk that was stored before there were proofs gets one when it is
// stored again, or when somebody shows its bytes.
func TestProofsAreAdded(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("ci")
	ctx := t.Context()
	bare := mkPack(1, 1, 4)
	p := mkPublication(t, "ci", "old", bare)
	if _, err := n.Publish(ctx, p); err != nil {
		t.Fatal(err)
	}
	proved := bare
	refs := proofs(&proved)
	n.wantRefs("old rows", refs, "[false false false false]")
	n.wantRefs("old rows, no proof", []chunk.Ref{{Name: refs[0].Name}}, "[false]")

	again := mkPack(1, 2, 2)
	again.IDs, again.Proofs = proved.IDs[:2], proved.Proofs[:2]
	if err := n.CommitPacks(ctx, []chunk.NewPack{again}); err != nil {
		t.Fatal(err)
	}
	if at := n.wantRefs("stored again", refs, "[true true false false]"); at[0].Pack != bare.Layout.ID {
		t.Errorf("the row moved to %v: recipes share what is stored first", at[0])
	}
	unknown := chunk.Sum([]byte("unknown"))
	before := n.Seq()
	ids, with := append([]chunk.ID{unknown}, proved.IDs[1:3]...), append([]chunk.Proof{{1}}, proved.Proofs[1:3]...)
	if err := n.ProveChunks(ctx, ids, with); err != nil || n.Seq() == before {
		t.Fatal(err, n.Seq())
	}
	n.wantRefs("shown", refs, "[true true true false]")
	n.wantRefs("unknown", []chunk.Ref{{Name: unknown.Name(), Proof: chunk.Proof{1}}}, "[false]")
	before = n.Seq()
	if err := n.ProveChunks(ctx, ids, with); err != nil || n.Seq() != before {
		t.Errorf("shown again: %v, slot %v after %v", err, n.Seq(), before)
	}
	if err := n.ProveChunks(ctx, proved.IDs[:1], []chunk.Proof{{9}}); err != nil {
		t.Fatal(err)
	}
	n.wantRefs("another proof for what has one", refs[:1], "[true]")
	if err := n.ProveChunks(ctx, ids, with[:1]); err == nil {
		t.Error("chunks and proofs that do not pair are taken")
	}
	bad := mkPack(1, 3, 2)
	bad.Proofs = make([]chunk.Proof, 1)
	wantErr(t, "too few proofs", n.CommitPacks(ctx, []chunk.NewPack{bad}), ErrInvalid)
	n.wantSound()
}

func BenchmarkLookupRefs(b *testing.B) {
	n := mkNode(b, mkBucket(b))
	var refs []chunk.Ref
	for i := range 20 {
		pack := mkPack(1, uint64(i+1), 1000)
		refs = append(refs, proofs(&pack)...)
		if err := n.CommitPacks(b.Context(), []chunk.NewPack{pack}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range refs {
		if i%2 == 0 {
			refs[i].Name[1] ^= 1
		}
	}
	for b.Loop() {
		if _, _, err := n.LookupRefs(b.Context(), refs); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(refs)), "ns/ref")
}
