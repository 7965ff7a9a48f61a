package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPush(t *testing.T) {
	store := &fakeStore{}
	libc := store.add("libc")
	lib := store.add("lib", libc)
	signed := store.add("signed")
	store.infos[2].Sigs = []nix.Signature{mustSignature(t, "cache.nixos.org-1")}
	there := store.add("there", libc)
	store.add("app", lib, signed, there)
	server := newFakeServer(t)
	server.expect(store.infos[:2])
	server.have[there.Base()] = true

	var rec recorder
	result, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Kind{"p0": Pushed, "p1": Pushed, "p2": Upstream, "p3": Present, "p4": Pushed}
	if diff := cmp.Diff(want, rec.kinds()); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if result.Pushed != 3 || result.Present != 1 || result.Upstream != 1 || result.Incomplete() || result.Bytes != int64(len("libc"+"lib"+"app")) {
		t.Errorf("result %+v", result)
	}
	if len(server.early) > 0 || strings.Join(server.order, " ") != fmt.Sprint(libc.Base(), " ", lib.Base(), " ", store.infos[4].StorePath.Base()) {
		t.Errorf("uploaded in the order %v, too early %v", server.order, server.early)
	}
	if o := rec.outcomes["p4"]; o.FileSize != 3 || o.Deduplicated != 0.25 || o.Attempts != 1 {
		t.Errorf("outcome of p4: %+v", o)
	}
	if rec.outcomes["p2"].Key != "cache.nixos.org-1" {
		t.Errorf("outcome of p2 does not name the upstream key: %+v", rec.outcomes["p2"])
	}
	if rec.sent != result.Bytes || rec.plan.Push != 3 || rec.plan.Paths != 5 {
		t.Errorf("sent %d, plan %+v", rec.sent, rec.plan)
	}
	if len(store.roots) != 1 {
		t.Errorf("temporary roots %v, want the one root", store.roots)
	}
}

func mustSignature(t *testing.T, name string) nix.Signature {
	t.Helper()
	key, err := nix.GenerateSecretKey(name, bytes.NewReader(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key.Sign("anything")
}

func TestPushOptions(t *testing.T) {
	mk := func() (*fakeStore, *fakeServer) {
		store := &fakeStore{}
		dep := store.add("dep")
		store.infos[0].Sigs = []nix.Signature{mustSignature(t, "cache.nixos.org-1")}
		store.add("app", dep)
		return store, newFakeServer(t)
	}
	push := func(o PushOptions) (map[string]Kind, *fakeServer) {
		t.Helper()
		store, server := mk()
		var rec recorder
		o.Cache, o.Paths = "ci", []string{store.last()}
		if _, err := mustServe(t, server).Push(t.Context(), store, o, rec.events()); err != nil {
			t.Fatal(err)
		}
		return rec.kinds(), server
	}
	if got, _ := push(PushOptions{IgnoreUpstream: true}); got["p0"] != Pushed {
		t.Errorf("IgnoreUpstream: %v", got)
	}
	if got, _ := push(PushOptions{NoClosure: true, IgnoreUpstream: true}); len(got) != 1 || got["p1"] != Pushed {
		t.Errorf("NoClosure: %v", got)
	}
	if got, server := push(PushOptions{DryRun: true}); got["p1"] != Planned || server.count() != 0 {
		t.Errorf("DryRun: %v, %d uploads", got, server.count())
	}
}

// TestPushOrder: whatever the closure looks like and however slow each upload is, a
// path never begins before its references have ended.
func TestPushOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store := &fakeStore{}
		for _, p := range drawPaths(rt) {
			store.addPath(p.storePath, []byte(p.storePath.Name()), p.references...)
		}
		failing := map[string]bool{}
		for _, info := range store.infos {
			if rapid.IntRange(0, 9).Draw(rt, "fails") == 0 {
				failing[info.StorePath.String()] = true
			}
		}
		server := newFakeServer(t)
		server.expect(store.infos)
		server.script = func(_ int, w http.ResponseWriter, _ *http.Request, info wire.UploadInfo) bool {
			if failing[info.StorePath] {
				refuse(w, http.StatusBadRequest, wire.ErrorRequest, "no")
			}
			return failing[info.StorePath]
		}
		var rec recorder
		result, err := mustInProcess(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events())
		if err != nil {
			rt.Fatal(err)
		}
		if len(server.early) > 0 {
			rt.Fatalf("began before their references: %v", server.early)
		}
		if result.Pushed+result.Failed+result.Skipped != len(store.infos) || (result.Failed > 0) != (len(failing) > 0) {
			rt.Fatalf("result %+v of %d paths, %d made to fail", result, len(store.infos), len(failing))
		}
	})
}

func TestPushPartialFailure(t *testing.T) {
	store := &fakeStore{}
	bad := store.add("bad")
	mid := store.add("mid", bad)
	good := store.add("good")
	store.add("top", mid, good)
	server := newFakeServer(t)
	server.script = func(_ int, w http.ResponseWriter, _ *http.Request, info wire.UploadInfo) bool {
		if info.StorePath != bad.String() {
			return false
		}
		refuse(w, http.StatusBadRequest, wire.ErrorRequest, "we do not like it")
		return true
	}
	var rec recorder
	result, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Kind{"p0": Failed, "p1": Skipped, "p2": Pushed, "p3": Skipped}
	if diff := cmp.Diff(want, rec.kinds()); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if !result.Incomplete() || result.Pushed != 1 || result.Failed != 1 || result.Skipped != 2 {
		t.Errorf("result %+v", result)
	}
	if status, ok := errors.AsType[*StatusError](rec.outcomes["p0"].Err); !ok || status.Message != "we do not like it" {
		t.Errorf("error of the failed path: %v", rec.outcomes["p0"].Err)
	}
	if got := rec.outcomes["p3"].Err.Error(); !strings.Contains(got, bad.Base()) {
		t.Errorf("the skipped path blames %q, want the path that failed", got)
	}
}

