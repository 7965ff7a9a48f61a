package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/celler/celler/httpapi/wire"
)

// loggedStore is a fakeStore with logs of builds.
type loggedStore struct {
	fakeStore
	logs   map[string]string
	closed atomic.Int64
	broken atomic.Int64 // times that a broken one was opened
}

func (s *loggedStore) BuildLog(drv string) (io.ReadCloser, error) {
	text, ok := s.logs[drv]
	switch {
	case text == "broken":
		s.broken.Add(1)
		return io.NopCloser(io.MultiReader(strings.NewReader("so far"), iotest.ErrReader(errors.New("the log is broken")))), nil
	case text == "long":
		return &longLog{store: s, left: longLogBytes}, nil
	case !ok:
		return nil, nil
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

// longLogBytes is the length of a long log.
const longLogBytes = 16 << 20

// longLog is a log that counts those that are open.
type longLog struct {
	store *loggedStore
	left  int
}

func (l *longLog) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), l.left)
	l.left -= n
	return n, nil
}

func (l *longLog) Close() error {
	l.store.closed.Add(1)
	return nil
}

// TestPushSendsLogs pushes outputs of builds, of which one is there already, two are of one
// build, one has no log and that of one cannot be read.
func TestPushSendsLogs(t *testing.T) {
	s := &loggedStore{logs: map[string]string{"one.drv": "building one\n", "there.drv": "building what is there\n", "broken.drv": "broken"}}
	for _, drv := range []string{"one.drv", "there.drv", "one.drv", "none.drv", "broken.drv", ""} {
		s.add(bytesOf(uint64(len(s.infos)), 1000))
		s.infos[len(s.infos)-1].Deriver = drv
	}
	f := newDeltaServer(t)
	f.have[s.infos[1].StorePath.Base()] = true
	got := map[string]string{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if drv, ok := strings.CutPrefix(r.URL.Path, "/ci/log/"); ok && r.Method == http.MethodPut {
			text, err := io.ReadAll(r.Body)
			if err != nil {
				if drv != "broken.drv" {
					t.Error(err)
				}
				return
			}
			f.dmu.Lock()
			got[drv] += string(text)
			f.dmu.Unlock()
			w.WriteHeader(http.StatusCreated)
			return
		}
		f.ServeHTTP(w, r)
	})
	var notes []string
	push := func(o PushOptions) Result {
		t.Helper()
		o.Cache, o.Paths = "ci", []string{s.last()}
		res, err := mustServe(t, handler).Push(t.Context(), s, o, Events{Note: func(text string) { notes = append(notes, text) }})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := push(PushOptions{}); res.Logs != 1 || len(got) != 1 || got["one.drv"] != "building one\n" {
		t.Errorf("%+v, logs %q; want the one", res, got)
	}
	if n := s.broken.Load(); n != 1 {
		t.Errorf("a log that is broken was read %d times", n)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "the log is broken") {
		t.Errorf("notes %q", notes)
	}
	for _, o := range []PushOptions{{NoLogs: true}, {DryRun: true}} {
		f.have = map[string]bool{}
		clear(got)
		if res := push(o); res.Logs != 0 || len(got) > 0 {
			t.Errorf("%+v: %d logs", o, res.Logs)
		}
	}
	f.have = map[string]bool{}
	f.config.Celler.Version = 2
	if res := push(PushOptions{}); res.Pushed == 0 || res.Logs != 0 || len(got) > 0 {
		t.Errorf("to a server that takes none: %+v", res)
	}
}

// TestLogsInLittleMemory sends logs that are far longer than what may be held of them.
func TestLogsInLittleMemory(t *testing.T) {
	s := &loggedStore{logs: map[string]string{}}
	for i := range 8 {
		drv := fmt.Sprint(i, ".drv")
		s.logs[drv] = "long"
		s.add(bytesOf(uint64(i), 100))
		s.infos[i].Deriver = drv
	}
	f := newDeltaServer(t)
	var got atomic.Int64
	refused := false
	c := mustInProcess(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/ci/log/") {
			f.ServeHTTP(w, r)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/0.drv") && !refused { // once more, from its beginning
			refused = true
			refuse(w, http.StatusServiceUnavailable, wire.ErrorUnavailable, "come back")
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || r.ContentLength != -1 {
			t.Errorf("a log of %d bytes: %v", r.ContentLength, err)
		}
		got.Add(n)
	}), WithRetry(Retry{First: time.Millisecond}))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	res, err := c.Push(t.Context(), s, PushOptions{Cache: "ci", Paths: []string{s.last()}}, Events{})
	runtime.ReadMemStats(&after)
	if err != nil || res.Logs != 8 || got.Load() != 8*longLogBytes || s.closed.Load() < 8 {
		t.Errorf("%+v, %v; %d bytes arrived, %d logs closed", res, err, got.Load(), s.closed.Load())
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 2*longLogBytes {
		t.Errorf("%d bytes were allocated for logs of %d", grown, 8*longLogBytes)
	}
}
