package index_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/index"
	"github.com/celler/celler/wal"
)

// mkLogged commits n operations, the i-th of which sets row i, to a new bucket.
func mkLogged(t *testing.T, n int) blob.Bucket {
	t.Helper()
	b := memblob.New()
	f, err := wal.Found(t.Context(), b, wal.Format{Profile: "fast2016-16k"})
	if err != nil {
		t.Fatal(err)
	}
	db, err := index.Open("index", f.Store, index.Options{FS: vfs.NewMem(), Bucket: b})
	if err != nil {
		t.Fatal(err)
	}
	l, err := wal.Open(t.Context(), b, db, wal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; l.Seq() < wal.Seq(n); i++ {
		op := wal.Op{Build: func(wal.View) ([]wal.Entry, error) {
			return []wal.Entry{{Kind: wal.Set, Key: fmt.Appendf(nil, "row%d", l.Seq()+1), Value: []byte("x")}}, nil
		}}
		if _, err := l.Commit(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(l.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPast(t *testing.T) {
	b := mkLogged(t, 12)
	fs := vfs.NewMem()
	if err := fs.MkdirAll("d/past-dead/db", 0o700); err != nil {
		t.Fatal(err)
	}
	open := func(seq wal.Seq) *index.Past {
		t.Helper()
		p, err := index.OpenPast(t.Context(), b, "d", seq, index.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	names := func() (past []string) {
		t.Helper()
		all, err := fs.List("d")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range all {
			if strings.HasPrefix(name, "past-") {
				past = append(past, name)
			}
		}
		return past
	}
	five := open(5)
	twelve := open(12) // must not take the first one's directory for a dead one
	if dirs := names(); len(dirs) != 2 {
		t.Errorf("directories: %v", dirs)
	}
	has := func(p *index.Past, row int) bool {
		t.Helper()
		_, ok, err := p.Get(fmt.Appendf(nil, "row%d", row))
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !has(five, 5) || has(five, 6) || !has(twelve, 12) {
		t.Error("the states have other rows than they had")
	}

	// The view of the bucket ends where the state does, and takes no writes.
	if _, _, err := five.Bucket.Get(t.Context(), wal.Seq(6).Key()); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("slot 6 in the view of slot 5: %v", err)
	}
	if _, err := five.Bucket.Create(t.Context(), wal.Seq(6).Key(), []byte("x")); blob.KindOf(err) != blob.KindReadOnly {
		t.Errorf("a write into the past: %v", err)
	}
	l, err := wal.Open(t.Context(), five.Bucket, five.DB, wal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if seq, err := l.CatchUp(t.Context()); err != nil || seq != 5 {
		t.Errorf("a log of the past is at slot %d, %v", seq, err)
	}
	if err := errors.Join(l.Close(), five.Close(), twelve.Close()); err != nil {
		t.Error(err)
	}
	if dirs := names(); len(dirs) != 0 {
		t.Errorf("left behind: %v", dirs)
	}
	var gone *wal.UnreachableError
	if _, err := index.OpenPast(t.Context(), b, "d", 13, index.Options{FS: fs}); !errors.As(err, &gone) || gone.Tail != 12 {
		t.Errorf("a slot to come: %v", err)
	}
}

// truncating is a bucket whose log is truncated when slot 3 is read.
type truncating struct {
	blob.Bucket
	t    *testing.T
	done bool
}

func (b *truncating) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	if key == wal.Seq(3).Key() && !b.done {
		b.done = true
		_, err := wal.RootChange{By: "test"}.Swap(ctx, b.Bucket, func(r *wal.Root) error {
			r.Snapshot = wal.SnapshotRef{Seq: 12, Digest: wal.Digest{1}, Key: wal.SnapshotKey(12, 1), SHA256: wal.Digest{2}}
			r.Floor = 12
			return nil
		})
		if err != nil {
			b.t.Error(err)
		}
	}
	return b.Bucket.GetIf(ctx, key, old)
}

// TestPastUnderTruncation: what was read from slots that were truncated meanwhile may
// have been anything (I1), though they were all there.
func TestPastUnderTruncation(t *testing.T) {
	b := &truncating{Bucket: mkLogged(t, 12), t: t}
	fs := vfs.NewMem()
	p, err := index.OpenPast(t.Context(), b, "d", 5, index.Options{FS: fs})
	var gone *wal.UnreachableError
	if !b.done || !errors.As(err, &gone) {
		t.Errorf("%v, %v, want to hear that it is not kept any more", p, err)
	}
	if left, err := fs.List("d"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
