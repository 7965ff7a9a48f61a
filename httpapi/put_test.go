package httpapi_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/compression"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// file is a NAR as plain Nix sends it.
type file struct {
	name        string // in nar/
	compression string
	body        []byte
}

func pack(t testing.TB, f compression.Format, plain []byte) []byte {
	t.Helper()
	if f == compression.Zstd {
		e, err := zstd.NewWriter(nil)
		must(t, err)
		defer e.Close()
		return e.EncodeAll(plain, nil)
	}
	var b bytes.Buffer
	w, err := compression.NewWriter(f, &b)
	must(t, err)
	_, err = w.Write(plain)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

func unpack(t testing.TB, f compression.Format, packed []byte) []byte {
	t.Helper()
	r, err := compression.NewReader(f, bytes.NewReader(packed), func(int64) error { return nil })
	must(t, err)
	defer r.Close()
	plain, err := io.ReadAll(r)
	must(t, err)
	return plain
}

// suffixes are how Nix names its files; it has no ending for gzip.
func suffixes() map[compression.Format]string {
	return map[compression.Format]string{
		compression.None: "", compression.Gzip: "", compression.Xz: ".xz", compression.Zstd: ".zst", compression.Bzip2: ".bz2", compression.Brotli: ".br", compression.Lz4: ".lz4",
	}
}

func mkFile(t testing.TB, f compression.Format, plain []byte) file {
	t.Helper()
	body := pack(t, f, plain)
	hash := strings.TrimPrefix(nix.SHA256Hash(sha256.Sum256(body)).Nix32(), "sha256:")
	return file{hash + ".nar" + suffixes()[f], f.String(), body}
}

// narInfoFor is the narinfo that Nix sends after the file.
func narInfoFor(t testing.TB, p nixtest.Path, f file) string {
	t.Helper()
	info := p.Info
	info.URL, info.Compression = "nar/"+f.name, f.compression
	info.FileHash, info.FileSize = nix.SHA256Hash(sha256.Sum256(f.body)), int64(len(f.body))
	text, err := info.AppendText(nil)
	must(t, err)
	return string(text)
}

func narInfoURL(cache string, p nixtest.Path) string {
	return "/" + cache + "/" + p.Info.StorePath.HashPart().String() + ".narinfo"
}

// copyTo does what nix copy does, in its order: each request to the next of the nodes.
func copyTo(t testing.TB, cache string, p nixtest.Path, f file, nodes ...*node) {
	t.Helper()
	turn := 0
	call := func(method, path string, body any) response {
		n := nodes[turn%len(nodes)]
		turn++
		return n.call(method, path, n.root(), body)
	}
	call("HEAD", narInfoURL(cache, p), nil).want(t, 404, "")
	call("HEAD", "/"+cache+"/nar/"+f.name, nil).want(t, 404, "")
	call("PUT", "/"+cache+"/nar/"+f.name, f.body).want(t, 201, "")
	call("HEAD", "/"+cache+"/nar/"+f.name, nil).want(t, 200, "")
	call("HEAD", narInfoURL(cache, p), nil).want(t, 404, "")
	call("PUT", narInfoURL(cache, p), narInfoFor(t, p, f)).want(t, 200, "")
	call("HEAD", narInfoURL(cache, p), nil).want(t, 200, "")
}

// TestCopyByAnyReplica sends each request of a copy to another node, in each compression,
// and gets the path back by the narinfo that is served and by the one that was sent.
func TestCopyByAnyReplica(t *testing.T) {
	bucket := memblob.New()
	nodes := []*node{mkNode(t, bucket), mkNode(t, bucket), mkNode(t, bucket)}
	nodes[0].mkCache("c", true)
	key := nixtest.MkSecretKey(t, "builder-1")
	seed := uint64(0)
	for f := range suffixes() {
		seed++
		p := mkPath(t, fmt.Sprint("p", seed), seed, 300_000)
		p.Info = p.Sign(t, key)
		sent := mkFile(t, f, p.NAR)
		copyTo(t, "c", p, sent, nodes...)
		n := nodes[seed%3]
		info := n.narInfo("c", p.Info.StorePath.HashPart(), "")
		if info.Compression != "zstd" || info.NarHash != p.Info.NarHash || !slices.Contains(info.Sig, p.Info.Sig[0]) || len(info.Sig) != 2 {
			t.Errorf("%v: narinfo\n%v", f, info)
		}
		if got := unzstd(t, n.call("GET", "/c/"+info.URL, "", nil).want(t, 200, "").body); !bytes.Equal(got, p.NAR) {
			t.Errorf("%v: the NAR that is served has %d other bytes", f, len(got))
		}
		r := n.call("GET", "/c/nar/"+sent.name, "", nil).want(t, 200, "")
		if got := unpack(t, f, r.body); !bytes.Equal(got, p.NAR) {
			t.Errorf("%v: by the URL that was sent: %d other bytes", f, len(got))
		}
		if ct := r.Header.Get("Content-Type"); ct != "application/x-nix-nar" {
			t.Errorf("%v: Content-Type %q", f, ct)
		}
		if listing := n.call("GET", strings.Replace(narInfoURL("c", p), ".narinfo", ".ls", 1), "", nil).want(t, 200, ""); !bytes.Contains(listing.body, []byte(`"narOffset":`)) {
			t.Errorf("%v: listing %.100s", f, listing.body)
		}
	}
}

// TestCopyAgain sends a narinfo again, with another signature, with the URL that is served,
// and in two caches.
func TestCopyAgain(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	n.mkCache("d", false)
	p := mkPath(t, "p", 1, 50_000)
	sent := mkFile(t, compression.Xz, p.NAR)
	copyTo(t, "c", p, sent, n)
	n.call("PUT", narInfoURL("c", p), n.root(), narInfoFor(t, p, sent)).want(t, 200, "")

	one, two := p, p
	one.Info = p.Sign(t, nixtest.MkSecretKey(t, "one-1"))
	two.Info = p.Sign(t, nixtest.MkSecretKey(t, "two-1"))
	n.call("PUT", narInfoURL("c", p), n.root(), narInfoFor(t, one, sent)).want(t, 200, "")
	served := *n.narInfo("c", p.Info.StorePath.HashPart(), n.root())
	served.Sig = two.Info.Sig
	text, err := served.AppendText(nil)
	must(t, err)
	n.call("PUT", narInfoURL("c", p), n.root(), text).want(t, 200, "")
	if got := n.narInfo("c", p.Info.StorePath.HashPart(), n.root()); len(got.Sig) != 3 || !slices.Contains(got.Sig, one.Info.Sig[0]) || !slices.Contains(got.Sig, two.Info.Sig[0]) {
		t.Errorf("signatures %v, want the cache's and both that were sent", got.Sig)
	}

	// What one cache was sent another has not.
	n.call("HEAD", "/d/nar/"+sent.name, n.root(), nil).want(t, 404, "")
	n.call("GET", "/d/nar/"+sent.name, n.root(), nil).want(t, 404, wire.ErrorNoSuchObject)
	n.call("PUT", narInfoURL("d", p), n.root(), narInfoFor(t, p, sent)).want(t, 409, wire.ErrorConflict)
	n.absent("d", p.Info.StorePath.HashPart())
	// Who may only push may look for files, and not have them.
	push := n.token("*: push")
	n.call("HEAD", "/c/nar/"+sent.name, push, nil).want(t, 200, "")
	n.call("GET", "/c/nar/"+sent.name, push, nil).want(t, 403, wire.ErrorAccess)
	n.call("GET", "/c/nar/"+sent.name, "", nil).want(t, 401, wire.ErrorUnauthorized)
	// A file that no narinfo has claimed is nobody's but those who may push.
	other := mkFile(t, compression.Zstd, mkPath(t, "q", 2, 1000).NAR)
	n.call("PUT", "/d/nar/"+other.name, n.root(), other.body).want(t, 201, "")
	n.call("HEAD", "/d/nar/"+other.name, push, nil).want(t, 200, "")
	n.call("HEAD", "/d/nar/"+other.name, n.token("*: pull"), nil).want(t, 404, "")
	n.call("GET", "/d/nar/"+other.name, n.root(), nil).want(t, 404, wire.ErrorNoSuchObject)
}

// TestCopyRefuses sends what plain Nix sends when something is wrong.
func TestCopyRefuses(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p, q := mkPath(t, "p", 1, 50_000), mkPath(t, "q", 2, 50_000)
	sent := mkFile(t, compression.Xz, p.NAR)
	says := func(r response, status int, want string) {
		t.Helper()
		if r.want(t, status, ""); !strings.Contains(string(r.body), want) {
			t.Errorf("%s %s: body %.300s, want %q in it", r.Request.Method, r.Request.URL.Path, r.body, want)
		}
	}
	put := func(path string, body any) response { t.Helper(); return n.call("PUT", "/c/"+path, n.root(), body) }
	hashOf := func(b []byte) string {
		return strings.TrimPrefix(nix.SHA256Hash(sha256.Sum256(b)).Nix32(), "sha256:")
	}
	// The narinfo before the file.
	says(put(strings.TrimPrefix(narInfoURL("c", p), "/c/"), narInfoFor(t, p, sent)), 409, "Send it first")
	// Names.
	for _, name := range []string{"x.nar.xz", hashOf(sent.body) + ".nar.lzip", hashOf(sent.body) + ".nar.xz.xz", hashOf(sent.body) + ".xz", strings.Repeat("u", 52) + ".nar.xz"} {
		says(put("nar/"+name, sent.body), 400, "SHA-256 of the file")
	}
	// Files that are not what they are called, cut off, go on, or are no NAR.
	junk := pack(t, compression.Xz, []byte("no NAR at all"))
	cut := sent.body[:len(sent.body)-30]
	more := append(bytes.Clone(sent.body), "more"...)
	plus := pack(t, compression.Xz, append(bytes.Clone(p.NAR), 0))
	short := pack(t, compression.Xz, p.NAR[:len(p.NAR)-16])
	for _, c := range []struct {
		body       []byte
		name, want string
	}{
		{sent.body, strings.Repeat("0", 52), "Bad file hash"},
		{junk, hashOf(junk), "Malformed NAR"},
		{cut, hashOf(cut), "decompress xz data"},
		{more, hashOf(more), "decompress xz data"},
		{plus, hashOf(plus), "Malformed NAR"},
		{short, hashOf(short), "Malformed NAR"},
		{p.NAR, hashOf(p.NAR), "decompress xz data"},
		{nil, hashOf(nil), "decompress xz data"},
	} {
		says(put("nar/"+c.name+".nar.xz", c.body), 400, c.want)
		n.call("HEAD", "/c/nar/"+c.name+".nar.xz", n.root(), nil).want(t, 404, "")
	}
	for _, begin := range []string{"LZIP", "\x1f\x9d\x90", "\x5d\x00\x00\x80\x00"} { // lzip, compress, lzma
		other := append([]byte(begin), sent.body...)
		says(put("nar/"+hashOf(other)+".nar", other), 415, "gzip, br and lz4: set")
	}
	n.absent("c", p.Info.StorePath.HashPart())

	// Narinfos that do not agree with the file, which is good.
	put("nar/"+sent.name, sent.body).want(t, 201, "")
	bad := func(want string, change func(*nix.NarInfo)) {
		t.Helper()
		info, err := nix.ParseNarInfo([]byte(narInfoFor(t, p, sent)))
		must(t, err)
		change(info)
		text, err := info.AppendText(nil)
		must(t, err)
		says(put(p.Info.StorePath.HashPart().String()+".narinfo", text), 400, want)
	}
	bad("nix-store --verify-path", func(i *nix.NarInfo) { i.NarHash = q.Info.NarHash })
	bad("nix-store --verify-path", func(i *nix.NarInfo) { i.NarSize++ })
	bad("FileHash", func(i *nix.NarInfo) { i.FileHash = q.Info.NarHash })
	bad("FileSize", func(i *nix.NarInfo) { i.FileSize++ })
	bad("URL", func(i *nix.NarInfo) { i.URL = "https://elsewhere/nar/x.nar.xz" })
	bad("hash part", func(i *nix.NarInfo) { i.StorePath = q.Info.StorePath })
	bad("CA", func(i *nix.NarInfo) { i.CA = "fixed:r:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s" })
	says(put("short.narinfo", narInfoFor(t, p, sent)), 400, "")
	says(put(p.Info.StorePath.HashPart().String()+".narinfo", "StorePath: x"), 400, "narinfo")
	says(put(p.Info.StorePath.HashPart().String()+".narinfo", strings.Repeat("x", 2<<20)), 413, "narinfo")
	n.absent("c", p.Info.StorePath.HashPart())
	put(p.Info.StorePath.HashPart().String()+".narinfo", narInfoFor(t, p, sent)).want(t, 200, "")
}

// TestOtherNarIsRefused copies a path that somebody else has built to other bytes.
func TestOtherNarIsRefused(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p, other := mkPath(t, "p", 1, 5000), mkPath(t, "p", 2, 5000)
	other.Info.StorePath = p.Info.StorePath
	n.push("c", p)
	sent := mkFile(t, compression.Zstd, other.NAR)
	n.call("PUT", "/c/nar/"+sent.name, n.root(), sent.body).want(t, 201, "")
	r := n.call("PUT", narInfoURL("c", p), n.root(), narInfoFor(t, other, sent)).want(t, 409, wire.ErrorConflict)
	for _, want := range []string{p.Info.NarHash.String(), other.Info.NarHash.String(), "Delete it there first"} {
		if !strings.Contains(string(r.body), want) {
			t.Errorf("body %s, want %q in it", r.body, want)
		}
	}
	if got := n.narInfo("c", p.Info.StorePath.HashPart(), n.root()); got.NarHash != p.Info.NarHash {
		t.Errorf("NAR %s, want the first one", got.NarHash)
	}
	if log := n.logs.String(); !strings.Contains(log, "another content") || !strings.Contains(log, other.Info.NarHash.String()) {
		t.Error("the log does not say that a path was refused")
	}
	if m := n.call("GET", "/metrics", "", nil); !strings.Contains(string(m.body), "celler_http_other_nars_refused_total 1") {
		t.Error("the metric does not count that a path was refused")
	}
}

// TestBombs sends little that unfolds to much.
func TestBombs(t *testing.T) {
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.MaxNarBytes = 1 << 20 })
	n.mkCache("c", false)
	p := nixtest.MkPath(t, "zeros", nixtest.File{Contents: make([]byte, 8<<20)})
	for f := range suffixes() {
		sent := mkFile(t, f, p.NAR)
		r := n.call("PUT", "/c/nar/"+sent.name, n.root(), sent.body).want(t, 413, wire.ErrorTooLarge)
		if !strings.Contains(string(r.body), "1048576") {
			t.Errorf("%v: body %s, want the limit in it", f, r.body)
		}
	}
	// A zstd frame that wants a window of 1 GiB.
	wide := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 1, 0, 0, 0}
	name := strings.TrimPrefix(nix.SHA256Hash(sha256.Sum256(wide)).Nix32(), "sha256:")
	n.call("PUT", "/c/nar/"+name+".nar.zst", n.root(), wide).want(t, 413, wire.ErrorTooLarge)
	bomb := pack(t, compression.Gzip, make([]byte, 3<<20))
	n.call("PUT", "/c/debuginfo/abcd", n.root(), bomb, "Content-Encoding", "gzip").want(t, 413, wire.ErrorTooLarge)
	n.call("PUT", narInfoURL("c", p), n.root(), bomb, "Content-Encoding", "gzip").want(t, 413, wire.ErrorTooLarge)
}

