package catalog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// mkAll makes publications of paths of which each refers to the one before, over packs
// that are known already.
func (n *node) mkAll(cache CacheName, names ...string) []Publication {
	n.t.Helper()
	var all []Publication
	var refs []nix.StorePath
	for _, name := range names {
		sum := sha256.Sum256([]byte(name))
		p := mkPublication(n.t, cache, name, mkPack(1, uint64(sum[0])<<8|uint64(sum[1]), 2))
		if err := n.CommitPacks(n.t.Context(), p.Packs); err != nil {
			n.t.Fatal(err)
		}
		p.Packs, p.First = nil, true
		p.Path.References = refs
		refs = []nix.StorePath{p.Path.StorePath}
		all = append(all, p)
	}
	return all
}

func TestPublishAll(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("ci")
	ctx := t.Context()
	all := n.mkAll("ci", "a", "b", "c")
	all[2].Pin = &PinChange{Name: "main"}
	before := n.Seq()
	seq, done, err := n.PublishAll(ctx, all, PublishOptions{RefuseAbsent: true})
	if err != nil || seq != before+1 || len(done) != 3 {
		t.Fatalf("slot %v after %v, %+v, %v", seq, before, done, err)
	}
	for i := range all {
		if done[i] != (Published{FileSize: 1000}) {
			t.Errorf("path %d: %+v", i, done[i])
		}
		if _, err := n.Path(ctx, "ci", all[i].Path.StorePath.HashPart()); err != nil {
			t.Error(err)
		}
	}
	pins, err := n.Pins(ctx, "ci")
	if err != nil || len(pins) != 1 || pins[0].Name != "main" {
		t.Errorf("pins %+v, %v", pins, err)
	}
	if err := n.wantCounted(); err != nil {
		t.Errorf("the effects of each path must add up: %v", err)
	}
	_, done, err = n.PublishAll(ctx, all, PublishOptions{})
	if err != nil || len(done) != 3 || !done[0].Present || !done[2].Present || done[1].FileSize != 1000 {
		t.Errorf("again: %+v, %v", done, err)
	}
	// The same path twice, and two paths of one NAR.
	twice := n.mkAll("ci", "d")
	twin := n.mkAll("ci", "e")[0]
	twin.Path.NarHash, twin.Recipe = twice[0].Path.NarHash, twice[0].Recipe
	twin.Recipe.Served.Size = 77 // the first one counts
	_, done, err = n.PublishAll(ctx, []Publication{twice[0], twice[0], twin}, PublishOptions{})
	if err != nil || len(done) != 3 || done[0].Present || !done[1].Present || done[2] != (Published{FileSize: 1000}) {
		t.Errorf("one path twice and a twin: %+v, %v", done, err)
	}
	n.wantSound()
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}

