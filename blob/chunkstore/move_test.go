package chunkstore_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/blob/pack"
)

// moveAll moves every pack as it is, and deletes what it was in before.
func moveAll(t *testing.T, b blob.Bucket, d *directory) {
	t.Helper()
	s := mkStore(t, b, d, chunkstore.Options{})
	defer s.Close()
	res := mustRewrite(t, s, d.jobs(nil))
	d.move(t, b, &res)
}

// TestReadFollowsMoves moves all packs twice while readers are in the middle of a NAR.
func TestReadFollowsMoves(t *testing.T) {
	b, d := memblob.New(), newDirectory()
	set := metrics.NewSet()
	o := chunkstore.Options{
		Profile: mustProfile(t, "fast2016-16k"), FrameBytes: 64 << 10, PackBytes: 1 << 20,
		ReadAhead: 256 << 10, RestoreBytes: -1, Dir: t.TempDir(), Metrics: set,
	}
	s := mkStore(t, b, d, o)
	size := 20 << 20
	if raceDetector {
		size = 6 << 20
	}
	nar := noise(size)
	mustWrite(t, s, d, nar)
	for at := 100_000; at < len(nar); at += 1 << 20 {
		nar[at]++ // so that there are stretches
	}
	res := mustWrite(t, s, d, nar)
	if len(res.Recipe.Served.Segments) < 5 {
		t.Fatalf("%d stretches make no good test", len(res.Recipe.Served.Segments))
	}
	fresh := mkStore(t, b, d, chunkstore.Options{})
	want := wantServed(t, fresh, &res.Recipe, nar)
	for name, open := range map[string]func() (io.ReadCloser, error){
		"served": func() (io.ReadCloser, error) { return s.Open(t.Context(), &res.Recipe) },
		"plain":  func() (io.ReadCloser, error) { return s.Plain(t.Context(), &res.Recipe) },
	} {
		rd, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := rd.(*os.File); ok {
			t.Fatal("there is a copy of it before it was read")
		}
		want := want
		if name == "plain" {
			want = nar
		}
		got := make([]byte, len(want))
		before := set.GetOrCreateCounter("celler_chunkstore_read_moves_total").Get()
		for i := range 3 {
			from, to := i*len(want)/3, (i+1)*len(want)/3
			if _, err := io.ReadFull(rd, got[from:to]); err != nil {
				t.Fatalf("%s: read %d to %d: %v", name, from, to, err)
			}
			moveAll(t, b, d)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: other bytes", name)
		}
		if n := set.GetOrCreateCounter("celler_chunkstore_read_moves_total").Get() - before; !raceDetector && (n < 2 || n > 3) {
			t.Errorf("%s: it followed %d moves, want 2, and one more if its store knew the packs from before", name, n)
		}
		if err := rd.Close(); err != nil {
			t.Error(err)
		}
	}
	// What was read across moves became a resident copy all the same.
	rd, err := s.Open(t.Context(), &res.Recipe)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if _, ok := rd.(*os.File); !ok {
		t.Error("there is no copy of it")
	}
	if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, want) {
		t.Errorf("its copy has %d other bytes, %v", len(got), err)
	}
}

// TestCopyOfMoved reads a NAR for the first time with layouts from before a move.
func TestCopyOfMoved(t *testing.T) {
	b, d := memblob.New(), newDirectory()
	nar, recipe := mkGenerations(t, b, d)
	s := mkStore(t, b, d, chunkstore.Options{Dir: t.TempDir()})
	wantPlain(t, s, &recipe, nar)
	moveAll(t, b, d)
	want := wantServed(t, s, &recipe, nar)
	rd, err := s.Open(t.Context(), &recipe)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if _, ok := rd.(*os.File); !ok {
		t.Error("there is no copy of it")
	}
	if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, want) {
		t.Errorf("its copy has %d other bytes, %v", len(got), err)
	}
}

