package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
)

// pushWithin pushes all that a store has in order, and fails if that does not end.
func pushWithin(t *testing.T, c *Client, s *fakeStore, o PushOptions, within time.Duration) (Result, map[nix.StorePath]Outcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	outcomes := map[nix.StorePath]Outcome{}
	o.Cache, o.Paths = "ci", []string{s.last()}
	res, err := c.Push(ctx, s, o, Events{Done: func(_ int, o Outcome) { outcomes[o.Path] = o }})
	if ctx.Err() != nil {
		t.Fatalf("the push has not ended after %v: %+v", within, res)
	}
	if err != nil {
		t.Fatalf("push: %v", err)
	}
	return res, outcomes
}

// TestDeltaDryRunDamaged plans a push in which the path fails whose chunks another counts on.
func TestDeltaDryRunDamaged(t *testing.T) {
	f := newDeltaServer(t)
	c := mustServe(t, f)
	var s fakeStore
	content := bytesOf(1, 400_000)
	bad := s.add(content)
	s.content[bad] = []byte(content[:399_999] + "X")
	for i := range uint64(6) {
		s.add(content + bytesOf(2+i, 1000))
	}
	res, outcomes := pushWithin(t, c, &s, PushOptions{DryRun: true}, 20*time.Second)
	if outcomes[bad].Kind != Failed || res.Failed != 1 {
		t.Errorf("%+v, want one failed: %+v", res, outcomes[bad])
	}
	if res.Planned != 6 || res.Counted != 6 {
		t.Errorf("%+v, want six planned, and of all of them what is new", res)
	}
	for path, o := range outcomes {
		if path != bad && o.Kind != Planned {
			t.Errorf("%s: %s %v, want it planned", path, o.Kind, o.Err)
		}
	}
}

// TestDeltaUnreadable: what stops a dump is said once.
func TestDeltaUnreadable(t *testing.T) {
	c := mustServe(t, newDeltaServer(t))
	unreadable := errors.New("found a pipe")
	s := fakeStore{dump: func(w io.Writer, _ nix.StorePath) error {
		_, err := io.WriteString(w, "nix-archive")
		return errors.Join(err, unreadable)
	}}
	path := s.add(bytesOf(1, 8000))
	_, outcomes := pushWithin(t, c, &s, PushOptions{}, 20*time.Second)
	if err := outcomes[path].Err; !errors.Is(err, unreadable) || strings.Count(err.Error(), unreadable.Error()) != 1 {
		t.Errorf("got %v", err)
	}
}

