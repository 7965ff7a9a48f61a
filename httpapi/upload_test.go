package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// TestBadCacheNameInBody: a name that is impossible is a matter of the body it stands in.
func TestBadCacheNameInBody(t *testing.T) {
	n := mkNode(t, nil)
	p := mkPath(t, "p", 1, 2000)
	for _, name := range []string{"../main", "_api", "", "no name"} {
		r := n.upload(n.root(), infoOf(name, p), p.NAR).want(t, 400, wire.ErrorRequest)
		if !strings.Contains(string(r.body), "General request error: cache: ") || strings.Contains(string(r.body), "URL") {
			t.Errorf("upload info with cache %q: %s", name, r.body)
		}
		r = n.call("POST", "/_api/v1/get-missing-paths", n.root(), map[string]any{"cache": name, "store_path_hashes": []string{}}).want(t, 422, "")
		if !strings.Contains(string(r.body), ": cache: ") || strings.Contains(string(r.body), "URL") {
			t.Errorf("get-missing-paths with cache %q: %s", name, r.body)
		}
	}
}

// TestUploadInfo sends infos that make no sense. None may leave anything behind, and the
// answer must say which part is wrong.
func TestUploadInfo(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p := mkPath(t, "p", 1, 2000)
	good := infoOf("c", p)
	f := func(why string, change func(*wire.UploadInfo), status int, says string) {
		t.Helper()
		info := good
		change(&info)
		r := n.upload(n.root(), info, p.NAR).want(t, status, "")
		if !strings.Contains(string(r.body), says) {
			t.Errorf("%s: body %.300s, want %q in it", why, r.body, says)
		}
	}
	text := func(s string) *string { return &s }
	f("cache name", func(i *wire.UploadInfo) { i.Cache = "no name" }, 400, "cache")
	f("hash part", func(i *wire.UploadInfo) { i.StorePathHash = "short" }, 400, "store_path_hash")
	f("other hash part", func(i *wire.UploadInfo) { i.StorePathHash = "00bgd045z0d4icpbc2yyz4gx48ak44la" }, 400, "hash part")
	f("store path", func(i *wire.UploadInfo) { i.StorePath = "nix/store/x" }, 400, "store_path")
	f("inside a store path", func(i *wire.UploadInfo) { i.StorePath += "/bin/sh" }, 400, "store_path")
	f("escape", func(i *wire.UploadInfo) { i.StorePath = "/nix/store/../../" + p.Info.StorePath.Base() }, 400, "")
	f("newline", func(i *wire.UploadInfo) { i.StorePath += "\nSig: x" }, 400, "store_path")
	f("other store dir", func(i *wire.UploadInfo) { i.StorePath = "/gnu/store/" + p.Info.StorePath.Base() }, 400, "store dir")
	f("reference", func(i *wire.UploadInfo) { i.References = []string{"x"} }, 400, "reference")
	f("reference with dir", func(i *wire.UploadInfo) { i.References = []string{p.Info.StorePath.String()} }, 400, "reference")
	f("reference with newline", func(i *wire.UploadInfo) { i.References = []string{p.Info.StorePath.Base() + "\nSig:"} }, 400, "reference")
	f("hash", func(i *wire.UploadInfo) { i.NarHash = "sha256:xyz" }, 400, "nar_hash")
	f("hash algorithm", func(i *wire.UploadInfo) { i.NarHash = "sha1:" + strings.Repeat("0", 40) }, 400, "nar_hash")
	f("negative size", func(i *wire.UploadInfo) { i.NarSize = -1 }, 400, "nar_size")
	f("no size", func(i *wire.UploadInfo) { i.NarSize = 0 }, 400, "nar_size")
	f("deriver", func(i *wire.UploadInfo) { i.Deriver = text("x\ny") }, 400, "deriver")
	f("system", func(i *wire.UploadInfo) { i.System = text("x\nSig: y") }, 400, "system")
	f("content address", func(i *wire.UploadInfo) { i.CA = text("fixed:\nSig: y") }, 400, "")
	f("content address of nothing", func(i *wire.UploadInfo) { i.CA = text("junk") }, 400, "ca:")
	f("content address without a hash", func(i *wire.UploadInfo) { i.CA = text("fixed:r:sha256:zzz") }, 400, "ca:")
	f("content address of another path", func(i *wire.UploadInfo) {
		i.CA = text("fixed:r:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s")
	}, 400, "ca:")
	f("many references", func(i *wire.UploadInfo) {
		i.References = nil
		for range 20 { // in a header; the bound itself is the catalog's
			i.References = append(i.References, strings.Repeat("x", 300))
		}
	}, 400, "reference")
	f("absent cache", func(i *wire.UploadInfo) { i.Cache = "absent" }, 404, wire.ErrorNoSuchCache)
	// What is wrong with the information is said before the NAR is looked at.
	early := good
	early.CA = text("fixed:\nSig: y")
	if r := n.upload(n.root(), early, []byte("no NAR")).want(t, 400, ""); !strings.Contains(string(r.body), "content address") {
		t.Errorf("bad content address before a bad NAR: body %.300s", r.body)
	}
	n.absent("c", p.Info.StorePath.HashPart())

	// Every spelling of the hash is one hash.
	for _, spelling := range []string{p.Info.NarHash.Nix32(), p.Info.NarHash.Hex(), p.Info.NarHash.Base64(), p.Info.NarHash.SRI()} {
		info := good
		info.NarHash = spelling
		n.upload(n.root(), info, p.NAR).want(t, 200, "")
	}
	info := good
	info.Deriver = text("/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-p.drv")
	n.upload(n.root(), info, p.NAR).want(t, 200, "")
	if got := n.narInfo("c", p.Info.StorePath.HashPart(), n.root()); got.Deriver != "00bgd045z0d4icpbc2yyz4gx48ak44la-p.drv" {
		t.Errorf("deriver %q", got.Deriver)
	}
}

