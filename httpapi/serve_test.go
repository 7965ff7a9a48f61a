package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/compression"
	"github.com/celler/celler/nix/nar"
	"github.com/celler/celler/nix/nixtest"
)

// TestListings are the same however a NAR came, and also if they were too long to keep.
func TestListings(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	many := nixtest.Dir{}
	for i := range 4000 {
		many[fmt.Sprintf("file-%08x-%d", i*2654435761, i)] = nixtest.Text(fmt.Sprint(i))
	}
	for name, tree := range map[string]nixtest.Node{
		"small": nixtest.MkTree(1, 20_000), "file": nixtest.Text("alone"), "link": nixtest.Link("target"), "many": many,
	} {
		for _, way := range []string{"push", "copy"} {
			p := nixtest.MkPath(t, name+"-"+way, tree)
			if way == "push" {
				n.push("c", p)
			} else {
				copyTo(t, "c", p, mkFile(t, compression.Zstd, p.NAR), n)
			}
			want, err := nar.AppendListing(nil, bytes.NewReader(p.NAR))
			must(t, err)
			r := n.call("GET", "/c/"+p.Info.StorePath.HashPart().String()+".ls", "", nil).want(t, 200, "")
			if diff := cmp.Diff(string(want), string(r.body)); diff != "" {
				t.Errorf("%s by %s:\n%.2000s", name, way, diff)
			}
			if ct := r.Header.Get("Content-Type"); ct != "application/json" || !json.Valid(r.body) {
				t.Errorf("Content-Type %q", ct)
			}
		}
	}
	if m := string(n.call("GET", "/metrics", "", nil).body); !strings.Contains(m, "celler_http_listings_made_total 2") {
		t.Error("want the long listings, and no other, to be made when they were asked for")
	}
	// What Nix sends as a listing is dropped: it may come before the path, and may lie.
	p := nixtest.MkPath(t, "before", nixtest.Text("x"))
	url := "/c/" + p.Info.StorePath.HashPart().String() + ".ls"
	n.call("PUT", url, n.root(), `{"version":1,"root":{"type":"regular","size":99}}`).want(t, 200, "")
	n.call("GET", url, "", nil).want(t, 404, "")
	n.push("c", p)
	if r := n.call("GET", url, "", nil).want(t, 200, ""); bytes.Contains(r.body, []byte("99")) {
		t.Errorf("listing %s, want that of the NAR", r.body)
	}
	n.call("PUT", url, n.root(), "no JSON").want(t, 400, "")
}

