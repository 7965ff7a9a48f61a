package fsck_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/internal/fsck"
)

const day = 24 * time.Hour

// mkPacks makes a store of n packs, each of a push of its own.
func mkPacks(t *testing.T, count int) (*world, *node) {
	t.Helper()
	w := mkWorld(t)
	n := w.mkNode()
	n.create("a")
	for i := range count {
		n.push("a", fmt.Sprint("p", i))
	}
	if got := len(w.packs()); got != count {
		t.Fatalf("%d packs, want %d", got, count)
	}
	return w, n
}

func (n *node) status() fsck.Status {
	n.t.Helper()
	st, err := fsck.New(n.cat, n.chunks, fsck.Options{}).Status(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return st
}

// wantStatus wants so many objects to have been read, the oldest so long ago.
func (n *node) wantStatus(what string, read int64, oldest time.Duration) {
	n.t.Helper()
	st := n.status()
	if span, _ := st.Within(); st.Objects-st.Unread != read || span != oldest {
		n.t.Errorf("%s: %d of %d objects were read, the first %v ago; want %d and %v", what, st.Objects-st.Unread, st.Objects, span, read, oldest)
	}
}

// TestReadShare reads a share of a store again and again: what was not read for longest
// comes first, so that all is read in the end.
func TestReadShare(t *testing.T) {
	w, n := mkPacks(t, 10)
	n.wantStatus("at first", 0, 0)
	one := n.layout(n.packOf("a", "p0")).Bytes
	for i := range 5 {
		read := fsck.Read{Bytes: one + one/2}
		if i%2 == 1 {
			read = fsck.Read{Percent: 15}
		}
		if o := n.wantKinds(fsck.Mode{Read: read}, ""); o.rep.Read != 2 || o.rep.ReadBytes < one {
			t.Errorf("share %d: read %d objects, %d bytes", i, o.rep.Read, o.rep.ReadBytes)
		}
		n.wantStatus(fmt.Sprint("after share ", i), int64(2+2*i), time.Duration(i)*day)
		w.pass(day)
	}
	if _, all := n.all(); !all {
		t.Error("not all was read")
	}
	n.wantKinds(fsck.Mode{Read: fsck.Read{Bytes: 2 * one, Older: 6 * day}}, "")
	n.wantStatus("after a read of what is older than all", 10, 4*day)
	if o := n.wantKinds(fsck.Mode{Read: fsck.Read{All: true, Older: 5 * day / 2}}, ""); o.rep.Read != 6 {
		t.Errorf("read %d objects of those not read for 60 h, want 6", o.rep.Read)
	}
}

func (n *node) all() (time.Duration, bool) {
	st := n.status()
	return st.Within()
}

// TestReadOnly reads a bucket that takes no writes: what is read cannot be noted, and all
// else works.
func TestReadOnly(t *testing.T) {
	w, n := mkPacks(t, 3)
	faulty := blobtest.NewFaulty(w.bucket, blobtest.FaultyOptions{Decide: func(_ int, op string, _ blob.Key) blobtest.Fault {
		if op == "create" || op == "put" || op == "swap" {
			return blobtest.Denied
		}
		return blobtest.None
	}})
	o := w.mkNodeOn(faulty).wantKinds(everything(), "")
	if o.rep.Read != 3 || o.rep.NotNoted == "" {
		t.Errorf("read %d objects, could not note %q", o.rep.Read, o.rep.NotNoted)
	}
	n.wantStatus("after it", 0, 0)
}

// scrub sits down once.
func (n *node) scrub(o fsck.Options, mode fsck.ScrubMode) fsck.ScrubReport {
	n.t.Helper()
	rep, err := fsck.New(n.cat, n.chunks, o).Scrub(n.t.Context(), mode)
	if err != nil {
		n.t.Fatal(err)
	}
	return rep
}

// TestScrub has two servers read a store back, a little every hour. Their clocks are
// years off.
func TestScrub(t *testing.T) {
	w, n := mkPacks(t, 12)
	other := w.mkNode()
	one := n.layout(n.packOf("a", "p0")).Bytes
	at := w.now()
	bytes, hours := int64(0), 0
	for ; hours < 24*10; hours++ {
		for i, server := range []*node{n, other} {
			mode := fsck.ScrubMode{PerDay: 4*one - one/2, AtOnce: one / 2, Older: 30 * day, Now: w.now().AddDate(-5+10*i, 0, 0)}
			rep := server.scrub(fsck.Options{}, mode)
			if bytes += rep.Bytes; rep.Objects > 1 {
				t.Fatalf("hour %d: %d objects at once", hours, rep.Objects)
			}
		}
		st := n.status()
		if read := st.Objects - st.Unread; read > 4*int64(1+hours/24) {
			t.Fatalf("after %d hours %d objects were read: that is more than 4 a day", hours, read)
		}
		if st.Unread == 0 {
			break
		}
		w.pass(time.Hour)
	}
	if hours < 48 || hours > 72 || bytes < 12*one/2 {
		t.Errorf("12 objects at 4 a day took %d hours and %d bytes", hours, bytes)
	}
	w.pass(20 * day)
	seq := n.log.Seq()
	if rep := n.scrub(fsck.Options{}, fsck.ScrubMode{PerDay: 100 * one, AtOnce: 100 * one, Older: 30 * day, Now: w.now()}); rep.Objects > 0 || n.log.Seq() != seq {
		t.Errorf("%d objects were read again before their time, and %d slots written", rep.Objects, n.log.Seq()-seq)
	}
	w.pass(11 * day)
	if rep := n.scrub(fsck.Options{}, fsck.ScrubMode{PerDay: 100 * one, AtOnce: 100 * one, Older: 30 * day, Now: w.now()}); rep.Objects != 12 {
		t.Errorf("%d objects were read again when it was time", rep.Objects)
	}
	if span := w.now().Sub(at); span < 31*day {
		t.Errorf("the test took %v", span)
	}
}

// TestScrubFinds damages a pack: the scrub says so in the log, in metrics and in the
// status, and repairs nothing; a repair ends it.
func TestScrubFinds(t *testing.T) {
	w, n := mkPacks(t, 3)
	id := n.packOf("a", "p1")
	l := n.layout(id)
	w.spoil(id, flip(l.Frames[0].Offset+3))
	var log bytes.Buffer
	set := metrics.NewSet()
	o := fsck.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Metrics: set}
	mode := fsck.ScrubMode{PerDay: 1 << 30, AtOnce: 1 << 30, Older: day, Now: w.now()}
	rep := n.scrub(o, mode)
	if rep.Objects != 3 || rep.Found[fsck.Damaged] != 1 || len(rep.Status.Damaged) != 1 || rep.Status.Damaged[0] != id.String() {
		t.Errorf("scrub: %+v", rep)
	}
	if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, id.String()) {
		t.Errorf("logged %q", text)
	}
	var page bytes.Buffer
	set.WritePrometheus(&page)
	for _, want := range []string{"celler_scrub_damaged_objects 1\n", "celler_scrub_unread_objects 0\n", "celler_scrub_objects_total 3\n"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("metrics lack %q:\n%s", want, page.String())
		}
	}
	if n.names("a") != "p0 p1 p2" {
		t.Errorf("the scrub has withdrawn something: %s", n.names("a"))
	}
	check := everything()
	check.Repair = true
	if o := n.check(check); o.err != nil || o.withdrawn() != "a:p1" || o.rep.Repair.Left != 0 {
		t.Errorf("repair: %q, %+v, %v", o.withdrawn(), o.rep.Repair, o.err)
	}
	if st := n.status(); len(st.Damaged) != 0 {
		t.Errorf("after the repair %v are damaged", st.Damaged)
	}
	n.push("a", "p1")
	n.wantPaths("a", "p0 p1 p2")
	n.wantKinds(everything(), "")
}