// TestRefusedBeforeTheBody asks first whether to send, and is told no without having sent.
func TestRefusedBeforeTheBody(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	sent := mkFile(t, compression.Xz, mkPath(t, "p", 1, 5000).NAR)
	ask := func(user string) string {
		t.Helper()
		conn, err := net.Dial("tcp", n.srv.Listener.Addr().String())
		must(t, err)
		defer conn.Close()
		_, err = fmt.Fprintf(conn, "PUT /c/nar/%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", sent.name, user, len(sent.body))
		must(t, err)
		begin := make([]byte, len("HTTP/1.1 401"))
		_, err = io.ReadFull(conn, begin)
		must(t, err)
		return string(begin)
	}
	if got := ask(""); got != "HTTP/1.1 401" {
		t.Errorf("without credentials: %q, want 401 before the body", got)
	}
	// netrc: any user name, and the token as the password.
	basic := func(token string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("celler:"+token)) + "\r\n"
	}
	if got := ask(basic(n.token("c: pull"))); got != "HTTP/1.1 403" {
		t.Errorf("who may only pull: %q, want 403 before the body", got)
	}
	if got := ask(basic(n.token("c: pull push"))); got != "HTTP/1.1 100" {
		t.Errorf("who may push: %q, want to be told to go on", got)
	}
}

