package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix/nar"
)

// The delta protocol; docs/protocol.md is its specification. The server keeps nothing
// between two requests: what it found out goes to the client, sealed, and comes back.

const (
	// deltaBatchBytes is the longest batch: short enough for proxies that give a request
	// a few seconds.
	deltaBatchBytes = 8 << 20
	// deltaSegmentBytes bounds the plain bytes of a segment, so that the bytes of any
	// segment fit into a batch.
	deltaSegmentBytes = 4 << 20
	// deltaBatchSegments bounds what is set up for one batch.
	deltaBatchSegments = 4096
	// deltaBatchChunks bounds the work for one batch, which may name far more than it
	// brings: some 128 MiB to be read and hashed.
	deltaBatchChunks = 8192
	// deltaQueryChunks is a megabyte of refs.
	deltaQueryChunks = 65536
	// deltaCommitPaths is about what one operation of the log holds.
	deltaCommitPaths = 1000
	// deltaCommitBytes is the longest body of a commit or a join: some 5000 receipts, or
	// those of half a TiB that is all new, joined.
	deltaCommitBytes = 8 << 20
	// deltaMemoryWait is how long a batch waits for memory. Then its client is told to
	// come back, and to send less at a time.
	deltaMemoryWait = 10 * time.Second
	// deltaCheckTime bounds the look into a NAR of many segments.
	deltaCheckTime = time.Minute
)

// delta is what the delta protocol needs; nil if it is not spoken.
type delta struct {
	sealer  *sealer
	limits  chunkstore.Limits
	keyName string
	checks  nameLocks // of NARs that are being looked into
	lists   listings  // of NARs that were taken in whole
}

func newDelta(key []byte, limits chunkstore.Limits) *delta {
	if len(key) == 0 {
		return nil
	}
	sum := sha256.Sum256(limits.ProofKey[:])
	return &delta{sealer: newSealer(key), limits: limits, keyName: hex.EncodeToString(sum[:4])}
}

func (s *server) deltaRoutes() {
	s.route("/_api/v1/delta/{cache}", methods{http.MethodGet: (*server).deltaInfo})
	s.route("/_api/v1/delta/{cache}/missing", methods{http.MethodPost: (*server).deltaMissing})
	s.route("/_api/v1/delta/{cache}/chunks", methods{http.MethodPost: (*server).deltaChunks})
	s.route("/_api/v1/delta/{cache}/join", methods{http.MethodPost: (*server).deltaJoin})
	s.route("/_api/v1/delta/{cache}/commit", methods{http.MethodPost: (*server).deltaCommit})
}

// deltaVersions are announced in the configuration of caches.
func (s *server) deltaVersions() []int {
	if s.delta == nil {
		return nil
	}
	return []int{wire.DeltaVersion}
}

func (d *delta) batchLimits() wire.BatchLimits {
	return wire.BatchLimits{
		ChunkMin: d.limits.Profile.Min, ChunkMax: d.limits.Profile.Max, FrameBytes: d.limits.FrameBytes,
		SegmentBytes: deltaSegmentBytes, Segments: deltaBatchSegments, Chunks: deltaBatchChunks,
	}
}

// admitDelta is what comes before the body of every request: who asks, for which cache, in
// which version, with proofs by which key.
func (x *exchange) admitDelta(proofs bool) (catalog.Cache, error) {
	if x.s.delta == nil {
		return catalog.Cache{}, errNotFound
	}
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Push: true})
	if err != nil {
		return catalog.Cache{}, err
	}
	query := x.r.URL.Query()
	if v := query.Get(wire.DeltaVersionParam); v != "" && v != strconv.Itoa(wire.DeltaVersion) {
		return catalog.Cache{}, unsupportedVersion(v)
	}
	if proofs && query.Get(wire.DeltaProofKeyParam) != x.s.delta.keyName {
		return catalog.Cache{}, errProofKey
	}
	return cache, nil
}

// deltaInfo answers GET /_api/v1/delta/{cache}.
func (s *server) deltaInfo(x *exchange) error {
	if _, err := x.admitDelta(false); err != nil {
		return err
	}
	l := s.delta.limits
	references := wire.ReferencesAccept
	if s.opts.RefuseAbsentReferences {
		references = wire.ReferencesRefuse
	}
	x.sendJSON(wire.DeltaInfo{
		Version:       wire.DeltaVersion,
		Chunking:      l.Profile.Name,
		ChunkMin:      l.Profile.Min,
		ChunkAvg:      l.Profile.Avg,
		ChunkMax:      l.Profile.Max,
		FrameBytes:    l.FrameBytes,
		RestoreBytes:  l.RestoreBytes,
		BatchBytes:    deltaBatchBytes,
		BatchSegments: deltaBatchSegments,
		BatchChunks:   deltaBatchChunks,
		SegmentBytes:  deltaSegmentBytes,
		QueryChunks:   deltaQueryChunks,
		CommitPaths:   deltaCommitPaths,
		CommitBytes:   deltaCommitBytes,
		MaxNarBytes:   s.opts.MaxNarBytes,
		References:    references,
		ProofKey:      l.ProofKey[:],
		ProofKeyName:  s.delta.keyName,
	})
	return nil
}

