package node

import (
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

func TestParseWhen(t *testing.T) {
	zone := time.FixedZone("there", 2*60*60)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, zone)
	ok := func(text string, want When) {
		t.Helper()
		got, err := ParseWhen(text, now)
		if err != nil || got.seq != want.seq || got.name != want.name || !got.time.Equal(want.time) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	bad := func(text string) {
		t.Helper()
		if got, err := ParseWhen(text, now); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
	ok("17", When{seq: 17})
	ok(" 20260301 ", When{seq: 20260301})
	ok("before-upgrade", When{name: "before-upgrade"})
	ok("2026-02-28", When{time: time.Date(2026, 2, 28, 0, 0, 0, 0, zone)})
	ok("2026-02-28 17:30", When{time: time.Date(2026, 2, 28, 17, 30, 0, 0, zone)})
	ok("2026-02-28T17:30:05Z", When{time: time.Date(2026, 2, 28, 17, 30, 5, 0, time.UTC)})
	ok("2026-02-28 17:30:05+05:00", When{time: time.Date(2026, 2, 28, 12, 30, 5, 0, time.UTC)})
	ok("2 hours ago", When{time: now.Add(-2 * time.Hour)})
	ok("1h30m ago", When{time: now.Add(-90 * time.Minute)})
	for _, text := range []string{"", "0", "-3", "2026-13-01", "half past nine", "x ago", "99999999999999999999", "7days", "2026-02-28 25:00"} {
		bad(text)
	}
}

func FuzzParseWhen(f *testing.F) {
	for _, text := range []string{"17", "a", "2026-02-28 17:30", "2 hours ago", "2026-02-28T17:30:05Z", "9 years ago", "\x00"} {
		f.Add(text)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		w, err := ParseWhen(text, now)
		named := 0
		for _, is := range []bool{w.seq > 0, w.name != "", !w.time.IsZero()} {
			if is {
				named++
			}
		}
		// A span of centuries leads to the zero time, which names nothing; that is told
		// when it is looked for.
		if err == nil && named > 1 || err != nil && named > 0 {
			t.Errorf("%q: %+v, %v", text, w, err)
		}
	})
}

// TestLogRows: rows of every kind are spelt out, also those that were written badly.
func TestLogRows(t *testing.T) {
	hash := [32]byte{1, 2, 3}
	hashPart := storePath("x").HashPart()
	rev := keyspace.PinRevision{Pin: "rel", Number: 2, StorePath: storePath("x"), Day: 3, At: time.UnixMilli(0).UTC(), By: "me"}
	rows := []struct {
		key, value []byte
		want       string
	}{
		{keyspace.AppendPinKey(nil, 7, "rel"), keyspace.AppendPin(nil, &keyspace.Pin{Newest: 2}), "pin cache 7 rel: newest revision 2, keeps 0 revisions, 0 days, forever false"},
		{keyspace.AppendPinRevisionKey(nil, 7, "rel", 2), keyspace.AppendPinRevision(nil, &rev), "pin cache 7 rel revision 2: " + storePath("x").String() + ", by me"},
		{keyspace.AppendNarKey(nil, hash), keyspace.AppendNar(nil, &keyspace.Nar{Paths: 2, NarSize: 10, ServedSize: 5}), "nar 010203" + strings.Repeat("0", 58) + ": 2 paths, 10 bytes, served 5"},
		{keyspace.AppendUnreferencedKey(nil, hash), keyspace.AppendUnreferenced(nil, &keyspace.Unreferenced{Day: 4}), "unreferenced 010203" + strings.Repeat("0", 58) + ": since day 4"},
		{keyspace.AppendLastUseKey(nil, 7, hashPart), keyspace.AppendLastUse(nil, 9), "last-use cache 7 " + hashPart.String() + ": day 9"},
		{keyspace.AppendUseOrderKey(nil, keyspace.Use{Cache: 7, Day: 9, HashPart: hashPart}), keyspace.AppendUseOrder(nil), "use cache 7 day 9 " + hashPart.String()},
		{keyspace.AppendTotalsKey(nil, 0), keyspace.AppendTotals(nil, &keyspace.Totals{Paths: 1}), "totals all caches: 1 paths, 0 bytes, served 0"},
		{keyspace.AppendGrowthKey(nil, 3, 7), keyspace.AppendGrowth(nil, &keyspace.Growth{AddedPaths: 2}), "growth day 3 cache 7: 2 paths came, 0 went"},
		{keyspace.AppendMarkKey(nil), keyspace.AppendMark(nil, &keyspace.Mark{Generation: 5, Running: true}), "mark of collections: number 5, running true, 0 touches"},
	}
	for _, r := range rows {
		e := describeEntry(wal.Entry{Kind: wal.Set, Key: r.key, Value: r.value})
		got := e.Row + " " + e.Key
		if e.Text != "" {
			got += ": " + e.Text
		}
		if got != r.want {
			t.Errorf("got  %s\nwant %s", got, r.want)
		}
		if e := describeEntry(wal.Entry{Kind: wal.Delete, Key: r.key}); strings.Contains(e.Key, `\x`) {
			t.Errorf("deleted: %s %s", e.Row, e.Key)
		}
		for n := range r.key { // none of these may panic
			describeEntry(wal.Entry{Kind: wal.Set, Key: r.key[:n+1], Value: r.value})
			describeEntry(wal.Entry{Kind: wal.Set, Key: r.key, Value: r.value[:min(n, len(r.value))]})
		}
	}
}
