package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// Side objects are the texts that plain Nix keeps beside narinfos: build logs, where debug
// symbols are, what derivations came to.

const (
	// maxLogBytes and maxSideBytes bound a log and any other side object, in plain bytes.
	maxLogBytes  = 1 << 30
	maxSideBytes = 1 << 20
	// sideAhead is how much of one is read before it is decided where it is kept.
	sideAhead = 64 << 10
)

// sideKind is how side objects of a kind are named, checked and served.
type sideKind struct {
	kind        catalog.SideKind
	what        string
	contentType string
	limit       int64
	// name makes the name of the object from the last segments of the URL, or says
	// what is wrong with them.
	name func(dir nix.StoreDir, first, second string) (string, error)
}

// sideRoutes are the URLs of side objects.
func sideRoutes() map[string]sideKind {
	return map[string]sideKind{
		"/{cache}/log/{file}":                  {catalog.SideLog, "log", typeText, maxLogBytes, logName},
		"/{cache}/debuginfo/{file}":            {catalog.SideDebugInfo, "debuginfo", typeJSON, maxSideBytes, buildID},
		"/{cache}/realisations/{file}":         {catalog.SideRealisation, "realisation", typeJSON, maxSideBytes, realisationName},
		"/{cache}/build-trace-v2/{file}/{out}": {catalog.SideBuildTrace, "build trace", typeJSON, maxSideBytes, traceName},
	}
}

func logName(dir nix.StoreDir, file, _ string) (string, error) {
	path, err := nix.ParseStorePathBase(dir, file)
	return path.Base(), err
}

func buildID(_ nix.StoreDir, file, _ string) (string, error) {
	id := strings.TrimSuffix(file, ".debug")
	if len(id) < 2 || len(id) > 128 || strings.Trim(id, "0123456789abcdef") != "" {
		return "", fmt.Errorf("build id %.200q: expected 2 to 128 hexadecimal digits", file)
	}
	return file, nil
}

func realisationName(_ nix.StoreDir, file, _ string) (string, error) {
	id, ok := strings.CutSuffix(file, ".doi")
	drv, output, found := strings.Cut(id, "!")
	if _, err := nix.ParseHash(drv); !ok || !found || err != nil || !outputName(output) {
		return "", fmt.Errorf("realisation %.200q: expected <hash of the derivation>!<output>.doi", file)
	}
	return file, nil
}

func traceName(dir nix.StoreDir, drv, file string) (string, error) {
	path, err := nix.ParseStorePathBase(dir, drv)
	if err != nil {
		return "", err
	}
	if output, ok := strings.CutSuffix(file, ".doi"); !ok || !outputName(output) {
		return "", fmt.Errorf("build trace %.200q: expected <output>.doi", file)
	}
	return path.Base() + "/" + file, nil
}

// outputName accepts what may be the name of an output: what may stand in that of a path.
func outputName(name string) bool {
	return name != "" && len(name) <= 200 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._?=") == ""
}

// side answers GET of a side object.
func (s *server) side(x *exchange) error {
	cache, err := x.authorisePull()
	if err != nil {
		return err
	}
	kind := sideRoutes()[x.route]
	name, err := kind.name(cache.StoreDir, x.r.PathValue("file"), x.r.PathValue("out"))
	if err != nil {
		return errNoSuchObject.because(err)
	}
	ctx := x.r.Context()
	side, err := s.cat.Side(ctx, cache.Name, kind.kind, name)
	if err != nil {
		return err
	}
	h := x.Header()
	h.Set("Content-Security-Policy", harmless)
	h.Set("X-Content-Type-Options", "nosniff")
	x.cacheable(&cache, ageMeta)
	if !side.Stored {
		text, err := s.texts.DecodeAll(side.Zstd, nil)
		if err != nil {
			return fmt.Errorf("decompress %s %q: %w", kind.what, name, err)
		}
		return x.sendText(kind.contentType, text)
	}
	recipe, err := s.cat.Recipe(ctx, side.TextSum)
	if err != nil {
		return err
	}
	content, err := s.chunks.OpenPart(ctx, &recipe, 0, recipe.Size)
	if err != nil {
		return errIncomplete.because(err)
	}
	defer content.Close()
	h.Set("Content-Type", kind.contentType)
	h.Set("ETag", `"`+strings.TrimPrefix(nix.SHA256Hash(side.TextSum).Nix32(), "sha256:")+`"`)
	return x.sendContent(content)
}

