package chunkstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/blob/pack"
)

// TestRewriteFaults lets every request of a rewrite fail in every way. What it says
// that it has made is there, nothing that was there is touched, and another try ends
// the work.
func TestRewriteFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole, dir := memblob.New(), newDirectory()
		nar, recipe := mkGenerations(t, whole, dir)
		for _, fault := range []blobtest.Fault{blobtest.LostRequest, blobtest.LostResponse, blobtest.ShortBody, blobtest.Unavailable, blobtest.Denied} {
			step := 1
			if testing.Short() {
				step = 5
			}
			for k, done := 0, false; !done; k += step {
				b, d := copyOf(t, whole), dir.copy()
				faulty := blobtest.NewFaulty(b, blobtest.FaultyOptions{Decide: blobtest.FailAt(k, fault)})
				s := mkStore(t, faulty, d, chunkstore.Options{PackBytes: 48 << 10})
				jobs := d.jobs(d.condemn([]*chunk.Recipe{&recipe}))
				res, err := s.Rewrite(t.Context(), jobs)
				done = faulty.Calls() <= k
				faulty.Set(nil)
				if done && (err != nil || len(res.Objects) < 3) || len(res.Failed) > 0 {
					t.Errorf("without a fault: %v, %v, %d objects", err, res.Failed, len(res.Objects))
				}
				if err != nil && !errors.Is(err, blobtest.ErrInjected) {
					t.Errorf("request %d, %v: %v", k, fault, err)
				}
				d.move(t, b, &res)
				wantServed(t, s, &recipe, nar)
				again := mustRewrite(t, s, d.jobs(d.dead))
				d.move(t, b, &again)
				wantServed(t, s, &recipe, nar)
				wantPlain(t, s, &recipe, nar)
				s.Close()
			}
		}
	})
}

// copyOf returns a bucket with the same objects.
func copyOf(t *testing.T, b *memblob.Bucket) *memblob.Bucket {
	t.Helper()
	other := memblob.New()
	for info, err := range b.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := b.Get(t.Context(), info.Key)
		if err == nil {
			_, err = other.Put(t.Context(), info.Key, body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return other
}

// TestRewriteDamaged moves packs one of which has a damaged frame, or a damaged footer.
func TestRewriteDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d := memblob.New(), newDirectory()
		nar, recipe := mkGenerations(t, b, d)
		dead := d.condemn([]*chunk.Recipe{&recipe})
		jobs := d.jobs(dead)
		bad := recipe.Packs()[1]
		object, _, err := b.Get(t.Context(), pack.Key(bad))
		if err != nil {
			t.Fatal(err)
		}
		damage := func(at int) {
			broken := bytes.Clone(object)
			broken[at] ^= 1
			mustPut(t, b, bad, broken)
		}
		s := mkStore(t, b, d, chunkstore.Options{})
		defer s.Close()
		wantOneFailed := func(want error) {
			t.Helper()
			res, err := s.Rewrite(t.Context(), jobs)
			var corrupt *pack.CorruptError
			if err != nil || len(res.Failed) != 1 || res.Failed[0].Pack != bad {
				t.Fatalf("%v, failed: %v; want pack %v", err, res.Failed, bad)
			}
			if got := res.Failed[0].Err; want != nil && !errors.Is(got, want) || want == nil && !errors.As(got, &corrupt) {
				t.Errorf("pack %v failed with %v", bad, got)
			}
			for _, o := range res.Objects {
				for _, l := range o.Layouts {
					if l.ID == bad {
						t.Errorf("pack %v failed and was moved", bad)
					}
				}
			}
		}
		damage(5) // of its first frame, which is in use
		wantOneFailed(nil)
		if err := b.Delete(t.Context(), pack.Key(bad)); err != nil {
			t.Fatal(err)
		}
		wantOneFailed(blob.ErrNotExist)

		// A damaged footer is made anew, if the index knows the chunks.
		fresh := mkStore(t, b, d, chunkstore.Options{})
		defer fresh.Close()
		damage(len(object) - 40)
		res := mustRewrite(t, fresh, jobs)
		for _, o := range res.Objects {
			for _, l := range o.Layouts {
				if l.ID != bad {
					continue
				}
				f, err := fresh.Footer(t.Context(), o.ID, o.Bytes)
				if err != nil {
					t.Fatal(err)
				}
				for i, id := range f.NewPack(f.Section(bad)).IDs {
					if l.Sizes[i] != 0 && id != d.ids[bad][i] {
						t.Errorf("chunk %d of the footer made anew is %v, want %v", i, id, d.ids[bad][i])
					}
				}
			}
		}
		known := d.known()
		clear(d.chunks)
		s = mkStore(t, b, d, chunkstore.Options{})
		defer s.Close()
		wantOneFailed(nil)
		d.believe(known)
		d.move(t, b, &res)
		wantServed(t, fresh, &recipe, nar)
	})
}

