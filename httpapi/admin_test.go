package httpapi_test

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
)

func sum256(b []byte) [32]byte { return sha256.Sum256(b) }

func TestListCaches(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("shut", false)
	n.mkCache("open", true)
	n.mkCache("mine", false)
	f := func(token string, want ...string) {
		t.Helper()
		var list wire.CacheList
		n.call("GET", "/_api/v1/caches", token, nil).want(t, 200, "").json(t, &list)
		got := []string{}
		for _, c := range list.Caches {
			got = append(got, c.Name+":"+strings.Join(c.Permissions, ","))
			if c.PublicKey == "" || c.StoreDir != "/nix/store" || c.Created.IsZero() {
				t.Errorf("%+v", c)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("caches %q, want %q", got, want)
		}
	}
	f("", "open:pull")
	f(n.token("mine: push"), "mine:push", "open:pull")
	f(n.token("*: pull"), "mine:pull", "open:pull", "shut:pull")
	empty := mkNode(t, nil)
	if r := empty.call("GET", "/_api/v1/caches", "", nil).want(t, 200, ""); string(r.body) != `{"caches":[]}` {
		t.Errorf("no caches: %s", r.body)
	}
}

func TestPaths(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	var want []string
	for i := range 7 {
		p := mkPath(t, "p"+string(rune('a'+i)), uint64(i), 500)
		n.push("c", p)
		want = append(want, p.Info.StorePath.HashPart().String())
	}
	token := n.token("c: pull")
	for _, limit := range []string{"1", "2", "3", "7", "8", "5000"} {
		var got []string
		after := ""
		for {
			var page wire.PathList
			n.call("GET", "/_api/v1/caches/c/paths?limit="+limit+"&after="+after, token, nil).want(t, 200, "").json(t, &page)
			for _, p := range page.Paths {
				got = append(got, p.HashPart)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		sorted := slices.Clone(got)
		slices.Sort(sorted)
		wantSorted := slices.Clone(want)
		slices.Sort(wantSorted)
		if !slices.Equal(sorted, wantSorted) {
			t.Errorf("pages of %s: %q, want %q", limit, sorted, wantSorted)
		}
	}
	var one wire.PathInfo
	n.call("GET", "/_api/v1/caches/c/paths/"+want[0], token, nil).want(t, 200, "").json(t, &one)
	if one.HashPart != want[0] || one.CreatedBy != "tester" || len(one.Sigs) != 1 || one.NarSize == 0 || one.FileSize == 0 || one.References == nil {
		t.Errorf("%+v", one)
	}
	n.call("DELETE", "/_api/v1/caches/c/paths/"+want[0], token, nil).want(t, 403, wire.ErrorAccess)
	r := n.call("DELETE", "/_api/v1/caches/c/paths/"+want[0], n.token("c: delete"), nil).want(t, 200, "")
	if r.Header.Get(wire.HeaderSeq) == "" || len(r.body) != 0 {
		t.Errorf("delete: seq %q, body %q", r.Header.Get(wire.HeaderSeq), r.body)
	}
	n.call("GET", "/c/"+want[0]+".narinfo", token, nil).want(t, 404, wire.ErrorNoSuchObject)
	n.call("DELETE", "/_api/v1/caches/c/paths/"+want[0], n.root(), nil).want(t, 404, wire.ErrorNoSuchObject)
	// Destroyed and made again, a cache is empty.
	n.call("DELETE", "/_api/v1/cache-config/c", n.root(), nil).want(t, 200, "")
	n.mkCache("c", false)
	n.call("GET", "/c/"+want[1]+".narinfo", token, nil).want(t, 404, wire.ErrorNoSuchObject)
}

// TestWhoIsNotForEverybody: a public cache tells its content to all, and who brought it only
// to those whose own token names it.
func TestWhoIsNotForEverybody(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	n.mkCache("d", true)
	p := mkPath(t, "p", 1, 500)
	n.push("c", p)
	n.pin(n.token("c: pin"), "x", p, nil)
	path := "/_api/v1/caches/c/paths"
	for token, want := range map[string]string{"": "", n.token("d: pull"): "", n.token("c: pull"): "tester", n.token("c: pin"): "tester"} {
		var page wire.PathList
		var one wire.PathInfo
		var pins wire.PinList
		var history wire.PinHistory
		n.call("GET", path, token, nil).want(t, 200, "").json(t, &page)
		n.call("GET", path+"/"+p.Info.StorePath.HashPart().String(), token, nil).want(t, 200, "").json(t, &one)
		n.call("GET", pinsOfC, token, nil).want(t, 200, "").json(t, &pins)
		n.call("GET", pinsOfC+"/x", token, nil).want(t, 200, "").json(t, &history)
		for what, who := range map[string]string{
			"a page": page.Paths[0].CreatedBy, "a path": one.CreatedBy, "pins": pins.Pins[0].CreatedBy,
			"a pin": history.Pin.CreatedBy, "its history": history.Revisions[0].CreatedBy,
		} {
			if who != want {
				t.Errorf("%s says it was %q to %q, want %q", what, who, token, want)
			}
		}
	}
}

func TestMintToken(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("team-a", false)
	ask := func(token string, body any) response {
		t.Helper()
		return n.call("POST", "/_api/v1/tokens", token, body)
	}
	request := func(pattern string, rights ...string) wire.TokenRequest {
		return wire.TokenRequest{Subject: "ci", ValidFor: 3600, Rules: []wire.TokenRule{{Pattern: pattern, Permissions: rights}}}
	}
	var got wire.TokenResponse
	ask(n.token("team-*: pull push"), request("team-*", "pull")).want(t, 200, "").json(t, &got)
	if d := time.Until(got.Expires); got.ID == "" || d < 58*time.Minute || d > time.Hour {
		t.Errorf("%+v", got)
	}
	n.call("GET", "/team-a/nix-cache-info", got.Token, nil).want(t, 200, "")
	seen, err := auth.Inspect(got.Token)
	if err != nil || seen.Claims.Subject != "ci" || seen.Claims.ID != got.ID {
		t.Errorf("%+v, %v", seen, err)
	}
	ask(n.token("team-*: pull"), request("team-*", "push")).want(t, 403, wire.ErrorAccess)
	ask(n.token("team-*: pull"), request("*", "pull")).want(t, 403, wire.ErrorAccess)
	twice := request("team-a", "pull")
	twice.Rules = append(twice.Rules, wire.TokenRule{Pattern: "team-*", Permissions: []string{"pull"}}, wire.TokenRule{Pattern: "team-a", Permissions: []string{"push"}})
	ask(n.root(), twice).want(t, 400, wire.ErrorRequest) // the token would not be believed
	ask("", request("team-a", "pull")).want(t, 401, wire.ErrorUnauthorized)
	ask(n.root(), request("team a", "pull")).want(t, 400, wire.ErrorRequest)
	ask(n.root(), request("team-a", "fly")).want(t, 400, wire.ErrorRequest)
	ask(n.root(), wire.TokenRequest{Subject: "ci", ValidFor: 0, Rules: request("x", "pull").Rules}).want(t, 400, wire.ErrorRequest)
	ask(n.root(), wire.TokenRequest{Subject: "", ValidFor: 1, Rules: request("x", "pull").Rules}).want(t, 400, wire.ErrorRequest)
	ask(n.root(), wire.TokenRequest{Subject: "ci", ValidFor: 1, Rules: []wire.TokenRule{}}).want(t, 400, wire.ErrorRequest)
	// Not for longer than the caller's own.
	long := request("*", "pull")
	long.ValidFor = 86400 * 365
	ask(n.root(), long).want(t, 200, "").json(t, &got)
	if time.Until(got.Expires) > time.Hour {
		t.Errorf("the token outlives its maker's: %v", got.Expires)
	}
}
