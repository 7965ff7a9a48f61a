package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/compression"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// TestStrangersLearnNothing asks for everything that plain Nix may put beside a path, in a
// private cache that has it and in one that is not there: who has no right gets the same
// answers, to the header, whatever the verb; and who has one on another cache only, too.
func TestStrangersLearnNothing(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("here", false)
	n.mkCache("mine", false)
	p := nixtest.MkPath(t, "p", nixtest.Dir{"file": nixtest.Text("secret"), "out": nixtest.Link(nixtest.MkStorePath(t, "other").String())})
	sent := mkFile(t, compression.Xz, p.NAR)
	copyTo(t, "here", p, sent, n)
	base, part := p.Info.StorePath.Base(), p.Info.StorePath.HashPart().String()
	sides := []string{
		"log/" + base + ".drv", "debuginfo/abcd", "realisations/sha256:" + strings.Repeat("a", 64) + "!out.doi", "build-trace-v2/" + base + ".drv/out.doi",
	}
	for _, side := range sides {
		n.call("PUT", "/here/"+side, n.root(), "{}").want(t, 201, "")
	}
	objects := append([]string{
		part + ".narinfo", part + ".ls", "nar/" + sent.name, "nar/" + part + ".nar", "nix-cache-info",
		"serve/" + part, "serve/" + part + "/file", "serve/" + part + "/out/x", "serve/" + base + "/nothing",
	}, sides...)
	type answer struct {
		status int
		header string
		body   string
	}
	ask := func(method, cache, object, token string) answer {
		t.Helper()
		var body any
		if method == http.MethodPut {
			body = "{}"
		}
		r := n.call(method, "/"+cache+"/"+object, token, body)
		r.Header.Del("Date")
		r.Header.Del(wire.HeaderRequestID)
		return answer{r.StatusCode, fmt.Sprint(r.Header), strings.ReplaceAll(string(r.body), cache, "CACHE")}
	}
	for who, token := range map[string]string{"nobody": "", "a neighbour": n.token("mine:"), "a forger": "x.y.z"} {
		for _, object := range objects {
			for _, method := range []string{"GET", "HEAD", "PUT", "POST", "DELETE"} {
				got, want := ask(method, "here", object, token), ask(method, "gone", object, token)
				if got != want {
					t.Errorf("%s: %s %s: %+v if it is there, %+v if not", who, method, object, got, want)
				}
				if got.status < 400 {
					t.Errorf("%s: %s %s: %+v", who, method, object, got)
				}
			}
		}
	}
	// Who may only read writes nothing, and who may only push reads nothing.
	for _, object := range objects {
		if r := n.call("PUT", "/here/"+object, n.token("here: pull"), "{}"); r.StatusCode < 400 {
			t.Errorf("who may pull: PUT %s: %d", object, r.StatusCode)
		}
		if r := n.call("GET", "/here/"+object, n.token("here: push"), nil); r.StatusCode != 403 {
			t.Errorf("who may push: GET %s: %d", object, r.StatusCode)
		}
	}
}

// TestServedLinksStayBelow follows links out of a path that try to climb out of what is
// served of the store.
func TestServedLinksStayBelow(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	other := nixtest.MkStorePath(t, "other").String()
	p := nixtest.MkPath(t, "p", nixtest.Dir{
		"out": nixtest.Link(other), "climb": nixtest.Link("out/../../../_api/v1/stats"), "host": nixtest.Link("out/..//evil.example"),
		"dot": nixtest.Link("out/./a//b"), "back": nixtest.Link("out\\..\\..\\x\r\nSet-Cookie: a=b"),
	})
	n.push("c", p)
	root := "/c/serve/" + p.Info.StorePath.HashPart().String()
	for _, name := range []string{"/climb", "/host"} {
		if r := n.call("GET", root+name, "", nil); r.StatusCode != 404 {
			t.Errorf("%s: %d to %q", name, r.StatusCode, r.Header.Get("Location"))
		}
	}
	if r := n.call("GET", root+"/dot", "", nil).want(t, 302, ""); r.Header.Get("Location") != "/c/serve/"+nixtest.MkStorePath(t, "other").Base()+"/a/b" {
		t.Errorf("Location %q", r.Header.Get("Location"))
	}
	n.call("GET", root+"/back", "", nil).want(t, 404, "")
}

