package httpapi_test

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// askPaths asks about closures.
func (n *node) askPaths(cache, token string, hashParts ...nix.HashPart) response {
	n.t.Helper()
	return n.call("POST", "/_api/v1/delta/"+cache+"/paths?version=1", token, wire.AppendHashParts(nil, hashParts), "Content-Type", wire.DeltaContentType)
}

// TestDeltaPaths asks about closures that are whole, that lack something, and that are not there.
func TestDeltaPaths(t *testing.T) {
	u := &uses{}
	n := mkNode(t, nil, withDelta, func(o *nodeOptions) { o.http.Uses = u })
	n.mkCache("ci", false)
	n.mkCache("other", false)
	var config wire.CacheConfig
	n.call("GET", "/_api/v1/cache-config/ci", n.root(), nil).want(t, 200, "").json(t, &config)
	if config.Celler == nil || !config.Celler.Closures {
		t.Errorf("capabilities %+v announce no questions about closures", config.Celler)
	}
	gone := mkPath(t, "gone", 1, 300)
	low := mkPath(t, "low", 2, 300)
	mid := mkPath(t, "mid", 3, 300, low.Info.StorePath)
	top := mkPath(t, "top", 4, 300, gone.Info.StorePath, mid.Info.StorePath)
	n.push("ci", low, mid, top)
	n.push("other", gone)
	part := func(p interface{ HashPart() nix.HashPart }) nix.HashPart { return p.HashPart() }
	lowPart, midPart, topPart, gonePart := part(low.Info.StorePath), part(mid.Info.StorePath), part(top.Info.StorePath), part(gone.Info.StorePath)
	u.take()

	check := func(text string, want wire.PathsResult, ask ...nix.HashPart) {
		t.Helper()
		res := n.askPaths("ci", n.token("ci: push"), ask...).want(t, 200, "")
		if text != "" && string(bytes.TrimSpace(res.body)) != text {
			t.Errorf("answer %s, want %s", res.body, text)
		}
		if res.Header.Get(wire.HeaderSeq) == "" {
			t.Error("the answer does not say as of when it is")
		}
		var got wire.PathsResult
		res.json(t, &got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		_, present := u.take()
		var told []string
		for i, hashPart := range ask {
			if !want.Missing.Has(i) {
				told = append(told, "ci "+hashPart.String())
			}
		}
		if !slices.Equal(present, told) {
			t.Errorf("used are %q, want %q: what was asked about and is there", present, told)
		}
	}
	check(`{"missing":"AA==","closure":{"paths":2,"absent":0}}`, wire.PathsResult{Missing: wire.Bitmap{0}, Closure: &wire.Closure{Paths: 2}}, midPart)
	check(`{"missing":"AQ==","closure":{"paths":0,"absent":0}}`, wire.PathsResult{Missing: wire.Bitmap{1}, Closure: &wire.Closure{}}, gonePart)
	sum := sha256.Sum256(gonePart[:])
	check("", wire.PathsResult{Missing: wire.Bitmap{0}, Closure: &wire.Closure{Paths: 3, Absent: 1, AbsentSum: sum[:16]}}, topPart)
	check("", wire.PathsResult{Missing: wire.Bitmap{2}, Closure: &wire.Closure{Paths: 3}}, topPart, gonePart, lowPart)
	check(`{"missing":"","closure":{"paths":0,"absent":0}}`, wire.PathsResult{Missing: wire.Bitmap{}, Closure: &wire.Closure{}})

	// What goes before its use is recorded is missing after all.
	u.meanwhile = func() {
		if _, err := n.cat.Withdraw(t.Context(), "ci", lowPart); err != nil {
			t.Error(err)
		}
	}
	sum = sha256.Sum256(lowPart[:])
	check("", wire.PathsResult{Missing: wire.Bitmap{0}, Closure: &wire.Closure{Paths: 1, Absent: 1, AbsentSum: sum[:16]}}, midPart)
}

// TestDeltaPathsRefused: who may not push is told nothing, and what is no question is refused.
func TestDeltaPathsRefused(t *testing.T) {
	u := &uses{}
	n := mkNode(t, nil, withDelta, func(o *nodeOptions) { o.http.Uses = u })
	n.mkCache("ci", true)
	p := mkPath(t, "p", 1, 300)
	n.push("ci", p)
	u.take()
	hashPart := p.Info.StorePath.HashPart()
	n.askPaths("ci", n.token("ci: pull"), hashPart).want(t, 403, "")
	n.askPaths("ci", "", hashPart).want(t, 403, "")
	n.askPaths("none", n.root(), hashPart).want(t, 404, wire.ErrorNoSuchCache)
	url := "/_api/v1/delta/ci/paths"
	binary := []string{"Content-Type", wire.DeltaContentType}
	n.call("POST", url+"?version=2", n.root(), hashPart[:], binary...).want(t, 400, wire.ErrorUnsupportedVersion)
	n.call("POST", url, n.root(), hashPart[:]).want(t, 415, "")
	n.call("POST", url, n.root(), hashPart[:19], binary...).want(t, 400, wire.ErrorRequest)
	n.call("POST", url, n.root(), append(hashPart[:], 'x'), binary...).want(t, 400, wire.ErrorRequest)
	n.call("GET", url, n.root(), nil).want(t, 405, "")
	most := make([]byte, wire.DeltaQueryPaths*wire.HashPartBytes)
	n.call("POST", url, n.root(), append(most, hashPart[:]...), binary...).want(t, 413, "")
	if _, present := u.take(); len(present) > 0 {
		t.Errorf("used are %q, by questions that were refused", present)
	}
	for i := range wire.DeltaQueryPaths - 1 {
		most[i*wire.HashPartBytes+1], most[i*wire.HashPartBytes+2] = byte(i), byte(i>>8)
	}
	copy(most[len(most)-wire.HashPartBytes:], hashPart[:])
	var got wire.PathsResult
	n.call("POST", url, n.root(), most, binary...).want(t, 200, "").json(t, &got)
	if got.Closure == nil || got.Closure.Paths != 1 || got.Missing.Has(wire.DeltaQueryPaths-1) || !got.Missing.Has(0) || !got.Missing.Has(wire.DeltaQueryPaths-2) {
		t.Errorf("the longest question: closure %+v", got.Closure)
	}
	for status, other := range map[int]*node{
		405: mkNode(t, n.bucket, withDelta, func(o *nodeOptions) { o.http.Past = "yesterday" }),
		404: mkNode(t, n.bucket),
	} {
		var config wire.CacheConfig
		other.call("GET", "/_api/v1/cache-config/ci", other.root(), nil).want(t, 200, "").json(t, &config)
		if config.Celler.Closures {
			t.Error("questions about closures are announced by a server that answers none")
		}
		other.askPaths("ci", other.root(), hashPart).want(t, status, "")
	}
}
