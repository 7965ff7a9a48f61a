package wal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
)

// mkSnapshot is the snapshot in testdata/snapshot-v1.hex.
func mkSnapshot() *Snapshot {
	return &Snapshot{
		Store: StoreID{1}, Seq: 9, Digest: Digest{2}, Epoch: 3, By: "test", At: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC),
		Runs: []Run{
			{Shard: ShardOf([]byte("c\x10")), First: 5, Last: 9, Tables: []Table{
				{Key: TableKey(3, 0xab), Size: 700, SHA256: Digest{4}, Smallest: []byte("c\x10"), Largest: []byte("c\x15"), Sets: 2, Deletes: 1, Sum: Sum{5}},
				{Key: TableKey(3, 0xac), Size: 600, SHA256: Digest{6}, Smallest: []byte("c\x15"), Largest: []byte("c\x20"), Ranges: 1},
			}},
			{Shard: ShardOf([]byte("c\x10")), First: 1, Last: 4, Tables: []Table{
				{Key: TableKey(1, 7), Size: 500, SHA256: Digest{7}, Smallest: []byte("c\x1f"), Largest: []byte("c\x1f"), Sets: 1, Sum: Sum{8}},
			}},
			{Shard: ShardOf([]byte("p")), First: 1, Last: 9, Tables: []Table{
				{Key: TableKey(2, 7), Size: 500, SHA256: Digest{9}, Smallest: []byte("p"), Largest: []byte("p"), Sets: 1, Sum: Sum{10}},
			}},
		},
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	want := mkSnapshot()
	body, err := AppendSnapshot(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSnapshot(body)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	text, err := os.ReadFile("testdata/snapshot-v1.hex")
	if err != nil {
		t.Fatalf("%v; the bytes now: %x", err, body)
	}
	golden, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	// Another version of zstd may compress otherwise: what must not change is what
	// the bytes mean.
	if got, err = DecodeSnapshot(golden); err != nil || !cmp.Equal(want, got) {
		t.Errorf("the golden snapshot: %v\n%s", err, cmp.Diff(want, got))
	}
}

func TestSnapshotRefuses(t *testing.T) {
	bad := func(why string, change func(*Snapshot)) {
		t.Helper()
		s := mkSnapshot()
		change(s)
		if _, err := AppendSnapshot(nil, s); err == nil {
			t.Errorf("%s: no error", why)
		}
	}
	bad("no epoch", func(s *Snapshot) { s.Epoch = 0 })
	bad("runs in the wrong order", func(s *Snapshot) { s.Runs[0], s.Runs[1] = s.Runs[1], s.Runs[0] })
	bad("shards in the wrong order", func(s *Snapshot) { s.Runs[0], s.Runs[2] = s.Runs[2], s.Runs[0] })
	bad("a run of the future", func(s *Snapshot) { s.Runs[0].Last = 10 })
	bad("a run without tables", func(s *Snapshot) { s.Runs[1].Tables = nil })
	bad("tables that overlap", func(s *Snapshot) { s.Runs[0].Tables[1].Smallest = []byte("c\x14") })
	bad("a table outside of its shard", func(s *Snapshot) { s.Runs[2].Tables[0].Largest = []byte("p\x20") })
	bad("a table of a later epoch", func(s *Snapshot) { s.Runs[0].Tables[0].Key = TableKey(4, 1) })
	bad("a name that is no table's", func(s *Snapshot) { s.Runs[0].Tables[0].Key = "log/1" })

	body, err := AppendSnapshot(nil, mkSnapshot())
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		flipped := bytes.Clone(body)
		flipped[i] ^= 0x55
		if s, err := DecodeSnapshot(flipped); err == nil && !cmp.Equal(s, mkSnapshot()) {
			continue // inside of the frame the digest in ROOT is what protects it
		} else if err != nil {
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) && !errors.Is(err, ErrTooOld) {
				t.Fatalf("byte %d flipped: %v", i, err)
			}
		}
	}
	newer := bytes.Clone(body)
	newer[5]++
	if _, err := DecodeSnapshot(newer); !errors.Is(err, ErrTooOld) {
		t.Errorf("a later version: %v, want ErrTooOld", err)
	}
}

func FuzzDecodeSnapshot(f *testing.F) {
	body, err := AppendSnapshot(nil, mkSnapshot())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, src []byte) {
		s, err := DecodeSnapshot(src)
		if err != nil {
			return
		}
		again, err := AppendSnapshot(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeSnapshot(again); err != nil || !cmp.Equal(s, got) {
			t.Fatalf("%v\n%s", err, cmp.Diff(s, got))
		}
	})
}

func FuzzParseTableKey(f *testing.F) {
	f.Add("tab/00000001/00000000000000ab.sst")
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := ParseTableKey(blob.Key(text)); err == nil && !strings.HasPrefix(text, "tab/"+e.String()+"/") {
			t.Fatalf("%q has epoch %v", text, e)
		}
	})
}

func TestShards(t *testing.T) {
	for _, c := range []struct {
		key   string
		start string
		end   string
	}{
		{"p", "p", "p\x10"}, {"p\x0f\xff", "p", "p\x10"}, {"p\x10", "p\x10", "p\x20"}, {"p\xff", "p\xf0", "q"}, {"!seq", "!p", "!\x80"}, {"\xff\xff", "\xff\xf0", ""},
	} {
		s := ShardOf([]byte(c.key))
		if string(s.Start()) != c.start || string(s.End()) != c.end {
			t.Errorf("%q is in %q to %q, want %q to %q", c.key, s.Start(), s.End(), c.start, c.end)
		}
		var again Shard
		text, _ := s.MarshalText()
		if err := again.UnmarshalText(text); err != nil || again != s {
			t.Errorf("%s reads as %v, %v", text, again, err)
		}
	}
}

func TestSum(t *testing.T) {
	var a, b Summer
	a.Add(Set, []byte("k"), []byte("v"))
	a.Add(Delete, []byte("l"), nil)
	b.Add(Delete, []byte("l"), nil)
	b.Add(Set, []byte("k"), []byte("v"))
	if a.Total != b.Total {
		t.Error("the sum depends on the order")
	}
	b.Total = Sum{}
	b.Add(Set, []byte("kv"), nil)
	if c := a.Of(Set, []byte("k"), []byte("v")); c == b.Total {
		t.Error("key and value run into each other")
	}
	all := Sum{}
	for i := range all {
		all[i] = 0xff
	}
	if one := (Sum{31: 1}); all.Add(one) != (Sum{}) {
		t.Error("the carry gets lost")
	}
}
