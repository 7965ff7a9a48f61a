package httpapi_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// uses records what the handler reports.
type uses struct {
	mu         sync.Mutex // guards what follows
	downloaded []string
	present    []string
	err        error
	meanwhile  func() // happens before a use is recorded; nil: none is
}

func (u *uses) Downloaded(cache catalog.CacheName, hashPart nix.HashPart) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.downloaded = append(u.downloaded, string(cache)+" "+hashPart.String())
}

func (u *uses) Present(_ context.Context, cache catalog.CacheName, hashParts []nix.HashPart) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, hashPart := range hashParts {
		u.present = append(u.present, string(cache)+" "+hashPart.String())
	}
	if u.meanwhile != nil {
		u.meanwhile()
		return true, u.err
	}
	return false, u.err
}

func (u *uses) take() (downloaded, present []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	downloaded, present = u.downloaded, u.present
	u.downloaded, u.present = nil, nil
	return downloaded, present
}

// TestUses: what counts as use is a NAR that is sent, and "present" answered to a pusher.
func TestUses(t *testing.T) {
	u := &uses{}
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.Uses = u })
	n.mkCache("c", false)
	p, absent := mkPath(t, "p", 1, 5000), mkPath(t, "q", 2, 500)
	n.push("c", p)
	hashPart := p.Info.StorePath.HashPart()
	url := "/c/" + n.narInfo("c", hashPart, n.root()).URL
	entry := "c " + hashPart.String()
	check := func(what string, downloaded, present []string) {
		t.Helper()
		d, p := u.take()
		if !slices.Equal(d, downloaded) || !slices.Equal(p, present) {
			t.Errorf("%s: downloaded %q and present %q, want %q and %q", what, d, p, downloaded, present)
		}
	}
	check("a push and a narinfo", nil, nil)
	n.call("HEAD", url, n.root(), nil).want(t, 200, "")
	check("HEAD of a NAR", nil, nil)
	n.call("GET", url, n.root(), nil).want(t, 200, "")
	check("a NAR", []string{entry}, nil)
	n.call("GET", "/c/nar/"+hashPart.String()+".nar", n.root(), nil, "Range", "bytes=0-1").want(t, 206, "")
	check("a range of the alias", []string{entry}, nil)
	n.call("GET", url, n.token("other: pull"), nil).want(t, 401, "")
	check("a NAR refused", nil, nil)

	ask := wire.MissingPathsRequest{Cache: "c", StorePathHashes: []string{hashPart.String(), absent.Info.StorePath.HashPart().String(), hashPart.String()}}
	n.call("POST", "/_api/v1/get-missing-paths", n.root(), ask).want(t, 200, "")
	_, present := u.take()
	if present = slices.Compact(present); !slices.Equal(present, []string{entry}) {
		t.Errorf("present: %q", present)
	}
	n.call("POST", "/_api/v1/get-missing-paths", n.token("c: pull"), ask).want(t, 403, "")
	check("a question refused", nil, nil)

	// Present that could not be noted is not answered.
	u.err = errors.Join(catalog.ErrUnavailable)
	n.call("POST", "/_api/v1/get-missing-paths", n.root(), ask).want(t, 503, wire.ErrorUnavailable)
	ask.StorePathHashes = ask.StorePathHashes[1:2]
	n.call("POST", "/_api/v1/get-missing-paths", n.root(), ask).want(t, 200, "")

	// What goes before its use is recorded is missing after all.
	u.err = nil
	q := mkPath(t, "r", 3, 500)
	n.push("c", q)
	ask.StorePathHashes = []string{q.Info.StorePath.HashPart().String()}
	u.meanwhile = func() {
		if _, err := n.cat.Withdraw(t.Context(), "c", q.Info.StorePath.HashPart()); err != nil {
			t.Error(err)
		}
	}
	var missing wire.MissingPathsResponse
	n.call("POST", "/_api/v1/get-missing-paths", n.root(), ask).want(t, 200, "").json(t, &missing)
	if !slices.Equal(missing.MissingPaths, ask.StorePathHashes) {
		t.Errorf("missing %q, want %q", missing.MissingPaths, ask.StorePathHashes)
	}
	u.meanwhile = nil

	// A NAR that was withdrawn is sent, but nothing is used by that.
	n.call("DELETE", "/_api/v1/caches/c/paths/"+hashPart.String(), n.root(), nil).want(t, 200, "")
	u.take()
	n.call("GET", url, n.root(), nil).want(t, 200, "")
	check("a withdrawn NAR", nil, nil)
}
