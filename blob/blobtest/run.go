package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/celler/celler/blob"
)

// Run puts every promise of blob.Bucket to the test. open returns an empty
// bucket; it is called once for each subtest and registers its own cleanup.
//
// In short mode the races are shorter and the largest objects are left out.
func Run(t *testing.T, open func(t testing.TB) blob.Bucket) {
	for _, test := range []struct {
		name string
		run  func(s *suite)
	}{
		{"an absent object", (*suite).absent},
		{"create stores an object and tells its tag", (*suite).create},
		{"create refuses an occupied key", (*suite).createOccupied},
		{"swap replaces only from the right tag", (*suite).swap},
		{"put replaces whatever is there", (*suite).put},
		{"a conditional get", (*suite).getIf},
		{"ranges", (*suite).ranges},
		{"a range that ends beyond the object", (*suite).rangesBeyond},
		{"impossible ranges", (*suite).rangesImpossible},
		{"delete", (*suite).delete},
		{"delete many", (*suite).deleteMany},
		{"a listing is sorted by bytes", (*suite).listOrder},
		{"a listing starts after a key", (*suite).listAfter},
		{"a listing of many pages", (*suite).listPages},
		{"a listing survives deletes and an early end", (*suite).listWhileDeleting},
		{"bodies are not shared", (*suite).bodiesNotShared},
		{"big objects", (*suite).big},
		{"an object too big to read whole", (*suite).tooBig},
		{"invalid keys", (*suite).invalidKeys},
		{"a cancelled context", (*suite).cancelled},
		{"a stream whose context is cancelled", (*suite).cancelledStream},
		{"streams closed early", (*suite).closedEarly},
		{"concurrent creates have one winner", (*suite).createRace},
		{"concurrent swaps have one winner", (*suite).swapRace},
		{"no update is lost", (*suite).counter},
		{"readers see whole versions", (*suite).wholeVersions},
		{"creates and deletes take turns", (*suite).createDelete},
		{"the probe is satisfied", (*suite).probe},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(&suite{t: t, ctx: t.Context(), b: open(t)})
		})
	}
}

// suite is one subtest.
type suite struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // the test's own, for the length of one subtest
	b   blob.Bucket
}

func (s *suite) mustCreate(key blob.Key, body []byte) blob.Tag {
	s.t.Helper()
	tag, err := s.b.Create(s.ctx, key, body)
	if err != nil {
		s.t.Fatalf("create %s: %v", key, err)
	}
	return tag
}

func (s *suite) mustPut(key blob.Key, body []byte) blob.Tag {
	s.t.Helper()
	tag, err := s.b.Put(s.ctx, key, body)
	if err != nil {
		s.t.Fatalf("put %s: %v", key, err)
	}
	return tag
}