// TestScrubFails scrubs a bucket that does not answer.
func TestScrubFails(t *testing.T) {
	w, n := mkPacks(t, 2)
	faulty := blobtest.NewFaulty(w.bucket, blobtest.FaultyOptions{})
	f := w.mkNodeOn(faulty)
	faulty.Set(func(int, string, blob.Key) blobtest.Fault { return blobtest.Denied })
	set := metrics.NewSet()
	rep, err := fsck.New(f.cat, f.chunks, fsck.Options{Metrics: set}).Scrub(t.Context(), fsck.ScrubMode{PerDay: 1 << 30, AtOnce: 1 << 30, Older: day})
	if err == nil || rep.Objects > 0 {
		t.Errorf("scrub of a bucket that is out of reach: %+v, %v", rep, err)
	}
	if set.GetOrCreateCounter("celler_scrub_failures_total").Get() != 1 {
		t.Error("it was not counted")
	}
	n.wantStatus("after it", 0, 0)
}

// TestScrubMoved notes nothing of objects that are gone by the time they are to be noted.
func TestScrubMoved(t *testing.T) {
	_, n := mkStore(t)
	n.wantKinds(everything(), "")
	before := n.status()
	if _, err := n.cat.Withdraw(t.Context(), "a", part("later")); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		n.collect()
	}
	st := n.status()
	if st.Unread == 0 || st.Objects-st.Unread >= before.Objects {
		t.Errorf("after packs were moved %d of %d objects were read, before %d of %d", st.Objects-st.Unread, st.Objects, before.Objects-before.Unread, before.Objects)
	}
	if rows := n.countRows(keyspace.VerifiedPrefix); rows != st.Objects-st.Unread {
		t.Errorf("%d rows are left of %d objects", rows, st.Objects-st.Unread)
	}
}

func (n *node) countRows(prefix byte) (rows int64) {
	n.t.Helper()
	for _, err := range n.db.Scan([]byte{prefix}, nil) {
		if err != nil {
			n.t.Fatal(err)
		}
		rows++
	}
	return rows
}
