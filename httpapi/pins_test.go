package httpapi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix/nixtest"
)

const pinsOfC = "/_api/v1/caches/c/pins"

func pathOf(p nixtest.Path) string { return p.Info.StorePath.String() }

func (n *node) pin(token, name string, p nixtest.Path, policy *wire.PinPolicy) wire.Pin {
	n.t.Helper()
	var pin wire.Pin
	r := n.call("PUT", pinsOfC+"/"+name, token, wire.PinRequest{StorePath: pathOf(p), Policy: policy}).want(n.t, 200, "")
	if r.Header.Get(wire.HeaderSeq) == "" {
		n.t.Error("a write answers without its position")
	}
	r.json(n.t, &pin)
	return pin
}

func (n *node) pins(token string) []wire.Pin {
	n.t.Helper()
	var list wire.PinList
	n.call("GET", pinsOfC, token, nil).want(n.t, 200, "").json(n.t, &list)
	return list.Pins
}

func TestPins(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	token := n.token("c: pin")
	if r := n.call("GET", pinsOfC, token, nil).want(t, 200, ""); string(r.body) != `{"pins":[]}` {
		t.Errorf("no pins: %s", r.body)
	}
	lib := mkPath(t, "lib", 1, 3000)
	one := mkPath(t, "one", 2, 3000, lib.Info.StorePath)
	two := mkPath(t, "two", 3, 3000, lib.Info.StorePath)
	n.push("c", lib, one)

	// A path that is not there yet is waited for.
	waiting := n.pin(token, "next", two, nil)
	if !waiting.Waiting || waiting.Revision != 1 || waiting.Kept != 1 || waiting.CreatedBy != "tester" || waiting.Created.IsZero() || waiting.StorePath != pathOf(two) {
		t.Errorf("a waiting pin: %+v", waiting)
	}
	if pin := n.pin(token, "release/24.05", one, &wire.PinPolicy{KeepRevisions: 2}); pin.Waiting || pin.Policy != (wire.PinPolicy{KeepRevisions: 2}) {
		t.Errorf("a pin: %+v", pin)
	}
	n.push("c", two)
	got := n.pins(n.token("c: pull"))
	if len(got) != 2 || got[0].Name != "next" || got[0].Waiting || got[1].Name != "release/24.05" {
		t.Fatalf("pins: %+v", got)
	}

	// Each holds itself and the library; alone it holds itself.
	size := func(paths ...nixtest.Path) (h wire.Holding) {
		for _, p := range paths {
			h.Paths, h.NarBytes = h.Paths+1, h.NarBytes+int64(len(p.NAR))
			h.FileBytes += n.narInfo("c", p.Info.StorePath.HashPart(), n.root()).FileSize
		}
		return h
	}
	for i, p := range []nixtest.Path{two, one} {
		if diff := cmp.Diff([]wire.Holding{size(lib, p), size(p)}, []wire.Holding{*got[i].Closure, *got[i].Only}); diff != "" {
			t.Errorf("%s holds (-want +got):\n%s", got[i].Name, diff)
		}
	}

	// The same again is no further revision; another path is, and the policy stays.
	if pin := n.pin(token, "release/24.05", one, nil); pin.Revision != 1 || pin.Policy.KeepRevisions != 2 {
		t.Errorf("pinned again: %+v", pin)
	}
	if pin := n.pin(token, "release/24.05", two, nil); pin.Revision != 2 || pin.Kept != 2 {
		t.Errorf("moved: %+v", pin)
	}
	if pin := n.pin(token, "release/24.05", lib, nil); pin.Revision != 3 || pin.Kept != 2 {
		t.Errorf("moved again: %+v", pin)
	}
	var history wire.PinHistory
	n.call("GET", pinsOfC+"/release/24.05", token, nil).want(t, 200, "").json(t, &history)
	var kept []bool
	for i, rev := range history.Revisions {
		kept = append(kept, rev.Kept)
		if rev.Revision != uint64(3-i) || rev.CreatedBy != "tester" {
			t.Errorf("revision %d: %+v", i, rev)
		}
	}
	if !slices.Equal(kept, []bool{true, true, false}) || history.Pin.Revision != 3 || *history.Pin.Closure != size(lib, two) || *history.Pin.Only != (wire.Holding{}) {
		t.Errorf("history: %+v", history)
	}

	n.call("DELETE", pinsOfC+"/release/24.05", token, nil).want(t, 200, "")
	n.call("DELETE", pinsOfC+"/release/24.05", token, nil).want(t, 404, wire.ErrorNoSuchPin)
	n.call("GET", pinsOfC+"/release/24.05", token, nil).want(t, 404, wire.ErrorNoSuchPin)
	if got := n.pins(token); len(got) != 1 || *got[0].Only != size(lib, two) {
		t.Errorf("after removal: %+v", got)
	}
}

