package httpapi_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/compression"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

func future() time.Time { return time.Now().Add(time.Hour) }

func TestDeltaPush(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	var config wire.CacheConfig
	n.call("GET", "/_api/v1/cache-config/ci", n.root(), nil).want(t, 200, "").json(t, &config)
	if config.Celler == nil || len(config.Celler.Delta) != 1 || config.Celler.Delta[0] != 1 {
		t.Errorf("capabilities %+v announce no delta protocol", config.Celler)
	}

	small, large := mkPath(t, "small", 1, 500), mkPath(t, "large", 2, 3<<20)
	if sent := d.push(small); sent > len(small.NAR)+400 {
		t.Errorf("%d bytes were sent for a NAR of %d", sent, len(small.NAR))
	}
	n.wantNar("ci", small)
	d.segment = 256 << 10
	d.push(large)
	n.wantNar("ci", large)
	sum, _ := small.Info.NarHash.Sum256()
	if listing, kept, err := n.cat.Listing(sum); err != nil || !kept || len(listing) == 0 {
		t.Errorf("listing: %d bytes, %v, %v; want it to be made on the way in", len(listing), kept, err)
	}
	if sent := d.push(large); sent > len(large.NAR)/200 {
		t.Errorf("%d bytes were sent for a NAR of %d bytes that is there", sent, len(large.NAR))
	}
	n.mkCache("other", false)
	other := n.deltaClient("other", n.root())
	if sent := other.push(large); sent > len(large.NAR)/200 {
		t.Errorf("%d bytes were sent to another cache", sent)
	}
	n.wantNar("other", large)
}

// TestDeltaAdmission: who may not push learns so before anything else, and of a body
// nothing is read.
func TestDeltaAdmission(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	for _, c := range []struct{ method, verb string }{{"GET", ""}, {"POST", "missing"}, {"POST", "chunks"}, {"POST", "join"}, {"POST", "commit"}} {
		var body any
		if c.method == "POST" {
			body = &untouched{t}
		}
		url := d.url(c.verb)
		n.call(c.method, url, "", body).want(t, 401, wire.ErrorUnauthorized)
		n.call(c.method, url, n.token("*:pull"), body).want(t, 403, wire.ErrorAccess)
		n.call(c.method, url, n.token("other:push"), body).want(t, 401, wire.ErrorUnauthorized)
		n.call(c.method, "/_api/v1/delta/none"+url[len("/_api/v1/delta/ci"):], n.root(), body).want(t, 404, wire.ErrorNoSuchCache)
		with := "?"
		if c.verb == "missing" || c.verb == "chunks" {
			with = "?key=" + d.info.ProofKeyName + "&"
		}
		old := "/_api/v1/delta/ci"
		if c.verb != "" {
			old += "/" + c.verb
		}
		r := n.call(c.method, old+with+"version=2", n.root(), body).want(t, 400, wire.ErrorUnsupportedVersion)
		if !bytes.Contains(r.body, []byte("version 1")) {
			t.Errorf("%s: %s does not say which versions there are", c.verb, r.body)
		}
		if with != "?" {
			n.call(c.method, old, n.root(), body).want(t, 409, wire.ErrorProofKey)
			n.call(c.method, old+"?key=00000000", n.root(), body).want(t, 409, wire.ErrorProofKey)
		}
		if c.method == "POST" {
			n.call(c.method, url, n.root(), body, "Content-Type", "text/plain").want(t, 415, "")
			n.call("GET", url, n.root(), nil).want(t, 405, "")
		}
	}
	plain := mkNode(t, nil)
	plain.mkCache("ci", false)
	plain.call("GET", "/_api/v1/delta/ci", plain.root(), nil).want(t, 404, wire.ErrorNotFound)
	if r := plain.call("GET", "/_api/v1/cache-config/ci", plain.root(), nil); bytes.Contains(r.body, []byte("delta")) {
		t.Errorf("%s announces what there is not", r.body)
	}
	past := mkNode(t, n.bucket, withDelta, func(o *nodeOptions) { o.http.Past = "the past" })
	past.call("POST", d.url("missing"), past.root(), []byte{}, "Content-Type", wire.DeltaContentType).want(t, 405, wire.ErrorReadOnly)
}

