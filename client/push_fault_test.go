package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

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
			if name == "longer" && err == nil && uploads == 1 {
				return // the server had all that the path should be, and answered before there was more
			}
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

// TestImpatient: who waits at the keyboard is told within seconds that a server is down,
// or would rather be asked again in a minute.
func TestImpatient(t *testing.T) {
	check := func(name string, status int, retryAfter string) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				c := mustInProcess(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					calls++
					if retryAfter != "" {
						w.Header().Set("Retry-After", retryAfter)
					}
					refuse(w, status, wire.ErrorUnavailable, "busy")
				}), WithRetry(Impatient()))
				began := time.Now()
				_, err := c.Caches(t.Context())
				if got, ok := errors.AsType[*StatusError](err); !ok || got.Status != status {
					t.Errorf("error %v, want status %d", err, status)
				}
				if took := time.Since(began); calls < 2 || took > 10*time.Second {
					t.Errorf("gave up after %d calls and %v", calls, took)
				}
			})
		})
	}
	check("down", http.StatusBadGateway, "")
	check("busy for a minute", http.StatusServiceUnavailable, "60")
}

// TestPushToFullServer: storage that is full is not waited for.
func TestPushToFullServer(t *testing.T) {
	store := &fakeStore{}
	store.add("content")
	server := newFakeServer(t)
	uploads := 0
	server.script = func(n int, w http.ResponseWriter, _ *http.Request, _ wire.UploadInfo) bool {
		uploads = n
		refuse(w, http.StatusInsufficientStorage, wire.ErrorUnavailable, "full")
		return true
	}
	var rec recorder
	result, err := mustServe(t, quiet(server), WithRetry(Retry{First: time.Millisecond})).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.last()}}, rec.events())
	if err != nil || result.Failed != 1 || uploads != 3 {
		t.Errorf("%+v, %v, after %d uploads; want one failure after three", result, err, uploads)
	}
}
