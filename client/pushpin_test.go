package client

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/httpapi/wire"
)

// mkPinServer is a server that can pin, and its store: p0 ← p1 ← p2, and p3 alone.
func mkPinServer(t *testing.T) (*fakeServer, *fakeStore) {
	t.Helper()
	server := newFakeServer(t)
	server.config.Celler = &wire.Capabilities{Version: 2, Permissions: []string{"pull", "push", "pin"}}
	store := &fakeStore{}
	zero := store.add("zero")
	one := store.add("one", zero)
	store.add("two", one)
	store.add("three")
	return server, store
}

func (s *fakeStore) path(i int) string { return s.infos[i].StorePath.String() }

func (f *fakeServer) pins() (pins []string) {
	for _, entry := range f.order {
		if strings.HasPrefix(entry, "pin ") {
			pins = append(pins, entry)
		}
	}
	return pins
}

func TestPushPin(t *testing.T) {
	server, store := mkPinServer(t)
	var rec recorder
	c := mustServe(t, server)
	push := func(paths []string, pins ...string) Result {
		t.Helper()
		result, err := c.Push(t.Context(), store, PushOptions{Cache: "ci", Paths: paths, Pins: pins}, rec.events())
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	// The pin rides on the upload of its path, which is the last of its closure.
	if result := push([]string{store.path(2)}, "main"); result.Pinned != 1 || result.Unpinned != 0 || result.Pushed != 4 {
		t.Errorf("%+v", result)
	}
	if at := slices.Index(server.order, "pin main p2 upload"); at < 0 ||
		slices.ContainsFunc(server.order[at:], func(s string) bool { return strings.HasSuffix(s, "-p0") || strings.HasSuffix(s, "-p1") }) {
		t.Errorf("order: %q", server.order)
	}
	if !slices.Equal(rec.pinned, []string{"main"}) {
		t.Errorf("reported: %q", rec.pinned)
	}

	// There already, it is pinned by itself; several paths and names go together in order.
	server.order = nil
	if result := push([]string{store.path(2), store.path(0), store.path(2)}, "b", "a", "c"); result.Pinned != 3 || result.Pushed != 0 {
		t.Errorf("%+v", result)
	}
	if diff := cmp.Diff([]string{"pin a p0 later", "pin b p2 later", "pin c p2 later"}, server.order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}

	// In a dry run nothing is pinned.
	server.order = nil
	if _, err := c.Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.path(2)}, Pins: []string{"x"}, DryRun: true}, Events{}); err != nil || len(server.order) > 0 {
		t.Errorf("%v, %q", err, server.order)
	}
	if _, err := c.Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.path(2)}, Pins: []string{"x", "y"}}, Events{}); err == nil {
		t.Error("two pins for one path are taken")
	}
}

// TestPushPinUpstream: a path that is to be pinned is pushed though an upstream cache has it.
func TestPushPinUpstream(t *testing.T) {
	server, store := mkPinServer(t)
	sig := mustSignature(t, "cache.nixos.org-1")
	for i := range store.infos {
		store.infos[i].Sigs = append(store.infos[i].Sigs, sig)
	}
	result, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.path(2)}, Pins: []string{"main"}}, Events{})
	if err != nil || result.Pushed != 1 || result.Upstream != 3 || result.Pinned != 1 {
		t.Errorf("%+v, %v", result, err)
	}
}

// TestPushPinIncomplete: what a pin names is complete, or the pin stays where it was.
func TestPushPinIncomplete(t *testing.T) {
	for _, present := range []bool{false, true} {
		server, store := mkPinServer(t)
		if present {
			server.have[store.infos[2].StorePath.Base()] = true
		}
		server.script = func(_ int, w http.ResponseWriter, r *http.Request, info wire.UploadInfo) bool {
			if strings.HasSuffix(info.StorePath, "-p0") {
				_, _ = io.Copy(io.Discard, r.Body)
				refuse(w, http.StatusBadRequest, wire.ErrorRequest, "no")
				return true
			}
			return false
		}
		result, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.path(2)}, Pins: []string{"main"}}, Events{})
		if err != nil || !result.Incomplete() || result.Unpinned != 1 || result.Pinned != 0 || len(server.pins()) > 0 {
			t.Errorf("present %v: %+v, %v; %q", present, result, err, server.order)
		}
	}
}

// TestPushPinVanished: what was present and is gone when it is to be pinned is pushed
// again, once.
func TestPushPinVanished(t *testing.T) {
	server, store := mkPinServer(t)
	for i := range store.infos {
		server.have[store.infos[i].StorePath.Base()] = true
	}
	times := 0
	server.gone = func(string) bool { times++; return times == 1 }
	result, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.path(2)}, Pins: []string{"main"}}, Events{})
	if err != nil || result.Pushed != 1 || result.Pinned != 1 || !slices.Equal(server.pins(), []string{"pin main p2 upload"}) {
		t.Errorf("%+v, %v; %q", result, err, server.order)
	}

	// Two names for one path that goes each time: it is not tried for ever.
	server.gone = func(string) bool { return true }
	result, err = mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.path(3), store.path(3)}, Pins: []string{"a", "b"}}, Events{})
	if !errors.Is(err, errVanished) || result.Unpinned == 0 {
		t.Errorf("%+v, %v", result, err)
	}
}

// TestPushPinRefused: that nobody may pin is found out before anything is pushed.
func TestPushPinRefused(t *testing.T) {
	for name, c := range map[string]struct {
		celler *wire.Capabilities
		right  bool
	}{
		"Attic":        {nil, false},
		"an older one": {&wire.Capabilities{Version: 1}, false},
		"no right":     {&wire.Capabilities{Version: 2, Permissions: []string{"pull", "push"}}, true},
	} {
		server, store := mkPinServer(t)
		server.config.Celler = c.celler
		_, err := mustServe(t, server).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{store.path(2)}, Pins: []string{"main"}}, Events{})
		if got, ok := errors.AsType[*CannotPinError](err); !ok || got.Right != c.right || server.uploads > 0 {
			t.Errorf("%s: %v after %d uploads", name, err, server.uploads)
		}
	}
}

// TestPushPinLostAnswer: an upload whose answer was lost is not sent again if its path
// is there, but its pin is made sure of.
func TestPushPinLostAnswer(t *testing.T) {
	server, store := mkPinServer(t)
	large := store.add(strings.Repeat("x", 2*askFirst))
	lost := false
	server.script = func(_ int, _ http.ResponseWriter, r *http.Request, info wire.UploadInfo) bool {
		if info.StorePath != large.String() || lost {
			return false
		}
		lost = true
		_, _ = io.Copy(io.Discard, r.Body)
		server.took(info)
		panic(http.ErrAbortHandler)
	}
	result, err := mustServe(t, quiet(server)).Push(t.Context(), store, PushOptions{Cache: "ci", Paths: []string{large.String()}, Pins: []string{"main"}}, Events{})
	if err != nil || result.Pinned != 1 || !slices.Equal(server.pins(), []string{"pin main p4 later"}) {
		t.Errorf("%+v, %v; %q", result, err, server.order)
	}
}

func TestPinsPath(t *testing.T) {
	if got, want := pinsPath("ci", "release/a:b@c"), "_api/v1/caches/ci/pins/release/a:b@c"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