// putSide answers PUT of a side object. It takes the place of one of the same name.
func (s *server) putSide(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Push: true})
	if err != nil {
		return err
	}
	kind := sideRoutes()[x.route]
	up := catalog.SideUpload{Cache: cache.Name, Side: catalog.Side{Kind: kind.kind}}
	if up.Side.Name, err = kind.name(cache.StoreDir, x.r.PathValue("file"), x.r.PathValue("out")); err != nil {
		return requestError("%v", err)
	}
	x.note(slog.String("file", up.Side.Name))
	if err := x.receiveSide(&up, &kind, cache.StoreDir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), s.opts.PublishTimeout)
	defer cancel()
	seq, err := s.cat.PutSide(ctx, up)
	if up.Side.Stored && errors.Is(err, catalog.ErrChunksMissing) {
		s.chunks.Refused(&up.Recipe)
	}
	if err != nil {
		return err
	}
	s.metrics.putSides.Inc()
	x.setSeq(seq)
	return x.sendCreated()
}

// receiveSide reads a side object, and stores it as chunks if it is too long for a row.
func (x *exchange) receiveSide(up *catalog.SideUpload, kind *sideKind, dir nix.StoreDir) error {
	src, stop, err := x.plainBody()
	if err != nil {
		return err
	}
	defer stop()
	body := &limitedText{src: src, left: kind.limit, what: kind.what}
	begin, err := io.ReadAll(io.LimitReader(body, sideAhead))
	if err != nil {
		return bodyError(err)
	}
	if kind.kind != catalog.SideLog {
		rest, err := io.ReadAll(body)
		if err != nil {
			return bodyError(err)
		}
		begin = append(begin, rest...)
		if !json.Valid(begin) {
			return requestError("the %s is not JSON", kind.what)
		}
		up.Side.OwnerKind, up.Side.Owner = ownerOf(begin, kind.kind, dir)
	}
	if len(begin) < sideAhead {
		up.Side.Size, up.Side.Zstd = int64(len(begin)), x.s.texts.EncodeAll(begin, nil)
		if len(up.Side.Zstd) <= catalog.MaxSideInline {
			return nil
		}
		up.Side.Zstd = nil
	}
	stored, err := x.s.chunks.Write(x.r.Context(), io.MultiReader(bytes.NewReader(begin), body))
	switch {
	case body.err != nil:
		return bodyError(body.err)
	case err != nil && x.r.Context().Err() != nil:
		return err
	case err != nil:
		return notStored(err)
	}
	up.Side.Stored, up.Recipe, up.Packs = true, stored.Recipe, stored.Packs
	return nil
}

// limitedText fails when there is more of a text than there may be.
type limitedText struct {
	src  io.Reader
	left int64
	what string
	err  error
}

func (l *limitedText) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.src.Read(p[:min(int64(len(p)), l.left+1)])
	if l.left -= int64(n); l.left < 0 {
		l.err = tooLarge("The %s is longer than this server takes.", l.what)
		return 0, l.err
	}
	if err != nil && err != io.EOF { //nolint:errorlint // readers return EOF itself
		l.err = err
	}
	return n, err
}

// ownerOf finds out which path a side object belongs to and goes with. If it does not
// say in a way that is understood here, it is nobody's.
func ownerOf(text []byte, kind catalog.SideKind, dir nix.StoreDir) (catalog.OwnerKind, [32]byte) {
	var says struct {
		OutPath string `json:"outPath"`
		Archive string `json:"archive"`
	}
	if json.Unmarshal(text, &says) != nil {
		return catalog.OwnerNone, [32]byte{}
	}
	if kind == catalog.SideDebugInfo {
		if fileHash, _, _, ok := parseFileName(says.Archive[strings.LastIndexByte(says.Archive, '/')+1:]); ok {
			return catalog.OwnerUpload, fileHash
		}
		return catalog.OwnerNone, [32]byte{}
	}
	path, err := nix.ParseStorePathBase(dir, strings.TrimPrefix(says.OutPath, string(dir)+"/"))
	if err != nil {
		return catalog.OwnerNone, [32]byte{}
	}
	return catalog.OwnerPath, catalog.PathOwner(path.HashPart())
}
