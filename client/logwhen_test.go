package client

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/celler/celler/httpapi/wire"
)

// logServer is a deltaServer that takes logs of builds.
type logServer struct {
	*deltaServer
	lmu  sync.Mutex
	logs map[string]string
	puts int
}

func newLogServer(t *testing.T) *logServer {
	return &logServer{deltaServer: newDeltaServer(t), logs: map[string]string{}}
}

func (f *logServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	drv, ok := strings.CutPrefix(r.URL.Path, "/ci/log/")
	if !ok {
		f.deltaServer.ServeHTTP(w, r)
		return
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.lmu.Lock()
	defer f.lmu.Unlock()
	switch _, there := f.logs[drv]; {
	case r.Method == http.MethodPut:
		f.puts++
		f.logs[drv] = string(text)
		w.WriteHeader(http.StatusCreated)
	case !there:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (f *logServer) has(drv string) bool {
	f.lmu.Lock()
	defer f.lmu.Unlock()
	return f.logs[drv] != ""
}

// storeWithLogs has n paths, each referring to the one before, with logs of their builds.
func storeWithLogs(n int) *loggedStore {
	s := &loggedStore{logs: map[string]string{}}
	for i := range n {
		if i == 0 {
			s.add(bytesOf(1, 1000))
		} else {
			s.add(bytesOf(uint64(i+1), 1000), s.infos[i-1].StorePath)
		}
		drv := fmt.Sprint(i, ".drv")
		s.infos[i].Deriver, s.logs[drv] = drv, "building "+drv
	}
	return s
}

// TestLogsBeforeCommit: at any time, what can be seen has its log, so that a push may be
// killed.
func TestLogsBeforeCommit(t *testing.T) {
	f := newLogServer(t)
	f.info.CommitPaths = 2
	f.meddle = func(call string, _ int, _ http.ResponseWriter, body []byte) bool {
		if call == "commit" {
			req, err := wire.DecodeCommit(body, 2)
			if err != nil {
				t.Error(err)
			}
			for _, p := range req.Paths {
				if !f.has(p.Deriver) {
					t.Errorf("%s is committed before the log of %s is there", p.StorePath, p.Deriver)
				}
			}
		}
		return false
	}
	s := storeWithLogs(5)
	res, err := mustServe(t, f).Push(t.Context(), s, PushOptions{Cache: "ci", Paths: []string{s.last()}}, Events{})
	if err != nil || res.Logs != 5 || f.puts != 5 {
		t.Errorf("%+v, %v; %d logs were sent, want 5", res, err, f.puts)
	}
}

// TestLogsOfStoppedPush has a server that takes the first of whole NARs, and no other.
func TestLogsOfStoppedPush(t *testing.T) {
	f := newLogServer(t)
	uploads := 0
	c := mustServe(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/upload-path") {
			if uploads++; uploads > 1 {
				refuse(w, http.StatusUnauthorized, "Unauthorized", "the token has expired")
				return
			}
		}
		f.ServeHTTP(w, r)
	}))
	s := storeWithLogs(3)
	res, err := c.Push(t.Context(), s, PushOptions{Cache: "ci", Paths: []string{s.last()}, Whole: true}, Events{})
	if err == nil || res.Pushed != 1 || res.Logs != 1 || !f.has("0.drv") || f.puts != 1 {
		t.Errorf("%+v, %v; %d logs were sent; want that of the path that arrived", res, err, f.puts)
	}
}

// TestLogsOfNamedPaths pushes by name what is there, and a derivation.
func TestLogsOfNamedPaths(t *testing.T) {
	f := newLogServer(t)
	s := storeWithLogs(2)
	drv := mkPath("built.drv")
	s.addPath(drv, []byte("a derivation"))
	s.logs[drv.Base()] = "building it"
	unnamed := mkPath("unnamed.drv")
	s.addPath(unnamed, []byte("another, of the closure"))
	s.logs[unnamed.Base()] = "building something else"
	for _, info := range s.infos[:2] {
		f.have[info.StorePath.Base()] = true
	}
	push := func(want int, dry bool) {
		t.Helper()
		paths := []string{s.infos[1].StorePath.String(), drv.String()}
		res, err := mustServe(t, f).Push(t.Context(), s, PushOptions{Cache: "ci", Paths: paths, DryRun: dry}, Events{})
		if err != nil || res.Logs != want || f.puts != want {
			t.Errorf("%+v, %v; %d logs were sent, want %d", res, err, f.puts, want)
		}
		f.puts = 0
	}
	push(0, true)
	push(2, false)
	if f.has("0.drv") || !f.has("1.drv") || !f.has(drv.Base()) {
		t.Errorf("the server has %q, want those of what was named", f.logs)
	}
	push(0, false) // they are there
}

// TestLogOfTwoOutputs pushes two outputs of one build.
func TestLogOfTwoOutputs(t *testing.T) {
	f := newLogServer(t)
	s := storeWithLogs(2)
	s.infos[1].Deriver = s.infos[0].Deriver
	res, err := mustServe(t, f).Push(t.Context(), s, PushOptions{Cache: "ci", Paths: []string{s.last()}, Whole: true}, Events{})
	if err != nil || res.Pushed != 2 || res.Logs != 1 || f.puts != 1 {
		t.Errorf("%+v, %v; %d logs were sent, want the one there is", res, err, f.puts)
	}
}

// TestLogsThatTakeTooLong has a server that takes no logs before all paths are there: one
// commit waits for that, and no other.
func TestLogsThatTakeTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLogServer(t)
		f.info.CommitPaths = 1
		c := mustInProcess(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/ci/log/") && f.made("commit") < 3 {
				<-r.Context().Done()
				return
			}
			f.ServeHTTP(w, r)
		}))
		s := storeWithLogs(3)
		var rec recorder
		began := time.Now()
		res, err := c.Push(t.Context(), s, PushOptions{Cache: "ci", Paths: []string{s.last()}}, rec.events())
		if took := time.Since(began); took < logsOfCommit || took > logsOfCommit+5*time.Second {
			t.Errorf("the push took %v, want little more than %v", took, logsOfCommit)
		}
		if err != nil || res.Pushed != 3 || res.Logs != 3 || f.puts != 3 || len(rec.notes) != 0 {
			t.Errorf("%+v, %v; %d logs were sent; %q", res, err, f.puts, rec.notes)
		}
	})
}

// TestLogsOfTokenThatMayNotPull: whoever may push sends logs, even if he is not shown what
// the server can do.
func TestLogsOfTokenThatMayNotPull(t *testing.T) {
	f := newLogServer(t)
	c := mustServe(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_api/v1/cache-config/") {
			refuse(w, http.StatusForbidden, "AccessError", "no")
			return
		}
		if strings.HasSuffix(r.URL.Path, "/delta/ci/paths") {
			refuse(w, http.StatusNotFound, "NotFound", "an older server")
			return
		}
		f.ServeHTTP(w, r)
	}))
	s := storeWithLogs(2)
	res, err := c.Push(t.Context(), s, PushOptions{Cache: "ci", Paths: []string{s.last()}}, Events{})
	if err != nil || res.Logs != 2 || !f.has("0.drv") || !f.has("1.drv") {
		t.Errorf("%+v, %v; the server has logs %q", res, err, f.logs)
	}
}
