package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
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

// TestPushRetries: everything that a repetition can mend is mended.
func TestPushRetries(t *testing.T) {
	large := strings.Repeat("x", 2*askFirst)
	cases := []struct {
		name    string
		content string
		script  func(f *fakeServer, n int, w http.ResponseWriter, r *http.Request, info wire.UploadInfo) bool
		uploads int
	}{
		{"overload", "small", func(_ *fakeServer, n int, w http.ResponseWriter, _ *http.Request, _ wire.UploadInfo) bool {
			if n <= 3 {
				refuse(w, http.StatusServiceUnavailable, wire.ErrorUnavailable, "busy")
			}
			return n <= 3
		}, 4},
		{"a proxy's error page", large, func(_ *fakeServer, n int, w http.ResponseWriter, _ *http.Request, _ wire.UploadInfo) bool {
			if n == 1 {
				w.Header().Set("Content-Type", "text/html")
				w.WriteHeader(http.StatusBadGateway)
				_, _ = io.WriteString(w, "<html>bad gateway</html>")
			}
			return n == 1
		}, 2},
		{"cut body", large, func(_ *fakeServer, n int, _ http.ResponseWriter, r *http.Request, _ wire.UploadInfo) bool {
			if n == 1 {
				_, _ = io.CopyN(io.Discard, r.Body, askFirst)
				panic(http.ErrAbortHandler)
			}
			return false
		}, 2},
		{"lost answer, small: sent again", "small", lostAnswer, 2},
		{"lost answer, large: asked first", large, lostAnswer, 1},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			store := &fakeStore{}
			store.add(tc.content)
			server := newFakeServer(t)
			server.script = func(n int, w http.ResponseWriter, r *http.Request, info wire.UploadInfo) bool {
				return tc.script(server, n, w, r, info)
			}
			var rec recorder
			result, err := mustServe(t, quiet(server)).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events())
			if err != nil || result.Pushed != 1 {
				t.Fatalf("result %+v, error %v, %v", result, err, rec.outcomes["p0"].Err)
			}
			if server.count() != tc.uploads {
				t.Errorf("%d uploads, want %d", server.count(), tc.uploads)
			}
			if rec.retries == 0 {
				t.Error("no retry was reported")
			}
			if tc.uploads > 1 && rec.sent != int64(len(tc.content)) {
				t.Errorf("progress ends at %d of %d bytes: a repeated attempt must start from nothing", rec.sent, len(tc.content))
			}
		})
	}
}

func lostAnswer(f *fakeServer, n int, _ http.ResponseWriter, r *http.Request, info wire.UploadInfo) bool {
	if n > 1 {
		return false
	}
	_, _ = io.Copy(io.Discard, r.Body)
	f.took(info)
	panic(http.ErrAbortHandler)
}

// quiet keeps net/http from logging the aborts that the script asks for.
func quiet(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				panic(http.ErrAbortHandler)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// TestPushFinal: what no repetition can mend ends the push at once.
func TestPushFinal(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			store := &fakeStore{}
			for range 100 {
				store.add(strings.Repeat("x", askFirst))
			}
			server := newFakeServer(t)
			server.script = func(_ int, w http.ResponseWriter, _ *http.Request, _ wire.UploadInfo) bool {
				refuse(w, status, "Some", "text")
				return true
			}
			var rec recorder
			result, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events())
			got, ok := errors.AsType[*StatusError](err)
			if !ok || got.Status != status {
				t.Fatalf("error %v, want status %d", err, status)
			}
			if server.count() > firstJobs || rec.retries > 0 {
				t.Errorf("%d uploads and %d retries after a final answer", server.count(), rec.retries)
			}
			if result.Failed+result.Skipped != 100 || result.Failed == 0 {
				t.Errorf("result %+v, want each of the 100 paths accounted for", result)
			}
			if rec.sent != 0 {
				t.Errorf("progress ends at %d bytes", rec.sent)
			}
		})
	}
}

// TestPushRefusedBeforeBody: a large body is not sent to a server that will not have it.
func TestPushRefusedBeforeBody(t *testing.T) {
	var took int64
	server := newFakeServer(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			refuse(w, http.StatusUnauthorized, wire.ErrorUnauthorized, "Unauthorized.")
			return
		}
		server.ServeHTTP(w, r)
	})
	store := &fakeStore{}
	store.add(strings.Repeat("x", 64<<20))
	ev := Events{Sent: func(_ int, n int64) { took += max(n, 0) }}
	_, err := mustServe(t, h).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, ev)
	if status, ok := errors.AsType[*StatusError](err); !ok || status.Status != http.StatusUnauthorized {
		t.Fatalf("error %v, want 401", err)
	}
	if took != 0 {
		t.Errorf("%d bytes were sent to a server that answered 401 at once", took)
	}
}

func TestPushRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		store.add("one")
		server := newFakeServer(t)
		server.script = func(n int, w http.ResponseWriter, _ *http.Request, _ wire.UploadInfo) bool {
			if n == 1 {
				w.Header().Set("Retry-After", "17")
				refuse(w, http.StatusTooManyRequests, wire.ErrorUnavailable, "slower")
			}
			return n == 1
		}
		var rec recorder
		result, err := mustInProcess(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events())
		if err != nil || result.Pushed != 1 {
			t.Fatalf("result %+v, error %v", result, err)
		}
		if len(rec.waits) != 1 || rec.waits[0] < 17*time.Second || rec.waits[0] > 22*time.Second {
			t.Errorf("waited %v, want 17 s and a little jitter", rec.waits)
		}
	})
}

// TestPushGivesUp: a server that is down costs the patience for one push, not for each path.
func TestPushGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		for i := range 500 {
			store.add(fmt.Sprint(i))
		}
		server := newFakeServer(t)
		server.script = func(_ int, w http.ResponseWriter, _ *http.Request, _ wire.UploadInfo) bool {
			refuse(w, http.StatusBadGateway, "", "down")
			return true
		}
		began := time.Now()
		result, err := mustInProcess(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, Events{})
		if err == nil || result.Failed+result.Skipped != 500 {
			t.Fatalf("result %+v, error %v", result, err)
		}
		if took := time.Since(began); took < time.Minute || took > 10*time.Minute {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestPushStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		store.add("one")
		server := newFakeServer(t)
		server.script = func(n int, _ http.ResponseWriter, r *http.Request, _ wire.UploadInfo) bool {
			if n == 1 {
				<-r.Context().Done()
			}
			return n == 1
		}
		var rec recorder
		began := time.Now()
		result, err := mustInProcess(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events())
		if err != nil || result.Pushed != 1 || rec.retries != 1 {
			t.Fatalf("result %+v, error %v, %d retries", result, err, rec.retries)
		}
		if took := time.Since(began); took < 2*time.Minute || took > 3*time.Minute {
			t.Errorf("noticed the stall after %v, want the 2 minutes of Retry.Idle", took)
		}
	})
}

func TestPushInterrupted(t *testing.T) {
	store := &fakeStore{}
	for i := range 50 {
		store.add(fmt.Sprint(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	server := newFakeServer(t)
	server.script = func(n int, _ http.ResponseWriter, r *http.Request, _ wire.UploadInfo) bool {
		if n > 5 {
			cancel()
			<-r.Context().Done()
		}
		return n > 5
	}
	result, err := mustInProcess(t, server).Push(ctx, store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, Events{})
	if !errors.Is(err, context.Canceled) || result.Failed > 0 || result.Pushed+result.Skipped != 50 {
		t.Errorf("result %+v, error %v: an interrupt is nobody's failure", result, err)
	}
}

// TestPushDamaged: what is wrong with the local store is not blamed on the server, and not sent ten times.
func TestPushDamaged(t *testing.T) {
	push := func(t *testing.T, dump func(io.Writer, nix.StorePath) error) (int, error) {
		t.Helper()
		store := &fakeStore{dump: dump}
		store.add("content")
		server := newFakeServer(t)
		var rec recorder
		if _, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events()); err != nil {
			t.Fatal(err)
		}
		return server.count(), rec.outcomes["p0"].Err
	}
	write := func(text string, err error) func(io.Writer, nix.StorePath) error {
		return func(w io.Writer, _ nix.StorePath) error {
			if _, werr := io.WriteString(w, text); werr != nil {
				return werr
			}
			return err
		}
	}
	for name, text := range map[string]string{"other bytes": "c0ntent", "longer": "content and more", "shorter": "con"} {
		t.Run(name, func(t *testing.T) {
			uploads, err := push(t, write(text, nil))
			if _, ok := errors.AsType[*DamagedError](err); !ok || uploads > 1 {
				t.Errorf("error %v after %d uploads, want a DamagedError after one", err, uploads)
			}
		})
	}
	t.Run("unreadable", func(t *testing.T) {
		vanished := errors.New("vanished")
		if uploads, err := push(t, write("co", vanished)); !errors.Is(err, vanished) || uploads > 1 {
			t.Errorf("error %v after %d uploads, want the reason of the store after one", err, uploads)
		}
	})
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
