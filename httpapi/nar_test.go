package httpapi_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// servedNar pushes a NAR of several frames and returns its URL and bytes.
func servedNar(t *testing.T, n *node, cache string) (string, []byte) {
	t.Helper()
	n.mkCache(cache, true)
	p := mkPath(t, "ranged", 5, 3<<20)
	n.push(cache, p)
	url := "/" + cache + "/" + n.narInfo(cache, p.Info.StorePath.HashPart(), "").URL
	whole := n.call("GET", url, "", nil).want(t, 200, "")
	if !bytes.Equal(unzstd(t, whole.body), p.NAR) {
		t.Fatal("the served file does not decode to the NAR")
	}
	return url, whole.body
}

func TestRanges(t *testing.T) {
	for name, change := range map[string]func(*nodeOptions){
		"from the bucket": func(*nodeOptions) {},
		"resident":        func(o *nodeOptions) { o.chunks.Dir = t.TempDir() },
	} {
		t.Run(name, func(t *testing.T) { testRanges(t, mkNode(t, nil, change)) })
	}
}

func testRanges(t *testing.T, n *node) {
	url, whole := servedNar(t, n, "c")
	size := len(whole)
	f := func(spec string, from, to int) {
		t.Helper()
		r := n.call("GET", url, "", nil, "Range", "bytes="+spec).want(t, 206, "")
		if !bytes.Equal(r.body, whole[from:to]) {
			t.Errorf("bytes=%s: %d bytes, which are not those from %d to %d", spec, len(r.body), from, to)
		}
		if got, want := r.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", from, to-1, size); got != want {
			t.Errorf("bytes=%s: Content-Range %q, want %q", spec, got, want)
		}
	}
	f("0-0", 0, 1)
	f("0-", 0, size)
	f("1-", 1, size)
	f("-1", size-1, size)
	f(fmt.Sprint("-", size*2), 0, size)
	f(fmt.Sprint(size-1, "-"), size-1, size)
	f(fmt.Sprint("0-", size*3), 0, size)
	rnd := rand.New(rand.NewPCG(9, 9))
	for range 30 {
		from := rnd.IntN(size)
		to := from + 1 + rnd.IntN(size-from)
		f(fmt.Sprint(from, "-", to-1), from, to)
	}
	const huge = "99999999999999999999999"
	f("5-"+huge, 5, size)
	f("-"+huge, 0, size)
	f(" 5 - 9 ,", 5, 10)
	f("5-9,-0", 5, 10)
	for _, spec := range []string{
		fmt.Sprintf("bytes=%d-", size), fmt.Sprintf("bytes=%d-%d", size+5, size+9), "bytes=-0", "bytes=-00", "bytes=" + huge + "-", "bytes=" + huge + "-" + huge,
		"bytes=5-1", "bytes=a-b", "bytes=1-b", "bytes=+1-2", "bytes=1", "bytes=-", "bytes=--1", "bytes=1-2-3", "bytes=1-2,x", "bytes=", "bytes=,", "bytes", "chunks=0-1",
	} {
		r := n.call("GET", url, "", nil, "Range", spec).want(t, 416, "")
		if got, want := r.Header.Get("Content-Range"), fmt.Sprintf("bytes */%d", size); got != want {
			t.Errorf("%s: Content-Range %q, want %q", spec, got, want)
		}
	}

	// Several ranges at once.
	r := n.call("GET", url, "", nil, "Range", "bytes=0-9,100000-200000,-7").want(t, 206, "")
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	must(t, err)
	parts := multipart.NewReader(bytes.NewReader(r.body), params["boundary"])
	for i, want := range [][]byte{whole[:10], whole[100000:200001], whole[size-7:]} {
		part, err := parts.NextPart()
		must(t, err)
		got, err := io.ReadAll(part)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("part %d: %d bytes, which are not the %d asked for", i, len(got), len(want))
		}
	}
	// Very many are answered with the whole.
	r = n.call("GET", url, "", nil, "Range", "bytes="+strings.Repeat("0-0,", 100)+"1-1").want(t, 200, "")
	if !bytes.Equal(r.body, whole) {
		t.Error("the whole is not the whole")
	}

	// Conditions.
	etag := r.Header.Get("ETag")
	if strings.HasPrefix(etag, "W/") || len(etag) < 10 {
		t.Errorf("ETag %q is not a strong one", etag)
	}
	n.call("GET", url, "", nil, "If-None-Match", etag).want(t, 304, "")
	n.call("GET", url, "", nil, "If-Match", `"other"`).want(t, 412, "")
	n.call("GET", url, "", nil, "If-Range", etag, "Range", "bytes=5-9").want(t, 206, "")
	if r := n.call("GET", url, "", nil, "If-Range", `"other"`, "Range", "bytes=5-9").want(t, 200, ""); !bytes.Equal(r.body, whole) {
		t.Error("If-Range with another tag did not give the whole")
	}
	// HEAD says what GET would.
	h := n.call("HEAD", url, "", nil).want(t, 200, "")
	if h.ContentLength != int64(size) || h.Header.Get("ETag") != etag || len(h.body) != 0 || h.Header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("HEAD: length %d, headers %v", h.ContentLength, h.Header)
	}
	if r := n.call("HEAD", url, "", nil, "Range", "bytes=0-3").want(t, 206, ""); r.ContentLength != 4 {
		t.Errorf("HEAD of a range: length %d", r.ContentLength)
	}
	// A transfer that was cut off goes on where it was, also at another node.
	m := mkNode(t, n.bucket)
	rest := m.call("GET", url, "", nil, "Range", fmt.Sprintf("bytes=%d-", size/3), "If-Range", etag).want(t, 206, "")
	if !bytes.Equal(rest.body, whole[size/3:]) {
		t.Error("another node continues with other bytes")
	}
	if n.call("HEAD", url, "", nil, "Accept-Encoding", "gzip, zstd").Header.Get("Content-Encoding") != "" {
		t.Error("a NAR has a Content-Encoding")
	}
}

