package client

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// deltaServer is a fakeServer that speaks the delta protocol and believes nothing.
type deltaServer struct {
	*fakeServer
	info wire.DeltaInfo
	// meddle is asked before each call ("missing", "chunks", "join", "commit"), numbered
	// from 1 for each kind, and answers itself if it returns true.
	meddle func(call string, n int, w http.ResponseWriter, body []byte) bool
	dec    *zstd.Decoder

	dmu      sync.Mutex
	calls    map[string]int
	bytes    map[string]int
	largest  int
	chunks   map[chunk.Ref][]byte
	brought  int // chunks that came in frames
	twice    []chunk.Name
	receipts map[string]receipt
	commits  [][]string

	tells, strict bool // which references are absent; such a path is refused
}

type receipt struct {
	from, to chunk.SHAState
	size     int64
	refs     []chunk.Ref
}

func newDeltaServer(t *testing.T) *deltaServer {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dec.Close)
	f := &deltaServer{
		fakeServer: newFakeServer(t), dec: dec, calls: map[string]int{}, bytes: map[string]int{},
		chunks: map[chunk.Ref][]byte{}, receipts: map[string]receipt{},
		info: wire.DeltaInfo{
			Version: 1, Chunking: "fast2016-1k", ChunkMin: 256, ChunkAvg: 1024, ChunkMax: 4096, FrameBytes: 16 << 10, RestoreBytes: 1, BatchBytes: 256 << 10,
			BatchSegments: 64, BatchChunks: 10000, SegmentBytes: 64 << 10, QueryChunks: 1000, CommitPaths: 10, MaxNarBytes: 1 << 40, References: wire.ReferencesAccept,
			ProofKey: bytes.Repeat([]byte{5}, 32), ProofKeyName: "k1",
		},
	}
	f.config.Celler = &wire.Capabilities{Version: 3, Delta: []int{1}}
	return f
}

func (f *deltaServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/_api/v1/delta/ci")
	if !ok {
		f.fakeServer.ServeHTTP(w, r)
		return
	}
	call := strings.TrimPrefix(rest, "/")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.dmu.Lock()
	f.calls[call]++
	f.bytes[call] += len(body)
	f.largest = max(f.largest, len(body))
	n := f.calls[call]
	f.dmu.Unlock()
	if f.meddle != nil && f.meddle(call, n, w, body) {
		return
	}
	if key := r.URL.Query().Get(wire.DeltaProofKeyParam); (call == "missing" || call == "chunks") && key != f.info.ProofKeyName {
		refuse(w, http.StatusConflict, wire.ErrorProofKey, "another key")
		return
	}
	f.dmu.Lock()
	defer f.dmu.Unlock()
	switch call {
	case "":
		f.answer(w, f.info)
	case "missing":
		refs, err := wire.ReadRefs(bytes.NewReader(body), f.info.QueryChunks)
		if err != nil {
			refuse(w, http.StatusBadRequest, wire.ErrorRequest, err.Error())
			return
		}
		missing := wire.MakeBitmap(len(refs))
		for i, ref := range refs {
			if f.chunks[ref] == nil {
				missing.Set(i)
			}
		}
		_, _ = w.Write(missing)
	case "chunks":
		res, err := f.batch(body)
		if err != nil {
			refuse(w, http.StatusUnprocessableEntity, "BadChunk", err.Error())
			return
		}
		f.answer(w, res)
	case "join":
		f.join(w, body)
	case "commit":
		f.commit(w, body)
	}
}

func (f *deltaServer) answer(w io.Writer, v any) { _ = json.NewEncoder(w).Encode(v) }

func (f *deltaServer) batch(body []byte) (res wire.BatchResult, err error) {
	if int64(len(body)) > f.info.BatchBytes+64 {
		f.t.Errorf("a batch of %d bytes, want at most %d", len(body), f.info.BatchBytes)
	}
	key := chunk.ProofKey(f.info.ProofKey)
	r := wire.NewBatchReader(bytes.NewReader(body), f.info.Limits())
	var now receipt
	var plain []byte
	var missing []bool
	for {
		it, err := r.Next()
		if errors.Is(err, io.EOF) {
			return res, nil
		}
		if err != nil {
			return res, err
		}
		switch it.Kind {
		case wire.BatchSegment:
			now, plain, missing = receipt{from: it.State}, nil, nil
		case wire.BatchFrame:
			data, err := f.dec.DecodeAll(it.Frame, nil)
			if err != nil {
				return res, err
			}
			for i, size := range it.Sizes {
				id, proof := key.Sum(data[:size])
				if id.Name() != it.Names[i] {
					return res, fmt.Errorf("chunk %d has another name", i)
				}
				ref := chunk.Ref{Name: id.Name(), Proof: proof}
				if f.chunks[ref] != nil {
					f.twice = append(f.twice, ref.Name)
				}
				f.chunks[ref] = data[:size:size]
				f.brought++
				plain, now.refs = append(plain, data[:size]...), append(now.refs, ref)
				data = data[size:]
			}
		case wire.BatchKnown:
			for _, ref := range it.Refs {
				plain, now.refs = append(plain, f.chunks[ref]...), append(now.refs, ref)
				missing = append(missing, f.chunks[ref] == nil)
			}
		case wire.BatchEnd:
			res.Segments = append(res.Segments, f.segment(now, plain, missing))
		}
	}
}

