package chunkstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/blob/pack"
)

// layoutsIn returns the packs in each object.
func (d *directory) layoutsIn() map[chunk.PackID][]chunk.Layout {
	in := make(map[chunk.PackID][]chunk.Layout)
	for _, id := range d.packIDs() {
		l, _ := d.PackLayout(context.Background(), id)
		in[l.Where()] = append(in[l.Where()], l)
	}
	return in
}

// mkMoved returns a bucket with one object, into which packs were moved without most
// of their chunks, and the NAR that is left.
func mkMoved(t *testing.T) (*memblob.Bucket, *directory, chunk.PackID, *served) {
	t.Helper()
	b, d := memblob.New(), newDirectory()
	nar, recipe := mkGenerations(t, b, d)
	s := mkStore(t, b, d, chunkstore.Options{})
	defer s.Close()
	n := &served{nar: bytes.Clone(nar), recipe: recipe, bytes: wantServed(t, s, &recipe, nar)}
	for at := 0; at+9000 < len(nar); at += 20_000 { // and one that is forgotten
		copy(nar[at:], text(uint64(at+9), 9000))
	}
	mustWrite(t, s, d, nar)
	res := mustRewrite(t, s, d.jobs(d.condemn([]*chunk.Recipe{&n.recipe})))
	d.move(t, b, &res)
	if len(res.Objects) != 1 || len(res.Objects[0].Layouts) < 3 || res.EncodedBytes == 0 || res.CopiedBytes == 0 {
		t.Fatalf("%d objects, %d bytes copied and %d encoded again make no good test", len(res.Objects), res.CopiedBytes, res.EncodedBytes)
	}
	return b, d, res.Objects[0].ID, n
}

func TestVerify(t *testing.T) {
	b, d := memblob.New(), newDirectory()
	mkGenerations(t, b, d)
	count := blobtest.Count(b)
	s := mkStore(t, count, d, chunkstore.Options{})
	wantSound := func() {
		t.Helper()
		for id, layouts := range d.layoutsIn() {
			frames, chunks := 0, 0
			for _, l := range layouts {
				for _, f := range l.Frames {
					if f.Size > 0 {
						frames++
					}
				}
				for _, n := range l.Sizes {
					if n > 0 {
						chunks++
					}
				}
			}
			rep, err := s.Verify(t.Context(), chunkstore.VerifyJob{Layouts: layouts})
			if err != nil || rep.Footer != nil || len(rep.Damage) > 0 || rep.Frames != frames || rep.Chunks != chunks {
				t.Errorf("object %v: %+v, %v; want %d frames and %d chunks", id, rep, err, frames, chunks)
			}
		}
	}
	wantSound()
	if _, err := s.Verify(t.Context(), chunkstore.VerifyJob{Layouts: slices.Concat(slices.Collect(maps.Values(d.layoutsIn()))...)}); err == nil {
		t.Error("packs in different objects are verified together")
	}
	b, d, _, _ = mkMoved(t)
	s = mkStore(t, b, d, chunkstore.Options{})
	wantSound()
}

// TestVerifyDamage changes bytes of an object, one at a time. Every change is found,
// and what is reported is what it hits.
func TestVerifyDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d, id, n := mkMoved(t)
		layouts := d.layoutsIn()[id]
		object, _, err := b.Get(t.Context(), pack.Key(id))
		if err != nil {
			t.Fatal(err)
		}
		s := mkStore(t, b, d, chunkstore.Options{})
		defer s.Close()
		step := 997
		if testing.Short() {
			step = 4999
		}
		for at := 0; at < len(object); at += step {
			bad := bytes.Clone(object)
			bad[at] ^= 0x40
			mustPut(t, b, id, bad)
			rep, err := s.Verify(t.Context(), chunkstore.VerifyJob{Layouts: layouts})
			if err != nil {
				t.Fatalf("byte %d changed: %v", at, err)
			}
			if at >= int(layouts[0].Footer) {
				if rep.Footer == nil || len(rep.Damage) > 0 || rep.Chunks == 0 {
					t.Errorf("byte %d, in the footer, changed: %+v", at, rep)
				}
				continue
			}
			hit, chunks := frameAt(layouts, int64(at))
			if rep.Footer != nil || len(rep.Damage) != 1 || rep.Damage[0].Pack != hit || rep.Damage[0].Range != chunks {
				t.Errorf("byte %d, in chunks %v of pack %v, changed: %+v", at, chunks, hit, rep)
			}
		}
		mustPut(t, b, id, object)
		wantServed(t, s, &n.recipe, n.nar)
	})
}

func mustPut(t *testing.T, b blob.Bucket, id chunk.PackID, object []byte) {
	t.Helper()
	if _, err := b.Put(t.Context(), pack.Key(id), object); err != nil {
		t.Fatal(err)
	}
}

// frameAt returns the chunks of the frame that has a byte.
func frameAt(layouts []chunk.Layout, at int64) (chunk.PackID, chunk.Range) {
	for _, l := range layouts {
		first := uint32(0)
		for _, f := range l.Frames {
			if f.Offset <= at && at < f.Offset+f.Size {
				return l.ID, chunk.Range{First: first, Count: f.Chunks}
			}
			first += f.Chunks
		}
	}
	return chunk.PackID{}, chunk.Range{}
}

