package catalog

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// mkUpload is the file that plain Nix puts there before the narinfo of a publication.
func mkUpload(p Publication, fileHash byte) NarUpload {
	return NarUpload{
		Cache: p.Path.Cache, FileHash: [32]byte{fileHash}, FileSize: 99, Compression: "xz",
		Recipe: p.Recipe, Packs: p.Packs, Listing: []byte("zstd"),
	}
}

func (n *node) mustUpload(u NarUpload) {
	n.t.Helper()
	if _, err := n.CommitUpload(n.t.Context(), u); err != nil {
		n.t.Fatal(err)
	}
}

// state hands a snapshot to look, and closes it.
func state[T any](n *node, look func(*Snapshot) (T, error)) T {
	n.t.Helper()
	s, err := n.Snapshot(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	got, err := look(s)
	if err := errors.Join(err, s.Close()); err != nil {
		n.t.Fatal(err)
	}
	return got
}

func (n *node) unreferenced() []Unreferenced {
	n.t.Helper()
	return state(n, func(s *Snapshot) ([]Unreferenced, error) { return collect(s.Unreferenced()) })
}

// TestUploadThenClaim sends the NAR to one node and the narinfo to another.
func TestUploadThenClaim(t *testing.T) {
	bucket := mkBucket(t)
	one, two := mkNode(t, bucket), mkNode(t, bucket)
	ctx := t.Context()
	one.mustCreate("a")
	pub := mkPublication(t, "a", "x", mkPack(1, 1, 4))
	if _, err := two.Upload(ctx, "a", [32]byte{7}); !errors.Is(err, ErrNoUpload) {
		t.Errorf("before: %v, want %v", err, ErrNoUpload)
	}
	one.mustUpload(mkUpload(pub, 7))
	if _, err := one.Path(ctx, "a", pub.Path.StorePath.HashPart()); !errors.Is(err, ErrNoPath) {
		t.Errorf("an upload alone: %v, want %v", err, ErrNoPath)
	}
	up, err := two.Upload(ctx, "a", [32]byte{7})
	want := Upload{Cache: 1, FileHash: [32]byte{7}, Day: 1, NarHash: pub.Path.NarHash, NarSize: 4000, FileSize: 99, Compression: "xz"}
	if diff := cmp.Diff(want, up); diff != "" || err != nil {
		t.Fatalf("%v\n%s", err, diff)
	}
	recipe, err := two.Recipe(ctx, up.NarHash)
	if err != nil {
		t.Fatal(err)
	}
	claim := Publication{Path: pub.Path, Recipe: recipe, First: true, Claim: &[32]byte{7}}
	if _, err := two.Publish(ctx, Publication{Path: pub.Path, Recipe: recipe, First: true, Claim: &[32]byte{8}}); !errors.Is(err, ErrNoUpload) {
		t.Errorf("claim of another file: %v, want %v", err, ErrNoUpload)
	}
	two.mustPublish(claim)
	if got := two.unreferenced(); len(got) != 0 {
		t.Errorf("unreferenced %+v, want none", got)
	}
	up, err = two.Upload(ctx, "a", [32]byte{7})
	if err != nil || !up.Claimed || up.HashPart != pub.Path.StorePath.HashPart() {
		t.Errorf("upload %+v, %v; want it to be the path's", up, err)
	}
	if zstd, ok, err := two.Listing(pub.Path.NarHash); string(zstd) != "zstd" || !ok || err != nil {
		t.Errorf("listing %q, %v, %v", zstd, ok, err)
	}
	// Sent again, the file stays the path's.
	two.mustUpload(mkUpload(pub, 7))
	if up, err = two.Upload(ctx, "a", [32]byte{7}); err != nil || !up.Claimed {
		t.Errorf("upload %+v, %v; want it to stay the path's", up, err)
	}
	for _, n := range []*node{one, two} {
		if _, err := n.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
		n.wantSound()
		if err := n.wantCounted(); err != nil {
			t.Error(err)
		}
	}
	bad := mkUpload(pub, 9)
	bad.Listing = make([]byte, MaxListingBytes+1)
	if _, err := one.CommitUpload(ctx, bad); !errors.Is(err, ErrInvalid) {
		t.Errorf("a listing that is too long: %v, want %v", err, ErrInvalid)
	}
}

// TestFirstSparesWhatIsThere publishes over a path as plain Nix may.
func TestFirstSparesWhatIsThere(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("a")
	pub := mkPublication(t, "a", "x", mkPack(1, 1, 4))
	pub.Path.Sigs = []string{"one-1:AAAA"}
	n.mustPublish(pub)
	before, err := n.Path(ctx, "a", pub.Path.StorePath.HashPart())
	if err != nil {
		t.Fatal(err)
	}

	again := pub
	again.First, again.Packs = true, nil
	again.Path.Sigs = []string{"two-1:BBBB", "one-1:AAAA"}
	again.Path.Deriver, again.Path.By = "d.drv", "somebody else"
	again.Path.References = slices.Clone(pub.Path.References)
	slices.Reverse(again.Path.References)
	n.mustPublish(again)
	want := before
	want.Sigs, want.Deriver = []string{"one-1:AAAA", "two-1:BBBB"}, "d.drv"
	got, err := n.Path(ctx, "a", pub.Path.StorePath.HashPart())
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b nix.StorePath) bool { return a == b })); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}

	other := mkPublication(t, "a", "y", mkPack(1, 2, 4))
	other.First, other.Path.StorePath, other.Path.References = true, pub.Path.StorePath, pub.Path.References
	_, err = n.Publish(ctx, other)
	wantErr(t, "another NAR", err, ErrOtherNar)
	if e, ok := errors.AsType[*OtherNarError](err); !ok || e.There != pub.Path.NarHash || e.Given != other.Path.NarHash {
		t.Errorf("%+v, want both NAR hashes", e)
	}
	fewer := again
	fewer.Path.References = fewer.Path.References[:1]
	_, err = n.Publish(ctx, fewer)
	wantErr(t, "other references", err, ErrOtherNar)
	n.wantSound()
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}

