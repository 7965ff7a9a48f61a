package httpapi_test

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/nix/nixtest"
)

var (
	testProofKey   = chunk.ProofKey{1, 2, 3}
	testReceiptKey = []byte("a secret of the servers, in tests")
)

// withDelta makes a node speak the delta protocol.
func withDelta(o *nodeOptions) {
	o.chunks.ProofKey = testProofKey
	o.http.ReceiptKey = testReceiptKey
}

// deltaClient speaks the delta protocol as docs/protocol.md has it.
type deltaClient struct {
	t       testing.TB
	n       *node
	token   string
	cache   string
	info    wire.DeltaInfo
	profile chunk.Profile
	key     chunk.ProofKey
	enc     *zstd.Encoder
	// segment is how many plain bytes its segments have at most.
	segment int
}

func (n *node) deltaClient(cache, token string) *deltaClient {
	n.t.Helper()
	d := &deltaClient{t: n.t, n: n, token: token, cache: cache}
	n.call("GET", d.url(""), token, nil).want(n.t, 200, "").json(n.t, &d.info)
	var err error
	d.profile, err = chunk.ParseProfile(d.info.Chunking)
	must(n.t, err)
	d.key = chunk.ProofKey(d.info.ProofKey)
	d.enc, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithZeroFrames(true))
	must(n.t, err)
	d.segment = int(d.info.SegmentBytes)
	return d
}

// subject mints a token for somebody.
func (n *node) subject(subject string, rule string) string {
	n.t.Helper()
	perm, err := auth.ParsePermission("pull", "push")
	must(n.t, err)
	token, err := n.auth.Mint(auth.Claims{Subject: subject, Expires: future(), Rules: []auth.Rule{{Pattern: auth.Pattern(rule), Permission: perm}}})
	must(n.t, err)
	return token
}

func (d *deltaClient) url(verb string) string {
	switch verb {
	case "":
		return "/_api/v1/delta/" + d.cache
	case "missing", "chunks":
		return "/_api/v1/delta/" + d.cache + "/" + verb + "?version=1&key=" + d.info.ProofKeyName
	}
	return "/_api/v1/delta/" + d.cache + "/" + verb
}

// piece is a chunk of a NAR.
type piece struct {
	data []byte
	ref  chunk.Ref
}

// segment is a stretch of a NAR.
type segment struct {
	from   chunk.SHAState
	pieces []piece
}

// cut cuts a NAR into segments.
func (d *deltaClient) cut(nar []byte) []segment {
	d.t.Helper()
	h := sha256.New()
	var segs []segment
	size := 0
	for len(nar) > 0 {
		n := d.profile.Cut(nar)
		if len(segs) == 0 || size+n > d.segment {
			from, err := chunk.SHAStateOf(h)
			must(d.t, err)
			segs, size = append(segs, segment{from: from}), 0
		}
		id, proof := d.key.Sum(nar[:n])
		seg := &segs[len(segs)-1]
		seg.pieces = append(seg.pieces, piece{data: nar[:n], ref: chunk.Ref{Name: id.Name(), Proof: proof}})
		h.Write(nar[:n])
		nar, size = nar[n:], size+n
	}
	return segs
}

func (d *deltaClient) refs(segs []segment) (refs []chunk.Ref) {
	for _, seg := range segs {
		for _, p := range seg.pieces {
			refs = append(refs, p.ref)
		}
	}
	return refs
}

// missing asks which chunks are missing.
func (d *deltaClient) missing(refs []chunk.Ref) wire.Bitmap {
	d.t.Helper()
	r := d.n.call("POST", d.url("missing"), d.token, wire.AppendRefs(nil, refs), "Content-Type", wire.DeltaContentType).want(d.t, 200, "")
	b := wire.Bitmap(r.body)
	must(d.t, b.Check(len(refs)))
	return b
}

// frame appends one F item.
func (d *deltaClient) frame(dst []byte, pieces []piece) []byte {
	var names []chunk.Name
	var sizes []uint32
	var plain []byte
	for _, p := range pieces {
		names, sizes, plain = append(names, p.ref.Name), append(sizes, uint32(len(p.data))), append(plain, p.data...)
	}
	return wire.AppendFrame(dst, names, sizes, d.enc.EncodeAll(plain, nil))
}

