package httpapi_test

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix/nixtest"
)

func withHTTP2(o *nodeOptions) { o.http2 = true }

func TestHTTP2(t *testing.T) {
	n := mkNode(t, nil, withDelta, withHTTP2)
	n.mkCache("c", true)
	token := n.root()
	p := mkPath(t, "p", 1, 3<<20)
	n.deltaClient("c", token).push(p)
	n.wantNar("c", p)

	info := n.narInfo("c", p.Info.StorePath.HashPart(), "")
	whole := n.call("GET", "/c/"+info.URL, "", nil).want(t, 200, "")
	if whole.ProtoMajor != 2 {
		t.Errorf("the answer came by %s", whole.Proto)
	}
	part := n.call("GET", "/c/"+info.URL, "", nil, "Range", "bytes=1000-1999").want(t, 206, "")
	if !bytes.Equal(part.body, whole.body[1000:2000]) {
		t.Errorf("%d bytes of a range, want 1000 of the file", len(part.body))
	}

	up := mkPath(t, "up", 2, 1<<20)
	n.upload(token, infoOf("c", up), up.NAR).want(t, 200, "")
	n.wantNar("c", up)
}

// Refusals arrive while a body that nobody wants is still being sent, on a connection that
// others go on using.
func TestHTTP2Refusals(t *testing.T) {
	n := mkNode(t, nil, withDelta, withHTTP2)
	n.mkCache("c", false)
	p := mkPath(t, "p", 1, 100_000)
	d := n.deltaClient("c", n.root())
	huge := infoOf("c", p)
	huge.NarSize = 1 << 50
	n.call("PUT", "/_api/v1/upload-path", n.root(), &endless{}, wire.HeaderAtticNarInfo, jsonText(huge)).want(t, 413, wire.ErrorTooLarge)
	n.call("PUT", "/_api/v1/upload-path", "", &endless{}, wire.HeaderAtticNarInfo, jsonText(infoOf("c", p))).want(t, 401, wire.ErrorUnauthorized)
	n.call("POST", d.url("chunks"), n.root(), &endless{}, "Content-Type", wire.DeltaContentType).want(t, 400, wire.ErrorRequest)
	n.call("GET", "/c/nix-cache-info", n.root(), nil).want(t, 200, "")
	var from [][]string
	waitFor(t, func() bool {
		from = regexp.MustCompile(`"remote_addr":"([^"]+)"`).FindAllStringSubmatch(n.logs.String(), -1)
		return len(from) >= 4
	})
	for _, found := range from {
		if found[1] != from[0][1] {
			t.Errorf("requests came from %s and %s, want one connection that outlives refusals", from[0][1], found[1])
		}
	}
	d.push(p)
	n.wantNar("c", p)
}

// Who stops sending is told so, and who stops reading is cut off.
func TestHTTP2Stalls(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	p := nixtest.MkPath(t, "big", nixtest.File{Contents: noise(12 << 20)})
	n.push("c", p)
	info := n.narInfo("c", p.Info.StorePath.HashPart(), "")

	m := mkNode(t, n.bucket, withHTTP2, func(o *nodeOptions) { o.http.StallTimeout = time.Second })
	other := mkPath(t, "other", 1, 100_000)
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = w.Write(other.NAR[:50_000]) }()
	m.call("PUT", "/_api/v1/upload-path", m.root(), r, wire.HeaderAtticNarInfo, jsonText(infoOf("c", other))).want(t, http.StatusRequestTimeout, wire.ErrorTimeout)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.srv.URL+"/c/"+info.URL, nil)
	must(t, err)
	resp, err := m.client.Do(req)
	must(t, err)
	defer resp.Body.Close()
	waitFor(t, func() bool { return strings.Contains(m.logs.String(), `"aborted":true`) })
	if got, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes and a proper end, want none", len(got))
	}
}