// untouched is a body that nobody should be interested in.
type untouched struct{ t *testing.T }

func (u *untouched) Read([]byte) (int, error) {
	select {
	case <-u.t.Context().Done():
	case <-time.After(30 * time.Second):
		u.t.Error("the answer waits for the body")
	}
	return 0, io.EOF
}

// TestDeltaLimits: what is too long is 413, what is no query, batch or commit 400.
func TestDeltaLimits(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	query := func(body []byte) response {
		return n.call("POST", d.url("missing"), d.token, body, "Content-Type", wire.DeltaContentType)
	}
	if got := d.missing(make([]chunk.Ref, d.info.QueryChunks)); got.Check(d.info.QueryChunks) != nil {
		t.Error("a query of the greatest length is not answered")
	}
	query(make([]byte, (d.info.QueryChunks+1)*16)).want(t, 413, wire.ErrorTooLarge)
	query(make([]byte, 17)).want(t, 400, wire.ErrorRequest)
	if r := query(nil).want(t, 200, ""); len(r.body) != 0 {
		t.Errorf("the answer to no question has %d bytes", len(r.body))
	}
	unknown := io.MultiReader(bytes.NewReader(make([]byte, (d.info.QueryChunks+1)*16))) // of unknown length
	n.call("POST", d.url("missing"), d.token, unknown, "Content-Type", wire.DeltaContentType).want(t, 413, wire.ErrorTooLarge)

	d.post(make([]byte, d.info.BatchBytes+1)).want(t, 413, wire.ErrorTooLarge)
	d.post([]byte("no batch at all")).want(t, 400, wire.ErrorRequest)
	d.post(wire.AppendSegmentEnd(wire.AppendSegment(wire.AppendBatch(nil), chunk.SHAState{}))).want(t, 400, wire.ErrorRequest)
	many := wire.AppendBatch(nil)
	for range d.info.BatchSegments + 1 {
		many = wire.AppendSegmentEnd(wire.AppendKnown(wire.AppendSegment(many, chunk.SHAState{}), make([]chunk.Ref, 1)))
	}
	d.post(many).want(t, 400, wire.ErrorRequest)

	many = wire.AppendBatch(nil)
	for range 9 {
		many = wire.AppendSegmentEnd(wire.AppendKnown(wire.AppendSegment(many, chunk.SHAState{}), make([]chunk.Ref, 1000)))
	}
	d.post(many).want(t, 413, wire.ErrorTooLarge)

	commit := func(body string) response {
		return n.call("POST", d.url("commit"), d.token, body, "Content-Type", "application/json")
	}
	commit("{").want(t, 400, wire.ErrorRequest)
	commit(`{"paths": []}`).want(t, 422, wire.ErrorRequest)
	commit(`{"paths": [{}]}`).want(t, 422, wire.ErrorRequest)
	n.call("POST", d.url("commit"), d.token, "{}", "Content-Type", "text/plain").want(t, 415, wire.ErrorRequest)
	n.call("POST", d.url("chunks"), d.token, "{}", "Content-Type", "text/plain").want(t, 415, wire.ErrorRequest)
	n.call("POST", d.url("join"), d.token, `{"receipts": ["?"]}`, "Content-Type", "application/json").want(t, 422, wire.ErrorRequest)
	commit(`{"paths": [`+strings.Repeat(`{},`, d.info.CommitPaths)+`{}]}`).want(t, 413, wire.ErrorTooLarge)
	long := io.MultiReader(strings.NewReader(`{"paths": [{"x": "`), io.LimitReader(spaces{}, d.info.CommitBytes))
	n.call("POST", d.url("commit"), d.token, long, "Content-Type", "application/json").want(t, 413, wire.ErrorTooLarge)
	n.call("POST", d.url("join"), d.token, `{"receipts": []}`, "Content-Type", "application/json").want(t, 422, wire.ErrorRequest)
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestDeltaBadChunks: what is not what it is said to be is refused with its place, and
// nothing of the batch counts.
func TestDeltaBadChunks(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	good, bad := d.cut(mkPath(t, "good", 1, 100_000).NAR)[0], d.cut(mkPath(t, "bad", 2, 60_000).NAR)[0]
	one := bad.pieces[:1]
	encode := func(plain []byte) []byte { return d.enc.EncodeAll(plain, nil) }
	item := func(name chunk.Name, size int, frame []byte) []byte {
		return wire.AppendFrame(nil, []chunk.Name{name}, []uint32{uint32(size)}, frame)
	}
	name, data := one[0].ref.Name, one[0].data
	bomb := zstdBomb(t, 100<<20)
	for _, c := range []struct {
		why  string
		item []byte
	}{
		{"another name", item(good.pieces[0].ref.Name, len(data), encode(data))},
		{"longer than said", item(name, len(data)-1, encode(data))},
		{"shorter than said", item(name, len(data)+1, encode(data))},
		{"longer, and lies about it", item(name, len(data), encode(append(bytes.Clone(data), 0)))},
		{"no frame", item(name, len(data), data[:100])},
		{"half a frame", item(name, len(data), encode(data)[:40])},
		{"two frames", item(name, len(data), append(encode(data), encode(nil)...))},
		{"a frame and more", item(name, len(data), append(encode(data), 1))},
		{"a bomb", item(name, len(data), bomb)},
		{"a skippable frame", item(name, len(data), []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4})},
	} {
		body := d.batch(all, good)
		body = append(wire.AppendSegment(body, bad.from), c.item...)
		body = wire.AppendSegmentEnd(body)
		r := d.post(body).want(t, 422, wire.ErrorBadChunk)
		if !bytes.Contains(r.body, []byte("segment 1, item 0")) {
			t.Errorf("%s: %s does not say where", c.why, r.body)
		}
		if b := d.missing(d.refs([]segment{good})); !allSet(b, len(good.pieces)) {
			t.Errorf("%s: chunks of the good segment count", c.why)
		}
	}
	// A batch that is cut off anywhere can be sent again.
	body := d.batch(all, good, bad)
	for _, n := range []int{0, 3, 4, 5, 6, 60, len(body) / 2, len(body) - 1} {
		part := io.MultiReader(bytes.NewReader(body[:n])) // of unknown length
		d.n.call("POST", d.url("chunks"), d.token, part, "Content-Type", wire.DeltaContentType).want(t, 503, wire.ErrorUnavailable)
	}
	// One that is all of what was announced will not get better.
	for _, n := range []int{0, 3, 4, 5, 6, 60, len(body) / 2, len(body) - 1} {
		d.post(body[:n]).want(t, 400, wire.ErrorRequest)
	}
	if b := d.missing(d.refs([]segment{good})); !allSet(b, len(good.pieces)) {
		t.Error("chunks of a batch that was cut off count")
	}
	if rs := d.send(body); len(rs) != 2 || rs[0].Receipt == nil || rs[1].Receipt == nil {
		t.Errorf("results %+v", rs)
	}
	if b := d.missing(d.refs([]segment{good, bad})); bytes.Count(b, []byte{0}) != len(b) {
		t.Errorf("missing after all was sent: %x", b)
	}
}