// append appends a segment to a batch: what is missing in frames, the rest by reference.
func (d *deltaClient) append(dst []byte, seg segment, missing func(chunk.Ref) bool) []byte {
	dst = wire.AppendSegment(dst, seg.from)
	for at := 0; at < len(seg.pieces); {
		end, size := at, 0
		isNew := missing(seg.pieces[at].ref)
		for end < len(seg.pieces) && missing(seg.pieces[end].ref) == isNew && (!isNew || size+len(seg.pieces[end].data) <= d.info.FrameBytes) {
			size += len(seg.pieces[end].data)
			end++
		}
		if isNew {
			dst = d.frame(dst, seg.pieces[at:end])
		} else {
			var refs []chunk.Ref
			for _, p := range seg.pieces[at:end] {
				refs = append(refs, p.ref)
			}
			dst = wire.AppendKnown(dst, refs)
		}
		at = end
	}
	return wire.AppendSegmentEnd(dst)
}

func all(chunk.Ref) bool  { return true }
func none(chunk.Ref) bool { return false }

// batch makes a batch of segments.
func (d *deltaClient) batch(missing func(chunk.Ref) bool, segs ...segment) []byte {
	body := wire.AppendBatch(nil)
	for _, seg := range segs {
		body = d.append(body, seg, missing)
	}
	return body
}

func (d *deltaClient) post(body []byte) response {
	d.t.Helper()
	return d.n.call("POST", d.url("chunks"), d.token, body, "Content-Type", wire.DeltaContentType)
}

// send sends a batch and returns what became of its segments.
func (d *deltaClient) send(body []byte) []wire.SegmentResult {
	d.t.Helper()
	var result wire.BatchResult
	d.post(body).want(d.t, 200, "").json(d.t, &result)
	return result.Segments
}

// receipts has a NAR taken in and returns its receipts and how many bytes were sent.
func (d *deltaClient) receipts(nar []byte) (receipts [][]byte, sent int) {
	d.t.Helper()
	segs := d.cut(nar)
	refs := d.refs(segs)
	bitmap := d.missing(refs)
	lacks := make(map[chunk.Ref]bool)
	for i, ref := range refs {
		lacks[ref] = bitmap.Has(i)
	}
	for _, seg := range segs {
		body := d.batch(func(r chunk.Ref) bool { return lacks[r] }, seg)
		sent += len(body)
		result := d.send(body)
		if len(result) != 1 || result[0].Receipt == nil {
			d.t.Fatalf("results %+v", result)
		}
		receipts = append(receipts, result[0].Receipt)
	}
	return receipts, sent
}

// commitPath is what a commit says of a path.
func commitPath(p nixtest.Path, receipts [][]byte) wire.CommitPath {
	info := infoOf("", p)
	return wire.CommitPath{StorePath: info.StorePath, NarHash: info.NarHash, NarSize: info.NarSize, References: info.References, Receipts: receipts}
}

func (d *deltaClient) postCommit(paths ...wire.CommitPath) response {
	d.t.Helper()
	return d.n.call("POST", d.url("commit"), d.token, wire.CommitRequest{Paths: paths})
}

func (d *deltaClient) commit(paths ...wire.CommitPath) wire.CommitResult {
	d.t.Helper()
	var result wire.CommitResult
	d.postCommit(paths...).want(d.t, 200, "").json(d.t, &result)
	return result
}

// push pushes a path and returns how many bytes of batches that took.
func (d *deltaClient) push(p nixtest.Path) int {
	d.t.Helper()
	receipts, sent := d.receipts(p.NAR)
	if result := d.commit(commitPath(p, receipts)); result.Committed != 1 || result.Seq == 0 {
		d.t.Fatalf("commit: %+v", result)
	}
	return sent
}

// wantNar checks that a path is served.
func (n *node) wantNar(cache string, p nixtest.Path) {
	n.t.Helper()
	info := n.narInfo(cache, p.Info.StorePath.HashPart(), n.root())
	r := n.call("GET", "/"+cache+"/"+info.URL, n.root(), nil).want(n.t, 200, "")
	if got := unzstd(n.t, r.body); !bytes.Equal(got, p.NAR) {
		n.t.Errorf("NAR of %s: %d bytes, want the %d that were pushed", p.Info.StorePath.Base(), len(got), len(p.NAR))
	}
	if info.NarSize != int64(len(p.NAR)) || info.FileSize != int64(len(r.body)) {
		n.t.Errorf("narinfo of %s says %d and %d bytes, want %d and %d", p.Info.StorePath.Base(), info.NarSize, info.FileSize, len(p.NAR), len(r.body))
	}
}