func (s *suite) wantErr(what string, err, want error) {
	s.t.Helper()
	if !errors.Is(err, want) {
		s.t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// wantUnknown expects an error that is none of the sentinels.
func (s *suite) wantUnknown(what string, err error) {
	s.t.Helper()
	if err == nil {
		s.t.Errorf("%s: no error", what)
	}
	for _, sentinel := range []error{blob.ErrNotExist, blob.ErrExist, blob.ErrChanged, blob.ErrUnchanged} {
		if errors.Is(err, sentinel) {
			s.t.Errorf("%s: got %v, which claims to know the outcome", what, err)
		}
	}
}

// wantBody reads the object in both ways.
func (s *suite) wantBody(key blob.Key, want []byte) blob.Tag {
	s.t.Helper()
	got, tag, err := s.b.Get(s.ctx, key)
	if err != nil {
		s.t.Fatalf("get %s: %v", key, err)
	}
	if !bytes.Equal(got, want) {
		s.t.Fatalf("get %s: %s, want %s", key, show(got), show(want))
	}
	if tag == "" {
		s.t.Errorf("get %s: no tag", key)
	}
	return tag
}

func show(b []byte) string {
	if len(b) > 40 {
		return fmt.Sprintf("%q… (%d bytes)", b[:40], len(b))
	}
	return fmt.Sprintf("%q", b)
}

// random returns n bytes that depend on the seed only.
func random(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

func (s *suite) absent() {
	_, _, err := s.b.Get(s.ctx, "log/1")
	s.wantErr("get", err, blob.ErrNotExist)
	_, _, err = s.b.GetIf(s.ctx, "log/1", `"tag"`)
	s.wantErr("conditional get", err, blob.ErrNotExist)
	_, err = s.b.GetRange(s.ctx, "log/1", 0, 1)
	s.wantErr("ranged get", err, blob.ErrNotExist)
	_, err = s.b.Swap(s.ctx, "log/1", `"tag"`, []byte("x"))
	s.wantErr("swap", err, blob.ErrChanged)
	_, _, err = s.b.Get(s.ctx, "log/1")
	s.wantErr("get after swap", err, blob.ErrNotExist)

	s.mustCreate("log/2", []byte("x"))
	_, _, err = s.b.Get(s.ctx, "log")
	s.wantErr("get of what would be a directory", err, blob.ErrNotExist)
	_, _, err = s.b.Get(s.ctx, "log/2/x")
	s.wantErr("get below an object", err, blob.ErrNotExist)
	if err := s.b.Delete(s.ctx, "log", "log/2/x"); err != nil {
		s.t.Errorf("delete of what would be a directory: %v", err)
	}
	s.wantBody("log/2", []byte("x"))
}

func (s *suite) create() {
	for i, body := range [][]byte{[]byte("hello"), {}, {0}, random(1, 100_000)} {
		key := blob.Key(fmt.Sprintf("a/deep/directory/%d", i))
		tag := s.mustCreate(key, body)
		if got := s.wantBody(key, body); got != tag {
			s.t.Errorf("get %s: tag %s, create said %s", key, got, tag)
		}
	}
}

func (s *suite) createOccupied() {
	tag := s.mustCreate("log/1", []byte("first"))
	for _, body := range []string{"second", "first", ""} {
		_, err := s.b.Create(s.ctx, "log/1", []byte(body))
		s.wantErr("second create", err, blob.ErrExist)
	}
	if got := s.wantBody("log/1", []byte("first")); got != tag {
		s.t.Errorf("tag changed from %s to %s by creates that were refused", tag, got)
	}
}

func (s *suite) swap() {
	first := s.mustCreate("ROOT", []byte("first"))
	second, err := s.b.Swap(s.ctx, "ROOT", first, []byte("second"))
	if err != nil {
		s.t.Fatalf("swap: %v", err)
	}
	if first == second {
		s.t.Errorf("different contents have the same tag %s", first)
	}
	if got := s.wantBody("ROOT", []byte("second")); got != second {
		s.t.Errorf("get: tag %s, swap said %s", got, second)
	}
	for _, stale := range []blob.Tag{first, `"00000000000000000000000000000000"`, ""} {
		_, err = s.b.Swap(s.ctx, "ROOT", stale, []byte("third"))
		s.wantErr(fmt.Sprintf("swap from tag %q", stale), err, blob.ErrChanged)
	}
	s.wantBody("ROOT", []byte("second"))
	if err := s.b.Delete(s.ctx, "ROOT"); err != nil {
		s.t.Fatal(err)
	}
	_, err = s.b.Swap(s.ctx, "ROOT", second, []byte("third"))
	s.wantErr("swap of a deleted object", err, blob.ErrChanged)
	_, _, err = s.b.Get(s.ctx, "ROOT")
	s.wantErr("get after it", err, blob.ErrNotExist)
}

func (s *suite) put() {
	s.mustPut("pack/1", []byte("first"))
	s.wantBody("pack/1", []byte("first"))
	tag := s.mustPut("pack/1", []byte("second, and longer"))
	if got := s.wantBody("pack/1", []byte("second, and longer")); got != tag && tag != "" {
		s.t.Errorf("get: tag %s, put said %s", got, tag)
	}
	s.mustPut("pack/1", nil)
	s.wantBody("pack/1", nil)
}

func (s *suite) getIf() {
	first := s.mustCreate("ROOT", []byte("first"))
	_, _, err := s.b.GetIf(s.ctx, "ROOT", first)
	s.wantErr("conditional get of an unchanged object", err, blob.ErrUnchanged)

	second, err := s.b.Swap(s.ctx, "ROOT", first, []byte("second"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, old := range []blob.Tag{first, ""} {
		body, tag, err := s.b.GetIf(s.ctx, "ROOT", old)
		if err != nil || string(body) != "second" || tag != second {
			s.t.Errorf("conditional get with tag %q: %s, tag %s, error %v; want \"second\", tag %s", old, show(body), tag, err, second)
		}
	}
}

func (s *suite) ranges() {
	body := random(2, 10_000)
	s.mustPut("pack/1", body)
	for _, r := range [][2]int64{{0, 1}, {0, 10_000}, {1, 9_999}, {9_999, 1}, {4_096, 100}} {
		got, err := s.readRange("pack/1", r[0], r[1])
		if err != nil || !bytes.Equal(got, body[r[0]:r[0]+r[1]]) {
			s.t.Errorf("%d bytes at %d: got %d bytes, error %v", r[1], r[0], len(got), err)
		}
	}
}

func (s *suite) readRange(key blob.Key, off, n int64) ([]byte, error) {
	s.t.Helper()
	r, err := s.b.GetRange(s.ctx, key, off, n)
	if err != nil {
		s.t.Fatalf("get range of %d bytes at %d of %s: %v", n, off, key, err)
	}
	got, err := io.ReadAll(r)
	if closeErr := r.Close(); closeErr != nil {
		s.t.Errorf("close: %v", closeErr)
	}
	return got, err
}

func (s *suite) rangesBeyond() {
	body := random(3, 1000)
	s.mustPut("pack/1", body)
	s.mustPut("pack/empty", nil)
	for _, c := range []struct {
		key    blob.Key
		off, n int64
		want   []byte
	}{
		{"pack/1", 0, 1001, body},
		{"pack/1", 999, 2, body[999:]},
		{"pack/1", 1000, 1, nil},
		{"pack/1", 5000, 10, nil},
		{"pack/1", 10, 1 << 62, body[10:]},
		{"pack/empty", 0, 1, nil},
	} {
		got, err := s.readRange(c.key, c.off, c.n)
		if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(got, c.want) {
			s.t.Errorf("%d bytes at %d of %s: got %d bytes and %v, want %d and %v", c.n, c.off, c.key, len(got), err, len(c.want), io.ErrUnexpectedEOF)
		}
	}
}

func (s *suite) rangesImpossible() {
	s.mustPut("pack/1", []byte("0123456789"))
	for _, r := range [][2]int64{{-1, 5}, {0, 0}, {0, -1}, {1 << 62, 1 << 62}} {
		body, err := s.b.GetRange(s.ctx, "pack/1", r[0], r[1])
		s.wantUnknown(fmt.Sprintf("range %v", r), err)
		if err == nil {
			body.Close()
		}
	}
}

func (s *suite) delete() {
	s.mustCreate("log/1", []byte("x"))
	for range 2 {
		if err := s.b.Delete(s.ctx, "log/1"); err != nil {
			s.t.Fatalf("delete: %v", err)
		}
		_, _, err := s.b.Get(s.ctx, "log/1")
		s.wantErr("get of a deleted object", err, blob.ErrNotExist)
	}
	s.mustCreate("log/1", []byte("again"))
	s.wantBody("log/1", []byte("again"))
	if err := s.b.Delete(s.ctx); err != nil {
		s.t.Errorf("delete of nothing: %v", err)
	}
}

func (s *suite) deleteMany() {
	var all []blob.Key
	for i := range 2100 {
		key := blob.Key(fmt.Sprintf("pack/%05d", i))
		if i%70 == 0 {
			s.mustPut(key, []byte("x"))
		}
		all = append(all, key)
	}
	s.mustPut("pack/kept", []byte("kept"))
	if err := s.b.Delete(s.ctx, all...); err != nil {
		s.t.Fatalf("delete: %v", err)
	}
	s.wantList("", "", "pack/kept")
}

func (s *suite) probe() {
	o := blob.ProbeOptions{}
	if testing.Short() {
		o = blob.ProbeOptions{Rounds: 2, Racers: 8}
	}
	for _, o := range []blob.ProbeOptions{o, {Short: true}} {
		findings, err := blob.Probe(s.ctx, s.b, o)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, f := range findings {
			if !f.OK {
				s.t.Errorf("%s: %s", f.Check, f.Detail)
			}
		}
	}
	s.wantList("", "")
}
