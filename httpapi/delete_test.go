package httpapi_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// deleter records what it is asked for.
type deleter struct {
	asked  []httpapi.DeleteRequest
	report httpapi.DeleteReport
	err    error
}

func (d *deleter) Delete(_ context.Context, r httpapi.DeleteRequest) (httpapi.DeleteReport, error) {
	d.asked = append(d.asked, r)
	return d.report, d.err
}

const deletePathsOfC = "/_api/v1/caches/c/delete-paths"

func TestDeletePaths(t *testing.T) {
	goneBy := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	gone := mkPath(t, "gone", 2, 500).Info.StorePath.HashPart()
	d := &deleter{report: httpapi.DeleteReport{
		Paths:   []httpapi.DeletedPath{{StorePath: "/nix/store/x", NarBytes: 5, FreedBytes: 3}},
		Weighed: true, FreedBytes: 3, Former: 4, GoneBy: goneBy, Referrers: []string{"/nix/store/y"}, Elsewhere: []string{"mine", "theirs", "others"},
		ClosureUnknown: []nix.HashPart{gone}, Waiting: []nix.HashPart{gone, gone},
	}}
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.Deleter = d })
	n.mkCache("c", false)
	hashPart := mkPath(t, "p", 1, 500).Info.StorePath.HashPart()
	token := n.token("c: delete", "mine: pull")

	var got wire.DeleteReport
	r := n.call("POST", deletePathsOfC, token, wire.DeleteRequest{Paths: []string{hashPart.String()}, Closure: true, Now: true}).want(t, 200, "")
	r.json(t, &got)
	want := wire.DeleteReport{
		Paths:      []wire.DeletedPath{{StorePath: "/nix/store/x", NarBytes: 5, FreedBytes: new(int64(3))}},
		FreedBytes: new(int64(3)), Former: 4, GoneBy: &goneBy, Referrers: []string{"/nix/store/y"}, Elsewhere: []string{"mine"}, Hidden: 2,
		ClosureUnknown: []string{gone.String()}, Waiting: []string{gone.String(), gone.String()},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if strings.Contains(string(r.body), "theirs") {
		t.Errorf("a cache is named to one who may not know of it: %s", r.body)
	}
	if r.Header.Get(wire.HeaderSeq) == "" {
		t.Error("a write answers without its position")
	}
	r = n.call("POST", deletePathsOfC, token, wire.DeleteRequest{Paths: []string{hashPart.String()}, DryRun: true}).want(t, 200, "")
	if r.Header.Get(wire.HeaderSeq) != "" || !strings.Contains(string(r.body), `"dry_run":true`) {
		t.Errorf("a dry run: %s", r.body)
	}
	n.call("DELETE", "/_api/v1/caches/c/paths/"+hashPart.String(), token, nil).want(t, 200, "")
	one := httpapi.DeleteRequest{Cache: "c", Paths: d.asked[0].Paths, By: "tester"}
	all, dry := one, one
	all.Closure, all.Now, dry.DryRun = true, true, true
	if diff := cmp.Diff([]httpapi.DeleteRequest{all, dry, one}, d.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}

	d.report = httpapi.DeleteReport{Former: 1}
	n.call("DELETE", "/_api/v1/caches/c/paths/"+hashPart.String(), token, nil).want(t, 404, wire.ErrorNoSuchObject)
	d.err = fmt.Errorf("delete: %w", &httpapi.PinnedError{StorePath: "/nix/store/x", Pin: "main", Root: "/nix/store/root"})
	if r := n.call("POST", deletePathsOfC, token, wire.DeleteRequest{Paths: []string{hashPart.String()}}).want(t, 409, wire.ErrorPinned); !strings.Contains(string(r.body), "/nix/store/root needs it") {
		t.Errorf("%s", r.body)
	}
	d.err = catalog.ErrNoPath
	n.call("POST", deletePathsOfC, token, wire.DeleteRequest{Paths: []string{hashPart.String()}}).want(t, 404, wire.ErrorNoSuchObject)
}

func TestDeletePathsRefused(t *testing.T) {
	d := &deleter{}
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.Deleter = d })
	n.mkCache("c", true)
	ask := wire.DeleteRequest{Paths: []string{strings.Repeat("0", 32)}}
	n.call("POST", deletePathsOfC, "", ask).want(t, 403, wire.ErrorAccess) // public
	n.call("POST", deletePathsOfC, n.token("c: pull push pin destroy-cache"), ask).want(t, 403, wire.ErrorAccess)
	n.call("POST", "/_api/v1/caches/absent/delete-paths", n.token("c: delete"), ask).want(t, 401, wire.ErrorUnauthorized)
	token := n.token("c: delete")
	n.call("POST", deletePathsOfC, token, wire.DeleteRequest{Paths: []string{}}).want(t, 400, wire.ErrorRequest)
	n.call("POST", deletePathsOfC, token, wire.DeleteRequest{Paths: []string{"hello"}}).want(t, 400, wire.ErrorRequest)
	n.call("POST", deletePathsOfC, token, wire.DeleteRequest{Paths: make([]string, 10_001)}).want(t, 400, wire.ErrorRequest)
	n.call("POST", deletePathsOfC, token, `{"paths":7}`, "Content-Type", "application/json").want(t, 422, "")
	n.call("GET", deletePathsOfC, token, nil).want(t, 405, "")
	if len(d.asked) > 0 {
		t.Errorf("asked for %+v", d.asked)
	}
}

// TestWithdrawer: a server without a collector deletes what it can.
func TestWithdrawer(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p, q := mkPath(t, "p", 1, 500), mkPath(t, "q", 2, 500)
	n.push("c", p)
	hashPart, absent := p.Info.StorePath.HashPart(), q.Info.StorePath.HashPart()
	n.call("POST", deletePathsOfC, n.root(), wire.DeleteRequest{Paths: []string{hashPart.String()}, Closure: true}).want(t, 501, wire.ErrorNotSupported)
	n.call("POST", deletePathsOfC, n.root(), wire.DeleteRequest{Paths: []string{hashPart.String(), absent.String()}}).want(t, 404, wire.ErrorNoSuchObject)
	n.call("POST", deletePathsOfC, n.root(), wire.DeleteRequest{Paths: []string{hashPart.String()}, DryRun: true}).want(t, 200, "")
	n.narInfo("c", hashPart, n.root())
	var got wire.DeleteReport
	n.call("POST", deletePathsOfC, n.root(), wire.DeleteRequest{Paths: []string{hashPart.String()}}).want(t, 200, "").json(t, &got)
	if len(got.Paths) != 1 || got.Paths[0].StorePath != pathOf(p) || got.GoneBy != nil || got.FreedBytes != nil {
		t.Errorf("%+v", got)
	}
	n.absent("c", hashPart)
}
