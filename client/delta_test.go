package client

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// bytesOf returns n bytes that compress a little.
func bytesOf(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "store path number %x\n", r.Uint32())
	}
	return b.String()[:n]
}

func mustPush(t *testing.T, c *Client, s *fakeStore, o PushOptions) (Result, []Outcome) {
	t.Helper()
	res, outcomes, err := pushAll(t, c, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return res, outcomes
}

func pushAll(t *testing.T, c *Client, s *fakeStore, o PushOptions) (Result, []Outcome, error) {
	t.Helper()
	var outcomes []Outcome
	o.Cache, o.Paths = "ci", []string{s.last()}
	res, err := c.Push(t.Context(), s, o, Events{Done: func(_ int, o Outcome) { outcomes = append(outcomes, o) }})
	return res, outcomes, err
}

// TestDeltaSendsWhatIsNew pushes a closure, then one that is changed a little.
func TestDeltaSendsWhatIsNew(t *testing.T) {
	f := newDeltaServer(t)
	c := mustServe(t, f)
	var s fakeStore
	var refs []nix.StorePath
	big := bytesOf(1, 700_000)
	refs = append(refs, s.add(big))
	for i := range uint64(30) {
		refs = append(refs, s.add(bytesOf(2+i, 500+int(i)*37), refs[len(refs)-1]))
	}
	res, _ := mustPush(t, c, &s, PushOptions{})
	if res.Pushed != 31 || res.New != res.Bytes || f.uploads != 0 || len(f.early) > 0 || len(f.twice) > 0 {
		t.Fatalf("pushed %d, %d of %d bytes new, %d whole, %d before their references, %d chunks twice", res.Pushed, res.New, res.Bytes, f.uploads, len(f.early), len(f.twice))
	}
	if res.Sent <= 0 || res.Sent > res.Bytes*9/10 {
		t.Errorf("sent %d bytes for %d, want them compressed", res.Sent, res.Bytes)
	}
	if res.Counted != 31 || res.Deduplicated != 0 || res.Compressed <= 0 || res.Compressed >= res.Sent {
		t.Errorf("%+v: want what is new compressed, and less than what was sent", res)
	}
	if n := f.calls["chunks"]; n > 15 {
		t.Errorf("%d batches for %d bytes in 31 paths", n, res.Bytes)
	}
	was := f.brought

	var next fakeStore
	changed := big[:300_000] + "something else" + big[300_000:]
	next.addPath(mkPath("changed"), []byte(changed))
	res, outcomes := mustPush(t, c, &next, PushOptions{})
	if got := f.brought - was; res.Pushed != 1 || got > 5 || res.New > 20_000 {
		t.Errorf("of a NAR that was changed in one place, %d chunks were sent, %d bytes new; want about two", got, res.New)
	}
	if o := outcomes[0]; o.Kind != Pushed || o.Deduplicated < 0.9 || o.Sent == 0 || o.New != res.New || o.Compressed == 0 || res.Deduplicated != res.Bytes-res.New {
		t.Errorf("outcome %+v", o)
	}
	var same fakeStore
	same.addPath(mkPath("same"), []byte(changed))
	was = f.brought
	res, outcomes = mustPush(t, c, &same, PushOptions{})
	if f.brought != was || res.New != 0 || outcomes[0].Kind != Deduplicated || outcomes[0].Deduplicated != 1 {
		t.Errorf("of a NAR that was there, %d chunks were sent: %+v", f.brought-was, outcomes[0])
	}
}

// TestDeltaChunksOfOnePush has paths that share most of their bytes.
func TestDeltaChunksOfOnePush(t *testing.T) {
	f := newDeltaServer(t)
	c := mustServe(t, f)
	var s fakeStore
	common := bytesOf(1, 300_000)
	var last nix.StorePath
	for i := range 8 {
		refs := []nix.StorePath{last}
		if i == 0 {
			refs = nil
		}
		last = s.add(common+bytesOf(uint64(10+i), 2000), refs...)
	}
	res, _ := mustPush(t, c, &s, PushOptions{})
	if res.Pushed != 8 || len(f.twice) > 0 {
		t.Errorf("pushed %d paths; %d chunks were sent although another path brought them", res.Pushed, len(f.twice))
	}
}

// TestDeltaThroughProxy refuses long requests.
func TestDeltaThroughProxy(t *testing.T) {
	f := newDeltaServer(t)
	const most = 300_000
	f.info.BatchBytes, f.info.SegmentBytes, f.info.QueryChunks = 8<<20, 4<<20, 1<<16
	f.meddle = func(_ string, _ int, w http.ResponseWriter, body []byte) bool {
		if len(body) > most {
			http.Error(w, "<h1>413 Request Entity Too Large</h1>", http.StatusRequestEntityTooLarge)
			return true
		}
		return false
	}
	c := mustServe(t, f)
	var s fakeStore
	s.add(bytesOf(1, 6_000_000))
	s.add(bytesOf(2, 100_000))
	s.add(bytesOf(3, 3_000_000))
	res, _ := mustPush(t, c, &s, PushOptions{})
	if res.Pushed != 3 || len(f.twice) > 0 {
		t.Errorf("pushed %d, %d chunks twice", res.Pushed, len(f.twice))
	}
}

// TestDeltaCutConnections breaks every third request, before or after it was done.
func TestDeltaCutConnections(t *testing.T) {
	f := newDeltaServer(t)
	var s fakeStore
	all := 0
	f.meddle = func(call string, n int, w http.ResponseWriter, body []byte) bool {
		f.dmu.Lock()
		all++
		cut := all%3 == 0
		f.dmu.Unlock()
		if !cut {
			return false
		}
		if call == "chunks" && n%2 == 0 { // the answer is lost
			f.dmu.Lock()
			_, _ = f.batch(body)
			f.dmu.Unlock()
		}
		panic(http.ErrAbortHandler)
	}
	c := mustServe(t, f)
	for i := range uint64(12) {
		s.add(bytesOf(i, 80_000))
	}
	res, _ := mustPush(t, c, &s, PushOptions{})
	if res.Pushed != 12 || res.Failed != 0 {
		t.Errorf("%+v, want all 12 pushed", res)
	}
}

// TestDeltaResumes stops a push in the middle and begins again.
func TestDeltaResumes(t *testing.T) {
	f := newDeltaServer(t)
	f.info.BatchBytes, f.info.SegmentBytes = 128<<10, 32<<10
	down := true
	f.meddle = func(call string, n int, w http.ResponseWriter, _ []byte) bool {
		f.dmu.Lock()
		defer f.dmu.Unlock()
		if down && call == "chunks" && n > 5 {
			refuse(w, http.StatusForbidden, "Forbidden", "go away")
			return true
		}
		return false
	}
	c := mustServe(t, f)
	var s fakeStore
	s.add(bytesOf(1, 4_000_000))
	res, outcomes, err := pushAll(t, c, &s, PushOptions{})
	if err == nil || res.Pushed != 0 || len(outcomes) != 1 {
		t.Fatalf("%+v %v, want an error and one outcome", res, err)
	}
	f.dmu.Lock()
	down = false
	was := f.brought
	f.dmu.Unlock()
	if was == 0 {
		t.Fatal("nothing was sent before it stopped")
	}
	res, _ = mustPush(t, c, &s, PushOptions{})
	if res.Pushed != 1 || len(f.twice) > 0 {
		t.Errorf("%+v; %d chunks were sent again", res, len(f.twice))
	}
}

// TestDeltaCollectedMeanwhile loses chunks before the commit, and before they are referred to.
func TestDeltaCollectedMeanwhile(t *testing.T) {
	for _, call := range []string{"commit", "chunks"} {
		f := newDeltaServer(t)
		c := mustServe(t, f)
		var s fakeStore
		for i := range uint64(5) {
			s.add(bytesOf(i, 50_000))
		}
		if call == "chunks" {
			mustPush(t, c, &s, PushOptions{})
			f.have = map[string]bool{}
		}
		times := 0
		f.meddle = func(now string, _ int, _ http.ResponseWriter, _ []byte) bool {
			if now == call && times < 2 {
				times++
				f.forget(7)
			}
			return false
		}
		res, _ := mustPush(t, c, &s, PushOptions{})
		if res.Pushed != 5 || times == 0 {
			t.Errorf("chunks lost before %s: %+v", call, res)
		}
		// And not for ever.
		f.have = map[string]bool{}
		f.meddle = func(now string, _ int, _ http.ResponseWriter, _ []byte) bool {
			if now == "commit" {
				f.forget(2)
			}
			return false
		}
		res, outcomes := mustPush(t, c, &s, PushOptions{})
		if res.Failed == 0 || f.calls["commit"] > 60 {
			t.Errorf("always lost before a commit: %+v, %d commits", res, f.calls["commit"])
		}
		for _, o := range outcomes {
			if o.Kind == Failed && !strings.Contains(o.Err.Error(), "were collected while it was pushed, 4 times") {
				t.Errorf("failed with %v", o.Err)
			}
		}
	}
}

// TestDeltaBadPaths has one path that the server will not commit, and one that is not what
// the store's database says.
func TestDeltaBadPaths(t *testing.T) {
	f := newDeltaServer(t)
	c := mustServe(t, f)
	var s fakeStore
	good := s.add(bytesOf(1, 5000))
	bad := s.add(bytesOf(2, 5000))
	s.content[bad] = []byte(bytesOf(3, 5000))
	refused := s.add(bytesOf(4, 5000))
	onBad := s.add(bytesOf(5, 5000), bad)
	onRefused := s.add(bytesOf(6, 5000), refused, good)
	s.add(bytesOf(7, 5000), good)
	f.meddle = func(call string, _ int, w http.ResponseWriter, body []byte) bool {
		if call == "commit" && strings.Contains(string(body), "store_path\":\""+refused.String()) {
			refuse(w, http.StatusConflict, "Conflict", "there is another")
			return true
		}
		return false
	}
	res, outcomes := mustPush(t, c, &s, PushOptions{})
	if res.Pushed != 2 || res.Failed != 2 || res.Skipped != 2 {
		t.Errorf("%+v, want 2 pushed, 2 failed and 2 skipped", res)
	}
	for _, o := range outcomes {
		switch o.Path {
		case bad:
			if o.Kind != Failed || !strings.Contains(o.Err.Error(), "is damaged: NAR hash expected") {
				t.Errorf("damaged path: %v", o.Err)
			}
		case refused:
			if o.Kind != Failed || !strings.Contains(o.Err.Error(), "there is another") {
				t.Errorf("refused path: %v", o.Err)
			}
		case onBad, onRefused:
			if o.Kind != Skipped {
				t.Errorf("%s: %s", o.Path, o.Kind)
			}
		}
	}
}

func TestDeltaDryRun(t *testing.T) {
	f := newDeltaServer(t)
	c := mustServe(t, f)
	var s fakeStore
	s.add(bytesOf(1, 100_000))
	s.add(bytesOf(1, 100_000) + bytesOf(2, 50_000))
	_, outcomes := mustPush(t, c, &s, PushOptions{DryRun: true})
	if len(outcomes) != 2 || f.calls["chunks"]+f.calls["commit"] != 0 {
		t.Fatalf("%d outcomes, calls %v", len(outcomes), f.calls)
	}
	sum := int64(0)
	for _, o := range outcomes {
		if o.Kind != Planned {
			t.Errorf("outcome %s", o.Kind)
		}
		sum += o.New
	}
	if sum < 150_000 || sum > 160_000 {
		t.Errorf("%d bytes would be new, want the 150 kB that the two do not share", sum)
	}
}

// TestDeltaFallsBack pushes to servers without the protocol, or without a version of it
// that is known here.
func TestDeltaFallsBack(t *testing.T) {
	for name, change := range map[string]func(*deltaServer){
		"not celler":    func(f *deltaServer) { f.config.Celler = nil },
		"no delta":      func(f *deltaServer) { f.config.Celler = &wire.Capabilities{Version: 2} },
		"another delta": func(f *deltaServer) { f.config.Celler = &wire.Capabilities{Version: 9, Delta: []int{7}} },
	} {
		f := newDeltaServer(t)
		change(f)
		c := mustServe(t, f)
		var s fakeStore
		s.add(bytesOf(1, 10_000))
		if res, _ := mustPush(t, c, &s, PushOptions{}); res.Pushed != 1 || f.uploads != 1 || f.calls["chunks"] != 0 {
			t.Errorf("%s: %+v, %d uploads, calls %v", name, res, f.uploads, f.calls)
		}
	}
}

// TestDeltaPins sets a pin in the commit of its path.
func TestDeltaPins(t *testing.T) {
	f := newDeltaServer(t)
	f.config.Celler.Permissions = []string{"push", "pin"}
	c := mustServe(t, f)
	var s fakeStore
	s.add(bytesOf(1, 10_000))
	res, _ := mustPush(t, c, &s, PushOptions{Pins: []string{"main"}})
	if res.Pinned != 1 || !slices.Contains(f.order, "pin main") {
		t.Errorf("%+v, order %v", res, f.order)
	}
}

// TestDeltaLongNarIsJoined: a commit has few receipts.
func TestDeltaLongNarIsJoined(t *testing.T) {
	f := newDeltaServer(t)
	f.info.SegmentBytes = 8 << 10
	c := mustServe(t, f)
	var s fakeStore
	s.add(bytesOf(1, 600_000))
	res, _ := mustPush(t, c, &s, PushOptions{})
	if res.Pushed != 1 || f.calls["join"] == 0 || f.bytes["commit"] > 2000 {
		t.Errorf("%+v, %d joins, commit of %d bytes", res, f.calls["join"], f.bytes["commit"])
	}
}

// TestDeltaProofKeyChanges: a bucket that was put together anew has another key.
func TestDeltaProofKeyChanges(t *testing.T) {
	f := newDeltaServer(t)
	f.meddle = func(call string, n int, _ http.ResponseWriter, _ []byte) bool {
		if call == "missing" && n == 1 {
			f.dmu.Lock()
			f.info.ProofKey, f.info.ProofKeyName = bytes.Repeat([]byte{6}, 32), "k2"
			f.dmu.Unlock()
		}
		return false
	}
	c := mustServe(t, f)
	var s fakeStore
	s.add(bytesOf(1, 10_000))
	if res, _ := mustPush(t, c, &s, PushOptions{}); res.Pushed != 1 || res.Failed != 0 || f.calls[""] != 2 {
		t.Errorf("%+v, asked %d times how to push", res, f.calls[""])
	}
}