// TestServeFile takes single files out of a path of 20 MB.
func TestServeFile(t *testing.T) {
	bucket := blobtest.Count(memblob.New())
	n := mkNode(t, bucket)
	n.mkCache("c", true)
	n.mkCache("private", false)
	big := nixtest.MkTree(5, 20_000_000)
	other := nixtest.MkStorePath(t, "other")
	p := nixtest.MkPath(t, "p", nixtest.Dir{
		"README": nixtest.Text("read me\n"), "page.html": nixtest.Text("<script>alert(1)</script>"), "empty": nixtest.Text(""),
		"blob": nixtest.Text("\x00\x01\x02"), "a b&c": nixtest.Text("odd name"), "pixel.png": nixtest.Text("\x89PNG\r\n\x1a\n...."), "svg": nixtest.Text("<svg onload='x()'/>"),
		"bin": nixtest.Dir{"tool": nixtest.Script("#!/bin/sh\n"), "up": nixtest.Link("../README"), "away": nixtest.Link("../../../etc/passwd"), "etc": nixtest.Link("/etc/passwd"), "over": nixtest.Link("../../README"), "here": nixtest.Link(".")},
		"dir": nixtest.Link("bin"), "loop": nixtest.Link("loop"), "dangling": nixtest.Link("nothing"), "big": big,
		"self":  nixtest.Link(nixtest.MkStorePath(t, "p").String() + "/bin/tool"),
		"other": nixtest.Link(other.String() + "/share"), "sly": nixtest.Link(other.String() + "/../x"),
	})
	n.push("c", p)
	n.push("private", p)
	root := "/c/serve/" + p.Info.StorePath.HashPart().String()
	get := func(path, want, contentType string) {
		t.Helper()
		r := n.call("GET", root+path, "", nil).want(t, 200, "")
		if string(r.body) != want || r.Header.Get("Content-Type") != contentType {
			t.Errorf("%s: %s %.200q, want %s %q", path, r.Header.Get("Content-Type"), r.body, contentType, want)
		}
		if csp := r.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "sandbox") || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: Content-Security-Policy %q, want a sandbox, and nosniff", path, csp)
		}
		if saved := strings.HasPrefix(r.Header.Get("Content-Disposition"), "attachment"); saved != (contentType == "application/octet-stream") {
			t.Errorf("%s: Content-Disposition %q", path, r.Header.Get("Content-Disposition"))
		}
	}
	const text = "text/plain; charset=utf-8"
	get("/README", "read me\n", text)
	get("/page.html", "<script>alert(1)</script>", text)
	get("/svg", "<svg onload='x()'/>", text)
	get("/empty", "", text)
	get("/a%20b&c", "odd name", text)
	get("/blob", "\x00\x01\x02", "application/octet-stream")
	get("/pixel.png", "\x89PNG\r\n\x1a\n....", "image/png")
	get("/bin/up", "read me\n", text)
	get("/dir/tool", "#!/bin/sh\n", text)
	get("/dir/here/here/up", "read me\n", text)
	get("/self", "#!/bin/sh\n", text)
	for _, dir := range []string{"", "/dir", "/bin/here"} {
		want := n.call("GET", root+dir, "", nil).want(t, 200, "")
		if r := n.call("GET", root+dir+"/", "", nil).want(t, 200, ""); !bytes.Equal(r.body, want.body) {
			t.Errorf("%s/: %.200q, want %.200q", dir, r.body, want.body)
		}
	}
	for _, path := range []string{root + "//", root + "/dir//", root + "/dir%2F", "/c/serve/", "/c/nix-cache-info/", "/c/serve//", "/c/", "/healthz/", "/_api/v1/stats/"} {
		n.call("GET", path, "", nil).want(t, 404, "")
	}
	for _, name := range []string{"-", "-other", p.Info.StorePath.Base()[32:] + "x"} { // of other paths
		n.call("GET", root+name, "", nil).want(t, 404, "NoSuchObject")
		n.call("GET", root+name+"/README", "", nil).want(t, 404, "NoSuchObject")
	}
	root = "/c/serve/" + p.Info.StorePath.Base()
	get("/README", "read me\n", text)

	for _, path := range []string{"/nothing", "/README/x", "/bin/away", "/bin/over", "/bin/etc", "/loop", "/dangling", "/sly", "/bin/here/../../x"} {
		n.call("GET", root+path, "", nil).want(t, 404, "")
	}
	if r := n.call("GET", root+"/other/x", "", nil).want(t, 302, ""); r.Header.Get("Location") != "/c/serve/"+other.Base()+"/share/x" {
		t.Errorf("Location %q", r.Header.Get("Location"))
	}
	for _, path := range []string{"", "/bin", "/dir"} {
		r := n.call("GET", root+path, "", nil).want(t, 200, "")
		if !strings.Contains(string(r.body), "<pre>") || strings.Contains(string(r.body), "a b&c\"") {
			t.Errorf("%q: page\n%s", path, r.body)
		}
	}
	n.call("GET", strings.Replace(root, "/c/", "/private/", 1)+"/README", "", nil).want(t, 401, "")
	n.call("GET", strings.Replace(root, "/c/", "/private/", 1)+"/README", n.root(), nil).want(t, 200, "")

	// Ranges, conditions, and no more of the bucket than needed.
	name, content := "", []byte(nil)
	var find func(at string, d nixtest.Dir)
	find = func(at string, d nixtest.Dir) {
		for k, v := range d {
			switch v := v.(type) {
			case nixtest.Dir:
				find(at+"/"+k, v)
			case nixtest.File:
				if len(v.Contents) > len(content) {
					name, content = at+"/"+k, v.Contents
				}
			}
		}
	}
	find("/big", big)
	r := n.call("GET", root+name, "", nil, "Range", "bytes=100-199").want(t, 206, "")
	if !bytes.Equal(r.body, content[100:200]) {
		t.Errorf("range of %s: %d other bytes", name, len(r.body))
	}
	n.call("GET", root+name, "", nil, "If-None-Match", r.Header.Get("ETag")).want(t, 304, "")
	if r := n.call("HEAD", root+name, "", nil).want(t, 200, ""); r.ContentLength != int64(len(content)) {
		t.Errorf("HEAD: length %d, want %d", r.ContentLength, len(content))
	}
	if r := n.call("GET", root+name, "", nil).want(t, 200, ""); !bytes.Equal(r.body, content) {
		t.Errorf("%s: %d other bytes", name, len(r.body))
	}
	before := bucket.Bytes("get_range")
	get("/README", "read me\n", text)
	if read := bucket.Bytes("get_range") - before; read > 2<<20 {
		t.Errorf("%d bytes were read from the bucket for a file of 8", read)
	}
}

