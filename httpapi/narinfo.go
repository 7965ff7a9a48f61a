package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

const (
	typeCacheInfo = "text/x-nix-cache-info"
	typeNarInfo   = "text/x-nix-narinfo"
	typeNar       = "application/x-nix-nar"

	// ageMeta is how long a proxy may keep a narinfo or a cache info: long enough to
	// take bursts, short enough that withdrawing a path or changing a priority is seen
	// within the hour. Nix keeps its own copy for far longer.
	ageMeta = "max-age=3600"
	// ageNar: the URL names the content.
	ageNar = "max-age=31536000, immutable"
)

// nixCacheInfo answers GET /{cache}/nix-cache-info.
func (s *server) nixCacheInfo(x *exchange) error {
	cache, err := x.authorisePull()
	if err != nil {
		return err
	}
	text, err := nix.CacheInfo{StoreDir: cache.StoreDir, WantMassQuery: true, Priority: int(cache.Priority)}.AppendText(nil)
	if err != nil {
		return err
	}
	x.cacheable(&cache, ageMeta)
	return x.sendText(typeCacheInfo, text)
}

// narInfo answers GET /{cache}/{hash part}.narinfo.
func (s *server) narInfo(x *exchange) error {
	text, ok := strings.CutSuffix(x.r.PathValue("file"), ".narinfo")
	if base, is := strings.CutSuffix(x.r.PathValue("file"), listingSuffix); is {
		return s.listing(x, base)
	}
	if !ok {
		if _, err := cacheName(x.r.PathValue("cache")); err != nil {
			return err
		}
		return errNotFound
	}
	cache, err := x.authorisePull()
	if err != nil {
		return err
	}
	hashPart, err := nix.ParseHashPart(text)
	if err != nil {
		return errNoSuchObject.because(err)
	}
	path, err := s.cat.Path(x.r.Context(), cache.Name, hashPart)
	if err != nil {
		return err
	}
	info := narInfoOf(&path, hashPart)
	body, err := info.AppendText(make([]byte, 0, 1024))
	if err != nil {
		return err
	}
	x.cacheable(&cache, ageMeta)
	return x.sendText(typeNarInfo, body)
}

// narInfoOf describes a path. The compression stands in the URL too, so that one URL
// can never come to mean other bytes.
func narInfoOf(p *catalog.Path, hashPart nix.HashPart) *nix.NarInfo {
	narHash := nix.SHA256Hash(p.NarHash)
	info := &nix.NarInfo{
		StorePath:   p.StorePath,
		URL:         "nar/" + narFileName(hashPart, narHash),
		Compression: "zstd",
		FileSize:    p.FileSize,
		NarHash:     narHash,
		NarSize:     p.NarSize,
		References:  p.References,
		Deriver:     p.Deriver,
		System:      p.System,
		CA:          p.CA,
	}
	// The cache's own signature first: some readers look at one only. None of the others
	// may keep Nix from looking at it (see Checkable), so one by the cache's name has to
	// be as long.
	own, err := nix.ParseSignature(p.Sig)
	if err == nil {
		info.Sig = append(info.Sig, own)
	}
	for _, text := range p.Sigs {
		sig, err := nix.ParseSignature(text)
		odd := sig.Name() == own.Name() && len(text) != len(p.Sig)
		if err == nil && sig.Checkable() && !odd && !slices.Contains(info.Sig, sig) {
			info.Sig = append(info.Sig, sig)
		}
	}
	return info
}

// narFileName is the last segment of a NAR's URL: "<hash part>-<NAR hash>.nar.zst".
func narFileName(hashPart nix.HashPart, narHash nix.Hash) string {
	digest := strings.TrimPrefix(narHash.Nix32(), "sha256:")
	return hashPart.String() + "-" + digest + narSuffix
}

// sendText answers with a short text that is ready, or with 304 if the caller has it.
func (x *exchange) sendText(contentType string, text []byte) error {
	sum := sha256.Sum256(text)
	etag := `"` + hex.EncodeToString(sum[:16]) + `"`
	h := x.Header()
	h.Set("ETag", etag)
	if noneMatch(x.r.Header.Get("If-None-Match"), etag) {
		x.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	x.WriteHeader(http.StatusOK)
	if x.r.Method != http.MethodHead {
		_, _ = x.Write(text) // the peer is gone, and there is nobody to tell
	}
	return nil
}

// noneMatch reports whether an If-None-Match header names etag. The comparison is the
// weak one, as the header demands.
func noneMatch(header, etag string) bool {
	if header == "" {
		return false
	}
	for item := range strings.SplitSeq(header, ",") {
		item = strings.TrimPrefix(strings.TrimSpace(item), "W/")
		if item == "*" || item == etag {
			return true
		}
	}
	return false
}
