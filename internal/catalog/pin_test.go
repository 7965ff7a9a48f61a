package catalog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

func (n *node) mustPin(p PinChange) {
	n.t.Helper()
	if _, err := n.SetPin(n.t.Context(), p); err != nil {
		n.t.Fatal(err)
	}
}

// wantKept compares which paths the kept revisions of a pin name, newest first.
func (n *node) wantKept(cache CacheName, pin string, want ...string) {
	n.t.Helper()
	p, err := n.Pin(n.t.Context(), cache, pin)
	if err != nil {
		n.t.Fatal(err)
	}
	var got []string
	for i, r := range p.Revisions {
		if p.Kept[i] {
			got = append(got, r.StorePath.Name())
		}
	}
	if !slices.Equal(got, want) {
		n.t.Errorf("pin %s keeps %v, want %v", pin, got, want)
	}
}

func TestPins(t *testing.T) {
	b := mkTimed(t)
	n := mkNode(t, b)
	ctx := t.Context()
	n.mustCreate("a")
	n.mustTick(TickOptions{})
	x := func(i int) nix.StorePath { return mkStorePath(t, fmt.Sprint("x", i)) }
	_, err := n.SetPin(ctx, PinChange{Cache: "b", Name: "main", StorePath: x(0)})
	wantErr(t, "pin in no cache", err, ErrNoCache)
	_, err = n.Pin(ctx, "a", "main")
	wantErr(t, "no pin", err, ErrNoPin)
	_, err = n.RemovePin(ctx, "a", "main")
	wantErr(t, "remove no pin", err, ErrNoPin)
	_, err = n.SetPinPolicy(ctx, "a", "main", PinPolicy{})
	wantErr(t, "change no pin", err, ErrNoPin)
	for _, bad := range []PinChange{
		{Cache: "a", Name: "", StorePath: x(0)},
		{Cache: "a", Name: "a b", StorePath: x(0)},
		{Cache: "a", Name: strings.Repeat("x", 201), StorePath: x(0)},
		{Cache: "a", Name: "x"},
		{Cache: "a", Name: "x", StorePath: x(0), By: "a\nb"},
		{Cache: "a", Name: "x", StorePath: x(0), Policy: &PinPolicy{KeepDays: 1 << 30}},
	} {
		_, err := n.SetPin(ctx, bad)
		wantErr(t, fmt.Sprintf("pin %+v", bad), err, ErrInvalid)
	}

	n.mustPin(PinChange{Cache: "a", Name: "main", StorePath: x(0), By: "alice"}) // none of them is there
	n.mustPin(PinChange{Cache: "a", Name: "main", StorePath: x(1), By: "bob"})
	n.wantKept("a", "main", "x1")
	n.mustPin(PinChange{Cache: "a", Name: "main", StorePath: x(1), By: "carol", Policy: &PinPolicy{KeepRevisions: 2}})
	n.wantKept("a", "main", "x1", "x0")
	n.mustPin(PinChange{Cache: "a", Name: "main-2", StorePath: x(9), Policy: &PinPolicy{KeepForever: true}})
	n.mustPin(PinChange{Cache: "a", Name: "main", StorePath: x(2)})
	n.wantKept("a", "main", "x2", "x1")
	p, err := n.Pin(ctx, "a", "main")
	if err != nil || len(p.Revisions) != 3 || p.Revisions[1].By != "carol" || p.Newest != 3 || p.Revisions[2].At != mkTime() {
		t.Errorf("pin %+v, %v; want 3 revisions, the second made again by carol", p, err)
	}
	pins, err := n.Pins(ctx, "a")
	if err != nil || len(pins) != 2 || pins[0].Name != "main" || pins[1].Name != "main-2" || len(pins[1].Revisions) != 1 {
		t.Errorf("pins %+v, %v; want main and main-2", pins, err)
	}

	// By days, of the bucket and not of anybody's clock.
	if _, err := n.SetPinPolicy(ctx, "a", "main", PinPolicy{KeepDays: 3}); err != nil {
		t.Fatal(err)
	}
	n.wantKept("a", "main", "x2", "x1", "x0")
	n.mustTick(TickOptions{}) // ends the day of the first three
	b.pass(2 * day)
	n.mustPin(PinChange{Cache: "a", Name: "main", StorePath: x(3)})
	n.wantKept("a", "main", "x3", "x2", "x1", "x0")
	b.pass(day)
	n.mustTick(TickOptions{})
	n.wantKept("a", "main", "x3")
	b.pass(100 * day)
	n.mustTick(TickOptions{})
	n.wantKept("a", "main")
	if _, err := n.SetPinPolicy(ctx, "a", "main", PinPolicy{KeepDays: 3, KeepRevisions: 1}); err != nil {
		t.Fatal(err)
	}
	n.wantKept("a", "main", "x3")

	if _, err := n.RemovePin(ctx, "a", "main"); err != nil {
		t.Fatal(err)
	}
	_, err = n.Pin(ctx, "a", "main")
	wantErr(t, "removed", err, ErrNoPin)
	n.wantKept("a", "main-2", "x9")
	for row, err := range n.db.Scan(keyspace.AppendPinKey(nil, 1, "main"), nil) {
		t.Errorf("row %x is left of a removed pin, %v", row.Key, err)
	}
}

