package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
)

// The delta protocol; docs/protocol.md is its specification. The server keeps nothing
// between two requests: what it found out goes to the client, sealed, and comes back.

const (
	// deltaPath begins the routes of the protocol, whose errors are JSON in every case.
	deltaPath = "/_api/v1/delta/"

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

func newDelta(key []byte, limits chunkstore.Limits, m Mutants) *delta {
	if len(key) == 0 {
		return nil
	}
	sum := sha256.Sum256(limits.ProofKey[:])
	sealer := newSealer(key)
	sealer.mutants = m
	return &delta{sealer: sealer, limits: limits, keyName: hex.EncodeToString(sum[:4])}
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