// TestVerifyWrongChunk stores the bytes of other chunks with checksums that fit: only
// ids can tell, those of the footer or, without one, those in the index.
func TestVerifyWrongChunk(t *testing.T) {
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
	e := &f.Sections[0].Frames[1].Entries[1]
	e.ID[0] ^= 1
	mustPut(t, b, id, pack.AppendFooter(bytes.Clone(object[:f.Offset()]), &f))
	verify := func(footer bool) {
		t.Helper()
		rep, err := s.Verify(t.Context(), chunkstore.VerifyJob{Layouts: d.layoutsIn()[id]})
		want := chunk.Range{First: e.Index, Count: 1}
		if err != nil || (rep.Footer == nil) != footer || len(rep.Damage) != 1 || rep.Damage[0].Range != want || !strings.Contains(rep.Damage[0].Err.Error(), "SHA-256") {
			t.Errorf("%+v, %v; want chunk %v damaged", rep, err, want)
		}
		if rep.Chunks != res.Chunks-1 {
			t.Errorf("%d chunks are right, want %d", rep.Chunks, res.Chunks-1)
		}
	}
	verify(true)
	e.ID[0] ^= 1
	object[len(object)-100] ^= 1
	mustPut(t, b, id, object)
	delete(d.chunks, e.ID)
	verify(false)
}

func TestVerifyCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d, id, _ := mkMoved(t)
		s := mkStore(t, b, d, chunkstore.Options{})
		defer s.Close()
		layouts := d.layoutsIn()[id]
		object, _, err := b.Get(t.Context(), pack.Key(id))
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, b, id, object[:len(object)/2])
		rep, err := s.Verify(t.Context(), chunkstore.VerifyJob{Layouts: layouts})
		if err != nil || rep.Footer == nil {
			t.Fatalf("half of the object is left: %+v, %v", rep, err)
		}
		for _, dmg := range rep.Damage {
			if _, ok := errors.AsType[*pack.CorruptError](dmg.Err); !ok {
				t.Errorf("damage is %v, want a CorruptError", dmg.Err)
			}
		}
		if rep.Frames-len(rep.Damage) < 5 || len(rep.Damage) < 5 {
			t.Errorf("%d frames, %d of them damaged, want about half", rep.Frames, len(rep.Damage))
		}
	})
}

// TestVerifyFaults lets every request fail in every way, once or for ever: that is
// never taken for damage.
func TestVerifyFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d, id, _ := mkMoved(t)
		layouts := d.layoutsIn()[id]
		faulty := blobtest.NewFaulty(b, blobtest.FaultyOptions{})
		s := mkStore(t, faulty, d, chunkstore.Options{})
		defer s.Close()
		for _, fault := range []blobtest.Fault{blobtest.LostRequest, blobtest.ShortBody, blobtest.Throttled, blobtest.Unavailable, blobtest.Denied} {
			for k := 0; ; k++ {
				faulty.Set(blobtest.FailAt(k, fault))
				rep, err := s.Verify(t.Context(), chunkstore.VerifyJob{Layouts: layouts})
				if faulty.Calls() <= k {
					break
				}
				if len(rep.Damage) > 0 || rep.Footer != nil || err != nil && fault != blobtest.Denied {
					t.Errorf("request %d, %v: %+v, %v", k, fault, rep, err)
				}
			}
			faulty.Set(blobtest.Seeded(1, 1, fault))
			rep, err := s.Verify(t.Context(), chunkstore.VerifyJob{Layouts: layouts})
			if !errors.Is(err, blobtest.ErrInjected) || len(rep.Damage) > 0 || rep.Footer != nil {
				t.Errorf("always %v: %+v, %v; want the error", fault, rep, err)
			}
		}
		faulty.Set(nil)
		if err := b.Delete(t.Context(), pack.Key(id)); err != nil {
			t.Fatal(err)
		}
		if rep, err := s.Verify(t.Context(), chunkstore.VerifyJob{Layouts: layouts}); !errors.Is(err, blob.ErrNotExist) || len(rep.Damage) > 0 {
			t.Errorf("not there: %+v, %v; want blob.ErrNotExist", rep, err)
		}
	})
}

func TestVerifyBudget(t *testing.T) {
	b, d, id, _ := mkMoved(t)
	count := blobtest.Count(b)
	s := mkStore(t, count, d, chunkstore.Options{})
	asked := int64(0)
	job := chunkstore.VerifyJob{Layouts: d.layoutsIn()[id], Budget: func(_ context.Context, n int64) error {
		asked += n
		return nil
	}}
	if _, err := s.Verify(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	if read := count.Bytes("get_range"); asked != read {
		t.Errorf("it asked for %d bytes and read %d", asked, read)
	}
	enough := errors.New("enough for today")
	job.Budget = func(context.Context, int64) error { return enough }
	count.Reset()
	if _, err := s.Verify(t.Context(), job); !errors.Is(err, enough) || count.Total() > 0 {
		t.Errorf("without a budget: %v after %d requests", err, count.Total())
	}
}

// breaking is a bucket whose streams all end half way as if the objects did.
type breaking struct{ blob.Bucket }

func (b breaking) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	body, err := b.Bucket.GetRange(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(body, n/2), iotest.ErrReader(io.ErrUnexpectedEOF)), body}, nil
}

// TestVerifyBreaking reads through something that cuts every answer short without
// saying so. The listing knows better than to call that damage.
func TestVerifyBreaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d, id, _ := mkMoved(t)
		s := mkStore(t, breaking{b}, d, chunkstore.Options{})
		defer s.Close()
		rep, err := s.Verify(t.Context(), chunkstore.VerifyJob{Layouts: d.layoutsIn()[id]})
		if err == nil || len(rep.Damage) > 0 || rep.Footer != nil {
			t.Errorf("%+v, %v; want an error and no damage", rep, err)
		}
	})
}
