package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/celler/celler/blob/chunk"
)

// DeltaVersion is the version of the delta protocol that this package speaks; see
// docs/protocol.md.
const DeltaVersion = 1

// The query parameters of the delta protocol.
const (
	DeltaVersionParam  = "version" // of every request; absent = 1
	DeltaProofKeyParam = "key"     // of missing and chunks: DeltaInfo.ProofKeyName
)

// DeltaContentType is the Content-Type of queries, of their answers and of batches.
const DeltaContentType = "application/octet-stream"

// DeltaInfo is the answer to GET delta/{cache}: how to cut, and what fits into a
// request.
type DeltaInfo struct {
	Version       int    `json:"version"`
	Chunking      string `json:"chunking"`
	ChunkMin      int    `json:"chunk_min"`
	ChunkAvg      int    `json:"chunk_avg"`
	ChunkMax      int    `json:"chunk_max"`
	FrameBytes    int    `json:"frame_bytes"`
	RestoreBytes  int    `json:"restore_bytes"`
	BatchBytes    int64  `json:"batch_bytes"`
	BatchSegments int    `json:"batch_segments"`
	BatchChunks   int    `json:"batch_chunks"` // new and known
	SegmentBytes  int64  `json:"segment_bytes"`
	QueryChunks   int    `json:"query_chunks"`
	CommitPaths   int    `json:"commit_paths"`
	CommitBytes   int64  `json:"commit_bytes"` // of the body of a commit or a join
	MaxNarBytes   int64  `json:"max_nar_bytes"`
	References    string `json:"references"`     // ReferencesAccept or ReferencesRefuse
	ProofKey      []byte `json:"proof_key"`      // 32 bytes
	ProofKeyName  string `json:"proof_key_name"` // to be sent along wherever proofs are
}

// What becomes of a path whose references are not in the cache.
const (
	ReferencesAccept = "accept"
	ReferencesRefuse = "refuse"
)

// Limits returns what the info says of batches.
func (i *DeltaInfo) Limits() BatchLimits {
	return BatchLimits{ChunkMin: i.ChunkMin, ChunkMax: i.ChunkMax, FrameBytes: i.FrameBytes, SegmentBytes: i.SegmentBytes, Segments: i.BatchSegments, Chunks: i.BatchChunks}
}

// BatchResult is the answer to a batch: what became of each segment, in their order.
type BatchResult struct {
	Segments []SegmentResult `json:"segments"`
}

// SegmentResult has one of the two.
type SegmentResult struct {
	Receipt []byte `json:"receipt,omitempty"`
	Missing Bitmap `json:"missing,omitempty"` // over the chunks of all K items of the segment
}

// JoinRequest is the body of POST delta/{cache}/join: receipts of which each begins where
// the one before ends.
type JoinRequest struct {
	Receipts [][]byte `json:"receipts"`
}

// JoinResult is the answer: one receipt for all.
type JoinResult struct {
	Receipt []byte `json:"receipt"`
}

// CommitRequest is the body of POST delta/{cache}/commit: paths, references first.
type CommitRequest struct {
	Paths []CommitPath `json:"paths"`
}

// CommitPath is a path with the receipts of its NAR, in order. All texts are as they
// came: who decodes them parses them.
type CommitPath struct {
	StorePath  string      `json:"store_path"`
	NarHash    string      `json:"nar_hash"`
	NarSize    int64       `json:"nar_size"`
	References []string    `json:"references,omitempty"` // base names
	Deriver    string      `json:"deriver,omitempty"`    // base name
	System     string      `json:"system,omitempty"`
	CA         string      `json:"ca,omitempty"`
	Sigs       []string    `json:"sigs,omitempty"`
	Pin        *PinRequest `json:"pin,omitempty"`
	Receipts   [][]byte    `json:"receipts"`
}

// CommitResult is the answer to a commit: what became of the first so many paths.
type CommitResult struct {
	Seq       uint64          `json:"seq"`
	Committed int             `json:"committed"`
	Paths     []CommittedPath `json:"paths"` // as many
}

// The kinds of [CommittedPath].
const (
	CommitUploaded = "uploaded"
	CommitPresent  = "present"
)

// CommittedPath is what became of one path.
type CommittedPath struct {
	Kind             string   `json:"kind"`
	NarSize          int64    `json:"nar_size"`
	FileSize         int64    `json:"file_size"`
	AbsentReferences []string `json:"absent_references,omitempty"` // base names of those that the cache lacks
}

// CommitError is the refusal of a commit. Missing is set with ErrorChunksMissing.
type CommitError struct {
	Error
	Missing []MissingReceipts `json:"missing,omitempty"`
}

// MissingReceipts says which receipts of a path stand for chunks that are gone.
type MissingReceipts struct {
	Path     int   `json:"path"`
	Receipts []int `json:"receipts"`
}

