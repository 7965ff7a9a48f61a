package node_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/nix/nixtest"
)

// TestDeltaKeys: servers of one bucket, also one that was started again, make and accept the
// same receipts and proofs, and those of another bucket do not.
func TestDeltaKeys(t *testing.T) {
	cfg := mkConfig(t)
	a := mustRun(t, cfg, node.Options{})
	token, err := a.AdminToken(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a.do(t, "POST", "/_api/v1/cache-config/ci", token, newCache)
	info := func(r *running, token string) wire.DeltaInfo {
		t.Helper()
		status, text := r.do(t, "GET", "/_api/v1/delta/ci", token, "")
		var info wire.DeltaInfo
		if err := json.Unmarshal([]byte(text), &info); status != 200 || err != nil {
			t.Fatalf("%d %s %v", status, text, err)
		}
		return info
	}
	terms := info(a, token)
	if len(terms.ProofKey) != 32 || bytes.Equal(terms.ProofKey, make([]byte, 32)) {
		t.Fatalf("proof key %x", terms.ProofKey)
	}
	p := nixtest.MkPath(t, "hello", nixtest.Text("hello"))
	receipt := takeIn(t, a, token, &terms, p.NAR)

	other := cfg
	other.CacheDir = filepath.Join(t.TempDir(), "cache")
	b := mustRun(t, other, node.Options{})
	if got := info(b, token); !bytes.Equal(got.ProofKey, terms.ProofKey) || got.ProofKeyName != terms.ProofKeyName {
		t.Errorf("the other server's proof key is %x, want %x", got.ProofKey, terms.ProofKey)
	}
	a.end(t)
	again := mustRun(t, cfg, node.Options{})
	sum, _ := p.Info.NarHash.Sum256()
	commit, err := json.Marshal(wire.CommitRequest{Paths: []wire.CommitPath{{
		StorePath: p.Info.StorePath.String(), NarHash: p.Info.NarHash.String(), NarSize: int64(len(p.NAR)), Receipts: [][]byte{receipt},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range []*running{b, again} {
		status, text := r.do(t, "POST", "/_api/v1/delta/ci/commit", token, string(commit))
		var result wire.CommitResult
		if err := json.Unmarshal([]byte(text), &result); status != 200 || err != nil || result.Committed != 1 || result.Paths[0].Kind != []string{wire.CommitUploaded, wire.CommitPresent}[i] {
			t.Errorf("commit of NAR %x on server %d: %d %s %v", sum, i, status, text, err)
		}
	}

	elsewhere := mustRun(t, mkConfig(t), node.Options{})
	token, err = elsewhere.AdminToken(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere.do(t, "POST", "/_api/v1/cache-config/ci", token, newCache)
	if got := info(elsewhere, token); bytes.Equal(got.ProofKey, terms.ProofKey) {
		t.Error("two buckets have one proof key")
	}
	if status, text := elsewhere.do(t, "POST", "/_api/v1/delta/ci/commit", token, string(commit)); status != http.StatusUnprocessableEntity {
		t.Errorf("a receipt of another bucket: %d %s", status, text)
	}
	if status, text := elsewhere.do(t, "POST", "/_api/v1/delta/ci/missing?key="+terms.ProofKeyName, token, ""); status != http.StatusConflict {
		t.Errorf("proofs by the key of another bucket: %d %s", status, text)
	}
}

// takeIn sends a NAR of one chunk and returns the receipt.
func takeIn(t *testing.T, r *running, token string, terms *wire.DeltaInfo, nar []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nar)
	body := wire.AppendSegment(wire.AppendBatch(nil), chunk.SHAState{})
	body = wire.AppendFrame(body, []chunk.Name{chunk.ID(sum).Name()}, []uint32{uint32(len(nar))}, enc.EncodeAll(nar, nil))
	body = wire.AppendSegmentEnd(body)
	req, err := http.NewRequestWithContext(t.Context(), "POST", r.url+"/_api/v1/delta/ci/chunks?key="+terms.ProofKeyName, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", wire.DeltaContentType)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var result wire.BatchResult
	if err := json.NewDecoder(res.Body).Decode(&result); res.StatusCode != 200 || err != nil || len(result.Segments) != 1 {
		t.Fatalf("batch: %d %+v %v", res.StatusCode, result, err)
	}
	return result.Segments[0].Receipt
}