func TestPinHistoryIsBounded(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	n.mustCreate("a")
	for i := range 3 * pinHistory {
		var policy *PinPolicy
		switch i {
		case 0:
			policy = &PinPolicy{KeepForever: true}
		case 2 * pinHistory:
			policy = &PinPolicy{KeepRevisions: pinHistory + 7}
		}
		n.mustPin(PinChange{Cache: "a", Name: "p", StorePath: mkStorePath(t, fmt.Sprint("x", i)), Policy: policy})
	}
	p, err := n.Pin(t.Context(), "a", "p")
	if err != nil || len(p.Revisions) != pinHistory+7 || p.Newest != 3*pinHistory || p.Revisions[0].Number != 3*pinHistory {
		t.Errorf("%d revisions, newest %d, %v; want the last %d", len(p.Revisions), p.Newest, err, pinHistory+7)
	}
}

func TestPinWithPublish(t *testing.T) {
	n := mkNode(t, mkTimed(t))
	n.mustCreate("a")
	pub := mkPublication(t, "a", "x", mkPack(1, 1, 1))
	pub.Pin = &PinChange{Name: "main", Policy: &PinPolicy{KeepRevisions: 3}}
	before := n.Seq()
	n.mustPublish(pub)
	if n.Seq() != before+1 {
		t.Errorf("%d slots for a push that pins, want 1", n.Seq()-before)
	}
	n.wantKept("a", "main", "x")
	p, err := n.Pin(t.Context(), "a", "main")
	if err != nil || p.Revisions[0].By != "test" || p.Policy.KeepRevisions != 3 || *pub.Pin != (PinChange{Name: "main", Policy: pub.Pin.Policy}) {
		t.Errorf("pin %+v, %v; want what was pushed, by who did, and the argument unchanged", p, err)
	}
	bad := mkPublication(t, "a", "y", mkPack(1, 2, 1))
	bad.Pin = &PinChange{Name: "no good"}
	_, err = n.Publish(t.Context(), bad)
	wantErr(t, "push with a bad pin", err, ErrInvalid)
	_, err = n.Path(t.Context(), "a", bad.Path.StorePath.HashPart())
	wantErr(t, "its path", err, ErrNoPath)

	// A pinned path goes only if that is said.
	_, err = n.Withdraw(t.Context(), "a", pub.Path.StorePath.HashPart())
	wantErr(t, "withdraw what is pinned", err, ErrPinned)
	w, err := n.WithdrawPaths(t.Context(), Withdrawal{Cache: "a", HashParts: []nix.HashPart{pub.Path.StorePath.HashPart()}, Pinned: true})
	if err != nil || len(w.Paths) != 1 {
		t.Errorf("withdrew %+v, %v; want the pinned path", w, err)
	}
	n.wantKept("a", "main", "x") // an intent again
	n.mustPublish(mkPublication(t, "a", "x", mkPack(1, 3, 1)))
	_, err = n.Withdraw(t.Context(), "a", pub.Path.StorePath.HashPart())
	wantErr(t, "withdraw what the pin waited for", err, ErrPinned)
}