// TestRewriteWrongChunk finds a chunk that is not what its id says where it looks at
// the plain bytes: in a frame that is encoded again.
func TestRewriteWrongChunk(t *testing.T) {
	b, d := memblob.New(), newDirectory()
	s := mkStore(t, b, d, chunkstore.Options{FrameBytes: 8 << 10})
	res := mustWrite(t, s, d, text(5, 60_000))
	id := res.Recipe.Runs[0].Pack
	object, _, err := b.Get(t.Context(), pack.Key(id))
	if err != nil {
		t.Fatal(err)
	}
	f, err := pack.DecodeFooter(id, object, int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	frame := f.Sections[0].Frames[1]
	frame.Entries[1].ID[0] ^= 1
	mustPut(t, b, id, pack.AppendFooter(bytes.Clone(object[:f.Offset()]), &f))
	l, err := d.PackLayout(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Rewrite(t.Context(), []chunkstore.RewriteJob{{Layout: l, Dead: []chunk.Range{{First: frame.First, Count: 1}}}})
	var corrupt *pack.CorruptError
	if err != nil || len(got.Failed) != 1 || !errors.As(got.Failed[0].Err, &corrupt) || len(got.Objects) > 0 {
		t.Errorf("%+v, %v; want the pack to fail", got, err)
	}
}

func TestRewriteNonsense(t *testing.T) {
	b, d := memblob.New(), newDirectory()
	s := mkStore(t, b, d, chunkstore.Options{})
	mustWrite(t, s, d, text(5, 10_000))
	jobs := d.jobs(nil)
	n := uint32(len(jobs[0].Layout.Sizes))
	jobs[0].Dead = []chunk.Range{{First: n - 1, Count: 2}}
	if res, err := s.Rewrite(t.Context(), jobs); err == nil {
		t.Errorf("a chunk is dead that does not exist: %+v", res)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Rewrite(ctx, d.jobs(nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if res, err := s.Rewrite(t.Context(), nil); err != nil || len(res.Objects) > 0 {
		t.Errorf("nothing to do: %+v, %v", res, err)
	}
}

// TestRewriteTiny gathers many packs of one small chunk each: as many in one object as
// the log takes at a time, and the footer holds.
func TestRewriteTiny(t *testing.T) {
	b, d := memblob.New(), newDirectory()
	s := mkStore(t, b, d, chunkstore.Options{})
	var all []served
	for i := range 1500 {
		nar := fmt.Appendf(nil, "number %d", i)
		res := mustWrite(t, s, d, nar)
		all = append(all, served{nar: nar, recipe: res.Recipe})
	}
	res := mustRewrite(t, s, d.jobs(nil))
	if len(res.Objects) != 2 || len(res.Objects[0].Layouts) != 1024 || len(res.Objects[1].Layouts) != 476 {
		t.Errorf("1500 packs were gathered in %d objects", len(res.Objects))
	}
	d.move(t, b, &res)
	for i := 0; i < len(all); i += 100 {
		wantServed(t, s, &all[i].recipe, all[i].nar)
		wantPlain(t, s, &all[i].recipe, all[i].nar)
	}
}
