package fsck_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/compact"
	"github.com/celler/celler/internal/fsck"
	"github.com/celler/celler/wal"
)

// fold makes a snapshot of the log.
func (w *world) fold() {
	w.t.Helper()
	if _, err := compact.New(w.bucket, compact.Options{KeepSegments: -1, LogRetention: -1}).Round(w.t.Context(), compact.Mode{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) keys(prefix blob.Key) (keys []blob.Key) {
	w.t.Helper()
	for info, err := range w.bucket.List(w.t.Context(), prefix, "") {
		if err != nil {
			w.t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// TestTables damages what a server begins with.
func TestTables(t *testing.T) {
	for what, c := range map[string]struct {
		spoil  func(body []byte) []byte // nil: remove
		prefix blob.Key
		listed string // found by a listing
		read   string // found by reading
	}{
		"a table that is gone":      {nil, "tab/", "table", "table"},
		"a table that is cut short": {func(b []byte) []byte { return b[:len(b)-1] }, "tab/", "table", "table"},
		"a bit of a table":          {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "tab/", "", "table"},
		"a snapshot that is gone":   {nil, "snap/", "table", "table"},
		"a bit of a snapshot":       {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "snap/", "table", "table"},
	} {
		t.Run(what, func(t *testing.T) {
			w, n := mkStore(t)
			w.fold()
			n.wantKinds(everything(), "")
			keys := w.keys(c.prefix)
			key := keys[len(keys)-1]
			if c.spoil == nil {
				w.remove(key)
			} else {
				body, _, err := w.bucket.Get(t.Context(), key)
				if err == nil {
					_, err = w.bucket.Put(t.Context(), key, c.spoil(bytes.Clone(body)))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			n.wantKinds(fsck.Mode{}, "")
			n.wantKinds(fsck.Mode{Objects: true}, c.listed)
			o := n.wantKinds(everything(), c.read)
			if len(o.findings) != 1 || !strings.Contains(o.findings[0].What, "table") && !strings.Contains(o.findings[0].What, "snapshot") {
				t.Errorf("found %+v", o.findings)
			}
			mode := everything()
			mode.Repair = true
			if o := n.wantKinds(mode, c.read); o.rep.Repair.Left != 1 {
				t.Errorf("after a repair, which can do nothing, %d are left", o.rep.Repair.Left)
			}
		})
	}
}

// TestTablesReplaced has a compactor put another snapshot in the place of the one that is
// being looked at, and remove it.
func TestTablesReplaced(t *testing.T) {
	w, n := mkStore(t)
	w.fold()
	swept := &sweeping{Bucket: w.bucket, do: func() {
		n.push("a", "more")
		o := compact.Options{KeepSegments: -1, LogRetention: -1, KeepAll: -1, KeepHourly: -1, KeepDaily: -1, Ratio: 2, SmallBytes: 1 << 20}
		for range 3 {
			if _, err := compact.New(w.bucket, o).Round(t.Context(), compact.Mode{}); err != nil {
				t.Error(err)
			}
		}
	}}
	before := w.keys("tab/")
	var found []fsck.Finding
	rep, err := fsck.New(n.cat, n.chunks, fsck.Options{Log: swept}).Check(t.Context(), fsck.Mode{Objects: true, Each: func(f fsck.Finding) error {
		found = append(found, f)
		return nil
	}})
	if err != nil || !rep.Sound() {
		t.Errorf("found %v, %v", found, err)
	}
	if fmt.Sprint(before) == fmt.Sprint(w.keys("tab/")) || swept.do != nil {
		t.Error("nothing was replaced: the test shows nothing")
	}
}

// sweeping calls do after ROOT was read for the first time.
type sweeping struct {
	blob.Bucket
	do func()
}

func (b *sweeping) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	body, tag, err := b.Bucket.GetIf(ctx, key, old)
	if do := b.do; do != nil && key == wal.RootKey {
		b.do = nil
		do()
	}
	return body, tag, err
}

// TestBookmarks looks for what bookmarks need.
func TestBookmarks(t *testing.T) {
	w, n := mkStore(t)
	seq := n.log.Seq()
	if _, err := (wal.RootChange{}).SetBookmark(t.Context(), w.bucket, wal.Bookmark{Name: "before", Seq: seq}); err != nil {
		t.Fatal(err)
	}
	w.fold()
	n.push("a", "more")
	w.fold()
	n.wantKinds(everything(), "")
	for _, key := range w.keys("snap/") {
		if strings.Contains(string(key), fmt.Sprintf("%016x", uint64(seq))) {
			w.remove(key)
		}
	}
	o := n.wantKinds(fsck.Mode{Objects: true}, "table")
	if len(o.findings) != 1 || !strings.Contains(o.findings[0].What, "bookmark before") || o.findings[0].Bookmark != "before" {
		t.Errorf("found %+v", o.findings)
	}
}
