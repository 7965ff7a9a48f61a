package wal_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/wal"
)

func TestFoundWritesOnce(t *testing.T) {
	b := memblob.New()
	if _, err := wal.ReadFormat(t.Context(), b); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("reading the format of an empty bucket: %v, want ErrNotExist", err)
	}
	first := mustFound(t, b)
	again, err := wal.Found(t.Context(), b, wal.Format{Profile: "fast2016-64k"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("founding again returns another format: %s", diff)
	}
	if first.Store == (wal.StoreID{}) || first.Profile != "fast2016-16k" || first.Created.IsZero() {
		t.Errorf("incomplete format: %+v", first)
	}
	root, err := wal.ReadRoot(t.Context(), b)
	if err != nil || root.Store != first.Store || root.Rev != 1 {
		t.Errorf("root is %+v, %v", root, err)
	}
}

func TestManyFoundersAgree(t *testing.T) {
	b := memblob.New()
	var wg sync.WaitGroup
	formats := make([]wal.Format, 16)
	for i := range formats {
		wg.Go(func() {
			profile := fmt.Sprintf("profile-%d", i)
			f, err := wal.Found(t.Context(), b, wal.Format{Profile: profile})
			if err != nil {
				t.Error(err)
			}
			formats[i] = f
		})
	}
	wg.Wait()
	for _, f := range formats[1:] {
		if f != formats[0] {
			t.Errorf("founders disagree: %+v and %+v", formats[0], f)
		}
	}
}

// TestFoundingMayStopAnywhere breaks it at each request; founding again must
// complete what was begun.
func TestFoundingMayStopAnywhere(t *testing.T) {
	for _, fault := range []blobtest.Fault{blobtest.LostRequest, blobtest.LostResponse, blobtest.DelayedApply} {
		for k, more := 0, true; more; k++ {
			bucket := memblob.New()
			faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{Decide: blobtest.FailAt(k, fault)})
			first, firstErr := wal.Found(t.Context(), faulty, wal.Format{Profile: "p"})
			more = faulty.Calls() > k
			faulty.Set(nil)
			second, err := wal.Found(t.Context(), faulty, wal.Format{Profile: "p"})
			if err != nil {
				t.Fatalf("%v at call %d: founding again: %v", fault, k, err)
			}
			if firstErr == nil && first != second {
				t.Errorf("%v at call %d: formats %+v and %+v", fault, k, first, second)
			}
			faulty.Release(t.Context(), -1)
			if third, err := wal.ReadFormat(t.Context(), bucket); err != nil || third != second {
				t.Errorf("%v at call %d: a late request changed the format to %+v, %v", fault, k, third, err)
			}
		}
	}
}

func TestFoundRefusesABucketThatLostItsFormat(t *testing.T) {
	b := mkBucket(t)
	l, _ := mustOpen(t, b, wal.Options{})
	mustCommit(t, l, set("x", "1"))
	if err := b.Delete(t.Context(), wal.FormatKey); err != nil {
		t.Fatal(err)
	}
	if _, err := wal.Found(t.Context(), b, wal.Format{Profile: "other"}); !isCorrupt(err) {
		t.Errorf("error is %v, want a CorruptError: the log has begun", err)
	}
}

func TestOpenRefusesABucketThatLostItsRoot(t *testing.T) {
	b := mkBucket(t)
	if err := b.Delete(t.Context(), wal.RootKey); err != nil {
		t.Fatal(err)
	}
	if _, err := wal.Found(t.Context(), b, wal.Format{Profile: "p"}); err != nil {
		t.Errorf("a bucket with a FORMAT is founded: %v", err)
	}
	_, err := wal.Open(t.Context(), b, nopState{}, wal.Options{})
	wantErr(t, err, blob.ErrNotExist)
}

type nopState struct{ wal.State }

func (nopState) Position() (wal.Seq, wal.Digest, error) { return 0, wal.Digest{}, nil }

func TestDecodeFormatRefuses(t *testing.T) {
	const store = `"store":"000102030405060708090a0b0c0d0e0f"`
	bad := func(what, src string, ok func(error) bool) {
		t.Helper()
		if f, err := wal.DecodeFormat([]byte(src)); !ok(err) {
			t.Errorf("%s: got %+v and error %v", what, f, err)
		}
	}
	tooOld := func(err error) bool { return errors.Is(err, wal.ErrTooOld) }
	if _, err := wal.DecodeFormat([]byte(`{"v":1,` + store + `,"profile":"p","later":true}`)); err != nil {
		t.Errorf("a field that came later: %v", err)
	}
	bad("nothing", "", isCorrupt)
	bad("something else", "<html>", isCorrupt)
	bad("no version", `{`+store+`,"profile":"p"}`, isCorrupt)
	bad("a later version", `{"v":2,"whatever":[]}`, tooOld)
	bad("no store", `{"v":1,"profile":"p"}`, isCorrupt)
	bad("a short store id", `{"v":1,"store":"00","profile":"p"}`, isCorrupt)
	bad("no profile", `{"v":1,`+store+`}`, isCorrupt)
	bad("a strange profile", `{"v":1,`+store+`,"profile":"../p"}`, isCorrupt)
	bad("64 KiB", `{"v":1,`+store+`,"profile":"p"}`+strings.Repeat(" ", 64<<10), isCorrupt)
}

func TestGoldenFormatAndRoot(t *testing.T) {
	env := newClock().env(7)
	b := memblob.New()
	f, err := wal.Founding{Env: env, By: "celler-1/golden"}.Found(t.Context(), b, wal.Format{Profile: "fast2016-16k"})
	if err != nil {
		t.Fatal(err)
	}
	want := func(key blob.Key, file string) []byte {
		t.Helper()
		got, _, err := b.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(golden), string(got)); diff != "" {
			t.Errorf("%s: %s", key, diff)
		}
		return golden
	}
	if got, err := wal.DecodeFormat(want(wal.FormatKey, "testdata/format-v1.json")); err != nil || got != f {
		t.Errorf("FORMAT decodes to %+v, %v", got, err)
	}
	if got, err := wal.DecodeRoot(want(wal.RootKey, "testdata/root-v1.json")); err != nil || got.By != "celler-1/golden" {
		t.Errorf("ROOT decodes to %+v, %v", got, err)
	}
}

func FuzzDecodeFormat(f *testing.F) {
	f.Add([]byte(`{"v":1,"store":"000102030405060708090a0b0c0d0e0f","profile":"p"}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		if _, err := wal.DecodeFormat(src); err != nil && !isCorrupt(err) && !errors.Is(err, wal.ErrTooOld) {
			t.Fatal(err)
		}
	})
}