// TestUploadBody sends bodies that are not what was announced.
func TestUploadBody(t *testing.T) {
	for name, known := range map[string]bool{"new": false, "known NAR": true} {
		t.Run(name, func(t *testing.T) {
			n := mkNode(t, nil)
			n.mkCache("c", false)
			n.mkCache("other", false)
			p := nixtest.MkPath(t, "p", nixtest.Dir{"big": nixtest.File{Contents: noise(300_000)}})
			if known { // possession must be shown all the same
				n.push("other", p)
			}
			info := infoOf("c", p)
			f := func(body []byte, info wire.UploadInfo, says ...string) {
				t.Helper()
				r := n.upload(n.root(), info, body).want(t, 400, wire.ErrorRequest)
				for _, s := range says {
					if !strings.Contains(string(r.body), s) {
						t.Errorf("body %.300s, want %q in it", r.body, s)
					}
				}
				n.absent("c", p.Info.StorePath.HashPart())
			}
			size := len(p.NAR)
			f(nil, info, "Bad NAR Hash or Size", fmt.Sprintf("after 0 of %d bytes", size))
			f(p.NAR[:size-1], info, "Bad NAR Hash or Size", fmt.Sprintf("after %d of %d bytes", size-1, size))
			f(p.NAR[:size/2], info, fmt.Sprintf("after %d of %d bytes", size/2, size))

			flipped := bytes.Clone(p.NAR)
			flipped[size/2] ^= 1 // inside the big file: the grammar holds
			f(flipped, info, "Bad NAR Hash or Size", "expected "+p.Info.NarHash.String(), "received sha256:")

			other := mkPath(t, "p", 2, 300_000)
			wrong := info
			wrong.NarSize = int64(len(other.NAR))
			f(other.NAR, wrong, "Bad NAR Hash or Size", "received "+other.Info.NarHash.String())

			broken := bytes.Clone(p.NAR)
			copy(broken[8:], "xix-archive-1")
			f(broken, info, "Malformed NAR")
			garbage := make([]byte, size)
			f(garbage, info, "Malformed NAR")

			// The right hash of what is no NAR is still no NAR.
			for _, text := range []string{strings.Repeat("x", 1000), string(p.NAR) + "trailing", string(p.NAR[:size-8])} {
				lie := nixtest.MkPath(t, "p", nixtest.Text("x"))
				lie.NAR = []byte(text)
				lie.Info.NarHash = nix.SHA256Hash(sum256(lie.NAR))
				f(lie.NAR, infoOf("c", lie), "Malformed NAR")
			}
			shorter := info
			shorter.NarSize--
			f(p.NAR, shorter, "")

			// A longer body whose beginning is right is taken, as stock servers do.
			n.upload(n.root(), info, append(bytes.Clone(p.NAR), "and more"...)).want(t, 200, "")
			n.narInfo("c", p.Info.StorePath.HashPart(), n.root())
		})
	}
}

