package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// putCacheInfo answers PUT /{cache}/nix-cache-info, which a client sends that may not read
// the one there is. It changes nothing.
func (s *server) putCacheInfo(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Push: true})
	if err != nil {
		return err
	}
	text, err := x.readText("cache info", maxJSONBytes)
	if err != nil {
		return err
	}
	info, err := nix.ParseCacheInfo(text)
	if err != nil {
		return requestError("nix-cache-info: %v", err)
	}
	if info.StoreDir != cache.StoreDir {
		return requestError("nix-cache-info: the store dir is %s, that of the cache is %s", info.StoreDir, cache.StoreDir)
	}
	return x.sendEmpty()
}

// putNarInfo answers PUT /{cache}/{hash part}.narinfo, with which plain Nix completes a path,
// and adds signatures to one. A listing is sent to {hash part}.ls.
func (s *server) putNarInfo(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Push: true})
	if err != nil {
		return err
	}
	file := x.r.PathValue("file")
	if base, ok := strings.CutSuffix(file, listingSuffix); ok {
		return s.putListing(x, base)
	}
	base, ok := strings.CutSuffix(file, ".narinfo")
	if !ok {
		return requestError("file %.200q: expected <hash part>.narinfo, <hash part>.ls, or a file in nar/, log/, debuginfo/, realisations/ or build-trace-v2/", file)
	}
	hashPart, err := nix.ParseHashPart(base)
	if err != nil {
		return requestError("%v", err)
	}
	text, err := x.readText("narinfo", int64(s.opts.MaxUploadInfoBytes))
	if err != nil {
		return err
	}
	info, err := nix.ParseNarInfo(text)
	if err != nil {
		return requestError("%v", err)
	}
	path, err := x.pathOf(&cache, hashPart, info)
	if err != nil {
		return err
	}
	x.note(slog.String("store_path", info.StorePath.String()), slog.Int64("nar_bytes", info.NarSize))
	pub := catalog.Publication{Path: path, First: true}
	if err := s.findUpload(x, &pub, info); err != nil {
		return x.recordOther(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), s.opts.PublishTimeout)
	defer cancel()
	seq, err := s.publish(ctx, &pub)
	if errors.Is(err, catalog.ErrChunksMissing) {
		s.chunks.Refused(&pub.Recipe)
		return errSendAgain.because(err)
	}
	if err != nil {
		return x.recordOther(err)
	}
	s.metrics.putPaths.Inc()
	x.setSeq(seq)
	return x.sendEmpty()
}

// publish puts one path into a cache, by the rule for references that are not there.
func (s *server) publish(ctx context.Context, pub *catalog.Publication) (catalog.Seq, error) {
	if !s.opts.RefuseAbsentReferences {
		return s.cat.Publish(ctx, *pub)
	}
	seq, _, err := s.cat.PublishAll(ctx, []catalog.Publication{*pub}, catalog.PublishOptions{RefuseAbsent: true})
	if absent, ok := errors.AsType[*catalog.AbsentReferencesError](err); ok {
		return 0, absentReferences(absent.References).because(err)
	}
	return seq, err
}

// pathOf checks a narinfo and makes the path that it describes. What passes ends up in a
// text that we sign.
func (x *exchange) pathOf(cache *catalog.Cache, hashPart nix.HashPart, info *nix.NarInfo) (catalog.Path, error) {
	if info.StorePath.HashPart() != hashPart {
		return catalog.Path{}, requestError("narinfo: store path %s has not the hash part %s", info.StorePath, hashPart)
	}
	if info.StorePath.Dir() != cache.StoreDir {
		return catalog.Path{}, requestError("store path %s: expected one in the cache's store dir %s", info.StorePath, cache.StoreDir)
	}
	narHash, ok := info.NarHash.Sum256()
	if !ok {
		return catalog.Path{}, requestError("narinfo: NarHash: expected a SHA-256 hash, found %s", info.NarHash)
	}
	if info.CA != "" {
		ca, err := nix.ParseContentAddress(info.CA)
		if err == nil {
			err = ca.Check(info.StorePath, info.References)
		}
		if err != nil {
			return catalog.Path{}, requestError("narinfo: CA: %v", err)
		}
	}
	deriver, err := parseDeriver(cache.StoreDir, info.Deriver)
	if err != nil {
		return catalog.Path{}, err
	}
	path := catalog.Path{
		Cache: cache.Name, StorePath: info.StorePath, NarHash: narHash, NarSize: info.NarSize,
		References: info.References, Deriver: deriver, System: info.System, CA: info.CA, By: x.grant.Subject,
	}
	for _, sig := range info.Sig {
		path.Sigs = append(path.Sigs, sig.String())
	}
	if err := path.Valid(); err != nil {
		return catalog.Path{}, requestError("%v", err)
	}
	return path, nil
}