// TestUploadOfDestroyedCache leaves nothing that a new cache of the name could see.
func TestUploadOfDestroyedCache(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p := mkPath(t, "p", 1, 5000)
	sent := mkFile(t, compression.Xz, p.NAR)
	copyTo(t, "c", p, sent, n)
	n.call("PUT", "/c/log/"+p.Info.StorePath.Base()+".drv", n.root(), "a log").want(t, 201, "")
	n.call("DELETE", "/_api/v1/cache-config/c", n.root(), nil).want(t, 200, "")
	n.mkCache("c", false)
	n.call("HEAD", "/c/nar/"+sent.name, n.root(), nil).want(t, 404, "")
	n.call("GET", "/c/log/"+p.Info.StorePath.Base()+".drv", n.root(), nil).want(t, 404, "")
	n.call("PUT", narInfoURL("c", p), n.root(), narInfoFor(t, p, sent)).want(t, 409, "")
	copyTo(t, "c", p, sent, n)
}

// TestUploadOfPurgedPath deletes a path and its bytes: the URL under which plain Nix sent it
// dies with it, and to bring the path back its file must be sent again.
func TestUploadOfPurgedPath(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", true)
	p := mkPath(t, "p", 1, 5000)
	sent := mkFile(t, compression.Xz, p.NAR)
	copyTo(t, "c", p, sent, n)
	n.call("GET", "/c/nar/"+sent.name, "", nil).want(t, 200, "")
	w := catalog.Withdrawal{Cache: "c", HashParts: []nix.HashPart{p.Info.StorePath.HashPart()}}
	_, err := n.cat.WithdrawPaths(t.Context(), w)
	must(t, err)
	n.call("GET", "/c/nar/"+sent.name, "", nil).want(t, 200, "") // as for other URLs of paths that went
	n.call("PUT", narInfoURL("c", p), n.root(), narInfoFor(t, p, sent)).want(t, 200, "")
	w.Purge, w.Now = true, true
	_, err = n.cat.WithdrawPaths(t.Context(), w)
	must(t, err)
	n.call("GET", "/c/nar/"+sent.name, "", nil).want(t, 404, "")
	n.call("HEAD", "/c/nar/"+sent.name, n.root(), nil).want(t, 404, "")
	n.call("PUT", narInfoURL("c", p), n.root(), narInfoFor(t, p, sent)).want(t, 409, wire.ErrorConflict)
	n.absent("c", p.Info.StorePath.HashPart())
	copyTo(t, "c", p, sent, n)
}