// TestPinPermissions: pinning is a right of its own, and a cache one has no right on
// does not show even its pins' absence.
func TestPinPermissions(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	n.mkCache("open", true)
	p := mkPath(t, "p", 1, 500)
	n.push("c", p)
	n.push("open", p)
	body := wire.PinRequest{StorePath: pathOf(p)}
	for _, c := range []struct {
		token       string
		read, write int
	}{
		{n.token("c: pin"), 200, 200},
		{n.token("c: pull"), 200, 403},
		{n.token("c: pull push delete create-cache configure-cache configure-cache-retention destroy-cache"), 200, 403},
		{n.token("c: push"), 403, 403},
		{n.token("other: pull push pin"), 401, 401},
		{"", 401, 401},
		{"nonsense", 401, 401},
	} {
		n.call("PUT", pinsOfC+"/x", c.token, body).want(t, c.write, "")
		n.call("GET", pinsOfC, c.token, nil).want(t, c.read, "")
		n.call("GET", pinsOfC+"/x", c.token, nil).want(t, c.read, "")
		if c.write != 200 {
			n.call("DELETE", pinsOfC+"/x", c.token, nil).want(t, c.write, "")
		}
		for _, path := range []string{"/_api/v1/caches/absent/pins", "/_api/v1/caches/absent/pins/x"} {
			n.call("GET", path, c.token, nil).want(t, 401, wire.ErrorUnauthorized)
		}
		n.call("PUT", "/_api/v1/caches/absent/pins/x", c.token, body).want(t, 401, wire.ErrorUnauthorized)
	}
	n.call("GET", "/_api/v1/caches/absent/pins", n.root(), nil).want(t, 404, wire.ErrorNoSuchCache)
	n.call("GET", "/_api/v1/caches/open/pins", "", nil).want(t, 200, "")
	n.call("PUT", "/_api/v1/caches/open/pins/x", "", body).want(t, 403, wire.ErrorAccess) // as everywhere: it is public, so it may be known of
}

func TestPinRequests(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p := mkPath(t, "p", 1, 500)
	token := n.token("c: pin")
	bad := func(status int, name, pin string, body any) {
		t.Helper()
		n.call("PUT", pinsOfC+"/"+pin, token, body, "Content-Type", "application/json").want(t, status, name)
	}
	bad(400, wire.ErrorRequest, "x", `{"store_path":"hello"}`)
	bad(400, wire.ErrorRequest, "x/", `{"store_path":"`+pathOf(p)+`"}`)
	bad(400, wire.ErrorRequest, "", `{"store_path":"`+pathOf(p)+`"}`)
	bad(400, wire.ErrorRequest, "x", `{"store_path":"/gnu/store/`+p.Info.StorePath.Base()+`"}`)
	bad(422, "", "x", `{"store_path":7}`)
	bad(422, "", "x", `{}`)
	bad(422, "", "x", `{"store_path":"`+pathOf(p)+`","policy":{"keep_days":-1}}`)
	bad(400, wire.ErrorRequest, "x", `{"store_path":"`+pathOf(p)+`","policy":{"keep_days":99999999}}`)
	bad(400, "", "x", `{`)
	bad(400, wire.ErrorRequest, "a%20b", `{"store_path":"`+pathOf(p)+`"}`)
	bad(404, wire.ErrorNotFound, "a//b", `{"store_path":"`+pathOf(p)+`"}`)
	bad(404, wire.ErrorNotFound, "..", `{"store_path":"`+pathOf(p)+`"}`)
	bad(400, wire.ErrorRequest, strings.Repeat("x", 201), `{"store_path":"`+pathOf(p)+`"}`)
	bad(404, wire.ErrorNoSuchObject, "x", wire.PinRequest{StorePath: pathOf(p), Present: true})
	if got := n.pins(token); len(got) != 0 {
		t.Errorf("a refused request has set %+v", got)
	}
	n.push("c", p)
	n.call("PUT", pinsOfC+"/x", token, wire.PinRequest{StorePath: pathOf(p), Present: true}).want(t, 200, "")
	n.call("POST", pinsOfC+"/x", token, nil).want(t, 405, "")
	n.call("PUT", pinsOfC, token, nil).want(t, 405, "")
}