// TestPushPreamble: long upload infos travel before the NAR, short ones in a header.
func TestPushPreamble(t *testing.T) {
	for refs, preamble := range map[int]bool{3: false, 200: true} {
		store := &fakeStore{}
		var all []nix.StorePath
		for i := range refs {
			all = append(all, mkPath(fmt.Sprintf("reference-%d", i)))
		}
		store.add("content", all...)
		server := newFakeServer(t)
		var length int64
		server.script = func(_ int, _ http.ResponseWriter, r *http.Request, info wire.UploadInfo) bool {
			if got := r.Header.Get(wire.HeaderAtticNarInfoPreamble) != ""; got != preamble {
				t.Errorf("%d references: preamble %v, want %v", refs, got, preamble)
			}
			if len(info.References) != refs || info.Cache != "ci" || r.Header.Get("Authorization") != "Bearer secret" {
				t.Errorf("info %+v", info)
			}
			length = r.ContentLength
			return false
		}
		result, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, Events{})
		if err != nil || result.Pushed != 1 {
			t.Fatalf("%d references: result %+v, error %v", refs, result, err)
		}
		if length < int64(len("content")) {
			t.Errorf("%d references: Content-Length %d", refs, length)
		}
	}
}

func TestPushStoreDir(t *testing.T) {
	store := &fakeStore{}
	store.add("one")
	server := newFakeServer(t)
	server.config.StoreDir = ptr("/gnu/store")
	_, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, Events{})
	if _, ok := errors.AsType[*StoreDirError](err); !ok || server.count() > 0 {
		t.Errorf("error %v, %d uploads", err, server.count())
	}
}

// TestPushMayNotPull: a token for pushing only is enough.
func TestPushMayNotPull(t *testing.T) {
	store := &fakeStore{}
	store.add("one")
	server := newFakeServer(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			refuse(w, http.StatusForbidden, wire.ErrorAccess, "no")
			return
		}
		server.ServeHTTP(w, r)
	})
	var rec recorder
	result, err := mustServe(t, h).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events())
	if err != nil || result.Pushed != 1 || len(rec.notes) != 1 {
		t.Errorf("result %+v, error %v, notes %q", result, err, rec.notes)
	}
}

// TestPushMemory: a NAR of any size passes through the same few buffers.
func TestPushMemory(t *testing.T) {
	size := int64(512 << 20)
	if testing.Short() {
		size = 128 << 20
	}
	block := make([]byte, 1<<20)
	store := &fakeStore{dump: func(w io.Writer, _ nix.StorePath) error {
		for range size / int64(len(block)) {
			if _, err := w.Write(block); err != nil {
				return err
			}
		}
		return nil
	}}
	store.infos = []nixstore.PathInfo{{StorePath: mkPath("large"), NarSize: size}}
	server := newFakeServer(t)
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	server.script = func(_ int, w http.ResponseWriter, r *http.Request, info wire.UploadInfo) bool {
		var got int64
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Body.Read(buf)
			if before := got >> 27; (got+int64(n))>>27 != before {
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				if now.HeapAlloc > peak.HeapAlloc {
					peak = now
				}
			}
			got += int64(n)
			if err != nil {
				break
			}
		}
		if got != size {
			t.Errorf("received %d bytes, want %d", got, size)
		}
		f := wire.UploadResult{Kind: wire.KindDeduplicated}
		fmt.Fprintf(w, `{"kind":%q}`, f.Kind)
		return true
	}
	var rec recorder
	if _, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events()); err != nil {
		t.Fatal(err)
	}
	if rec.outcomes["large"].Kind != Deduplicated {
		t.Errorf("outcome %+v", rec.outcomes["large"])
	}
	if grown := int64(peak.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("the heap grew by %d MiB while a NAR of %d MiB was sent", grown>>20, size>>20)
	}
}

// TestPushTiny measures nothing but proves that many tiny paths go up side by side.
func TestPushTiny(t *testing.T) {
	store := &fakeStore{}
	for i := range 500 {
		store.add(fmt.Sprint(i))
	}
	server := newFakeServer(t)
	began := time.Now()
	result, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, Events{})
	if err != nil || result.Pushed != 500 {
		t.Fatalf("result %+v, error %v", result, err)
	}
	if server.asked != 1 {
		t.Errorf("asked %d times for missing paths, want once", server.asked)
	}
	t.Logf("%.0f paths a second, at most %d at once", 500/time.Since(began).Seconds(), server.most)
}

func TestMissingPathsBatches(t *testing.T) {
	var hashParts []nix.HashPart
	for i := range missingBatch + 10 {
		hashParts = append(hashParts, nix.HashPart{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	server := newFakeServer(t)
	missing, err := mustServe(t, server).MissingPaths(t.Context(), "ci", hashParts)
	if err != nil || len(missing) != len(hashParts) || server.asked != 2 {
		t.Errorf("%d missing of %d in %d questions, error %v", len(missing), len(hashParts), server.asked, err)
	}
}
