package blobtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/celler/celler/blob"
)

func (s *suite) bodiesNotShared() {
	body := []byte("original")
	s.mustCreate("log/1", body)
	copy(body, "scribble")
	s.wantBody("log/1", []byte("original"))
	got, _, err := s.b.Get(s.ctx, "log/1")
	if err != nil {
		s.t.Fatal(err)
	}
	copy(got, "scribble")
	s.wantBody("log/1", []byte("original"))
}

func (s *suite) big() {
	body := random(4, 32<<20)
	s.mustPut("pack/1", body)
	s.wantBody("pack/1", body)
	got, err := s.readRange("pack/1", 1<<20, 30<<20)
	if err != nil || !bytes.Equal(got, body[1<<20:31<<20]) {
		s.t.Errorf("30 MiB from the middle: %d bytes, error %v", len(got), err)
	}
	if testing.Short() {
		return
	}
	tag := s.mustCreate("log/1", body)
	body[0]++
	if _, err := s.b.Swap(s.ctx, "log/1", tag, body); err != nil {
		s.t.Fatalf("swap: %v", err)
	}
	s.wantBody("log/1", body)
}

func (s *suite) tooBig() {
	if testing.Short() {
		return
	}
	body := make([]byte, blob.MaxGetBytes+1)
	s.mustPut("pack/1", body[:blob.MaxGetBytes])
	s.wantBody("pack/1", body[:blob.MaxGetBytes])
	s.mustPut("pack/1", body)
	_, _, err := s.b.Get(s.ctx, "pack/1")
	s.wantUnknown("get", err)
	_, _, err = s.b.GetIf(s.ctx, "pack/1", `"other"`)
	s.wantUnknown("conditional get", err)
	if got, err := s.readRange("pack/1", blob.MaxGetBytes-1, 2); err != nil || len(got) != 2 {
		s.t.Errorf("its last two bytes: got %d, error %v", len(got), err)
	}
}

func (s *suite) invalidKeys() {
	for _, key := range []blob.Key{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "../a", "a b", "a\x00b", "a\nb", "ä", "a,b", "a%2fb", "a\\b", "a?b", "a*b", "~a",
		blob.Key(strings.Repeat("k", blob.MaxSegmentBytes+1)),
		blob.Key(strings.Repeat("k/", blob.MaxKeyBytes/2) + "k"),
	} {
		check := func(op string, err error) {
			s.t.Helper()
			if _, ok := errors.AsType[*blob.KeyError](err); !ok {
				s.t.Errorf("%s %.20q: got error %v, want a *blob.KeyError", op, key, err)
			}
			s.wantUnknown(op, err)
		}
		_, _, err := s.b.Get(s.ctx, key)
		check("get", err)
		_, _, err = s.b.GetIf(s.ctx, key, `"tag"`)
		check("conditional get", err)
		_, err = s.b.GetRange(s.ctx, key, 0, 1)
		check("get range", err)
		_, err = s.b.Create(s.ctx, key, nil)
		check("create", err)
		_, err = s.b.Swap(s.ctx, key, `"tag"`, nil)
		check("swap", err)
		_, err = s.b.Put(s.ctx, key, nil)
		check("put", err)
		check("delete", s.b.Delete(s.ctx, "fine", key))
	}
	for _, prefix := range []blob.Key{"/", "a//", "a b", "a,", "ä"} {
		n := 0
		for _, err := range s.b.List(s.ctx, prefix, "") {
			if _, ok := errors.AsType[*blob.KeyError](err); !ok {
				s.t.Errorf("list %q: got error %v, want a *blob.KeyError", prefix, err)
			}
			n++
		}
		if n != 1 {
			s.t.Errorf("list %q: yielded %d times, want one error", prefix, n)
		}
	}
	longest := blob.Key(strings.Repeat("k", blob.MaxSegmentBytes)) + "/" + blob.Key(strings.Repeat("k", blob.MaxSegmentBytes))
	longest += blob.Key("/" + strings.Repeat("k", blob.MaxKeyBytes-len(longest)-1))
	s.mustCreate(longest, []byte("x"))
	s.wantBody(longest, []byte("x"))
}

func (s *suite) cancelled() {
	tag := s.mustCreate("ROOT", []byte("x"))
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, _, err := s.b.Get(ctx, "ROOT")
	s.wantErr("get", err, context.Canceled)
	_, _, err = s.b.GetIf(ctx, "ROOT", `"tag"`)
	s.wantErr("conditional get", err, context.Canceled)
	_, err = s.b.GetRange(ctx, "ROOT", 0, 1)
	s.wantErr("get range", err, context.Canceled)
	_, err = s.b.Create(ctx, "log/1", []byte("x"))
	s.wantErr("create", err, context.Canceled)
	s.wantUnknown("create", err)
	_, err = s.b.Swap(ctx, "ROOT", tag, []byte("y"))
	s.wantErr("swap", err, context.Canceled)
	s.wantUnknown("swap", err)
	_, err = s.b.Put(ctx, "pack/1", []byte("x"))
	s.wantErr("put", err, context.Canceled)
	s.wantErr("delete", s.b.Delete(ctx, "ROOT"), context.Canceled)
	n := 0
	for _, err := range s.b.List(ctx, "", "") {
		s.wantErr("list", err, context.Canceled)
		n++
	}
	if n != 1 {
		s.t.Errorf("list yielded %d times, want one error", n)
	}
	s.wantBody("ROOT", []byte("x"))
	s.wantList("", "", "ROOT")
}

func (s *suite) cancelledStream() {
	const size = 16 << 20
	s.mustPut("pack/1", random(5, size))
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	r, err := s.b.GetRange(ctx, "pack/1", 0, size)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
		s.t.Fatal(err)
	}
	cancel()
	n, err := io.Copy(io.Discard, r)
	s.wantErr("stream", err, context.Canceled)
	if n == size-1000 {
		s.t.Error("the whole stream was read after its context was cancelled")
	}
}

func (s *suite) closedEarly() {
	const size = 4 << 20
	body := random(6, size)
	s.mustPut("pack/1", body)
	for i := range 40 {
		r, err := s.b.GetRange(s.ctx, "pack/1", 0, size)
		if err != nil {
			s.t.Fatalf("read %d: %v", i, err)
		}
		head := make([]byte, 10*i)
		if _, err := io.ReadFull(r, head); err != nil || !bytes.Equal(head, body[:10*i]) {
			s.t.Fatalf("read %d: %v", i, err)
		}
		if err := r.Close(); err != nil {
			s.t.Fatalf("close %d: %v", i, err)
		}
	}
}