func TestLacking(t *testing.T) {
	for want, names := range map[string][]string{
		"the cache lacks a, to which a pushed path refers: who substitutes needs another cache for it":               {"a"},
		"the cache lacks 2 paths that pushed ones refer to, such as a: who substitutes needs another cache for them": {"a", "b"},
	} {
		if got := lacking(names); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestDeltaSmallBatches pushes through a proxy whose limit is below the least batch that
// the client makes of several segments.
func TestDeltaSmallBatches(t *testing.T) {
	f := newDeltaServer(t)
	f.info.BatchBytes, f.info.SegmentBytes = 8<<20, 4<<20
	f.meddle = func(call string, _ int, w http.ResponseWriter, body []byte) bool {
		if call == "chunks" && len(body) > 20_000 {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return true
		}
		return false
	}
	c := mustServe(t, f)
	var s fakeStore
	for i := range uint64(40) {
		s.add(bytesOf(i, 8000))
	}
	if res, _ := pushWithin(t, c, &s, PushOptions{}, 20*time.Second); res.Pushed != 40 {
		t.Errorf("%+v, want all 40 pushed", res)
	}
}

// TestDeltaNonsense has a server that says that chunks of a path are gone which was not in
// the commit, and one behind a proxy that takes no join.
func TestDeltaNonsense(t *testing.T) {
	f := newDeltaServer(t)
	f.meddle = func(call string, _ int, w http.ResponseWriter, _ []byte) bool {
		if call == "commit" {
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(wire.CommitError{
				Error:   wire.Error{Code: http.StatusConflict, Name: wire.ErrorChunksMissing, Message: "gone"},
				Missing: []wire.MissingReceipts{{Path: 99}},
			})
			return true
		}
		return false
	}
	c := mustServe(t, f)
	var s fakeStore
	s.add(bytesOf(1, 8000))
	s.add(bytesOf(2, 8000))
	if res, _ := pushWithin(t, c, &s, PushOptions{}, 10*time.Second); res.Failed != 2 || f.made("commit") > 10 {
		t.Errorf("%+v after %d commits, want two failed", res, f.made("commit"))
	}

	f = newDeltaServer(t)
	f.info.SegmentBytes = 4 << 10
	f.meddle = func(call string, _ int, w http.ResponseWriter, body []byte) bool {
		if call == "join" {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return true
		}
		return false
	}
	c = mustServe(t, f)
	for n := range 8 { // whatever the number of receipts is halved to
		var s fakeStore
		s.add(bytesOf(3, 70_000+n*4096))
		if res, _ := pushWithin(t, c, &s, PushOptions{}, 10*time.Second); res.Failed != 1 {
			t.Errorf("%+v, want it failed", res)
		}
	}
}

// TestDeltaCommitTooLarge: receipts of a single path are joined if the proxy wants it.
func TestDeltaCommitTooLarge(t *testing.T) {
	f := newDeltaServer(t)
	f.info.SegmentBytes = 4 << 10
	f.meddle = func(call string, _ int, w http.ResponseWriter, body []byte) bool {
		if call == "commit" && strings.Count(string(body), "=\"") > 4 {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return true
		}
		return false
	}
	c := mustServe(t, f)
	var s fakeStore
	s.add(bytesOf(1, 45_000))
	s.add(bytesOf(2, 45_000))
	if res, _ := pushWithin(t, c, &s, PushOptions{}, 10*time.Second); res.Pushed != 2 || f.made("join") == 0 {
		t.Errorf("%+v with %d joins, want both pushed", res, f.made("join"))
	}
}

// TestDeltaOneBadPath: to find the one that is refused takes a few commits, and not one
// for every path of the rest.
func TestDeltaOneBadPath(t *testing.T) {
	f := newDeltaServer(t)
	f.info.CommitPaths = 1000
	c := mustServe(t, f)
	var s fakeStore
	var bad nix.StorePath
	for i := range uint64(400) {
		path := s.add(bytesOf(i, 300))
		if i == 3 {
			bad = path
		}
	}
	f.meddle = func(call string, _ int, w http.ResponseWriter, body []byte) bool {
		if call == "commit" && strings.Contains(string(body), bad.String()) {
			refuse(w, http.StatusConflict, "Conflict", "there is another")
			return true
		}
		return false
	}
	res, _ := pushWithin(t, c, &s, PushOptions{}, 20*time.Second)
	if res.Pushed != 399 || res.Failed != 1 || f.made("commit") > 60 {
		t.Errorf("%+v with %d commits", res, f.made("commit"))
	}
}

// TestDeltaChaos pushes paths that share most of their bytes to a server that loses
// chunks, requests and answers; some paths cannot be read.
func TestDeltaChaos(t *testing.T) {
	for seed := range uint64(6) {
		f := newDeltaServer(t)
		f.info.SegmentBytes = 16 << 10
		var n atomic.Uint64
		f.meddle = func(call string, _ int, w http.ResponseWriter, body []byte) bool {
			r := rand.New(rand.NewPCG(seed, n.Add(1)))
			switch r.IntN(12) {
			case 0:
				panic(http.ErrAbortHandler)
			case 1:
				w.WriteHeader(http.StatusBadGateway)
				return true
			case 2:
				if call == "chunks" && len(body) > 30_000 {
					w.WriteHeader(http.StatusRequestEntityTooLarge)
					return true
				}
			case 3:
				if n.Load() < 200 {
					f.forget(20)
				}
			}
			return false
		}
		c := mustServe(t, f)
		var s fakeStore
		parts := make([]string, 12)
		for i := range parts {
			parts[i] = bytesOf(uint64(i), 20_000)
		}
		r := rand.New(rand.NewPCG(seed, 7))
		var bad nix.StorePath
		for i := range 30 {
			var b strings.Builder
			for range 1 + r.IntN(15) {
				b.WriteString(parts[r.IntN(len(parts))])
			}
			fmt.Fprint(&b, i)
			path := s.add(b.String())
			if i == 20 {
				bad = path
				s.content[bad] = []byte(b.String()[1:] + "Y")
			}
		}
		res, outcomes := pushWithin(t, c, &s, PushOptions{}, 60*time.Second)
		if outcomes[bad].Kind != Failed || len(outcomes) != 30 || res.Pushed+res.Failed != 30 {
			t.Errorf("seed %d: %+v, damaged: %s", seed, res, outcomes[bad].Kind)
		}
		for path, o := range outcomes {
			if o.Kind == Failed && path != bad && !strings.Contains(o.Err.Error(), "were collected") {
				t.Errorf("seed %d: %s: %v", seed, path, o.Err)
			}
		}
	}
}

// TestDeltaCancelled gives up a push at all sorts of moments; nothing may be left.
func TestDeltaCancelled(t *testing.T) {
	for at := 1; at < 30; at++ {
		f := newDeltaServer(t)
		f.info.SegmentBytes, f.info.BatchBytes = 16<<10, 128<<10
		ctx, cancel := context.WithCancel(t.Context())
		var n atomic.Int64
		f.meddle = func(string, int, http.ResponseWriter, []byte) bool {
			if n.Add(1) == int64(at) {
				cancel()
			}
			return false
		}
		c := mustServe(t, f)
		var s fakeStore
		for i := range uint64(10) {
			s.add(bytesOf(i, 100_000))
		}
		outcomes := 0
		_, err := c.Push(ctx, &s, PushOptions{Cache: "ci", Paths: []string{s.last()}}, Events{Done: func(int, Outcome) { outcomes++ }})
		if err == nil && n.Load() >= int64(at) && outcomes != 10 || err != nil && outcomes != 10 && at > 1 {
			t.Errorf("cancelled in request %d: %d outcomes, %v", at, outcomes, err)
		}
		cancel()
	}
}

// TestDeltaAlwaysTooLarge has a proxy that takes no batch, and then no query, of any size.
func TestDeltaAlwaysTooLarge(t *testing.T) {
	for _, refused := range []string{"chunks", "missing", "commit"} {
		f := newDeltaServer(t)
		f.info.BatchBytes, f.info.SegmentBytes, f.info.QueryChunks = 8<<20, 4<<20, 65536
		f.meddle = func(call string, _ int, w http.ResponseWriter, _ []byte) bool {
			if call == refused {
				http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			}
			return call == refused
		}
		c := mustServe(t, f)
		var s fakeStore
		s.add(bytesOf(1, 3_000_000))
		s.add(bytesOf(1, 2_500_000))
		for i := range uint64(20) {
			s.add(bytesOf(1+i, 3000))
		}
		res, _ := pushWithin(t, c, &s, PushOptions{}, 20*time.Second)
		if res.Failed != 22 || f.made(refused) > 200 {
			t.Errorf("no %s: %+v after %d requests, want all failed", refused, res, f.made(refused))
		}
	}
}

// TestDeltaReadingFails has paths that vanish while they are read, whose chunks others
// count on.
func TestDeltaReadingFails(t *testing.T) {
	f := newDeltaServer(t)
	f.info.SegmentBytes = 16 << 10
	c := mustServe(t, f)
	var s fakeStore
	content := bytesOf(1, 300_000)
	for i := range uint64(12) {
		s.add(content + bytesOf(2+i, 1000))
	}
	s.dump = func(w io.Writer, p nix.StorePath) error {
		content := s.content[p]
		n := slices.IndexFunc(s.infos, func(i nixstore.PathInfo) bool { return i.StorePath == p })
		if n%3 != 0 {
			_, err := w.Write(content)
			return err
		}
		if _, err := w.Write(content[:len(content)*(n+1)/14]); err != nil {
			return err
		}
		return errors.New("no such file")
	}
	res, outcomes := pushWithin(t, c, &s, PushOptions{}, 20*time.Second)
	if res.Failed != 4 || res.Pushed != 8 {
		t.Errorf("%+v, want 4 failed and 8 pushed", res)
	}
	for _, o := range outcomes {
		if o.Kind == Failed && !strings.Contains(o.Err.Error(), "no such file") {
			t.Errorf("%s: %v", o.Path, o.Err)
		}
	}
}

// TestDeltaOfKnownPaths pushes many small paths whose chunks are there: no batch makes the
// server look at too many of them.
func TestDeltaOfKnownPaths(t *testing.T) {
	f := newDeltaServer(t)
	f.info.BatchBytes, f.info.BatchSegments, f.info.CommitPaths = 8<<20, 4096, 1000
	c := mustServe(t, f)
	var s fakeStore
	for i := range uint64(500) {
		s.add(bytesOf(i, 600))
	}
	if res, _ := pushWithin(t, c, &s, PushOptions{}, 20*time.Second); res.Pushed != 500 {
		t.Fatalf("%+v, want all pushed", res)
	}
	f.have = map[string]bool{}
	f.meddle = func(call string, _ int, _ http.ResponseWriter, body []byte) bool {
		r := wire.NewBatchReader(bytes.NewReader(body), f.info.Limits())
		known := 0
		for it, err := r.Next(); call == "chunks" && err == nil; it, err = r.Next() {
			if it.Kind == wire.BatchKnown {
				known++
			}
		}
		if known > mostReferring {
			t.Errorf("a batch has the server look at %d segments, want at most %d", known, mostReferring)
		}
		return false
	}
	if res, _ := pushWithin(t, c, &s, PushOptions{}, 20*time.Second); res.Pushed != 500 || res.New != 0 {
		t.Errorf("%+v, want all there and nothing new", res)
	}
}

// TestDeltaThatIsNotAnswered: whole NARs are uploaded to a server that announces the delta
// protocol, if something in front of it, or an older one beside it, does not know that.
func TestDeltaThatIsNotAnswered(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"proxy":   func(w http.ResponseWriter) { http.NotFound(w, nil) },
		"version": func(w http.ResponseWriter) { refuse(w, http.StatusBadRequest, wire.ErrorUnsupportedVersion, "no") },
	} {
		f := newDeltaServer(t)
		f.meddle = func(call string, _ int, w http.ResponseWriter, _ []byte) bool {
			if call == "" {
				answer(w)
			}
			return call == ""
		}
		var s fakeStore
		s.add(bytesOf(1, 1000))
		s.add(bytesOf(2, 1000))
		var notes []string
		res, err := mustServe(t, f).Push(t.Context(), &s, PushOptions{Cache: "ci", Paths: []string{s.last()}}, Events{Note: func(text string) { notes = append(notes, text) }})
		if err != nil || res.Pushed != 2 || f.uploads != 2 || len(notes) != 1 {
			t.Errorf("%s: %+v, %v, %d uploads, notes %q", name, res, err, f.uploads, notes)
		}
	}
	f := newDeltaServer(t)
	f.meddle = func(_ string, _ int, w http.ResponseWriter, _ []byte) bool {
		refuse(w, http.StatusNotFound, NoSuchCache, "destroyed just now")
		return true
	}
	var s fakeStore
	s.add(bytesOf(1, 1000))
	if _, _, err := pushAll(t, mustServe(t, f), &s, PushOptions{}); err == nil || f.uploads != 0 {
		t.Errorf("of a cache that is gone: %v, %d uploads", err, f.uploads)
	}
}
