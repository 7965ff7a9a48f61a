package wal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

// mustRewrite replaces an object, which nothing in this package ever does.
func mustRewrite(t *testing.T, b blob.Bucket, key blob.Key, change func([]byte) []byte) {
	t.Helper()
	body, _, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), key, change(body)); err != nil {
		t.Fatal(err)
	}
}

func mustRewriteRoot(t *testing.T, b blob.Bucket, change func(*wal.Root)) {
	t.Helper()
	mustRewrite(t, b, wal.RootKey, func(body []byte) []byte {
		r, err := wal.DecodeRoot(body)
		if err != nil {
			t.Fatal(err)
		}
		change(&r)
		if body, err = wal.EncodeRoot(r); err != nil {
			t.Fatal(err)
		}
		return body
	})
}

// wantStopped checks that the log is read-only for good, because of why.
func wantStopped(t *testing.T, l *wal.Log, why error) {
	t.Helper()
	wantErr(t, l.Err(), why)
	_, err := l.Commit(t.Context(), set("after", "1"))
	wantErr(t, err, why)
	if errors.Is(err, wal.ErrUnknown) {
		t.Errorf("a stopped log says that the outcome is unknown: %v", err)
	}
	_, err = l.CatchUp(t.Context())
	wantErr(t, err, why)
	wantErr(t, l.Run(t.Context()), why)
}

// forking lets two creates of one slot win: the second replaces the object, or is
// dropped, without either writer hearing of it.
func forking(b blob.Bucket, key blob.Key, replace bool) *hooked {
	h := &hooked{Bucket: b}
	h.create = func(ctx context.Context, k blob.Key, body []byte) (blob.Tag, error) {
		tag, err := b.Create(ctx, k, body)
		if k != key || !errors.Is(err, blob.ErrExist) {
			return tag, err
		}
		if replace {
			return b.Put(ctx, k, body)
		}
		return `"made up"`, nil
	}
	return h
}

// fork lets two writers win slot 3 and go on. It returns what the second was told.
func fork(t *testing.T, bucket blob.Bucket, replace bool, o wal.Options) (second *wal.Log, err error) {
	t.Helper()
	a, _ := mustOpen(t, bucket, o)
	mustCommit(t, a, waltest.Append("x", "a")) // slots 1 and 2
	b, _ := mustOpen(t, forking(bucket, wal.Seq(3).Key(), replace), o)
	mustCommit(t, a, waltest.Append("x", "b")) // slot 3
	mustCommit(t, a, waltest.Append("x", "c")) // slot 4
	_, err = b.Commit(t.Context(), waltest.Append("x", "d"))
	return b, err
}

func TestADoubleWinnerStopsReplicas(t *testing.T) {
	for _, replace := range []bool{false, true} {
		t.Run(fmt.Sprintf("the second replaces the first: %v", replace), func(t *testing.T) {
			bucket := mkBucket(t)
			b, err := fork(t, bucket, replace, wal.Options{})
			wantErr(t, err, wal.ErrForked)
			wantStopped(t, b, wal.ErrForked)
			fresh, err := wal.Open(t.Context(), bucket, waltest.NewState(nil), wal.Options{})
			if err == nil {
				defer fresh.Close()
			}
			if replace { // else the bucket shows one of the two histories only
				wantErr(t, err, wal.ErrForked)
			}
			for _, err = range wal.ReadSegments(t.Context(), bucket, 0, 0) {
				if err != nil {
					break
				}
			}
			if replace != errors.Is(err, wal.ErrForked) {
				t.Errorf("reading the log gives %v", err)
			}
		})
	}
}

