package blob_test

import (
	"context"
	"errors"
	"path"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/memblob"
)

// quick makes the races short enough for a table.
var quick = blob.ProbeOptions{Rounds: 4, Racers: 8} //nolint:gochecknoglobals // a constant

func failed(t *testing.T, b blob.Bucket, o blob.ProbeOptions) []string {
	t.Helper()
	findings, err := blob.Probe(t.Context(), b, o)
	if err != nil {
		t.Fatalf("probe: %v", err)
	}
	var names []string
	for _, f := range findings {
		if f.Promise == "" || f.Detail == "" {
			t.Errorf("finding without words: %+v", f)
		}
		if !f.OK {
			names = append(names, f.Check)
			if f.Hint == "" {
				t.Errorf("%s: no hint", f.Check)
			}
		}
	}
	if verdict := blob.Verdict(findings); (verdict != nil) != (names != nil) {
		t.Errorf("verdict %v with failed checks %v", verdict, names)
	}
	return names
}

func keysOf(t *testing.T, b blob.Bucket) (keys []blob.Key) {
	t.Helper()
	for info, err := range b.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func TestProbeIsSatisfied(t *testing.T) {
	b := memblob.New()
	o := blob.ProbeOptions{}
	if testing.Short() {
		o = quick
	}
	if names := failed(t, b, o); names != nil {
		t.Errorf("a correct bucket fails %v", names)
	}
	if left := keysOf(t, b); left != nil {
		t.Errorf("the probe left %v", left)
	}
}

func TestShortProbeMakesSixRequests(t *testing.T) {
	b := memblob.New()
	c := blobtest.Count(b)
	if names := failed(t, c, blob.ProbeOptions{Short: true}); names != nil {
		t.Errorf("a correct bucket fails %v", names)
	}
	want := map[string]int{"create": 2, "get": 1, "get_if": 1, "swap": 1, "delete": 1}
	if diff := cmp.Diff(want, c.Calls()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if left := keysOf(t, b); left != nil {
		t.Errorf("the probe left %v", left)
	}
}

// Where keys are paths, a place that every start makes anew is a directory that stays.
func TestProbesAtStartUseOnePlace(t *testing.T) {
	var places []string
	f := blobtest.NewFaulty(memblob.New(), blobtest.FaultyOptions{Decide: func(_ int, _ string, key blob.Key) blobtest.Fault {
		places = append(places, path.Dir(string(key)))
		return blobtest.None
	}})
	for range 2 {
		if names := failed(t, f, blob.ProbeOptions{Short: true}); names != nil {
			t.Errorf("a correct bucket fails %v", names)
		}
	}
	slices.Sort(places)
	if got := slices.Compact(places); !slices.Equal(got, []string{"probe"}) {
		t.Errorf("objects were in %q, want all in probe", got)
	}
}

// slowDelete needs ten minutes to find out that nobody listens.
type slowDelete struct{ blob.Bucket }

func (slowDelete) Create(context.Context, blob.Key, []byte) (blob.Tag, error) {
	return "", &blob.Error{Op: "create", Kind: blob.KindUnreachable, Err: errors.New("connection refused")}
}

func (slowDelete) Delete(ctx context.Context, _ ...blob.Key) error {
	timer := time.NewTimer(10 * time.Minute)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return &blob.Error{Op: "delete", Kind: blob.KindUnreachable, Err: errors.New("connection refused")}
}

func TestProbeDoesNotTidyForLongWhatItCannotReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := blob.Probe(t.Context(), slowDelete{memblob.New()}, blob.ProbeOptions{Short: true})
		if took := time.Since(began); blob.KindOf(err) != blob.KindUnreachable || took > 10*time.Second {
			t.Errorf("%v after %v, want the error of the first request within seconds", err, took)
		}
	})
}

// TestProbeWithoutAnswer lets each request of the probe go wrong in each way:
// no promise may be called broken for it, and most of the time the second
// attempt gets an answer.
func TestProbeWithoutAnswer(t *testing.T) {
	for _, fault := range []blobtest.Fault{blobtest.LostRequest, blobtest.LostResponse, blobtest.Throttled, blobtest.Unavailable} {
		for _, o := range []blob.ProbeOptions{{Short: true}, {Rounds: 1, Racers: 2}} {
			t.Run(fault.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					for k := 0; ; k++ {
						m := memblob.New()
						f := blobtest.NewFaulty(m, blobtest.FaultyOptions{Decide: blobtest.FailAt(k, fault)})
						findings, err := blob.Probe(t.Context(), f, o)
						if verdict := blob.Verdict(findings); verdict != nil {
							t.Errorf("request %d: %v", k, verdict)
						}
						if err != nil && blob.KindOf(err) == blob.KindOther {
							t.Errorf("request %d: error %v does not tell its kind", k, err)
						}
						if f.Calls() <= k {
							if err != nil {
								t.Errorf("without any fault: %v", err)
							}
							return
						}
					}
				})
			})
		}
	}
}

func TestProbeGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		always := func(int, string, blob.Key) blobtest.Fault { return blobtest.Unavailable }
		f := blobtest.NewFaulty(memblob.New(), blobtest.FaultyOptions{Decide: always})
		findings, err := blob.Probe(t.Context(), f, blob.ProbeOptions{})
		if err == nil || blob.KindOf(err) != blob.KindThrottled || findings != nil {
			t.Errorf("probe of a bucket that never answers: %v, %v", findings, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := blob.Probe(ctx, memblob.New(), blob.ProbeOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled probe: %v", err)
		}
	})
}

func TestProbeToleratesThatDeletingIsForbidden(t *testing.T) {
	m := memblob.New()
	b := &brokenBucket{Bucket: m, del: func(context.Context, ...blob.Key) error {
		return &blob.Error{Op: "delete", Kind: blob.KindDenied, Err: errors.New("403")}
	}}
	for _, o := range []blob.ProbeOptions{quick, {Short: true}} {
		if names := failed(t, b, o); names != nil {
			t.Errorf("failed %v", names)
		}
	}
}

func TestProbeClock(t *testing.T) {
	for offset, want := range map[time.Duration][]string{
		0:                 nil,
		5 * time.Minute:   nil,
		-20 * time.Minute: {"clock"},
		20 * time.Minute:  {"clock"},
	} {
		o := quick
		o.Now = func() time.Time { return time.Now().Add(offset) }
		if got := failed(t, memblob.New(), o); !slices.Equal(got, want) {
			t.Errorf("offset %v: failed %v, want %v", offset, got, want)
		}
	}
}

func TestProbeSweepsWhatOthersLeft(t *testing.T) {
	now := time.Now()
	m := memblob.NewAt(func() time.Time { return now })
	put := func(key blob.Key) {
		if _, err := m.Put(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("probe/0123456789abcdef/create-0000")
	put("log/1")
	now = now.Add(25 * time.Hour)
	put("probe/fedcba9876543210/create-0000")
	o := quick
	o.Now = func() time.Time { return now }
	if names := failed(t, m, o); names != nil {
		t.Errorf("failed %v", names)
	}
	want := []blob.Key{"log/1", "probe/fedcba9876543210/create-0000"}
	if got := keysOf(t, m); !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
}