// TestNarThatCannotBeReadIsSentAgain loses the packs of an upload.
func TestNarThatCannotBeReadIsSentAgain(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("c", false)
	p := mkPath(t, "p", 1, 50_000)
	sent := mkFile(t, compression.Zstd, p.NAR)
	n.call("PUT", "/c/nar/"+sent.name, n.root(), sent.body).want(t, 201, "")
	recipe, err := n.cat.Recipe(t.Context(), sha256.Sum256(p.NAR))
	must(t, err)
	var dead []catalog.DeadChunks
	for _, run := range recipe.Runs {
		dead = append(dead, catalog.DeadChunks{Pack: run.Pack, Chunks: []catalog.DeadChunk{{Index: run.First}}})
	}
	_, err = n.cat.MarkDamaged(t.Context(), dead)
	must(t, err)
	n.call("PUT", narInfoURL("c", p), n.root(), narInfoFor(t, p, sent)).want(t, 409, wire.ErrorConflict)
	n.call("HEAD", "/c/nar/"+sent.name, n.root(), nil).want(t, 404, "")
	n.call("PUT", "/c/nar/"+sent.name, n.root(), sent.body).want(t, 201, "")
	n.call("HEAD", "/c/nar/"+sent.name, n.root(), nil).want(t, 200, "")
	n.call("PUT", narInfoURL("c", p), n.root(), narInfoFor(t, p, sent)).want(t, 200, "")
	info := n.narInfo("c", p.Info.StorePath.HashPart(), n.root())
	if got := unzstd(t, n.call("GET", "/c/"+info.URL, n.root(), nil).want(t, 200, "").body); !bytes.Equal(got, p.NAR) {
		t.Errorf("%d other bytes", len(got))
	}
}
