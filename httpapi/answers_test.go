package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/celler/celler/httpapi/wire"
)

func conformEarlyAnswers(t *testing.T) {
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.MaxNarBytes = 1 << 30 })
	n.mkCache("c", false)
	p := mkPath(t, "p", 1, 1000)
	info := infoOf("c", p)
	info.NarSize = 1 << 29
	elsewhere := info
	elsewhere.StorePath = "/gnu/store/" + p.Info.StorePath.Base()
	huge := infoOf("c", p)
	huge.NarSize = 1<<30 + 1
	for _, c := range []struct {
		name, token string
		info        wire.UploadInfo
		status      int
		error       string
	}{
		{"401", "", info, http.StatusUnauthorized, wire.ErrorUnauthorized},
		{"403", n.token("c: pull"), info, http.StatusForbidden, wire.ErrorAccess},
		{"400", n.root(), elsewhere, http.StatusBadRequest, wire.ErrorRequest},
		{"413", n.root(), huge, http.StatusRequestEntityTooLarge, wire.ErrorTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A body that never ends: the answer must come while it is being sent.
			body := &endless{}
			r := n.call("PUT", "/_api/v1/upload-path", c.token, body, wire.HeaderAtticNarInfo, jsonText(c.info))
			r.want(t, c.status, c.error)
			if !r.Close {
				t.Error("the connection is not announced to close")
			}
		})
	}
}

// A client that has announced a gigabyte and sends none of it is answered
// at once, and not after it has sent something to be read away.
func TestAnswerBeforeBody(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	info := infoOf("c", mkPath(t, "p", 1, 1000))
	info.NarSize = 1 << 30
	conn, err := net.Dial("tcp", n.srv.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "PUT /_api/v1/upload-path HTTP/1.1\r\nHost: h\r\n%s: %s\r\nTransfer-Encoding: chunked\r\n\r\n", wire.HeaderCellerNarInfo, jsonText(info))
	must(t, err)
	must(t, conn.SetReadDeadline(time.Now().Add(4*time.Second)))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != 401 || !resp.Close {
		t.Errorf("status %d, close %v", resp.StatusCode, resp.Close)
	}
}

// The same with a body so short that net/http would wait for it before it lets an answer
// out, and would wait for ever: nobody holds a connection that way, with rights or without.
func TestAnswerBeforeShortBody(t *testing.T) {
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.StallTimeout = 500 * time.Millisecond })
	n.mkCache("open", true)
	p := mkPath(t, "p", 1, 1000)
	n.push("open", p)
	info := wire.HeaderCellerNarInfo + ": " + jsonText(infoOf("open", p)) + "\r\n"
	bearer := "Authorization: bearer " + n.root() + "\r\n"
	const length, chunked = "Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n"
	tests := []struct {
		name, line, head string
		status           int
	}{
		{"upload without rights", "PUT /_api/v1/upload-path", info + length, 403},
		{"upload without info", "PUT /_api/v1/upload-path", length, 400},
		{"upload that expects", "PUT /_api/v1/upload-path", info + length + "Expect: 100-continue\r\n", 403},
		{"no such URL", "GET /nowhere", length, 404},
		{"no such method", "PUT /healthz", length, 405},
		{"info", "GET /open/nix-cache-info", length, 200},
		{"info, chunked", "GET /open/nix-cache-info", chunked, 200},
		{"probe", "GET /healthz", length, 200},
		{"destroy without rights", "DELETE /_api/v1/cache-config/private", length, 401},
		{"mint without a token", "POST /_api/v1/tokens", length, 401},
		{"path deletion", "DELETE /_api/v1/caches/open/paths/" + p.Info.StorePath.HashPart().String(), bearer + length, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", n.srv.Listener.Addr().String())
			must(t, err)
			defer conn.Close()
			_, err = fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: h\r\n%s\r\n", tt.line, tt.head)
			must(t, err)
			must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			must(t, err)
			defer resp.Body.Close()
			if resp.StatusCode != tt.status || !resp.Close {
				t.Errorf("status %d, close %v; want %d and to close", resp.StatusCode, resp.Close, tt.status)
			}
			if _, err := io.ReadAll(r); err != nil {
				t.Errorf("the server keeps the connection: %v", err)
			}
		})
	}
}

// endless is a request body without an end.
type endless struct{}

func (*endless) Read(p []byte) (int, error) { return len(p), nil }
