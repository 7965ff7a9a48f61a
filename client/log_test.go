package client

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// loggedStore is a fakeStore with logs of builds.
type loggedStore struct {
	fakeStore
	logs map[string]string
}

func (s *loggedStore) BuildLog(drv string) ([]byte, bool, error) {
	text, ok := s.logs[drv]
	if text == "broken" {
		return nil, false, errors.New("the log is broken")
	}
	return []byte(text), ok, nil
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
				t.Error(err)
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