// TestUploadDisconnect breaks the connection after every kind of byte.
func TestUploadDisconnect(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p := mkPath(t, "p", 1, 150_000)
	token := n.root()
	info := jsonText(infoOf("c", p))
	request := fmt.Sprintf("PUT /_api/v1/upload-path HTTP/1.1\r\nHost: h\r\nAuthorization: bearer %s\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s",
		token, wire.HeaderAtticNarInfo, info, len(p.NAR), p.NAR)
	preamble := fmt.Sprintf("PUT /_api/v1/upload-path HTTP/1.1\r\nHost: h\r\nAuthorization: bearer %s\r\n%s: %d\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s%s\r\n",
		token, wire.HeaderCellerNarInfoPreamble, len(info), len(info)+len(p.NAR), info, p.NAR) // and no last chunk
	rnd := rand.New(rand.NewPCG(11, 12))
	cut := func(whole string, at int) {
		t.Helper()
		conn, err := net.Dial("tcp", n.srv.Listener.Addr().String())
		must(t, err)
		_, _ = io.WriteString(conn, whole[:at])
		if rnd.IntN(2) == 0 {
			_ = conn.(*net.TCPConn).SetLinger(0) // a reset instead of a close
		}
		must(t, conn.Close())
	}
	bodyAt := strings.Index(request, "\r\n\r\n") + 4
	for _, at := range []int{1, bodyAt - 1, bodyAt, bodyAt + 1, bodyAt + 8, len(request) - 1} {
		cut(request, at)
	}
	for range 40 {
		cut(request, 1+rnd.IntN(len(request)-1))
		cut(preamble, 1+rnd.IntN(strings.Index(preamble, "\r\n\r\n")+len(info)+len(p.NAR)/2))
	}
	n.srv.CloseClientConnections()
	n.client.CloseIdleConnections()
	waitIdle(t, n)
	n.absent("c", p.Info.StorePath.HashPart())
	cut(preamble, len(preamble)-2) // all bytes, but not the frame's end: it may be taken, and need not
	n.push("c", p)
	n.narInfo("c", p.Info.StorePath.HashPart(), token)
}

// waitIdle returns when no request is being worked on but its own.
func waitIdle(t *testing.T, n *node) {
	t.Helper()
	for range 1000 {
		if strings.Contains(string(n.call("GET", "/metrics", "", nil).body), "celler_http_requests_in_flight 1\n") {
			return
		}
	}
	t.Fatal("requests do not end")
}

// A client that stops sending is cut off, and does not hold anything.
func TestUploadStall(t *testing.T) {
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.StallTimeout = time.Second })
	n.mkCache("c", false)
	p := mkPath(t, "p", 1, 100_000)
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = w.Write(p.NAR[:50_000]) }()
	got, err := n.try("PUT", "/_api/v1/upload-path", n.root(), r, wire.HeaderAtticNarInfo, jsonText(infoOf("c", p)))
	if err == nil {
		got.want(t, http.StatusRequestTimeout, wire.ErrorTimeout)
	}
	waitIdle(t, n)
	n.absent("c", p.Info.StorePath.HashPart())
	// The same with a Content-Length, over a bare connection: there is an answer, and then the end.
	conn, err := net.Dial("tcp", n.srv.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "PUT /_api/v1/upload-path HTTP/1.1\r\nHost: h\r\nAuthorization: bearer %s\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s",
		n.root(), wire.HeaderAtticNarInfo, jsonText(infoOf("c", p)), len(p.NAR), p.NAR[:50_000])
	must(t, err)
	must(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") || !strings.Contains(string(answer), "Connection: close") {
		t.Errorf("answer %q, then %v", answer, err)
	}
	// A slow one that moves now and then is not.
	n2 := mkNode(t, n.bucket, func(o *nodeOptions) { o.http.StallTimeout = 3 * time.Second })
	n2.upload(n2.root(), infoOf("c", p), p.NAR).want(t, 200, "")
}