// TestPublishAllOrNothing: a refusal of one path is one of all that would come with it, and
// names all that lack chunks.
func TestPublishAllOrNothing(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("ci")
	ctx := t.Context()
	refuse := func(why string, want error, indexes string, o PublishOptions, all []Publication) *PublishAllError {
		t.Helper()
		before := n.Seq()
		_, done, err := n.PublishAll(ctx, all, o)
		wantErr(t, why, err, want)
		refused, ok := errors.AsType[*PublishAllError](err)
		if !ok {
			t.Fatalf("%s: %T", why, err)
		}
		var at []int
		for _, f := range refused.Failed {
			at = append(at, f.Index)
		}
		if fmt.Sprint(at) != indexes || len(done) != 0 || n.Seq() != before {
			t.Errorf("%s: paths %v, done %v, slot %v after %v; want %s and nothing", why, at, done, n.Seq(), before, indexes)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q has more than a line", why, err)
		}
		return refused
	}
	all := n.mkAll("ci", "a", "b", "c", "d")
	gone := chunk.Run{Pack: chunk.PackID{Epoch: 1, Rand: 404}, Count: 2}
	all[1].Recipe.Runs, all[3].Recipe.Runs = []chunk.Run{gone}, []chunk.Run{gone}
	refuse("chunks are missing", ErrChunksMissing, "[1 3]", PublishOptions{}, all)

	all = n.mkAll("ci", "k", "l", "m")
	all[1].Path.References = append(all[1].Path.References, mkStorePath(t, "elsewhere"), all[1].Path.StorePath)
	refused := refuse("a reference is absent", ErrAbsentReferences, "[1]", PublishOptions{RefuseAbsent: true}, all)
	if e, ok := errors.AsType[*AbsentReferencesError](refused); !ok || len(e.References) != 1 || e.References[0] != mkStorePath(t, "elsewhere") {
		t.Errorf("absent are %+v", e)
	}
	refuse("references behind", ErrAbsentReferences, "[0]", PublishOptions{RefuseAbsent: true}, []Publication{all[2], all[1]}[:1])
	if _, done, err := n.PublishAll(ctx, all, PublishOptions{}); err != nil || len(done) != 3 {
		t.Errorf("absent references that are allowed: %v, %v", done, err)
	}
	other := n.mkAll("ci", "x", "l")
	other[1].Path.NarHash[0] ^= 1
	other[1].Recipe.NarHash[0] ^= 1
	refuse("another NAR", ErrOtherNar, "[1]", PublishOptions{}, other)
	invalidOne := n.mkAll("ci", "y", "z")
	invalidOne[1].Path.NarSize = 0
	refuse("an invalid path", ErrInvalid, "[1]", PublishOptions{}, invalidOne)
	if _, _, err := n.PublishAll(ctx, nil, PublishOptions{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no paths: %v", err)
	}
	n.mustCreate("other")
	if _, _, err := n.PublishAll(ctx, append(n.mkAll("ci", "p"), n.mkAll("other", "q")...), PublishOptions{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("two caches: %v", err)
	}
	if _, _, err := n.PublishAll(ctx, n.mkAll("nowhere", "p"), PublishOptions{}); !errors.Is(err, ErrNoCache) {
		t.Errorf("no cache: %v", err)
	}
	n.wantSound()
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}

// TestPublishAllAsFarAsItFits: what one operation does not hold is left to the next call.
func TestPublishAllAsFarAsItFits(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	n.mustCreate("ci")
	pack := mkPack(1, 1, 60_000)
	if err := n.CommitPacks(t.Context(), []chunk.NewPack{pack}); err != nil {
		t.Fatal(err)
	}
	var all []Publication
	for i := range 20 { // recipes of some 180 KB
		p := n.mkAll("ci", fmt.Sprint("big", i))[0]
		p.Recipe.Runs = nil
		for j := range uint32(30_000) {
			p.Recipe.Runs = append(p.Recipe.Runs, chunk.Run{Pack: pack.Layout.ID, First: (j*7919 + uint32(i)) % 60_000, Count: 1})
		}
		all = append(all, p)
	}
	left, rounds := all, 0
	for len(left) > 0 {
		_, done, err := n.PublishAll(t.Context(), left, PublishOptions{})
		if err != nil || len(done) == 0 {
			t.Fatal(done, err)
		}
		left = left[len(done):]
		rounds++
	}
	if rounds < 2 || rounds > 5 {
		t.Errorf("%d rounds, want some", rounds)
	}
	gone, err := n.AbsentPaths("ci", []nix.HashPart{all[19].Path.StorePath.HashPart(), mkStorePath(t, "none").HashPart(), all[0].Path.StorePath.HashPart()})
	if err != nil || len(gone) != 1 || gone[0] != mkStorePath(t, "none").HashPart() {
		t.Errorf("absent are %v, %v", gone, err)
	}
	n.wantSound()
	if err := n.wantCounted(); err != nil {
		t.Error(err)
	}
}

// TestAddKeepsOrder: what follows the removal of a range stays behind it.
func TestAddKeepsOrder(t *testing.T) {
	a := publishingAll{place: map[string]int{}}
	key := func(k string) []byte { return []byte(k) }
	a.add([]wal.Entry{set(key("k1"), key("1")), set(key("k2"), key("2")), set(key("k1"), key("3"))})
	a.add([]wal.Entry{{Kind: wal.DeleteRange, Key: key("k"), Value: key("l")}, set(key("k1"), key("4"))})
	var got []string
	for _, e := range a.entries {
		got = append(got, fmt.Sprintf("%v %s %s", e.Kind, e.Key, e.Value))
	}
	if len(got) != 4 || string(a.entries[0].Value) != "3" || a.entries[2].Kind != wal.DeleteRange || string(a.entries[3].Value) != "4" {
		t.Errorf("entries are %q", got)
	}
	if a.bytes != sizeOf(a.entries) {
		t.Errorf("%d bytes, want %d", a.bytes, sizeOf(a.entries))
	}
}

func BenchmarkPublishAll(b *testing.B) {
	n := mkNode(b, mkBucket(b))
	n.mustCreate("ci")
	pack := mkPack(1, 1, 2)
	if err := n.CommitPacks(b.Context(), []chunk.NewPack{pack}); err != nil {
		b.Fatal(err)
	}
	round := 0
	for b.Loop() {
		all := make([]Publication, 1000)
		for i := range all {
			all[i] = mkPublication(b, "ci", fmt.Sprint(round, "-", i), pack)
			all[i].Packs, all[i].First = nil, true
		}
		round++
		for left := all; len(left) > 0; {
			_, done, err := n.PublishAll(b.Context(), left, PublishOptions{})
			if err != nil {
				b.Fatal(err)
			}
			left = left[len(done):]
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "paths/s")
}
