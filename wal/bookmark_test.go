package wal_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/wal"
)

const goldenBookmark = `{"v":1,"store":"01000000000000000000000000000000","name":"before-upgrade","seq":42,"stored":"2026-11-23T06:00:00Z","at":"2026-11-23T06:00:01Z","by":"me@here"}` + "\n"

func mkBookmark() wal.Bookmark {
	return wal.Bookmark{
		Version: 1, Store: wal.StoreID{1}, Name: "before-upgrade", Seq: 42, By: "me@here",
		Stored: time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC), At: time.Date(2026, 11, 23, 6, 0, 1, 0, time.UTC),
	}
}

func TestBookmarkFormat(t *testing.T) {
	body, err := wal.EncodeBookmark(mkBookmark())
	if err != nil || string(body) != goldenBookmark {
		t.Errorf("encoded as %s, %v", body, err)
	}
	got, err := wal.DecodeBookmark([]byte(goldenBookmark))
	if diff := cmp.Diff(mkBookmark(), got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := wal.DecodeBookmark([]byte(strings.Replace(goldenBookmark, `"v":1`, `"v":2`, 1))); !errors.Is(err, wal.ErrTooOld) {
		t.Errorf("a later version: %v", err)
	}
	for _, bad := range []string{
		"", "[]", "{}", strings.Replace(goldenBookmark, "42", "0", 1), strings.Replace(goldenBookmark, "before", "7 days", 1),
		strings.Replace(goldenBookmark, "01", "00", 1), goldenBookmark + strings.Repeat(" ", 4<<10),
	} {
		if _, err := wal.DecodeBookmark([]byte(bad)); err == nil {
			t.Errorf("%.60s was decoded", bad)
		}
	}
	for name, ok := range map[string]bool{
		"a": true, "Release-1.2_x": true, "": false, "1": false, "a b": false, "a/b": false, "..": false, "ä": false,
		strings.Repeat("a", 48): true, strings.Repeat("a", 49): false,
	} {
		if err := wal.CheckBookmarkName(name); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func FuzzDecodeBookmark(f *testing.F) {
	f.Add([]byte(goldenBookmark))
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		b, err := wal.DecodeBookmark(src)
		if err != nil {
			return
		}
		body, err := wal.EncodeBookmark(b)
		if err != nil {
			return // it was longer than ours would be
		}
		if again, err := wal.DecodeBookmark(body); err != nil || !cmp.Equal(b, again) {
			t.Errorf("%+v became %+v, %v", b, again, err)
		}
	})
}

// mkLog commits n operations to a new bucket.
func mkLog(t *testing.T, n int) (*wal.Log, blob.Bucket) {
	t.Helper()
	b := mkBucket(t)
	mustFound(t, b)
	l, _ := mustOpen(t, b, wal.Options{})
	for i := 0; l.Seq() < wal.Seq(n); i++ {
		mustCommit(t, l, wal.Op{Name: fmt.Sprint("op", i), Build: func(wal.View) ([]wal.Entry, error) {
			return []wal.Entry{{Kind: wal.Set, Key: []byte("k"), Value: fmt.Append(nil, i)}}, nil
		}})
	}
	return l, b
}

func TestBookmarks(t *testing.T) {
	_, b := mkLog(t, 10)
	ctx := t.Context()
	set := func(name string, seq wal.Seq) error {
		_, err := wal.RootChange{By: "t"}.SetBookmark(ctx, b, wal.Bookmark{Name: name, Seq: seq, By: "me"})
		return err
	}
	for name, seq := range map[string]wal.Seq{"b": 7, "a": 10, "c": 3} {
		if err := errors.Join(set(name, seq), set(name, seq)); err != nil {
			t.Fatal(err)
		}
	}
	var exists *wal.BookmarkExistsError
	if err := set("a", 9); !errors.As(err, &exists) || exists.Seq != 10 {
		t.Errorf("the name is taken: %v", err)
	}
	var gone *wal.UnreachableError
	if err := set("d", 11); !errors.As(err, &gone) || gone.Tail != 10 {
		t.Errorf("a slot to come: %v", err)
	}
	all, err := wal.Bookmarks(ctx, b)
	if err != nil || len(all) != 3 || all[0].Name != "c" || all[2].Name != "a" || all[1].By != "me" || all[1].Stored.IsZero() {
		t.Fatalf("%+v, %v", all, err)
	}
	since, ok, err := wal.KeptSince(ctx, b)
	if err != nil || !ok || !since.Equal(all[0].Stored) {
		t.Errorf("kept since %v %v, %v, want %v", since, ok, err, all[0].Stored)
	}

	// What an object says counts only if ROOT agrees.
	if err := b.Delete(ctx, wal.BookmarkKey("c")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, wal.BookmarkKey("b"), []byte(goldenBookmark)); err != nil {
		t.Fatal(err)
	}
	again, err := wal.Bookmarks(ctx, b)
	if err != nil || len(again) != 3 || again[0].By != "" || again[1].By != "" || again[1].Seq != 7 || again[2].By != "me" {
		t.Errorf("%+v, %v", again, err)
	}
	if since, ok, err := wal.KeptSince(ctx, b); err != nil || !ok || !since.IsZero() {
		t.Errorf("kept since %v, %v, %v; want everything kept, because nobody knows", since, ok, err)
	}
	root, err := wal.ReadRoot(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	if seq, ok := root.OldestBookmark(); !ok || seq != 3 {
		t.Errorf("oldest: %v %v", seq, ok)
	}
	// If ROOT is lost, the objects are what is left.
	if listed, err := wal.ListBookmarks(ctx, b, root.Store); err != nil || len(listed) != 1 || listed[0].Name != "a" {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := (wal.RootChange{}).DropBookmark(ctx, b, name); err != nil {
			t.Error(err)
		}
	}
	var none *wal.NoBookmarkError
	if err := (wal.RootChange{}).DropBookmark(ctx, b, "a"); !errors.As(err, &none) || len(none.Known) != 0 {
		t.Errorf("removed twice: %v", err)
	}
	if _, ok, err := wal.KeptSince(ctx, b); ok || err != nil {
		t.Errorf("none left: %v, %v", ok, err)
	}
}

// TestBookmarksAtOnce: bookmarks set at once by many are all there, and no more than may be.
func TestBookmarksAtOnce(t *testing.T) {
	_, b := mkLog(t, 2)
	var wg sync.WaitGroup
	var mu sync.Mutex
	refused := 0
	for i := range wal.MaxBookmarks + 5 {
		wg.Go(func() {
			_, err := wal.RootChange{Env: newClock().env(uint64(i))}.SetBookmark(t.Context(), b, wal.Bookmark{Name: fmt.Sprintf("%s%d", strings.Repeat("long", 10), i), Seq: 2})
			if err != nil {
				mu.Lock()
				refused++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	all, err := wal.Bookmarks(t.Context(), b)
	if err != nil || len(all) != wal.MaxBookmarks || refused != 5 {
		t.Errorf("%d bookmarks, %d refused, %v", len(all), refused, err)
	}
}

// TestBookmarkUnderFaults: whatever call fails, once or after it was performed, a bookmark
// that was acknowledged is there, and setting it again helps.
func TestBookmarkUnderFaults(t *testing.T) {
	for k := 0; ; k++ {
		_, b := mkLog(t, 3)
		fault := []blobtest.Fault{blobtest.LostRequest, blobtest.LostResponse}[k%2]
		faulty := blobtest.NewFaulty(b, blobtest.FaultyOptions{Decide: blobtest.FailAt(k/2, fault)})
		change := wal.RootChange{Env: newClock().env(1)}
		_, err := change.SetBookmark(t.Context(), faulty, wal.Bookmark{Name: "a", Seq: 2})
		root, rerr := wal.ReadRoot(t.Context(), b)
		if rerr != nil {
			t.Fatal(rerr)
		}
		if err == nil && root.Bookmarks["a"] != 2 {
			t.Fatalf("call %d: acknowledged, and not there", k)
		}
		if faulty.Calls() <= k/2 {
			if k < 10 {
				t.Errorf("only %d calls failed", k/2)
			}
			return
		}
		if _, err := change.SetBookmark(t.Context(), b, wal.Bookmark{Name: "a", Seq: 2}); err != nil {
			t.Fatalf("call %d: again: %v", k, err)
		}
	}
}

// dated is a bucket whose objects were stored at given times.
type dated struct {
	blob.Bucket
	at func(blob.Key) time.Time
}

func (b *dated) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for info, err := range b.Bucket.List(ctx, prefix, after) {
			info.ModTime = b.at(info.Key)
			if !yield(info, err) {
				return
			}
		}
	}
}

func TestSlotAt(t *testing.T) {
	_, b := mkLog(t, 40)
	ctx := t.Context()
	began := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	at := func(seq wal.Seq) time.Time { return began.Add(time.Duration(seq/3) * time.Minute) } // three in a minute
	snap := wal.SnapshotKey(12, 1)
	d := &dated{b, func(key blob.Key) time.Time {
		if key == snap {
			return began.Add(100 * time.Minute)
		}
		seq, _ := wal.ParseSeq(strings.TrimPrefix(string(key), "log/"))
		return at(seq)
	}}
	h, err := wal.ReadHistory(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	for seq := wal.Seq(1); seq <= 40; seq++ {
		want := min(seq/3*3+2, 40)
		got, stored, err := h.SlotAt(ctx, d, at(seq).Add(30*time.Second))
		if err != nil || got != want || !stored.Equal(at(want)) {
			t.Fatalf("half a minute after slot %d: %d at %v, %v, want %d", seq, got, stored, err, want)
		}
	}
	var old *wal.NothingSoOldError
	if _, _, err := h.SlotAt(ctx, d, began.Add(-time.Second)); !errors.As(err, &old) || old.Seq != 1 {
		t.Errorf("before the beginning: %v", err)
	}
	if got, err := wal.SlotTime(ctx, d, 7); err != nil || !got.Equal(at(7)) {
		t.Errorf("slot 7: %v, %v", got, err)
	}
	if _, err := wal.SlotTime(ctx, d, 41); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("slot 41: %v", err)
	}

	// Where the log was truncated, snapshots say what there was.
	mustRewriteRoot(t, b, func(r *wal.Root) {
		r.Floor, r.Snapshot = 30, wal.SnapshotRef{Seq: 30, Key: wal.SnapshotKey(30, 1), Digest: wal.Digest{1}}
	})
	for seq := wal.Seq(1); seq < 30; seq++ {
		if err := b.Delete(ctx, seq.Key()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Put(ctx, snap, []byte("?")); err != nil {
		t.Fatal(err)
	}
	d.at = func(key blob.Key) time.Time {
		if key == snap {
			return at(13)
		}
		seq, _ := wal.ParseSeq(strings.TrimPrefix(string(key), "log/"))
		return at(seq)
	}
	if h, err = wal.ReadHistory(ctx, d); err != nil {
		t.Fatal(err)
	}
	if got, _, err := h.SlotAt(ctx, d, at(20)); err != nil || got != 12 {
		t.Errorf("between a snapshot and the log: slot %d, %v, want 12", got, err)
	}
	if got, _, err := h.SlotAt(ctx, d, at(5)); err == nil {
		t.Errorf("before the snapshot was stored: slot %d", got)
	}
	mark := wal.Bookmark{Version: 1, Store: h.Root.Store, Name: "m", Seq: 12, Stored: at(4)}
	if body, err := wal.EncodeBookmark(mark); err != nil {
		t.Fatal(err)
	} else if _, err := b.Put(ctx, wal.BookmarkKey("m"), body); err != nil {
		t.Fatal(err)
	}
	mustRewriteRoot(t, b, func(r *wal.Root) { r.Bookmarks = map[string]wal.Seq{"m": 12} })
	if got, stored, err := h.SlotAt(ctx, d, at(5)); err != nil || got != 12 || !stored.Equal(at(4)) {
		t.Errorf("after a bookmark's slot was stored: slot %d, %v, %v, want 12", got, stored, err)
	}
	mustRewriteRoot(t, b, func(r *wal.Root) { r.Bookmarks = nil })
	if _, _, err := h.SlotAt(ctx, d, at(4)); !errors.As(err, &old) || old.Seq != 12 {
		t.Errorf("before the oldest snapshot: %v", err)
	}
	if got, _, err := h.SlotAt(ctx, d, at(33)); err != nil || got != 35 {
		t.Errorf("in what is left of the log: slot %d, %v, want 35", got, err)
	}
	var gone *wal.UnreachableError
	if err := h.Reach(ctx, d, 20); !errors.As(err, &gone) || gone.Since != 30 || gone.Tail != 40 || !cmp.Equal(gone.Before, []wal.Seq{12}) {
		t.Errorf("slot 20: %v", err)
	}
	if err := errors.Join(h.Reach(ctx, d, 12), h.Reach(ctx, d, 30), h.Reach(ctx, d, 40)); err != nil {
		t.Error(err)
	}
	if tail, err := wal.FindTail(ctx, d); err != nil || tail != 40 {
		t.Errorf("tail %d, %v", tail, err)
	}
}

func TestWho(t *testing.T) {
	l, b := mkLog(t, 1)
	ctx := wal.As(t.Context(), "alice of CI")
	op := wal.Op{Name: "publish", About: "main", Build: func(wal.View) ([]wal.Entry, error) {
		return []wal.Entry{{Kind: wal.Set, Key: []byte("k"), Value: []byte("v")}}, nil
	}}
	var seqs []wal.Seq
	for _, by := range []string{"", "bob", strings.Repeat("é", 100)} {
		op.By = by
		seq, err := l.Commit(ctx, op)
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, seq)
	}
	for i, want := range []string{"alice of CI", "bob", strings.Repeat("é", 64)} {
		for seg, err := range wal.ReadSegments(t.Context(), b, seqs[i], seqs[i]) {
			if err != nil {
				t.Fatal(err)
			}
			name, about, by := seg.Entries[0].Boundary()
			if name != "publish" || about != "main" || by != want {
				t.Errorf("%q %q %q, want %q", name, about, by, want)
			}
		}
	}
}