func TestOpenComparesItsPositionWithTheLog(t *testing.T) {
	bucket := mkBucket(t)
	l, st := mustOpen(t, bucket, wal.Options{})
	mustCommit(t, l, set("x", "1"))
	mustCommit(t, l, set("x", "2"))
	open := func() error {
		opened, err := wal.Open(t.Context(), bucket, st.Clone(), wal.Options{})
		if err == nil {
			err = opened.Close()
		}
		return err
	}
	if err := open(); err != nil {
		t.Errorf("a state that is in the log: %v", err)
	}
	last, _, err := bucket.Get(t.Context(), wal.Seq(3).Key())
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Delete(t.Context(), wal.Seq(3).Key()); err != nil {
		t.Fatal(err)
	}
	wantErr(t, open(), wal.ErrRolledBack)

	seg, _, err := wal.DecodeSegment(last)
	if err != nil {
		t.Fatal(err)
	}
	seg.Batch++
	other, err := wal.AppendSegment(nil, seg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(t.Context(), wal.Seq(3).Key(), other); err != nil {
		t.Fatal(err)
	}
	wantErr(t, open(), wal.ErrForked)
}

func TestARootThatGoesBackStopsTheLog(t *testing.T) {
	back := func(what string, change func(*wal.Root)) {
		t.Run(what, func(t *testing.T) {
			bucket := mkBucket(t)
			l, st := mustOpen(t, bucket, wal.Options{})
			mustCommit(t, l, set("x", "1"))
			mustCommit(t, l, set("x", "2"))
			truncate(t.Context(), bucket, st, wal.Env{})
			mustCatchUp(t, l)
			mustRewriteRoot(t, bucket, change)
			if _, err := l.CatchUp(t.Context()); err == nil {
				t.Error("nobody noticed")
			}
			wantStopped(t, l, wal.ErrRolledBack)
		})
	}
	back("earlier revision", func(r *wal.Root) { r.Rev-- })
	back("another change under one revision", func(r *wal.Root) { r.Nonce = "another" })
	back("lower floor", func(r *wal.Root) { r.Rev++; r.Floor-- })
	back("earlier snapshot", func(r *wal.Root) { r.Rev++; r.Floor, r.Snapshot.Seq = 1, 1 })
	back("earlier epoch", func(r *wal.Root) { r.Rev++; r.Snapshot.Digest[0]++ })
}

func TestGates(t *testing.T) {
	gate := func(what string, change func(*wal.Root), reads bool) {
		t.Run(what, func(t *testing.T) {
			bucket := mkBucket(t)
			l, st := mustOpen(t, bucket, wal.Options{})
			mustCommit(t, l, set("x", "1"))
			mustRewriteRoot(t, bucket, func(r *wal.Root) { r.Rev++; r.Nonce = "n"; change(r) })
			opened, err := wal.Open(t.Context(), bucket, st.Clone(), wal.Options{})
			if reads {
				if err != nil {
					t.Fatal(err)
				}
				defer opened.Close()
				mustCatchUp(t, l)
				_, err = l.Commit(t.Context(), set("x", "2"))
				wantErr(t, err, wal.ErrTooOld)
				if l.Err() != nil {
					t.Errorf("a log that may be read has stopped: %v", l.Err())
				}
				return
			}
			wantErr(t, err, wal.ErrTooOld)
			_, err = l.CatchUp(t.Context())
			wantErr(t, err, wal.ErrTooOld)
			wantStopped(t, l, wal.ErrTooOld)
		})
	}
	gate("reader", func(r *wal.Root) { r.MinReader = 3 }, false)
	gate("feature", func(r *wal.Root) { r.Features = append(r.Features, "sealed") }, false)
	gate("writer", func(r *wal.Root) { r.MinWriter = 3 }, true)
}

func TestSegmentsThatCannotBeRead(t *testing.T) {
	damage := func(what string, change func([]byte) []byte, check func(t *testing.T, l *wal.Log, err error)) {
		t.Run(what, func(t *testing.T) {
			bucket := mkBucket(t)
			reader, st := mustOpen(t, bucket, wal.Options{Env: newClock().env(1)})
			l, _ := mustOpen(t, bucket, wal.Options{})
			mustCommit(t, l, set("x", "1"))
			whole, _, err := bucket.Get(t.Context(), wal.Seq(2).Key())
			if err != nil {
				t.Fatal(err)
			}
			mustRewrite(t, bucket, wal.Seq(2).Key(), change)
			_, err = reader.CatchUp(t.Context())
			if err == nil || reader.Seq() != 1 {
				t.Fatalf("caught up to %v with error %v", reader.Seq(), err)
			}
			wantDump(t, st, "")
			check(t, reader, err)
			mustRewrite(t, bucket, wal.Seq(2).Key(), func([]byte) []byte { return whole })
			if reader.Err() == nil { // a wrong answer on the way does no lasting harm
				mustCatchUp(t, reader)
				wantDump(t, st, "x=1\n")
			}
		})
	}
	edit := func(change func(*wal.Segment)) func([]byte) []byte {
		return func(object []byte) []byte {
			seg, _, err := wal.DecodeSegment(object)
			if err != nil {
				t.Fatal(err)
			}
			change(seg)
			if object, err = wal.AppendSegment(nil, seg); err != nil {
				t.Fatal(err)
			}
			return object
		}
	}
	corrupt := func(t *testing.T, l *wal.Log, err error) {
		t.Helper()
		if c, ok := errors.AsType[*wal.CorruptError](err); !ok || c.Key != wal.Seq(2).Key() {
			t.Errorf("error is %v, want a CorruptError that names the object", err)
		}
	}
	damage("cut", func(object []byte) []byte { return object[:len(object)-1] }, corrupt)
	damage("empty", func([]byte) []byte { return nil }, corrupt)
	damage("of another slot", edit(func(s *wal.Segment) { s.Seq = 3 }), corrupt)
	damage("of another store", edit(func(s *wal.Segment) { s.Store[0]++ }), func(t *testing.T, l *wal.Log, err error) {
		if _, ok := errors.AsType[*wal.ForeignError](err); !ok {
			t.Errorf("error is %v, want a ForeignError", err)
		}
	})
	damage("after another segment", edit(func(s *wal.Segment) { s.Prev[0]++ }), func(t *testing.T, l *wal.Log, err error) {
		wantStopped(t, l, wal.ErrForked)
	})
	damage("of a later version", func(object []byte) []byte { object[5] = 2; return object }, func(t *testing.T, l *wal.Log, err error) {
		wantStopped(t, l, wal.ErrTooOld)
	})
}

func TestAnApplyThatFailsStopsTheReplica(t *testing.T) {
	bucket := mkBucket(t)
	l, st := mustOpen(t, bucket, wal.Options{})
	mustCommit(t, l, set("x", "1"))
	full := errors.New("disk full")
	st.Break(full)
	_, err := l.Commit(t.Context(), set("x", "2"))
	wantErr(t, err, full)
	wantErr(t, err, wal.ErrUnknown) // it is in the log, but this replica cannot say so
	wantStopped(t, l, full)
	if v, _, _ := st.Get([]byte("x")); string(v) != "1" {
		t.Errorf("the state holds %q", v)
	}
}

func TestAReplicaBelowTheFloorLoadsTheSnapshot(t *testing.T) {
	bucket := mkBucket(t)
	l, st := mustOpen(t, bucket, wal.Options{})
	behind, stBehind := mustOpen(t, bucket, wal.Options{})
	blind, err := wal.Open(t.Context(), bucket, waltest.NewState(nil), wal.Options{Env: newClock().env(1)})
	if err != nil {
		t.Fatal(err)
	}
	defer blind.Close()
	for i := range 10 {
		mustCommit(t, l, set("x", fmt.Sprint(i)))
	}
	truncate(t.Context(), bucket, st, wal.Env{})
	mustCommit(t, l, set("y", "1"))
	mustCatchUp(t, behind)
	if stBehind.Dump() != st.Dump() {
		t.Errorf("state is %q, want %q", stBehind.Dump(), st.Dump())
	}

	// A state that loads no snapshots says so, and what it would have to load.
	_, err = blind.CatchUp(t.Context())
	wantErr(t, err, waltest.ErrNoSnapshot)
	if !strings.Contains(err.Error(), wal.Seq(11).String()) {
		t.Errorf("%q does not name the snapshot", err)
	}
	for _, err := range wal.ReadSegments(t.Context(), bucket, 1, 0) {
		if err == nil || !strings.Contains(err.Error(), "begins at slot") {
			t.Errorf("reading below the floor: %v", err)
		}
	}
	var read []wal.Seq
	for s, err := range wal.ReadSegments(t.Context(), bucket, 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, s.Seq)
	}
	if len(read) != 2 || read[0] != 11 {
		t.Errorf("slots %v can be read, want 11 and 12", read)
	}
}

// TestAStateBelowTheFloorIsNoSignOfARollback restarts a replica whose last slot was
// truncated while it was away.
func TestAStateBelowTheFloorIsNoSignOfARollback(t *testing.T) {
	bucket := mkBucket(t)
	l, st := mustOpen(t, bucket, wal.Options{})
	mustCommit(t, l, set("x", "1"))
	old := st.Clone()
	for i := range 5 {
		mustCommit(t, l, set("x", fmt.Sprint(i)))
	}
	truncate(t.Context(), bucket, st, wal.Env{})
	restarted := mustOpenState(t, bucket, old, wal.Options{})
	if restarted.Seq() != l.Seq() || old.Dump() != st.Dump() {
		t.Errorf("restarted at %v with %q, want %v with %q", restarted.Seq(), old.Dump(), l.Seq(), st.Dump())
	}
}

func TestReadSegmentsOfAnEmptyBucket(t *testing.T) {
	for s, err := range wal.ReadSegments(t.Context(), memblob.New(), 0, 0) {
		if !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("got %v and %v", s, err)
		}
	}
	for s, err := range wal.ReadSegments(t.Context(), mkBucket(t), 0, 0) {
		t.Errorf("got %v and %v from a log without segments", s, err)
	}
}