// TestUploadNobodyClaims is collected like any other NAR that no path names, unless it
// is sent again.
func TestUploadNobodyClaims(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	ctx := t.Context()
	n.mustCreate("a")
	pub := mkPublication(t, "a", "x", mkPack(1, 1, 4))
	n.mustUpload(mkUpload(pub, 7))
	first := n.unreferenced()
	if want := []Unreferenced{{NarHash: pub.Path.NarHash, Day: 1}}; !slices.Equal(first, want) {
		t.Fatalf("unreferenced %+v, want %+v", first, want)
	}
	n.mustTick(TickOptions{})
	m := n.mustMark()
	n.mustUpload(mkUpload(pub, 7))
	if removed, err := m.RemoveRecipes(ctx, first); err != nil || len(removed) != 0 {
		t.Errorf("removed %+v, %v, of a NAR that was just sent again", removed, err)
	}
	if swept, err := m.SweepUploads(ctx); err != nil || swept != 0 {
		t.Errorf("swept %d uploads, %v, of a NAR that is there", swept, err)
	}
	if removed, err := m.RemoveRecipes(ctx, n.unreferenced()); err != nil || len(removed) != 1 {
		t.Errorf("removed %+v, %v; want one", removed, err)
	}
	m = n.mustMark()
	if swept, err := m.SweepUploads(ctx); err != nil || swept != 1 {
		t.Errorf("swept %d uploads, %v; want one", swept, err)
	}
	for _, prefix := range []byte{keyspace.UploadPrefix, keyspace.ListingPrefix, keyspace.RecipePrefix, keyspace.UnreferencedPrefix} {
		if rows := n.countRows(prefix); rows != 0 {
			t.Errorf("%d rows of kind %q are left", rows, keyspace.Kind([]byte{prefix}))
		}
	}
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}