// TestReadMovedAway lets the directory name objects that are not there either: that is
// looked up once, and then the read fails.
func TestReadMovedAway(t *testing.T) {
	b, d := memblob.New(), newDirectory()
	nar, recipe := mkGenerations(t, b, d)
	s := mkStore(t, b, d, chunkstore.Options{})
	wantPlain(t, s, &recipe, nar)
	moveAll(t, b, d)
	objects := 0
	for info, err := range b.List(t.Context(), pack.Prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		objects++
		if err := b.Delete(t.Context(), info.Key); err != nil {
			t.Fatal(err)
		}
	}
	if objects != 1 {
		t.Errorf("%d small packs were moved into %d objects, want 1", len(recipe.Packs()), objects)
	}
	for _, open := range []func() (io.ReadCloser, error){
		func() (io.ReadCloser, error) { return s.Open(t.Context(), &recipe) },
		func() (io.ReadCloser, error) { return s.Plain(t.Context(), &recipe) },
	} {
		rd, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(rd); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("moved to an object that is not there: %v, want blob.ErrNotExist", err)
		}
		rd.Close()
	}
}

// TestWriteAfterCollection pushes a NAR again of which nothing is left: by itself and
// right after it was collected, after a minute, and with what a slow index believes.
func TestWriteAfterCollection(t *testing.T) {
	nar := text(3, 60_000)
	collect := func(b blob.Bucket, d *directory, s *chunkstore.Store) {
		res := mustRewrite(t, s, d.jobs(d.condemn(nil)))
		if len(res.Objects) > 0 {
			t.Fatalf("of %d packs of which nothing is left there are objects", len(res.Empty))
		}
		d.move(t, b, &res)
	}
	t.Run("refused once", func(t *testing.T) {
		b, d := memblob.New(), newDirectory()
		s := mkStore(t, b, d, chunkstore.Options{})
		first := mustPush(t, s, d, nar)
		collect(b, d, s)
		res := mustPush(t, s, d, nar)
		if res.NewBytes != int64(len(nar)) {
			t.Errorf("%d of %d bytes are new", res.NewBytes, len(nar))
		}
		wantServed(t, s, &res.Recipe, nar)
		if s.WasRefused(&res.Recipe) || !s.WasRefused(&first.Recipe) {
			t.Error("it is not the first recipe that was refused, or not only that")
		}
	})
	t.Run("forgotten after a while", func(t *testing.T) {
		b, d := memblob.New(), newDirectory()
		clock := &clock{}
		s := mkStore(t, b, d, chunkstore.Options{Now: clock.now})
		mustPush(t, s, d, nar)
		collect(b, d, s)
		clock.advance(2 * 60)
		res := mustWrite(t, s, d, nar)
		if ok, err := d.publish(&res); !ok || err != nil {
			t.Errorf("refused two minutes after the collection (%v)", err)
		}
		wantServed(t, s, &res.Recipe, nar)
	})
	t.Run("with a stale index", func(t *testing.T) {
		b, d := memblob.New(), newDirectory()
		first := mkStore(t, b, d, chunkstore.Options{})
		mustPush(t, first, d, nar)
		other := mustPush(t, first, d, append(bytes.Clone(nar[:30_000]), text(5, 30_000)...))
		chunks := d.known()
		res := mustRewrite(t, first, d.jobs(d.condemn([]*chunk.Recipe{&other.Recipe})))
		d.move(t, b, &res)
		d.believe(chunks) // rows that were deleted, of packs that are gone or have holes
		s := mkStore(t, b, d, chunkstore.Options{})
		again := mustPush(t, s, d, nar)
		wantServed(t, s, &again.Recipe, nar)
		if again.NewBytes == 0 || again.NewBytes >= int64(len(nar)) {
			t.Errorf("%d of %d bytes are new, want those that are gone", again.NewBytes, len(nar))
		}
		collect(b, d, s)
		d.believe(chunks)
		fresh := mkStore(t, b, d, chunkstore.Options{})
		again = mustPush(t, fresh, d, nar)
		if again.NewBytes != int64(len(nar)) {
			t.Errorf("%d of %d bytes are new after all packs went", again.NewBytes, len(nar))
		}
		wantServed(t, fresh, &again.Recipe, nar)
	})
}
