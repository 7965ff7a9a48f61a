package chunkstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/blob/pack"
)

func mustPutPacks(t *testing.T, b blob.Bucket, n int) []chunk.PackID {
	t.Helper()
	ids := make([]chunk.PackID, n)
	for i := range ids {
		ids[i] = chunk.PackID{Epoch: uint32(1 + i/10), Rand: uint64(i)}
		if _, err := b.Put(t.Context(), pack.Key(ids[i]), make([]byte, 1+i)); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func objects(t *testing.T, s *chunkstore.Store, after chunk.PackID) []chunk.PackID {
	t.Helper()
	var ids []chunk.PackID
	for o, err := range s.Objects(t.Context(), after) {
		if err != nil {
			t.Fatal(err)
		}
		if o.Bytes != int64(1+o.ID.Rand) || o.ModTime.IsZero() {
			t.Errorf("object %v has %d bytes and is from %v", o.ID, o.Bytes, o.ModTime)
		}
		ids = append(ids, o.ID)
	}
	return ids
}

func TestObjects(t *testing.T) {
	b := memblob.New()
	s := mkStore(t, b, newDirectory(), chunkstore.Options{})
	ids := mustPutPacks(t, b, 25)
	for _, foreign := range []blob.Key{"pack/README", "pack/00000001/zz", "packs/00000001/0000000000000001", "log/0"} {
		if _, err := b.Put(t.Context(), foreign, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if got := objects(t, s, chunk.PackID{}); !slices.Equal(got, ids) {
		t.Errorf("listed %v, want %v", got, ids)
	}
	if got := objects(t, s, ids[11]); !slices.Equal(got, ids[12:]) {
		t.Errorf("listed after %v: %v, want %v", ids[11], got, ids[12:])
	}
	faulty := blobtest.NewFaulty(b, blobtest.FaultyOptions{Decide: blobtest.FailAt(0, blobtest.Unavailable)})
	s = mkStore(t, faulty, newDirectory(), chunkstore.Options{})
	for _, err := range s.Objects(t.Context(), chunk.PackID{}) {
		if !errors.Is(err, blobtest.ErrInjected) {
			t.Errorf("a listing that fails: %v", err)
		}
	}
}

// locked is a bucket some of whose objects cannot be deleted.
type locked struct {
	blob.Bucket
	keys  map[blob.Key]bool // nil = all
	calls int
}

func (b *locked) Delete(ctx context.Context, keys ...blob.Key) error {
	b.calls++
	var denied error
	for _, k := range keys {
		if b.keys == nil || b.keys[k] {
			denied = &blob.Error{Op: "delete", Key: k, Kind: blob.KindDenied, Err: errors.New("access denied")}
			continue
		}
		if err := b.Bucket.Delete(ctx, k); err != nil {
			return err
		}
	}
	return denied
}

func TestDeleteObjects(t *testing.T) {
	mem := memblob.New()
	ids := mustPutPacks(t, mem, 2500)
	b := &locked{Bucket: mem, keys: map[blob.Key]bool{pack.Key(ids[7]): true, pack.Key(ids[1900]): true}}
	s := mkStore(t, b, newDirectory(), chunkstore.Options{})
	res, err := s.DeleteObjects(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	want := []chunk.PackID{ids[7], ids[1900]}
	if !slices.Equal(res.Denied, want) || len(res.Deleted) != len(ids)-2 {
		t.Errorf("%d deleted, %v denied, want all but %v", len(res.Deleted), res.Denied, want)
	}
	if got := objects(t, s, chunk.PackID{}); !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
	if b.calls > 60 {
		t.Errorf("%d requests, want 3 and some 20 for each that is denied", b.calls)
	}
	b.keys = map[blob.Key]bool{}
	if res, err = s.DeleteObjects(t.Context(), ids); err != nil || len(res.Deleted) != len(ids) {
		t.Errorf("once more: %d deleted, %d denied, %v; want all, as absent ones count", len(res.Deleted), len(res.Denied), err)
	}
}

// TestDeleteDenied asks a bucket that lets nobody delete anything. It is not asked
// about every object.
func TestDeleteDenied(t *testing.T) {
	mem := memblob.New()
	ids := mustPutPacks(t, mem, 5000)
	b := &locked{Bucket: mem}
	s := mkStore(t, b, newDirectory(), chunkstore.Options{})
	res, err := s.DeleteObjects(t.Context(), ids)
	if err != nil || len(res.Deleted) != 0 || !slices.Equal(res.Denied, ids) {
		t.Errorf("%d deleted, %d denied, %v; want all denied, in order", len(res.Deleted), len(res.Denied), err)
	}
	if b.calls > 200 {
		t.Errorf("%d requests for %d objects that are all denied", b.calls, len(ids))
	}
}

func TestDeleteFails(t *testing.T) {
	mem := memblob.New()
	ids := mustPutPacks(t, mem, 2500)
	faulty := blobtest.NewFaulty(mem, blobtest.FaultyOptions{Decide: blobtest.FailAt(1, blobtest.LostResponse)})
	s := mkStore(t, faulty, newDirectory(), chunkstore.Options{})
	res, err := s.DeleteObjects(t.Context(), ids)
	if !errors.Is(err, blobtest.ErrInjected) || !slices.Equal(res.Deleted, ids[:1000]) || len(res.Denied) != 0 {
		t.Errorf("the second request fails: %d deleted, %d denied, %v; want the first 1000, and the error", len(res.Deleted), len(res.Denied), err)
	}
}

// TestAbsent asks about an object that is not there, with each request failing in each
// way, and about one that only some requests find.
func TestAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memblob.New()
		ids := mustPutPacks(t, mem, 2)
		gone := chunk.PackID{Epoch: 9, Rand: 9}
		ask := func(b blob.Bucket, id chunk.PackID) string {
			s := mkStore(t, b, newDirectory(), chunkstore.Options{})
			defer s.Close()
			absent, err := s.Absent(t.Context(), id)
			return fmt.Sprint(absent, ", ", err != nil)
		}
		count := blobtest.Count(mem)
		if got := ask(count, gone); got != "true, false" {
			t.Errorf("not there: %v", got)
		}
		if d := cmp.Diff(map[string]int{"list": 2, "get_range": 2}, count.Calls()); d != "" {
			t.Error(d)
		}
		if got := ask(mem, ids[0]); got != "false, false" {
			t.Errorf("there: %v", got)
		}
		faulty := blobtest.NewFaulty(mem, blobtest.FaultyOptions{})
		for _, fault := range []blobtest.Fault{blobtest.LostRequest, blobtest.LostResponse, blobtest.Throttled, blobtest.Unavailable, blobtest.Denied} {
			for k := range 4 {
				faulty.Set(blobtest.FailAt(k, fault))
				want := "false, true"
				if fault == blobtest.LostResponse && k%2 == 1 {
					want = "true, false" // a GET that finds nothing has no response to lose
				}
				if got := ask(faulty, gone); got != want {
					t.Errorf("request %d, %v: %v, want %v", k, fault, got, want)
				}
			}
		}
		for name, b := range map[string]blob.Bucket{
			"only the listing has it": &half{Bucket: mem, lists: 2},
			"only a GET finds it":     &half{Bucket: mem, gets: 2},
			"the second listing does": &half{Bucket: mem, lists: 1, skip: 1},
			"the second GET does":     &half{Bucket: mem, gets: 1, skip: 1},
		} {
			if got := ask(b, ids[0]); got != "false, false" {
				t.Errorf("%s: %v", name, got)
			}
		}
	})
}

// half is a bucket most of whose requests find nothing: after skip of each kind that
// do not, lists listings and gets GETs do.
type half struct {
	blob.Bucket
	lists, gets, skip int
	listed, got       int
}

func (b *half) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	b.listed++
	if n := b.listed - b.skip; n <= 0 || n > b.lists {
		return func(func(blob.Info, error) bool) {}
	}
	return b.Bucket.List(ctx, prefix, after)
}

func (b *half) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	b.got++
	if k := b.got - b.skip; k <= 0 || k > b.gets {
		return nil, blob.ErrNotExist
	}
	return b.Bucket.GetRange(ctx, key, off, n)
}
