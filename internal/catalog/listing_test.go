package catalog

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/nix"
)

func TestPathsInPages(t *testing.T) {
	n := mkNode(t, mkBucket(t))
	ctx := t.Context()
	n.mustCreate("a")
	n.mustCreate("b")
	var want []string
	for i := range 25 {
		pub := mkPublication(t, "a", fmt.Sprint("x", i), mkPack(1, uint64(i), 1))
		n.mustPublish(pub)
		want = append(want, pub.Path.StorePath.Base())
	}
	n.mustPublish(mkPublication(t, "b", "y", mkPack(1, 99, 1)))
	slices.Sort(want)
	var got []string
	var after *nix.HashPart
	for {
		page, err := n.Paths(ctx, "a", after, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, p := range page {
			got = append(got, p.StorePath.Base())
			if p.Cache != "a" || p.Sig == "" {
				t.Errorf("path %+v is not complete", p)
			}
		}
		last := page[len(page)-1].StorePath.HashPart()
		after = &last
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestPagesAcrossReplicas asks other replicas than the first for the later pages,
// as a client behind a load balancer does: what was acknowledged before is there.
func TestPagesAcrossReplicas(t *testing.T) {
	bucket := mkBucket(t)
	a, b := mkNode(t, bucket), mkNode(t, bucket)
	ctx := t.Context()
	a.mustCreate("a")
	want := map[nix.HashPart]bool{}
	for i := range 10 {
		pub := mkPublication(t, "a", fmt.Sprint("x", i), mkPack(1, uint64(i), 1))
		a.mustPublish(pub)
		want[pub.Path.StorePath.HashPart()] = true
	}
	var after *nix.HashPart
	for _, n := range []*node{a, b, b} {
		page, err := n.Paths(ctx, "a", after, 5)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page {
			hashPart := p.StorePath.HashPart()
			delete(want, hashPart)
			after = &hashPart
		}
	}
	if len(want) != 0 {
		t.Errorf("%d of 10 acknowledged paths were not listed", len(want))
	}
}
