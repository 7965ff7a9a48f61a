package wal_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

// TestOverlayIsTheStateAfterTheEntries compares an overlay with a state that the same
// entries were applied to.
func TestOverlayIsTheStateAfterTheEntries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringMatching(`[a-c]{1,3}`)
		var digest wal.Digest
		entry := rapid.Custom(func(t *rapid.T) wal.Entry {
			e := wal.Entry{Kind: rapid.SampledFrom([]wal.Kind{wal.Set, wal.Set, wal.Delete, wal.DeleteRange, wal.PushBoundary}).Draw(t, "kind")}
			e.Key = []byte(key.Draw(t, "key"))
			switch e.Kind {
			case wal.Set:
				e.Value = []byte(rapid.StringN(0, 3, -1).Draw(t, "value"))
			case wal.DeleteRange:
				e.Value = []byte(key.Draw(t, "end"))
			}
			return e
		})
		base, want := waltest.NewState(nil), waltest.NewState(nil)
		before := &wal.Segment{Seq: 1, Batch: 1, Entries: rapid.SliceOfN(entry, 0, 20).Draw(t, "base")}
		for _, st := range []*waltest.State{base, want} {
			if err := st.Apply(before, digest); err != nil {
				t.Fatal(err)
			}
		}
		overlay := wal.NewOverlay(base)
		for range rapid.IntRange(0, 3).Draw(t, "operations") {
			entries := rapid.SliceOfN(entry, 0, 10).Draw(t, "entries")
			overlay.Apply(entries)
			if err := want.Apply(&wal.Segment{Seq: 2, Batch: 2, Entries: entries}, digest); err != nil {
				t.Fatal(err)
			}
		}
		prefix := rapid.StringMatching(`[a-c]{0,2}`).Draw(t, "prefix")
		var after []byte
		if rapid.Bool().Draw(t, "from somewhere") {
			after = []byte(key.Draw(t, "after"))
		}
		if diff := cmp.Diff(scan(t, want, prefix, after), scan(t, overlay, prefix, after)); diff != "" {
			t.Fatalf("scan of %q after %q: %s", prefix, after, diff)
		}
		one := []byte(key.Draw(t, "one"))
		wantValue, wantOK, _ := want.Get(one)
		if value, ok, err := overlay.Get(one); err != nil || ok != wantOK || string(value) != string(wantValue) {
			t.Fatalf("get %q: %q %v %v, want %q %v", one, value, ok, err, wantValue, wantOK)
		}
	})
}

func scan(t *rapid.T, v wal.View, prefix string, after []byte) []string {
	rows := []string{}
	for kv, err := range v.Scan([]byte(prefix), after) {
		if err != nil {
			t.Fatal(err)
		}
		if kv.Key[0] != '!' {
			rows = append(rows, string(kv.Key)+"="+string(kv.Value))
		}
	}
	return rows
}

func TestScanOfAnOverlayCanBeLeft(t *testing.T) {
	base := waltest.NewState(nil)
	_ = base.Apply(&wal.Segment{Seq: 1, Batch: 1, Entries: []wal.Entry{{Kind: wal.Set, Key: []byte("b")}, {Kind: wal.Set, Key: []byte("d")}}}, wal.Digest{})
	o := wal.NewOverlay(base)
	o.Apply([]wal.Entry{{Kind: wal.Set, Key: []byte("a")}, {Kind: wal.Set, Key: []byte("c")}, {Kind: wal.Set, Key: []byte("e")}})
	for stop := range 5 {
		n := 0
		for range o.Scan(nil, nil) {
			if n++; n > stop {
				break
			}
		}
		if n != stop+1 {
			t.Errorf("left after %d rows, want %d", n, stop+1)
		}
	}
}