// The reader of a big NAR who stops reading is cut off.
func TestDownloadStall(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	p := nixtest.MkPath(t, "big", nixtest.File{Contents: noise(24 << 20)})
	n.push("c", p)
	info := n.narInfo("c", p.Info.StorePath.HashPart(), "")
	for name, dir := range map[string]string{"bucket": "", "resident": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mkNode(t, n.bucket, func(o *nodeOptions) {
				o.http.StallTimeout = time.Second
				o.chunks.Dir = dir
			})
			if dir != "" { // once, to make it resident
				m.call("GET", "/c/"+info.URL, "", nil).want(t, 200, "")
			}
			conn, err := net.Dial("tcp", m.srv.Listener.Addr().String())
			must(t, err)
			defer conn.Close()
			must(t, conn.(*net.TCPConn).SetReadBuffer(4096))
			_, err = io.WriteString(conn, "GET /c/"+info.URL+" HTTP/1.1\r\nHost: h\r\n\r\n")
			must(t, err)
			waitFor(t, func() bool { return strings.Contains(m.logs.String(), `"aborted":true`) })

			// One that is slow, but reads now and then, is served for as long as it takes.
			slow := mkNode(t, n.bucket, func(o *nodeOptions) {
				o.http.StallTimeout = 3 * time.Second
				o.chunks.Dir = dir
			})
			resp, err := slow.client.Get(slow.srv.URL + "/c/" + info.URL) //nolint:noctx // a test
			must(t, err)
			defer resp.Body.Close()
			tick := time.NewTicker(150 * time.Millisecond)
			defer tick.Stop()
			total := int64(0)
			for err == nil {
				var got int64
				got, err = io.CopyN(io.Discard, resp.Body, 1<<20)
				total += got
				<-tick.C
			}
			if total != resp.ContentLength {
				t.Errorf("a slow reader got %d of %d bytes: %v", total, resp.ContentLength, err)
			}
		})
	}
}

// waitFor polls the log, which the server writes when it is through with a connection.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 4000 {
		if ok() {
			return
		}
		<-tick.C
	}
	t.Fatal("it did not happen")
}

// Many pushes at once, of the same and of different content, all visible afterwards.
func TestConcurrentPushes(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	shared := nixtest.MkTree(99, 100_000)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			tree := nixtest.Dir{"shared": shared, "own": nixtest.Text(fmt.Sprint(i / 2))} // each content twice
			p := nixtest.MkPath(t, fmt.Sprint("p-", i), tree)
			if r := n.upload(n.root(), infoOf("c", p), p.NAR); r.StatusCode != 200 {
				t.Errorf("push %d: status %d: %s", i, r.StatusCode, r.body)
				return
			}
			info := n.narInfo("c", p.Info.StorePath.HashPart(), "")
			r := n.call("GET", "/c/"+info.URL, "", nil).want(t, 200, "")
			if !bytes.Equal(unzstd(t, r.body), p.NAR) {
				t.Errorf("push %d: what is served differs", i)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.Log(n.logs)
	}
}

// fullBucket takes no packs any more.
type fullBucket struct {
	blob.Bucket
	full error
}

func (b *fullBucket) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if b.full != nil {
		return "", fmt.Errorf("put %s: %w", key, b.full)
	}
	return b.Bucket.Put(ctx, key, body)
}

func TestBucketFull(t *testing.T) {
	b := &fullBucket{Bucket: memblob.New()}
	n := mkNode(t, b)
	n.mkCache("c", true)
	p := mkPath(t, "p", 1, 1000)
	for _, c := range []struct {
		err    error
		status int
		says   string
	}{
		{syscall.ENOSPC, 507, "full"},
		{errors.New("secret: quota of account 17 exceeded"), 503, "could not be stored"},
	} {
		b.full = c.err
		r := n.upload(n.root(), infoOf("c", p), p.NAR).want(t, c.status, wire.ErrorUnavailable)
		if strings.Contains(string(r.body), "secret") || !strings.Contains(string(r.body), c.says) || r.Header.Get("Retry-After") == "" {
			t.Errorf("%v: answered with %s", c.err, r.body)
		}
		waitFor(t, func() bool { return strings.Contains(n.logs.String(), c.err.Error()) }) // the log says why
		n.absent("c", p.Info.StorePath.HashPart())
	}
	b.full = nil
	n.push("c", p)
}

// noise is incompressible.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b) //nolint:errcheck // never fails
	return b
}