// findUpload completes a publication by the NAR that was sent for it: the one that the path
// has, if it is there, or the upload that the narinfo names.
func (s *server) findUpload(x *exchange, pub *catalog.Publication, info *nix.NarInfo) error {
	ctx := x.r.Context()
	hashPart := info.StorePath.HashPart()
	fileHash, _, _, named := parseFileName(strings.TrimPrefix(info.URL, "nar/"))
	there, err := s.newestPath(ctx, pub.Path.Cache, hashPart)
	switch {
	case err == nil && there.NarHash != pub.Path.NarHash:
		return &catalog.OtherNarError{Cache: pub.Path.Cache, StorePath: there.StorePath, There: there.NarHash, Given: pub.Path.NarHash}
	case err == nil && !named:
		// The narinfo is one of ours with something added.
		pub.Recipe, err = s.cat.Recipe(ctx, there.NarHash)
		return err
	case err != nil && !errors.Is(err, catalog.ErrNoPath):
		return err
	case !named:
		return requestError("narinfo: URL %.200q: expected that of a file which was put here before, nar/<SHA-256 of the file>.nar with the ending of its compression", info.URL)
	}
	up, upErr := s.cat.Upload(ctx, pub.Path.Cache, fileHash)
	switch {
	case errors.Is(upErr, catalog.ErrNoUpload) && err == nil:
		pub.Recipe, err = s.cat.Recipe(ctx, there.NarHash) // its uploader remembers it, and we do not
		return err
	case errors.Is(upErr, catalog.ErrNoUpload):
		return errSendFirst.because(upErr)
	case upErr != nil:
		return upErr
	}
	if err := agrees(&up, fileHash, info, pub); err != nil {
		return err
	}
	pub.Claim = &fileHash
	if pub.Recipe, _, err = s.recipeOfUpload(ctx, pub.Path.Cache, &up); err != nil && translate(err).status == http.StatusNotFound {
		err = errSendAgain.because(err)
	}
	return err
}

// agrees checks what a narinfo says of a NAR against what was sent. Nix does not look: a
// store path that is damaged on its disk is sent with the hash that it once had.
func agrees(up *catalog.Upload, fileHash [32]byte, info *nix.NarInfo, pub *catalog.Publication) error {
	if up.NarHash != pub.Path.NarHash || up.NarSize != info.NarSize {
		return requestError("Bad NAR Hash or Size: the narinfo says %s and %d bytes, the file that was sent holds %s and %d bytes. The store path may be damaged: run nix-store --verify-path %s",
			info.NarHash, info.NarSize, nix.SHA256Hash(up.NarHash), up.NarSize, info.StorePath)
	}
	if said, ok := info.FileHash.Sum256(); ok && said != fileHash {
		return requestError("narinfo: FileHash is %s, and the URL names the file %s", info.FileHash, nix.SHA256Hash(fileHash))
	}
	if info.FileSize != 0 && info.FileSize != up.FileSize {
		return requestError("narinfo: FileSize is %d, the file that was sent has %d bytes", info.FileSize, up.FileSize)
	}
	return nil
}

// recordOther makes a note of a path that somebody else has built to other bytes: either
// it is not reproducible, or somebody lies.
func (x *exchange) recordOther(err error) error {
	other, ok := errors.AsType[*catalog.OtherNarError](err)
	if !ok {
		return err
	}
	x.s.metrics.otherNars.Inc()
	x.s.opts.Logger.LogAttrs(x.r.Context(), slog.LevelWarn, "a path was refused that is there with another content",
		slog.String("cache", string(other.Cache)), slog.String("store_path", other.StorePath.String()),
		slog.String("nar_hash", nix.SHA256Hash(other.There).String()), slog.String("given", nix.SHA256Hash(other.Given).String()),
		slog.String("subject", x.grant.Subject))
	return err
}