// wantBinary checks the Content-Type of a query or a batch.
func (x *exchange) wantBinary() error {
	mediaType, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err == nil && strings.EqualFold(mediaType, wire.DeltaContentType) {
		return nil
	}
	return extractorError(http.StatusUnsupportedMediaType, "Expected request with `Content-Type: %s`", wire.DeltaContentType)
}

// limitedBody returns the body, which fails with 413 when it is longer than limit.
func (x *exchange) limitedBody(limit int64) (io.Reader, error) {
	if x.r.ContentLength > limit {
		return nil, tooLong(limit)
	}
	return &boundedReader{src: x.body, left: limit, limit: limit, tooLong: tooLong}, nil
}

func tooLong(limit int64) error {
	return tooLarge("The body is longer than %d bytes. Send less at a time.", limit)
}

// deltaMissing answers POST /_api/v1/delta/{cache}/missing.
func (s *server) deltaMissing(x *exchange) error {
	if _, err := x.admitDelta(true); err != nil {
		return err
	}
	if err := x.wantBinary(); err != nil {
		return err
	}
	body, err := x.limitedBody(deltaQueryChunks * chunk.RefBytes)
	if err != nil {
		return err
	}
	refs, err := wire.ReadRefs(body, deltaQueryChunks)
	if err != nil {
		return queryError(err)
	}
	seq := s.cat.Seq()
	_, found, err := s.cat.LookupRefs(x.r.Context(), refs)
	if err != nil {
		return err
	}
	missing, n := wire.MakeBitmap(len(refs)), 0
	for i, there := range found {
		if !there {
			missing.Set(i)
			n++
		}
	}
	s.metrics.deltaQueried.Add(len(refs))
	s.metrics.deltaMissing.Add(n)
	x.note(slog.Int("chunks", len(refs)), slog.Int("missing", n))
	x.setSeq(seq)
	x.Header().Set("Cache-Control", "no-store")
	x.send(wire.DeltaContentType, missing)
	return nil
}

// queryError sorts what can be wrong with a query: our own refusal, its form, or the
// connection.
func queryError(err error) error {
	_, form := errors.AsType[*wire.QueryError](err)
	if form {
		return requestError("%v", err)
	}
	return bodyError(err)
}

// deltaChunks answers POST /_api/v1/delta/{cache}/chunks.
func (s *server) deltaChunks(x *exchange) error {
	cache, err := x.admitDelta(true)
	if err != nil {
		return err
	}
	if err := x.wantBinary(); err != nil {
		return err
	}
	body, err := x.limitedBody(deltaBatchBytes)
	if err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(x.r.Context(), deltaMemoryWait)
	defer cancel()
	batch, err := s.chunks.Batch(soon)
	if err != nil && soon.Err() != nil && x.r.Context().Err() == nil {
		return errBusy.because(err)
	}
	if err != nil {
		return err
	}
	defer batch.Close()
	t := &taking{s: s, batch: batch, in: wire.NewBatchReader(body, s.delta.batchLimits())}
	if err := t.run(x.r.Context()); err != nil {
		return t.failed(err)
	}

	// All of it has arrived and is what it should be. Should the client go away now, what
	// it has sent is not lost: it is told so when it asks again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), s.opts.PublishTimeout)
	defer cancel()
	segs, err := batch.Settle(ctx)
	if err != nil {
		return notStored(err)
	}
	result := wire.BatchResult{Segments: make([]wire.SegmentResult, len(segs))}
	for i := range segs {
		if len(segs[i].Missing) > 0 {
			missing := wire.MakeBitmap(t.segments[i].known)
			for _, at := range segs[i].Missing {
				missing.Set(at)
			}
			result.Segments[i].Missing = missing
			continue
		}
		r := receiptOf(&segs[i], t.segments[i].whole)
		if r.whole {
			s.delta.lists.put(r.after.Sum(), t.segments[i].listing)
		}
		result.Segments[i].Receipt = s.delta.sealer.seal(&r, cache.Name, x.grant.Subject)
	}
	s.metrics.deltaSent.Add(t.sent)
	s.metrics.deltaKnown.Add(t.known)
	s.metrics.deltaSegments.Add(len(segs))
	x.note(slog.Int("segments", len(segs)), slog.Int("chunks", t.sent), slog.Int("known", t.known))
	x.setSeq(s.cat.Seq())
	x.sendJSON(result)
	return nil
}