// breaking is a bucket that stops giving packs after some ranged reads.
type breaking struct {
	blob.Bucket
	left atomic.Int64
}

func (b *breaking) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	if b.left.Add(-1) < 0 {
		return nil, blob.ErrNotExist
	}
	return b.Bucket.GetRange(ctx, key, off, n)
}

// What cannot even be begun is said in words: the client would else see an empty answer.
func TestNarThatCannotBeBegun(t *testing.T) {
	bucket := &breaking{Bucket: memblob.New()}
	bucket.left.Store(1 << 40)
	n := mkNode(t, bucket, func(o *nodeOptions) { o.chunks = chunkstore.Options{PackBytes: 64 << 10, ReadAhead: 64 << 10} })
	url, whole := servedNar(t, n, "c")
	bucket.left.Store(0)
	for _, header := range [][]string{nil, {"Range", "bytes=5-9"}, {"Range", "bytes=-1"}} {
		r := n.call("GET", url, "", nil, header...).want(t, 503, wire.ErrorIncompleteNar)
		for _, name := range []string{"ETag", "Content-Range", "Accept-Ranges", "Last-Modified"} {
			if v := r.Header.Get(name); v != "" {
				t.Errorf("%v: %s is %q on status 503", header, name, v)
			}
		}
		if r.Header.Get("Retry-After") == "" {
			t.Errorf("%v: no Retry-After", header)
		}
	}
	n.call("HEAD", url, "", nil).want(t, 200, "")
	etag := n.call("HEAD", url, "", nil).Header.Get("ETag")
	n.call("GET", url, "", nil, "If-None-Match", etag).want(t, 304, "")
	n.call("GET", url, "", nil, "Range", "bytes=99999999-").want(t, 416, "")
	bucket.left.Store(1 << 40)
	if r := n.call("GET", url, "", nil).want(t, 200, ""); !bytes.Equal(r.body, whole) {
		t.Error("the NAR is damaged")
	}
	if r := n.call("GET", url, "", nil, "Range", "bytes=5-9").want(t, 206, ""); !bytes.Equal(r.body, whole[5:10]) {
		t.Errorf("the range is damaged: %x", r.body)
	}
}

// A NAR that cannot be completed must never look complete.
func TestTornNar(t *testing.T) {
	bucket := &breaking{Bucket: memblob.New()}
	bucket.left.Store(1 << 40)
	small := func(o *nodeOptions) { o.chunks = chunkstore.Options{PackBytes: 64 << 10, ReadAhead: 64 << 10} }
	n := mkNode(t, bucket, small)
	url, whole := servedNar(t, n, "c")
	torn := 0
	for left := range 12 {
		bucket.left.Store(int64(left))
		r, err := n.try("GET", url, "", nil)
		switch {
		case err != nil:
			torn++
			if r.Response != nil && r.StatusCode == 200 && len(r.body) >= len(whole) {
				t.Errorf("after %d reads: an error and all the bytes", left)
			}
		case r.StatusCode == 200 && !bytes.Equal(r.body, whole):
			t.Errorf("after %d reads: a clean end after %d of %d bytes", left, len(r.body), len(whole))
		}
	}
	if torn == 0 {
		t.Error("no response was torn: the test tests nothing")
	}
	bucket.left.Store(1 << 40)
	if r := n.call("GET", url, "", nil).want(t, 200, ""); !bytes.Equal(r.body, whole) {
		t.Error("the NAR is damaged")
	}
	if !strings.Contains(n.logs.String(), `"aborted":true`) {
		t.Error("the log does not say that a response was torn")
	}
}

