package node

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/wal"
)

// TestEmptySegment: a segment without entries has a list of none.
func TestEmptySegment(t *testing.T) {
	p, err := newPicker(LogQuery{})
	if err != nil {
		t.Fatal(err)
	}
	out, wanted := p.segment(&wal.Segment{Seq: 7})
	text, err := json.Marshal(out)
	if err != nil || !wanted || !strings.Contains(string(text), `"entries":[]`) {
		t.Errorf("%v %s %v", wanted, text, err)
	}
}

// TestLogBegins: only who asks for what is not kept any more is told where the log begins.
func TestLogBegins(t *testing.T) {
	r := mkRig(t, memblob.New())
	var last wal.Seq
	for _, name := range []catalog.CacheName{"a", "b"} {
		last = wal.Seq(r.Seq())
		_, err := r.cat.CreateCache(t.Context(), catalog.Cache{Name: name})
		r.must(err)
	}
	_, err := wal.RootChange{}.SetBookmark(t.Context(), r.logBucket, wal.Bookmark{Name: "kept", Seq: last})
	r.must(err)
	_, err = compact.New(r.logBucket, compact.Options{KeepSegments: -1, LogRetention: -1}).Round(t.Context(), compact.Mode{})
	r.must(err)
	root, err := wal.ReadRoot(t.Context(), r.logBucket)
	r.must(err)
	if root.Floor != last+1 {
		t.Fatalf("the log begins at %d, want all up to %d folded", root.Floor, last)
	}
	for since, want := range map[When]uint64{{time: time.Unix(0, 0)}: uint64(last) + 1, {name: "kept"}: 0} {
		q := LogQuery{Since: &since}
		within, err := q.slots(t.Context(), r.logBucket)
		if err != nil || within.Begins != want {
			t.Errorf("since %+v: %+v, %v; want %d", since, within, err, want)
		}
	}
}