// TestListingsTakeNoMemory puts listings as long as they may be, which are dropped anyway.
func TestListingsTakeNoMemory(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	part := mkPath(t, "p", 1, 1000).Info.StorePath.HashPart().String()
	long := pack(t, compression.Gzip, append(append([]byte(`{"x":"`), bytes.Repeat([]byte("y"), 60<<20)...), `"}`...))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n.call("PUT", "/c/"+part+".ls", n.root(), long, "Content-Encoding", "gzip").want(t, 200, "")
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
		t.Errorf("%d bytes were allocated for a listing of 60 MiB that is dropped", got)
	}
	bomb := pack(t, compression.Gzip, append([]byte(`{`), bytes.Repeat([]byte(" "), 70<<20)...))
	n.call("PUT", "/c/"+part+".ls", n.root(), bomb, "Content-Encoding", "gzip").want(t, 413, wire.ErrorTooLarge)
}

// downloads counts them.
type downloads struct{ n atomic.Int64 }

func (d *downloads) Downloaded(catalog.CacheName, nix.HashPart) { d.n.Add(1) }
func (d *downloads) Present(context.Context, catalog.CacheName, []nix.HashPart) (bool, error) {
	return false, nil
}

// TestLookingIsNotUsing counts no download of what was not sent.
func TestLookingIsNotUsing(t *testing.T) {
	uses := &downloads{}
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.Uses = uses })
	n.mkCache("c", true)
	p := nixtest.MkPath(t, "p", nixtest.Dir{"file": nixtest.Text("text")})
	n.push("c", p)
	url := "/c/serve/" + p.Info.StorePath.HashPart().String() + "/file"
	n.call("HEAD", url, "", nil).want(t, 200, "")
	if uses.n.Load() != 0 {
		t.Error("a HEAD counts as a download")
	}
	n.call("GET", url, "", nil).want(t, 200, "")
	if uses.n.Load() != 1 {
		t.Errorf("%d downloads, want 1", uses.n.Load())
	}
}

// TestRangesOfNothing asks for parts of an empty file.
func TestRangesOfNothing(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	p := nixtest.MkPath(t, "p", nixtest.Dir{"empty": nixtest.Text("")})
	n.push("c", p)
	for _, spec := range []string{"bytes=-5", "bytes=0-", "bytes=-0", "bytes=5-6", "bytes=-1,-2"} {
		r := n.call("GET", "/c/serve/"+p.Info.StorePath.HashPart().String()+"/empty", "", nil, "Range", spec).want(t, 200, "")
		if got := r.Header.Get("Content-Range"); got != "" {
			t.Errorf("%s: Content-Range %q", spec, got)
		}
	}
}

// TestLongDirectories are not shown to their end.
func TestLongDirectories(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	many := nixtest.Dir{}
	for i := range 20_000 {
		many[fmt.Sprintf("%05d-%s", i, strings.Repeat("x", 100))] = nixtest.Text("")
	}
	p := nixtest.MkPath(t, "p", many)
	n.push("c", p)
	part := p.Info.StorePath.HashPart().String()
	page := string(n.call("GET", "/c/serve/"+part, "", nil).want(t, 200, "").body)
	if len(page) > 2<<20 || !strings.Contains(page, ">00000-") || !strings.Contains(page, " more; all of them are in <a href=\"/c/"+part+".ls\">") {
		t.Errorf("a page of %d bytes that ends in %q", len(page), page[max(0, len(page)-300):])
	}
}
