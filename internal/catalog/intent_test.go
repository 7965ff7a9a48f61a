package catalog

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/wal"
)

// mkIntent returns a publication that is ready to be forwarded, and its intent.
func mkIntent(t testing.TB, n *node) (*publishing, []byte) {
	t.Helper()
	u := &publishing{Publication: mkPublication(t, "a", "x", mkPack(1, 1, 4)), catalog: n.Catalog}
	u.Path.Created = mkTime()
	if err := u.valid(); err != nil {
		t.Fatal(err)
	}
	if err := u.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	intent, err := u.intent()
	if err != nil {
		t.Fatal(err)
	}
	return u, intent
}

// Another server makes of an intent exactly the entries that we would have made.
func TestRevivedPublicationIsTheSame(t *testing.T) {
	bucket := mkBucket(t)
	ours, theirs := mkNode(t, bucket), mkNode(t, bucket)
	ours.mustCreate("a")
	u, intent := mkIntent(t, ours)
	if _, err := theirs.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	op, err := theirs.Revive("publish", intent)
	if err != nil {
		t.Fatal(err)
	}
	want, err := u.build(ours.db)
	if err != nil {
		t.Fatal(err)
	}
	got, err := op.Build(theirs.db)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries of ours and of the other (-ours +theirs):\n%s", diff)
	}
	if _, err := theirs.log.Commit(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Path(t.Context(), "a", u.Path.StorePath.HashPart()); err != nil {
		t.Error(err)
	}
	theirs.wantSound()
}

// An intent that forgets a part of a publication would publish something else. Whoever
// adds a field must see to it, here and in intent.
func TestIntentKnowsWholePublication(t *testing.T) {
	if n := reflect.TypeFor[Publication]().NumField(); n != 7 {
		t.Errorf("a publication has %d fields; intent carries Path, Recipe, Packs and Listing, and refuses one with a Pin, First or Claim", n)
	}
	n := mkNode(t, mkBucket(t))
	n.mustCreate("a")
	u, _ := mkIntent(t, n)
	u.Pin = &PinChange{}
	if _, err := u.intent(); err == nil {
		t.Error("a publication with a pin has an intent")
	}
	u.Pin, u.First = nil, true
	if _, err := u.intent(); err == nil {
		t.Error("a publication that spares what is there has an intent")
	}
	u.First, u.Claim = false, &[32]byte{}
	if _, err := u.intent(); err == nil {
		t.Error("a publication that claims an upload has an intent")
	}
	u.Claim = nil
	proofs(&u.Packs[0])
	for _, listing := range []string{"", "zstd"} {
		u.Listing = []byte(listing)
		intent, err := u.intent()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeIntent(intent)
		if err != nil || string(again.Listing) != listing {
			t.Fatalf("listing %q, %v; want %q", again.Listing, err, listing)
		}
		if diff := cmp.Diff(u.Packs, again.Packs); diff != "" {
			t.Errorf("packs with proofs: %s", diff)
		}
		if _, err := decodeIntent(intent[:len(intent)-len(listing)-1]); err == nil {
			t.Error("half a proof is accepted")
		}
	}
	u.Packs[0].Proofs, u.Listing = nil, []byte("zstd")
	intent, err := u.intent()
	if err != nil {
		t.Fatal(err)
	}
	again, err := decodeIntent(intent)
	if err != nil || string(again.Listing) != "zstd" {
		t.Errorf("listing %q, %v; want what was sent", again.Listing, err)
	}
	if _, err := decodeIntent(intent[:len(intent)-4]); err == nil {
		t.Error("a listing of no bytes is accepted")
	}
}

func TestRevive(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("a")
	_, intent := mkIntent(t, n)
	bad := func(why, name string, intent []byte) {
		t.Helper()
		if _, err := n.Revive(name, intent); err == nil {
			t.Errorf("%s: no error", why)
		}
	}
	bad("an operation of a later celler", "publish twice", intent)
	bad("no intent", "publish", nil)
	bad("more than an intent", "publish", append(bytes.Clone(intent), 0))
	for i := range intent {
		if op, err := n.Revive("publish", intent[:i]); err == nil {
			t.Errorf("the first %d bytes make %q", i, op.Name)
		}
	}
}

// The form is spoken between servers of different versions.
func TestIntentGolden(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("a")
	u, _ := mkIntent(t, n)
	u.sig = "a:AAAA" // keys are random
	u.sigKey = [8]byte{1, 2, 3}
	intent, err := u.intent()
	if err != nil {
		t.Fatal(err)
	}
	sum := wal.DigestOf(intent)
	const want = "229d967568bf04d1ae6ad238b568bc8b96971ed53afbccf58ef2d99517877cde"
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("digest of the intent is %s, want %s: it is another form, and needs another magic", got, want)
	}
}

func FuzzDecodeIntent(f *testing.F) {
	n := mkNode(f, mkBucket(f))
	if _, err := n.CreateCache(f.Context(), Cache{Name: "a"}); err != nil {
		f.Fatal(err)
	}
	u, intent := mkIntent(f, n)
	f.Add(intent)
	f.Add(intent[:len(intent)/2])
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := decodeIntent(src)
		if err != nil {
			return
		}
		got.catalog = u.catalog
		got.sig, got.sigKey = got.Path.Sig, got.Path.SigKey
		if again, err := got.intent(); err == nil && len(again) > 2*len(src)+1024 {
			t.Errorf("%d bytes became %d", len(src), len(again))
		}
	})
}