func TestNarInfoDetails(t *testing.T) {
	n := mkNode(t, nil)
	n.mkCache("open", true)
	n.mkCache("shut", false)
	dep := mkPath(t, "dep", 1, 100)
	p := mkPath(t, "p", 2, 1000, dep.Info.StorePath)
	uploader := nixtest.MkSecretKey(t, "builder-1")
	fp, err := p.Info.Fingerprint()
	must(t, err)
	good := uploader.Sign(fp).String()
	deriver, system := "00bgd045z0d4icpbc2yyz4gx48ak44la-p.drv", "x86_64-linux"
	info := infoOf("open", p)
	// Nix gives up a path over what is no signature under the name of a key that it trusts.
	long := base64.StdEncoding.EncodeToString(make([]byte, 2420))
	info.Sigs = []string{"not a signature", "open:AAAA", "open:" + long, "builder-1:AAAA", "builder-1:####", good, good, ""}
	info.Deriver, info.System = &deriver, &system
	n.upload(n.root(), info, p.NAR).want(t, 200, "")
	got := n.narInfo("open", p.Info.StorePath.HashPart(), "")
	if len(got.Sig) != 2 || got.Sig[0].Name() != "open" || got.Sig[1].String() != good {
		t.Errorf("signatures %v, want the cache's and then the uploaded one", got.Sig)
	}
	if got.Deriver != deriver || got.System != system || got.CA != "" {
		t.Errorf("deriver %q, system %q, CA %q", got.Deriver, got.System, got.CA)
	}
	ca := "text:sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	named, err := nix.ParseStorePath("/nix/store/4g4g9i669dl63abpww0djbl2jxl6bwiz-x") // builtins.toFile "x" "hello"
	must(t, err)
	info = infoOf("open", dep)
	info.StorePath, info.StorePathHash, info.CA = named.String(), named.HashPart().String(), &ca
	n.upload(n.root(), info, dep.NAR).want(t, 200, "")
	if got := n.narInfo("open", named.HashPart(), ""); got.CA != ca {
		t.Errorf("CA %q", got.CA)
	}
	wantURL := "nar/" + p.Info.StorePath.HashPart().String() + "-" + strings.TrimPrefix(p.Info.NarHash.Nix32(), "sha256:") + ".nar.zst"
	if got.URL != wantURL || !got.NarHash.IsZero() && got.NarHash != p.Info.NarHash {
		t.Errorf("URL %q, want %q", got.URL, wantURL)
	}
	// No references: the line stays, with its space.
	n.push("open", dep)
	r := n.call("GET", "/open/"+dep.Info.StorePath.HashPart().String()+".narinfo", "", nil).want(t, 200, "")
	if !strings.Contains(string(r.body), "\nReferences: \n") {
		t.Errorf("no space after an empty References:\n%s", r.body)
	}
	etag := r.Header.Get("ETag")
	n.call("GET", "/open/"+dep.Info.StorePath.HashPart().String()+".narinfo", "", nil, "If-None-Match", `"x", W/`+etag).want(t, 304, "")
	if h := n.call("HEAD", "/open/"+dep.Info.StorePath.HashPart().String()+".narinfo", "", nil).want(t, 200, ""); h.ContentLength != int64(len(r.body)) || len(h.body) != 0 {
		t.Errorf("HEAD: length %d, body %q", h.ContentLength, h.body)
	}
	// A new key signs old paths too.
	key := nixtest.MkSecretKey(t, "rotated-2")
	n.call("PATCH", "/_api/v1/cache-config/open", n.root(), wire.CacheConfig{Keypair: &wire.Keypair{Secret: key.Secret()}}).want(t, 200, "")
	again := n.narInfo("open", p.Info.StorePath.HashPart(), "")
	if !nix.VerifyAny([]nix.PublicKey{key.Public()}, fp, again.Sig) {
		t.Errorf("after a change of key: %v", again.Sig)
	}
	// The same NAR under the wrong path's name, or another NAR hash, is not there.
	n.call("GET", "/open/nar/"+dep.Info.StorePath.HashPart().String()+"-"+strings.TrimPrefix(p.Info.NarHash.Nix32(), "sha256:")+".nar.zst", "", nil).want(t, 404, wire.ErrorNoSuchObject)
	// Another cache's paths are not this one's.
	n.call("GET", "/shut/"+p.Info.StorePath.HashPart().String()+".narinfo", n.root(), nil).want(t, 404, wire.ErrorNoSuchObject)
	n.call("GET", "/shut/"+wantURL, n.root(), nil).want(t, 404, wire.ErrorNoSuchObject)
}