// DecodeCommit reads the body of a commit of at most limit paths.
func DecodeCommit(body []byte, limit int) (CommitRequest, error) {
	raws, err := listOf[json.RawMessage](body, "paths")
	if err != nil {
		return CommitRequest{}, err
	}
	if len(raws) > limit {
		return CommitRequest{}, &ShapeError{Field: "paths", Err: fmt.Errorf("%w: expected at most %d paths", errTooMany, limit)}
	}
	req := CommitRequest{Paths: make([]CommitPath, len(raws))}
	for i, raw := range raws {
		if req.Paths[i], err = decodeCommitPath(raw); err != nil {
			return CommitRequest{}, &ShapeError{Field: fmt.Sprintf("paths[%d]", i), Err: err}
		}
	}
	return req, nil
}

func decodeCommitPath(raw []byte) (CommitPath, error) {
	f, err := parseFields(raw)
	if err != nil {
		return CommitPath{}, err
	}
	var p CommitPath
	var references, sigs *[]string
	var deriver, system, ca *string
	for _, err := range []error{
		required(f, "store_path", &p.StorePath),
		required(f, "nar_hash", &p.NarHash),
		required(f, "nar_size", &p.NarSize),
		optional(f, "references", &references),
		optional(f, "deriver", &deriver),
		optional(f, "system", &system),
		optional(f, "ca", &ca),
		optional(f, "sigs", &sigs),
		optionalPin(f, &p.Pin),
		required(f, "receipts", &p.Receipts),
	} {
		if err != nil {
			return CommitPath{}, err
		}
	}
	p.References, p.Sigs = deref(references), deref(sigs)
	p.Deriver, p.System, p.CA = deref(deriver), deref(system), deref(ca)
	return p, nil
}

// DecodeJoin reads the body of a join.
func DecodeJoin(body []byte) (JoinRequest, error) {
	receipts, err := listOf[[]byte](body, "receipts")
	return JoinRequest{Receipts: receipts}, err
}

// listOf reads an object with one list that is not empty.
func listOf[T any](body []byte, field string) ([]T, error) {
	f, err := parseFields(body)
	if err != nil {
		return nil, err
	}
	var list []T
	if err := required(f, field, &list); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, &ShapeError{Field: field, Err: errors.New("expected some")}
	}
	return list, nil
}

// AppendRefs appends the body of a query.
func AppendRefs(dst []byte, refs []chunk.Ref) []byte {
	for _, ref := range refs {
		dst = ref.Append(dst)
	}
	return dst
}

// QueryError reports a query that is malformed, or longer than allowed.
type QueryError struct{ Err error }

func (e *QueryError) Error() string { return "query: " + e.Err.Error() }
func (e *QueryError) Unwrap() error { return e.Err }

// ReadRefs reads the body of a query of at most limit chunks.
func ReadRefs(r io.Reader, limit int) ([]chunk.Ref, error) {
	const step = 512
	var refs []chunk.Ref
	buf := make([]byte, step*chunk.RefBytes)
	for {
		n, err := readUp(r, buf)
		if n%chunk.RefBytes != 0 && errors.Is(err, io.EOF) {
			return nil, &QueryError{fmt.Errorf("%d bytes after its last chunk, want %d for each", n%chunk.RefBytes, chunk.RefBytes)}
		}
		for b := buf[:n-n%chunk.RefBytes]; len(b) > 0; b = b[chunk.RefBytes:] {
			if len(refs) == limit {
				return nil, &QueryError{fmt.Errorf("too many chunks, want at most %d", limit)}
			}
			refs = append(refs, chunk.RefAt(b))
		}
		switch {
		case err == io.EOF: //nolint:errorlint // only the bare one is the end
			return refs, nil
		case err != nil:
			return nil, err
		}
	}
}

// readUp fills p unless r ends before; then, and only then, it returns io.EOF. (With
// io.ReadFull a body that was cut off would look like one that ended.)
func readUp(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// Bitmap holds one bit for each of some chunks: bit i%8 of byte i/8.
type Bitmap []byte

// MakeBitmap returns a Bitmap of n bits of which none is set.
func MakeBitmap(n int) Bitmap { return make(Bitmap, (n+7)/8) }

// Set sets bit i.
func (b Bitmap) Set(i int) { b[i/8] |= 1 << (i % 8) }

// Has reports whether bit i is set. Bits behind the end are not.
func (b Bitmap) Has(i int) bool { return i/8 < len(b) && b[i/8]&(1<<(i%8)) != 0 }

// Check reports whether b is a Bitmap of n bits.
func (b Bitmap) Check(n int) error {
	if len(b) != (n+7)/8 {
		return fmt.Errorf("a bitmap of %d bits has %d bytes, want %d", n, len(b), (n+7)/8)
	}
	if n%8 != 0 && b[len(b)-1]>>(n%8) != 0 {
		return fmt.Errorf("a bitmap of %d bits has bits behind its end", n)
	}
	return nil
}