// taking is a batch that is being taken in.
type taking struct {
	s        *server
	batch    *chunkstore.Batch
	in       *wire.BatchReader
	segments []taken
	judge    *grammar // of the segment that is open; nil if it does not begin a NAR
	sent     int      // chunks in frames
	known    int      // chunks that were only named
	broke    bool     // it ended because of what came from the client, or did not
}

// taken is what is remembered of a segment.
type taken struct {
	known   int    // chunks of its K items
	whole   bool   // it is a whole NAR
	listing []byte // of that, as it is kept
}

func (t *taking) run(ctx context.Context) error {
	for {
		item, err := t.in.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			t.broke = true
			return err
		}
		if err := t.item(ctx, &item); err != nil {
			return err
		}
	}
}

func (t *taking) item(ctx context.Context, item *wire.BatchItem) error {
	switch item.Kind {
	case wire.BatchSegment:
		t.segments = append(t.segments, taken{})
		t.judge = nil
		if item.State == (chunk.SHAState{}) {
			t.judge = &grammar{nar: nar.NewVerifier()}
			t.judge.nar.OnEntry = t.judge.list.entry
			return t.batch.Begin(item.State, t.judge)
		}
		return t.batch.Begin(item.State, nil)
	case wire.BatchFrame:
		t.sent += len(item.Names)
		return t.batch.Frame(ctx, slices.Clone(item.Names), item.Sizes, item.Frame)
	case wire.BatchKnown:
		t.known += len(item.Refs)
		t.segments[len(t.segments)-1].known += len(item.Refs)
		return t.batch.Known(item.Refs)
	case wire.BatchEnd:
		if err := t.batch.End(ctx); err != nil {
			return err
		}
		if t.judge != nil && t.judge.nar.Close() == nil {
			seg := &t.segments[len(t.segments)-1]
			seg.whole, seg.listing = true, t.judge.list.pack(t.s)
		}
	}
	return nil
}

// failed gives what ended a batch its answer.
func (t *taking) failed(err error) error {
	if bad, ok := errors.AsType[*chunkstore.BadChunkError](err); ok {
		return badChunk(bad)
	}
	if errors.Is(err, wire.ErrBatchChunks) {
		return tooLarge("The batch has more than %d chunks. Send less at a time.", deltaBatchChunks)
	}
	if bad, ok := errors.AsType[*wire.BatchError](err); ok {
		if errors.Is(bad, io.ErrUnexpectedEOF) {
			// The client has sent more than this, or it would not be a client. Whatever
			// lost the rest, it is worth another try.
			return errCutOff.because(err)
		}
		return requestError("%v", bad)
	}
	if errors.Is(err, catalog.ErrChunksMissing) || errors.Is(err, chunkstore.ErrGone) || errors.Is(err, chunk.ErrNoPack) {
		return unavailable("chunks were removed while they were read", err)
	}
	if t.broke {
		return bodyError(err)
	}
	return notStored(err)
}

// grammar judges a NAR on the side: what it finds is a remark and no error.
type grammar struct {
	nar  *nar.Verifier
	list lister
}

func (g *grammar) Write(p []byte) (int, error) {
	_, _ = g.nar.Write(p) // it remembers
	return len(p), nil
}

// listings remembers the listings of NARs that were taken in as one segment, from there to
// their commit. What is forgotten is made again when somebody asks for it.
type listings struct {
	mu    sync.Mutex          // guards the others
	packs map[[32]byte][]byte // by NAR hash
	order [][32]byte          // oldest first
	bytes int
}

// listingBytes bounds all of them together, keys included.
const listingBytes = 4 << 20

func (l *listings) put(narHash [32]byte, packed []byte) {
	if packed == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.packs[narHash]; there {
		return
	}
	if l.packs == nil {
		l.packs = make(map[[32]byte][]byte)
	}
	l.packs[narHash] = packed
	l.order = append(l.order, narHash)
	l.bytes += len(packed) + len(narHash)
	for l.bytes > listingBytes {
		oldest := l.order[0]
		l.order = l.order[1:]
		l.bytes -= len(l.packs[oldest]) + len(oldest)
		delete(l.packs, oldest)
	}
}

func (l *listings) get(narHash [32]byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.packs[narHash]
}