// TestPinnedUpload: the pin and the path appear together or not at all.
func TestPinnedUpload(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	one, two := mkPath(t, "one", 1, 5000), mkPath(t, "two", 2, 5000)
	put := func(token string, p nixtest.Path, nar []byte, pin wire.PinRequest) response {
		info := infoOf("c", p)
		info.Pin = &pin
		return n.upload(token, info, nar)
	}
	token := n.token("c: push pull pin")
	put(n.token("c: push pull"), one, one.NAR, wire.PinRequest{Name: "main"}).want(t, 403, wire.ErrorAccess)
	n.absent("c", one.Info.StorePath.HashPart())

	var result wire.UploadResult
	put(token, one, one.NAR, wire.PinRequest{Name: "main", Policy: &wire.PinPolicy{KeepRevisions: 2}}).want(t, 200, "").json(t, &result)
	if result.Pin == nil || result.Pin.Waiting || result.Pin.Revision != 1 || result.Pin.StorePath != pathOf(one) || result.Pin.CreatedBy != "tester" {
		t.Fatalf("answer %+v, pin %+v", result, result.Pin)
	}
	narInfo := n.call("GET", "/c/"+one.Info.StorePath.HashPart().String()+".narinfo", token, nil).want(t, 200, "")
	if narInfo.Header.Get(wire.HeaderSeq) != "" {
		t.Error("a read names a position")
	}

	// Damaged, cut off, or with an impossible pin: neither.
	damaged := slices.Clone(two.NAR)
	damaged[len(damaged)/2] ^= 1
	put(token, two, damaged, wire.PinRequest{Name: "main"}).want(t, 400, wire.ErrorRequest)
	put(token, two, two.NAR[:100], wire.PinRequest{Name: "main"}).want(t, 400, wire.ErrorRequest)
	put(token, two, two.NAR, wire.PinRequest{Name: "no spaces"}).want(t, 400, wire.ErrorRequest)
	put(token, two, two.NAR, wire.PinRequest{Name: "main", Policy: &wire.PinPolicy{KeepRevisions: -1}}).want(t, 400, wire.ErrorRequest)
	n.absent("c", two.Info.StorePath.HashPart())
	if got := n.pins(token); len(got) != 1 || got[0].Revision != 1 || got[0].StorePath != pathOf(one) {
		t.Errorf("after refusals: %+v", got)
	}

	// Once more, as after an answer that was lost: no further revision.
	put(token, one, one.NAR, wire.PinRequest{Name: "main"}).want(t, 200, "").json(t, &result)
	if result.Kind != wire.KindDeduplicated || result.Pin == nil || result.Pin.Revision != 1 || result.Pin.Policy.KeepRevisions != 2 {
		t.Errorf("again: %+v, pin %+v", result, result.Pin)
	}
	put(token, two, two.NAR, wire.PinRequest{Name: "main"}).want(t, 200, "").json(t, &result)
	if result.Pin == nil || result.Pin.Revision != 2 || result.Pin.StorePath != pathOf(two) {
		t.Errorf("moved: %+v", result.Pin)
	}

	// A token for another cache pins nothing here.
	info := infoOf("c", two)
	info.Pin = &wire.PinRequest{Name: "main"}
	n.upload(n.token("other: push pin"), info, two.NAR).want(t, 401, wire.ErrorUnauthorized)
	if r := n.call("GET", pinsOfC+"/main", token, nil); r.StatusCode != http.StatusOK {
		t.Errorf("status %d", r.StatusCode)
	}
}

// TestPinnedPathStays: what a pin names cannot be deleted, and the answer says by which.
func TestPinnedPathStays(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p := mkPath(t, "p", 1, 500)
	n.push("c", p)
	hashPart := p.Info.StorePath.HashPart().String()
	n.pin(n.token("c: pin"), "main", p, nil)
	for _, r := range []response{
		n.call("DELETE", "/_api/v1/caches/c/paths/"+hashPart, n.root(), nil),
		n.call("POST", "/_api/v1/caches/c/delete-paths", n.root(), wire.DeleteRequest{Paths: []string{hashPart}}),
	} {
		if r.want(t, 409, wire.ErrorPinned); !strings.Contains(string(r.body), `kept by pin \"main\"`) {
			t.Errorf("%s", r.body)
		}
	}
	n.narInfo("c", p.Info.StorePath.HashPart(), n.root())
	n.call("DELETE", pinsOfC+"/main", n.root(), nil).want(t, 200, "")
	n.call("DELETE", "/_api/v1/caches/c/paths/"+hashPart, n.root(), nil).want(t, 200, "")
	n.absent("c", p.Info.StorePath.HashPart())
}