func allSet(b wire.Bitmap, n int) bool {
	for i := range n {
		if !b.Has(i) {
			return false
		}
	}
	return true
}

// zstdBomb is a short frame that says nothing of its content, which is n zeros.
func zstdBomb(t *testing.T, n int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	must(t, err)
	zeros := make([]byte, 1<<20)
	for range n >> 20 {
		_, err := w.Write(zeros)
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

// TestDeltaTenants: who knows hashes, and not bytes, learns nothing and gets nothing.
func TestDeltaTenants(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("alice", false)
	n.mkCache("mallory", false)
	alice := n.deltaClient("alice", n.subject("alice", "alice"))
	mallory := n.deltaClient("mallory", n.subject("mallory", "mallory"))
	secret := mkPath(t, "secret", 1, 600_000)
	alice.segment = 200 << 10
	receipts, _ := alice.receipts(secret.NAR)
	alice.commit(commitPath(secret, receipts))
	segs := alice.cut(secret.NAR)

	// She knows all ids, and the key of proofs; she does not know the proofs.
	known, nowhere := alice.refs(segs), alice.refs(segs)
	for i := range known {
		known[i].Proof = chunk.Proof(known[i].Name)
		nowhere[i].Name[0] ^= 0xff
		nowhere[i].Proof = known[i].Proof
	}
	ask := func(refs []chunk.Ref) response {
		return n.call("POST", mallory.url("missing"), mallory.token, wire.AppendRefs(nil, refs), "Content-Type", wire.DeltaContentType).want(t, 200, "")
	}
	a, b := ask(known), ask(nowhere)
	a.Header.Del("Date")
	b.Header.Del("Date")
	if !bytes.Equal(a.body, b.body) || !allSet(a.body, len(known)) {
		t.Errorf("chunks of others are answered with %x, chunks of nobody with %x", a.body, b.body)
	}
	if diff := cmp.Diff(a.Header, b.Header); diff != "" {
		t.Errorf("headers differ: %s", diff)
	}
	guess := func(refs []chunk.Ref) []byte {
		body := wire.AppendSegment(wire.AppendBatch(nil), segs[0].from)
		return wire.AppendSegmentEnd(wire.AppendKnown(body, refs[:len(segs[0].pieces)]))
	}
	a, b = mallory.post(guess(known)).want(t, 200, ""), mallory.post(guess(nowhere)).want(t, 200, "")
	if !bytes.Equal(a.body, b.body) || bytes.Contains(a.body, []byte("receipt")) {
		t.Errorf("a batch of chunks of others is answered with %s, one of chunks of nobody with %s", a.body, b.body)
	}
	// Receipts of others are no good, nor those of another cache.
	mallory.postCommit(commitPath(secret, receipts)).want(t, 422, wire.ErrorBadReceipts)
	mallory.postCommit(commitPath(secret, [][]byte{{}, []byte("x")})).want(t, 422, wire.ErrorBadReceipts)
	mallory.postCommit(commitPath(secret, [][]byte{})).want(t, 422, wire.ErrorBadReceipts)
	both := n.deltaClient("mallory", n.subject("alice", "*"))
	both.postCommit(commitPath(secret, receipts)).want(t, 422, wire.ErrorBadReceipts)
	n.call("POST", mallory.url("join"), mallory.token, wire.JoinRequest{Receipts: receipts}).want(t, 422, wire.ErrorBadReceipts)
	n.absent("mallory", secret.Info.StorePath.HashPart())

	// Who has the bytes need not send them.
	mallory.segment = alice.segment
	if sent := mallory.push(secret); sent > len(secret.NAR)/100 {
		t.Errorf("%d bytes were sent of what is there", sent)
	}
	n.wantNar("mallory", secret)
}

// TestDeltaReceipts: receipts count only as a chain that leads to the hash.
func TestDeltaReceipts(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	d.segment = 100 << 10
	p, q := mkPath(t, "p", 1, 500_000), mkPath(t, "q", 2, 500_000)
	rs, _ := d.receipts(p.NAR)
	others, _ := d.receipts(q.NAR)
	if len(rs) < 4 {
		t.Fatalf("%d receipts", len(rs))
	}
	refuse := func(why string, change func(*wire.CommitPath)) {
		t.Helper()
		c := commitPath(p, slices.Clone(rs))
		change(&c)
		if r := d.postCommit(c).want(t, 422, wire.ErrorBadReceipts); !bytes.Contains(r.body, []byte("path 0")) {
			t.Errorf("%s: %s does not say which path", why, r.body)
		}
	}
	refuse("none", func(c *wire.CommitPath) { c.Receipts = [][]byte{} })
	refuse("the last is not there", func(c *wire.CommitPath) { c.Receipts = c.Receipts[:len(rs)-1] })
	refuse("the first is not there", func(c *wire.CommitPath) { c.Receipts = c.Receipts[1:] })
	refuse("one is not there", func(c *wire.CommitPath) { c.Receipts = slices.Delete(c.Receipts, 1, 2) })
	refuse("one is there twice", func(c *wire.CommitPath) { c.Receipts = slices.Insert(c.Receipts, 1, c.Receipts[1]) })
	refuse("another order", func(c *wire.CommitPath) { c.Receipts[1], c.Receipts[2] = c.Receipts[2], c.Receipts[1] })
	refuse("one of another NAR", func(c *wire.CommitPath) { c.Receipts[2] = others[2] })
	refuse("all of another NAR", func(c *wire.CommitPath) { c.Receipts = others })
	refuse("another hash", func(c *wire.CommitPath) { c.NarHash = infoOf("", q).NarHash })
	refuse("another size", func(c *wire.CommitPath) { c.NarSize++ })
	refuse("a bit is wrong", func(c *wire.CommitPath) { c.Receipts[1] = append(bytes.Clone(c.Receipts[1]), 0) })
	n.absent("ci", p.Info.StorePath.HashPart())

	// A state that is no state of the NAR leads nowhere.
	segs := d.cut(p.NAR)
	segs[1].from = segs[2].from
	if got := d.send(d.batch(none, segs[1])); got[0].Receipt == nil {
		t.Errorf("a segment with another state: %+v", got)
	} else {
		refuse("a false state", func(c *wire.CommitPath) { c.Receipts[1] = got[0].Receipt })
	}

	// Joined they are one, and as good; halves, too.
	join := func(rs ...[]byte) []byte {
		var out wire.JoinResult
		n.call("POST", d.url("join"), d.token, wire.JoinRequest{Receipts: rs}).want(t, 200, "").json(t, &out)
		return out.Receipt
	}
	n.call("POST", d.url("join"), d.token, wire.JoinRequest{Receipts: [][]byte{rs[0], rs[2]}}).want(t, 422, wire.ErrorBadReceipts)
	halves := [][]byte{join(rs[:2]...), join(rs[2:]...)}
	whole := join(halves...)
	if sum := len(bytes.Join(rs, nil)); len(whole) >= sum {
		t.Errorf("joined they have %d bytes, apart %d", len(whole), sum)
	}
	first := d.commit(commitPath(p, [][]byte{whole}))
	if first.Paths[0].Kind != wire.CommitUploaded {
		t.Errorf("commit: %+v", first)
	}
	again := d.commit(commitPath(p, halves))
	if again.Paths[0].Kind != wire.CommitPresent || again.Paths[0].FileSize != first.Paths[0].FileSize {
		t.Errorf("commit of the same: %+v after %+v", again, first)
	}
	n.wantNar("ci", p)

	// The same batch gives the same receipt, whoever made it first.
	body := d.batch(none, d.cut(p.NAR)[0])
	if a, b := d.send(body), d.send(body); !bytes.Equal(a[0].Receipt, b[0].Receipt) || !bytes.Equal(a[0].Receipt, rs[0]) {
		t.Error("a repeated batch gives another receipt")
	}
}

// TestDeltaReplicas: each request goes to another server of the bucket, which is started
// for it.
func TestDeltaReplicas(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	p := mkPath(t, "p", 1, 700_000)
	d := n.deltaClient("ci", n.root())
	d.segment = 200 << 10
	var receipts [][]byte
	for _, seg := range d.cut(p.NAR) {
		d.n = mkNode(t, n.bucket, withDelta)
		receipts = append(receipts, d.send(d.batch(all, seg))[0].Receipt)
	}
	last := mkNode(t, n.bucket, withDelta)
	d.n = last
	if b := d.missing(d.refs(d.cut(p.NAR))); bytes.Count(b, []byte{0}) != len(b) {
		t.Errorf("missing elsewhere: %x", b)
	}
	d.commit(commitPath(p, receipts))
	last.wantNar("ci", p)
	n.wantNar("ci", p)

	// A server that is behind is told which slot its client has seen.
	q := mkPath(t, "q", 2, 300_000)
	r := d.post(d.batch(all, d.cut(q.NAR)...)).want(t, 200, "")
	seq := r.Header.Get(wire.HeaderSeq)
	d.n = n
	ask := n.call("POST", d.url("missing"), d.token, wire.AppendRefs(nil, d.refs(d.cut(q.NAR))), "Content-Type", wire.DeltaContentType, wire.HeaderMinSeq, seq).want(t, 200, "")
	if bytes.Count(ask.body, []byte{0}) != len(ask.body) {
		t.Errorf("missing on a server that has seen slot %s: %x", seq, ask.body)
	}
}

// TestDeltaCollected: chunks that went between batch and commit are named, and what is sent
// again is good.
func TestDeltaCollected(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	d.segment = 100 << 10
	p, q := mkPath(t, "p", 1, 500_000), mkPath(t, "q", 2, 1000)
	rs, _ := d.receipts(p.NAR)
	qrs, _ := d.receipts(q.NAR)
	segs := d.cut(p.NAR)
	late := mkNode(t, n.bucket, withDelta)
	n.condemn(segs[1].pieces[0].data, segs[3].pieces[1].data)
	var e wire.CommitError
	refusal := d.postCommit(commitPath(q, qrs), commitPath(p, rs)).want(t, 409, wire.ErrorChunksMissing)
	refusal.json(t, &e)
	// A replica that has not seen yet that they went is told of it.
	b := wire.Bitmap(late.call("POST", d.url("missing"), late.root(), wire.AppendRefs(nil, d.refs(segs[1:2])),
		"Content-Type", wire.DeltaContentType, wire.HeaderMinSeq, refusal.Header.Get(wire.HeaderSeq)).want(t, 200, "").body)
	if !b.Has(0) {
		t.Error("another replica says that a chunk is there that the refusal named")
	}
	if diff := cmp.Diff([]wire.MissingReceipts{{Path: 1, Receipts: []int{1, 3}}}, e.Missing); diff != "" {
		t.Errorf("missing: %s", diff)
	}
	n.absent("ci", q.Info.StorePath.HashPart())
	for _, i := range []int{1, 3} {
		b := d.missing(d.refs(segs[i : i+1]))
		lacks := 0
		for j := range segs[i].pieces {
			if b.Has(j) {
				lacks++
			}
		}
		if lacks != 1 {
			t.Errorf("%d chunks of segment %d are missing, want one", lacks, i)
		}
		// Who overlooks that is told so, and then sends what is missing.
		got := d.send(d.batch(none, segs[i]))
		if got[0].Receipt != nil || !bytes.Equal(got[0].Missing, b) {
			t.Errorf("segment %d: %+v, want missing %x", i, got, b)
		}
		missing := func(r chunk.Ref) bool {
			return got[0].Missing.Has(slices.IndexFunc(segs[i].pieces, func(p piece) bool { return p.ref == r }))
		}
		rs[i] = d.send(d.batch(missing, segs[i]))[0].Receipt
	}
	d.commit(commitPath(q, qrs), commitPath(p, rs))
	n.wantNar("ci", p)
	n.wantNar("ci", q)
}

// condemn does what a collector does to chunks that nobody refers to.
func (n *node) condemn(chunks ...[]byte) {
	n.t.Helper()
	for _, data := range chunks {
		id := chunk.Sum(data)
		at, found, err := n.cat.LookupChunks(n.t.Context(), []chunk.ID{id})
		if err != nil || !found[0] {
			n.t.Fatal(found, err)
		}
		_, err = n.cat.MarkDamaged(n.t.Context(), []catalog.DeadChunks{{Pack: at[0].Pack, Chunks: []catalog.DeadChunk{{Index: at[0].Index, ID: id}}}})
		must(n.t, err)
	}
}

// TestDeltaRefused are commits that make no sense.
func TestDeltaRefused(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	p := mkPath(t, "p", 1, 5000)
	rs, _ := d.receipts(p.NAR)
	refuse := func(status int, name string, change func(*wire.CommitPath)) string {
		t.Helper()
		c := commitPath(p, rs)
		change(&c)
		return string(d.postCommit(c).want(t, status, name).body)
	}
	for _, change := range []func(*wire.CommitPath){
		func(c *wire.CommitPath) { c.StorePath = "/nix/store/x" },
		func(c *wire.CommitPath) { c.StorePath = "/gnu/store" + c.StorePath[len("/nix/store"):] },
		func(c *wire.CommitPath) { c.NarHash = "sha256:00" },
		func(c *wire.CommitPath) { c.NarSize = 0 },
		func(c *wire.CommitPath) { c.References = []string{"../x"} },
		func(c *wire.CommitPath) { c.Deriver = "a\nb" },
		func(c *wire.CommitPath) { c.System = "a\nb" },
		func(c *wire.CommitPath) { c.CA = "nonsense" },
		func(c *wire.CommitPath) { c.Pin = &wire.PinRequest{Name: ".."} },
	} {
		if text := refuse(400, wire.ErrorRequest, change); strings.Count(text, "General request error") != 1 {
			t.Error(text)
		}
	}
	refuse(413, wire.ErrorTooLarge, func(c *wire.CommitPath) { c.NarSize = 1<<40 + 1 })
	n.absent("ci", p.Info.StorePath.HashPart())

	// Another NAR under a name that is taken.
	d.push(p)
	q := mkPath(t, "q", 2, 5000)
	qrs, _ := d.receipts(q.NAR)
	conflict := commitPath(q, qrs)
	conflict.StorePath = commitPath(p, nil).StorePath
	r := d.postCommit(conflict).want(t, 409, wire.ErrorConflict)
	for _, hash := range []nix.Hash{p.Info.NarHash, q.Info.NarHash} {
		if !bytes.Contains(r.body, []byte(hash.String())) {
			t.Errorf("%s does not name %s", r.body, hash)
		}
	}
	n.wantNar("ci", p)

	// What is no NAR, of one segment and of many.
	for _, size := range []int{5000, 500_000} {
		noise := make([]byte, size)
		copy(noise, q.NAR[:100])
		d.segment = 100 << 10
		info := q.Info
		info.NarHash = nix.SHA256Hash(sha256.Sum256(noise))
		nrs, _ := d.receipts(noise)
		d.postCommit(commitPath(nixtest.Path{Info: info, NAR: noise}, nrs)).want(t, 422, wire.ErrorBadNar)
		d.segment = int(d.info.SegmentBytes)
	}
	n.absent("ci", q.Info.StorePath.HashPart())
}

// TestDeltaReferences: what is absent is told, or refused.
func TestDeltaReferences(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	dep := mkPath(t, "dep", 1, 1000)
	p := mkPath(t, "p", 2, 1000, dep.Info.StorePath)
	depReceipts, _ := d.receipts(dep.NAR)
	rs, _ := d.receipts(p.NAR)

	strict := mkNode(t, n.bucket, withDelta, func(o *nodeOptions) { o.http.RefuseAbsentReferences = true })
	s := strict.deltaClient("ci", strict.root())
	if s.info.References != wire.ReferencesRefuse || d.info.References != wire.ReferencesAccept {
		t.Errorf("references are said to be %q and %q", d.info.References, s.info.References)
	}
	r := s.postCommit(commitPath(p, rs)).want(t, 422, wire.ErrorAbsentReferences)
	if !bytes.Contains(r.body, []byte(dep.Info.StorePath.Base())) {
		t.Errorf("%s does not name what is absent", r.body)
	}
	strict.upload(strict.root(), infoOf("ci", p), p.NAR).want(t, 422, wire.ErrorAbsentReferences)
	sent := mkFile(t, compression.Xz, p.NAR)
	strict.call("PUT", "/ci/nar/"+sent.name, strict.root(), sent.body).want(t, 201, "")
	r = strict.call("PUT", narInfoURL("ci", p), strict.root(), narInfoFor(t, p, sent)).want(t, 422, wire.ErrorAbsentReferences)
	if !bytes.Contains(r.body, []byte(dep.Info.StorePath.Base())) {
		t.Errorf("%s does not name what is absent", r.body)
	}
	strict.absent("ci", p.Info.StorePath.HashPart())
	strict.mkCache("nix", false)
	copyTo(t, "nix", dep, mkFile(t, compression.Xz, dep.NAR), strict)
	copyTo(t, "nix", p, sent, strict)
	strict.mkCache("attic", false)
	strict.push("attic", dep)
	strict.push("attic", p)
	got := d.commit(commitPath(p, rs))
	if diff := cmp.Diff([]string{dep.Info.StorePath.Base()}, got.Paths[0].AbsentReferences); diff != "" {
		t.Error(diff)
	}
	got = s.commit(commitPath(dep, depReceipts), commitPath(p, rs))
	if got.Committed != 2 || got.Paths[0].Kind != wire.CommitUploaded || got.Paths[1].Kind != wire.CommitPresent || got.Paths[1].AbsentReferences != nil {
		t.Errorf("%+v", got)
	}
}

// TestDeltaManyPaths: a thousand small paths are a few requests, of the client and to the
// bucket.
func TestDeltaManyPaths(t *testing.T) {
	count := blobtest.Count(memblob.New())
	n := mkNode(t, count, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	var paths []nixtest.Path
	var segs []segment
	for i := range 500 {
		p := nixtest.MkPath(t, fmt.Sprint("p", i), nixtest.Dir{"f": nixtest.Text(fmt.Sprint("text ", i))})
		paths, segs = append(paths, p), append(segs, d.cut(p.NAR)...)
	}
	count.Reset()
	var commits []wire.CommitPath
	bytesSent := 0
	for at, part := range slices.Collect(slices.Chunk(segs, 250)) {
		body := d.batch(all, part...)
		bytesSent += len(body)
		for i, result := range d.send(body) {
			commits = append(commits, commitPath(paths[at*250+i], [][]byte{result.Receipt}))
		}
	}
	got := d.commit(commits...)
	if got.Committed != len(paths) {
		t.Errorf("%d of %d paths were committed at once", got.Committed, len(paths))
	}
	if calls := count.Total(); calls > 24 {
		t.Errorf("%d requests to the bucket: %v", calls, count.Calls())
	}
	t.Logf("%d paths: %d bytes of batches, %d of a commit, requests %v", len(paths), bytesSent, len(jsonText(commits)), count.Calls())
	n.wantNar("ci", paths[0])
	n.wantNar("ci", paths[len(paths)-1])
}

// TestDeltaPin: a pin needs its right, and moves with its path.
func TestDeltaPin(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.token("ci:push pull"))
	p := mkPath(t, "p", 1, 1000)
	rs, _ := d.receipts(p.NAR)
	c := commitPath(p, rs)
	c.Pin = &wire.PinRequest{Name: "main"}
	d.postCommit(c).want(t, 403, wire.ErrorAccess)
	n.absent("ci", p.Info.StorePath.HashPart())
	d.token = n.token("ci:push pull pin")
	d.commit(c)
	var list wire.PinList
	n.call("GET", "/_api/v1/caches/ci/pins", n.root(), nil).want(t, 200, "").json(t, &list)
	if len(list.Pins) != 1 || list.Pins[0].StorePath != c.StorePath || list.Pins[0].Waiting {
		t.Errorf("pins %+v", list.Pins)
	}
}

// FuzzDelta sends any body as a batch. Whatever happens, the answer is no failure of the
// server.
func FuzzDelta(f *testing.F) {
	n := mkNode(f, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	segs := d.cut(mkPath(f, "p", 1, 3000).NAR)
	f.Add(d.batch(all, segs...))
	f.Add(d.batch(none, segs...))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", d.url("chunks"), bytes.NewReader(body))
		r.Header.Set("Authorization", "bearer "+d.token)
		r.Header.Set("Content-Type", wire.DeltaContentType)
		w := httptest.NewRecorder()
		n.srv.Config.Handler.ServeHTTP(w, r)
		switch w.Code {
		case 200, 400, 422:
		case 503:
			if !strings.Contains(w.Body.String(), "cut it off") {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
		default:
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}