func (f *deltaServer) segment(now receipt, plain []byte, missing []bool) wire.SegmentResult {
	if slices.Contains(missing, true) {
		bits := wire.MakeBitmap(len(missing))
		for i, m := range missing {
			if m {
				bits.Set(i)
			}
		}
		return wire.SegmentResult{Missing: bits}
	}
	h := now.from.Hash()
	h.Write(plain)
	now.to, _ = chunk.SHAStateOf(h)
	now.size = int64(len(plain))
	return wire.SegmentResult{Receipt: f.issue(now)}
}

func (f *deltaServer) issue(r receipt) []byte {
	name := binary.BigEndian.AppendUint64(nil, uint64(len(f.receipts)+1))
	f.receipts[string(name)] = r
	return name
}

// chain puts receipts together.
func (f *deltaServer) chain(names [][]byte) (receipt, error) {
	var out receipt
	for i, name := range names {
		r, ok := f.receipts[string(name)]
		if !ok || i > 0 && r.from != out.to {
			return out, fmt.Errorf("receipt %d is none, or does not follow", i)
		}
		if i == 0 {
			out.from = r.from
		}
		out.to, out.size, out.refs = r.to, out.size+r.size, append(out.refs, r.refs...)
	}
	return out, nil
}

func (f *deltaServer) join(w http.ResponseWriter, body []byte) {
	req, err := wire.DecodeJoin(body)
	if err == nil {
		var r receipt
		if r, err = f.chain(req.Receipts); err == nil {
			f.answer(w, wire.JoinResult{Receipt: f.issue(r)})
			return
		}
	}
	refuse(w, http.StatusUnprocessableEntity, "BadReceipts", err.Error())
}

func (f *deltaServer) commit(w http.ResponseWriter, body []byte) {
	req, err := wire.DecodeCommit(body, f.info.CommitPaths)
	if err != nil {
		refuse(w, http.StatusBadRequest, wire.ErrorRequest, err.Error())
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	lost := wire.CommitError{Error: wire.Error{Code: http.StatusConflict, Name: wire.ErrorChunksMissing, Message: "gone"}}
	var names []string
	res := wire.CommitResult{Seq: uint64(f.calls["commit"]), Committed: len(req.Paths)}
	for i, p := range req.Paths {
		r, err := f.chain(p.Receipts)
		sum := nix.SHA256Hash(r.to.Sum()).String()
		if err != nil || r.from != (chunk.SHAState{}) || sum != p.NarHash || r.size != p.NarSize {
			refuse(w, http.StatusUnprocessableEntity, "BadReceipts", fmt.Sprintf("path %d: %v, hash %s, want %s", i, err, sum, p.NarHash))
			return
		}
		for _, ref := range r.refs {
			if f.chunks[ref] == nil {
				lost.Missing = append(lost.Missing, wire.MissingReceipts{Path: i, Receipts: []int{0}})
				break
			}
		}
		path, _ := nix.ParseStorePath(p.StorePath)
		for _, ref := range p.References {
			if known, ok := f.have[ref]; ok && !known && ref != path.Base() && !slices.Contains(names, ref) {
				f.early = append(f.early, p.StorePath)
			}
		}
		var absent []string
		for _, ref := range p.References {
			if f.tells && !f.have[ref] && ref != path.Base() && !slices.Contains(names, ref) {
				absent = append(absent, ref)
			}
		}
		if f.strict && len(absent) > 0 {
			refuse(w, http.StatusUnprocessableEntity, wire.ErrorAbsentReferences, "absent: "+strings.Join(absent, " "))
			return
		}
		names = append(names, path.Base())
		res.Paths = append(res.Paths, wire.CommittedPath{Kind: wire.CommitUploaded, NarSize: p.NarSize, FileSize: 1, AbsentReferences: absent})
	}
	if lost.Missing != nil {
		w.WriteHeader(http.StatusConflict)
		f.answer(w, lost)
		return
	}
	for i, name := range names {
		f.have[name] = true
		f.order = append(f.order, name)
		if pin := req.Paths[i].Pin; pin != nil {
			f.order = append(f.order, "pin "+pin.Name)
		}
	}
	f.commits = append(f.commits, names)
	f.answer(w, res)
}

// made is how many calls of a kind were made.
func (f *deltaServer) made(call string) int {
	f.dmu.Lock()
	defer f.dmu.Unlock()
	return f.calls[call]
}

// forget loses a share of the chunks.
func (f *deltaServer) forget(every int) {
	f.dmu.Lock()
	defer f.dmu.Unlock()
	i := 0
	for ref := range f.chunks {
		if i++; i%every == 0 {
			delete(f.chunks, ref)
		}
	}
}