// TestSideObjects sends logs and the like and gets them back.
func TestSideObjects(t *testing.T) {
	bucket := memblob.New()
	one, two := mkNode(t, bucket), mkNode(t, bucket)
	one.mkCache("c", true)
	p := mkPath(t, "p", 1, 1000)
	drv := p.Info.StorePath.Base() + ".drv"
	long := []byte{}
	for i := range 60_000 {
		long = fmt.Appendf(long, "line %d: %x\n", i, i*2654435761)
	}
	hash := strings.Repeat("0", 52)
	for path, body := range map[string]string{
		"log/" + drv: "building\nit\n",
		"log/" + nixtest.MkStorePath(t, "empty").Base():               "",
		"log/" + nixtest.MkStorePath(t, "long").Base():                string(long),
		"debuginfo/0123456789abcdef":                                  `{"archive":"../nar/` + hash + `.nar.xz","member":"lib/debug/x.debug"}`,
		"debuginfo/0123456789abcdef.debug":                            `{"archive":"../nar/x","member":"y"}`,
		"realisations/sha256:" + strings.Repeat("a", 64) + "!out.doi": `{"id":"x","outPath":"` + p.Info.StorePath.Base() + `","signatures":[]}`,
		"build-trace-v2/" + drv + "/out.doi":                          `{"outPath":"` + p.Info.StorePath.Base() + `","signatures":[]}`,
	} {
		one.call("GET", "/c/"+path, "", nil).want(t, 404, "")
		one.call("PUT", "/c/"+path, one.root(), body).want(t, 201, "")
		for _, n := range []*node{one, two} {
			r := n.call("GET", "/c/"+path, "", nil).want(t, 200, "")
			if string(r.body) != body {
				t.Errorf("%s: %d bytes, want %d", path, len(r.body), len(body))
			}
			if ct := r.Header.Get("Content-Type"); strings.HasPrefix(path, "log/") != (ct == "text/plain; charset=utf-8") {
				t.Errorf("%s: Content-Type %q", path, ct)
			}
			n.call("HEAD", "/c/"+path, "", nil).want(t, 200, "")
			n.call("GET", "/c/"+path, "", nil, "If-None-Match", r.Header.Get("ETag")).want(t, 304, "")
		}
		if r := two.call("GET", "/c/"+path, "", nil, "Range", "bytes=-3"); len(body) > 100_000 && (r.StatusCode != 206 || string(r.body) != body[len(body)-3:]) {
			t.Errorf("%s: the last three bytes: %d %q", path, r.StatusCode, r.body)
		}
	}
	// Compressed on the way, and in place of another.
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := w.Write(long[:100_000])
	must(t, err)
	must(t, w.Close())
	one.call("PUT", "/c/log/"+drv, one.root(), zipped.Bytes(), "Content-Encoding", "gzip").want(t, 201, "")
	if r := two.call("GET", "/c/log/"+drv, "", nil).want(t, 200, ""); r.Header.Get("Content-Encoding") != "" {
		t.Errorf("%d bytes with Content-Encoding %q", len(r.body), r.Header.Get("Content-Encoding"))
	}
	if _, err := one.cat.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := one.call("GET", "/c/log/"+drv, "", nil).want(t, 200, ""); !bytes.Equal(r.body, long[:100_000]) {
		t.Errorf("%d bytes, want the log that came last", len(r.body))
	}
	for path, body := range map[string]string{
		"log/x.drv": "x", "log/..drv": "x", "debuginfo/XY": "{}", "debuginfo/ab": "no JSON", "realisations/x!out.doi": "{}",
		"realisations/sha256:" + strings.Repeat("a", 64) + ".doi": "{}", "build-trace-v2/" + drv + "/out": "{}", "build-trace-v2/" + drv + "/a b.doi": "{}",
		"log/" + drv + "%0a": "x",
	} {
		one.call("PUT", "/c/"+path, one.root(), body).want(t, 400, wire.ErrorRequest)
	}
	one.call("PUT", "/c/debuginfo/abcd", one.root(), `"`+strings.Repeat("x", 1<<20)+`"`).want(t, 413, wire.ErrorTooLarge)
	one.call("PUT", "/c/log/"+drv, one.root(), "x", "Content-Encoding", "lzip").want(t, 415, "")
	one.call("PUT", "/c/log/"+drv, one.root(), "x", "Content-Encoding", "gzip").want(t, 400, wire.ErrorRequest)
}
