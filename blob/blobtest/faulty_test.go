package blobtest_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/memblob"
)

func scripted(faults ...blobtest.Fault) (*memblob.Bucket, *blobtest.Faulty) {
	m := memblob.New()
	return m, blobtest.NewFaulty(m, blobtest.FaultyOptions{Decide: blobtest.Scripted(faults...)})
}

func wantInjected(t *testing.T, err error, kind blob.Kind) {
	t.Helper()
	if !errors.Is(err, blobtest.ErrInjected) || blob.KindOf(err) != kind {
		t.Errorf("got %v of kind %v, want an injected fault of kind %v", err, blob.KindOf(err), kind)
	}
}

func body(t *testing.T, b blob.Bucket, key blob.Key) string {
	t.Helper()
	got, _, err := b.Get(t.Context(), key)
	if errors.Is(err, blob.ErrNotExist) {
		return "absent"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestFaultyIsABucket(t *testing.T) {
	blobtest.Run(t, func(testing.TB) blob.Bucket {
		return blobtest.NewFaulty(memblob.New(), blobtest.FaultyOptions{})
	})
}

func TestFaultyWrites(t *testing.T) {
	for fault, after := range map[blobtest.Fault]string{
		blobtest.LostRequest:  "absent",
		blobtest.LostResponse: "x",
		blobtest.DelayedApply: "absent",
		blobtest.Throttled:    "absent",
		blobtest.Unavailable:  "absent",
		blobtest.Denied:       "absent",
	} {
		t.Run(fault.String(), func(t *testing.T) {
			m, f := scripted(fault)
			kind := blob.KindUnreachable
			switch fault {
			case blobtest.Throttled, blobtest.Unavailable:
				kind = blob.KindThrottled
			case blobtest.Denied:
				kind = blob.KindDenied
			}
			_, err := f.Create(t.Context(), "log/1", []byte("x"))
			wantInjected(t, err, kind)
			if got := body(t, m, "log/1"); got != after {
				t.Errorf("the bucket holds %q, want %q", got, after)
			}
		})
	}
}

func TestFaultyAppliesLate(t *testing.T) {
	ctx := t.Context()
	late := blobtest.DelayedApply
	m, f := scripted(late, late, blobtest.None, late)
	buf := []byte("first")
	_, err := f.Create(ctx, "log/1", buf)
	wantInjected(t, err, blob.KindUnreachable)
	copy(buf, "other") // the request has left
	_, err = f.Create(ctx, "log/2", []byte("second"))
	wantInjected(t, err, blob.KindUnreachable)
	if _, err := f.Create(ctx, "log/2", []byte("overtook")); err != nil {
		t.Fatal(err)
	}
	wantInjected(t, f.Delete(ctx, "log/2"), blob.KindUnreachable)

	if got := f.Pending(); got != 3 {
		t.Errorf("%d writes are late, want 3", got)
	}
	if n := f.Release(ctx, 2); n != 2 {
		t.Errorf("released %d, want 2", n)
	}
	if got := []string{body(t, m, "log/1"), body(t, m, "log/2")}; !slices.Equal(got, []string{"first", "overtook"}) {
		t.Errorf("after two of three: %v", got)
	}
	if n := f.Release(ctx, -1); n != 1 || f.Pending() != 0 {
		t.Errorf("released %d, %d left", n, f.Pending())
	}
	if got := body(t, m, "log/2"); got != "absent" {
		t.Errorf("after the late delete: %q", got)
	}
}

func TestFaultyReads(t *testing.T) {
	ctx := t.Context()
	m, f := scripted(blobtest.LostResponse, blobtest.ShortBody, blobtest.ShortBody, blobtest.LostResponse, blobtest.LostRequest)
	if _, err := m.Put(ctx, "pack/1", []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	_, _, err := f.Get(ctx, "pack/1")
	wantInjected(t, err, blob.KindUnreachable)
	_, _, err = f.GetIf(ctx, "pack/1", "other")
	wantInjected(t, err, blob.KindUnreachable)
	r, err := f.GetRange(ctx, "pack/1", 2, 6)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	wantInjected(t, err, blob.KindUnreachable)
	if string(got) != "234" || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("broken stream: %q, %v", got, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	_, err = f.GetRange(ctx, "pack/1", 2, 6)
	wantInjected(t, err, blob.KindUnreachable)
	for _, err := range f.List(ctx, "", "") {
		wantInjected(t, err, blob.KindUnreachable)
	}
	if f.Calls() != 5 {
		t.Errorf("%d calls, want 5", f.Calls())
	}
}

func TestFaultyListsLag(t *testing.T) {
	ctx := t.Context()
	stale := blobtest.StaleList
	none := blobtest.None
	_, f := scripted(none, none, none, stale, none, stale)
	list := func() (keys []blob.Key) {
		for info, err := range f.List(ctx, "", "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, info.Key)
		}
		return keys
	}
	put := func(key blob.Key) {
		if _, err := f.Put(ctx, key, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	got := [][]blob.Key{list()}
	put("b")
	got = append(got, list(), list())
	got = append(got, list())
	want := [][]blob.Key{{"a"}, {"a"}, {"a", "b"}, {"a", "b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listings (-want +got):\n%s", diff)
	}
}

func TestFaultyIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f := scripted(blobtest.Slow, blobtest.Slow)
		began := time.Now()
		if _, err := f.Create(t.Context(), "log/1", nil); err != nil || time.Since(began) != time.Second {
			t.Errorf("slow create took %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := f.Create(ctx, "log/2", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("slow create with a short deadline: %v", err)
		}
	})
}

func TestSeededRepeats(t *testing.T) {
	decide := func(seed uint64) (all []blobtest.Fault) {
		d := blobtest.Seeded(seed, 0.5, blobtest.LostRequest, blobtest.LostResponse)
		for n := range 200 {
			all = append(all, d(n, "get", "log/1"))
		}
		return all
	}
	if !slices.Equal(decide(1), decide(1)) {
		t.Error("one seed, two histories")
	}
	if slices.Equal(decide(1), decide(2)) {
		t.Error("two seeds, one history")
	}
	count := map[blobtest.Fault]int{}
	for _, fault := range decide(3) {
		count[fault]++
	}
	if len(count) != 3 || count[blobtest.None] < 70 || count[blobtest.None] > 130 {
		t.Errorf("a rate of one half gives %v", count)
	}
}

func TestCounter(t *testing.T) {
	ctx := t.Context()
	c := blobtest.Count(memblob.New())
	if _, err := c.Create(ctx, "log/1", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	_, _, _ = c.Get(ctx, "log/1")
	_, _, _ = c.Get(ctx, "log/2")
	if diff := cmp.Diff(map[string]int{"create": 1, "get": 2}, c.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if c.Total() != 3 || c.Bytes("get") != 5 {
		t.Errorf("total %d, %d bytes read", c.Total(), c.Bytes("get"))
	}
	c.Reset()
	if c.Total() != 0 {
		t.Errorf("%d calls after reset", c.Total())
	}
}
