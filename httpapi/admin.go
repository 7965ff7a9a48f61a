package httpapi

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// The calls that Attic does not have.

const (
	defaultPageSize = 100
	maxPageSize     = catalog.MaxPathsPage - 1 // one more is read to see whether there is a next page
	// maxTokenLife is ten years: "for ever" for a person, and a date for a program.
	maxTokenLife = 10 * 365 * 24 * time.Hour
)

// listCaches answers GET /_api/v1/caches with the caches the caller may discover.
func (s *server) listCaches(x *exchange) error {
	caches, err := s.cat.Caches(x.r.Context())
	if err != nil {
		return err
	}
	list := wire.CacheList{Caches: []wire.CacheSummary{}}
	for i := range caches {
		cache := &caches[i]
		perm := x.grant.Permission(string(cache.Name))
		if cache.Public {
			perm.Pull = true
		}
		if !perm.CanDiscover() {
			continue
		}
		publicKey, err := publicKeyOf(cache)
		if err != nil {
			return err
		}
		list.Caches = append(list.Caches, wire.CacheSummary{
			Name:        string(cache.Name),
			IsPublic:    cache.Public,
			StoreDir:    string(cache.StoreDir),
			Priority:    cache.Priority,
			PublicKey:   publicKey,
			Created:     cache.Created,
			Permissions: perm.Names(),
		})
	}
	x.sendJSON(list)
	return nil
}

// listPaths answers GET /_api/v1/caches/{cache}/paths?after=&limit=.
func (s *server) listPaths(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Pull: true})
	if err != nil {
		return err
	}
	query := x.r.URL.Query()
	limit := defaultPageSize
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 {
			return requestError("limit: expected a number from 1 to %d, found %.40q", maxPageSize, text)
		}
		limit = min(limit, maxPageSize)
	}
	var after *nix.HashPart
	if text := query.Get("after"); text != "" {
		hashPart, err := nix.ParseHashPart(text)
		if err != nil {
			return requestError("after: %v", err)
		}
		after = &hashPart
	}
	// One more than asked for tells whether there is a next page.
	paths, err := s.cat.Paths(x.r.Context(), cache.Name, after, limit+1)
	if err != nil {
		return err
	}
	list := wire.PathList{Paths: make([]wire.PathInfo, 0, min(len(paths), limit))}
	for i := range paths {
		if i == limit {
			list.Next = paths[i-1].StorePath.HashPart().String()
			break
		}
		list.Paths = append(list.Paths, x.pathToWire(cache.Name, &paths[i]))
	}
	x.sendJSON(list)
	return nil
}

// getPath answers GET /_api/v1/caches/{cache}/paths/{hashpart}.
func (s *server) getPath(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Pull: true})
	if err != nil {
		return err
	}
	hashPart, err := nix.ParseHashPart(x.r.PathValue("hashpart"))
	if err != nil {
		return errNoSuchObject.because(err)
	}
	path, err := s.cat.Path(x.r.Context(), cache.Name, hashPart)
	if err != nil {
		return err
	}
	x.sendJSON(x.pathToWire(cache.Name, &path))
	return nil
}

func (x *exchange) pathToWire(cache catalog.CacheName, p *catalog.Path) wire.PathInfo {
	info := narInfoOf(p, p.StorePath.HashPart())
	out := wire.PathInfo{
		StorePath:  p.StorePath.String(),
		HashPart:   p.StorePath.HashPart().String(),
		NarHash:    info.NarHash.String(),
		NarSize:    p.NarSize,
		FileSize:   p.FileSize,
		References: make([]string, 0, len(p.References)),
		Deriver:    p.Deriver,
		System:     p.System,
		CA:         p.CA,
		Sigs:       make([]string, 0, len(info.Sig)),
		Created:    p.Created,
	}
	if x.seesWho(cache) {
		out.CreatedBy = p.By
	}
	for _, ref := range p.References {
		out.References = append(out.References, ref.Base())
	}
	for _, sig := range info.Sig {
		out.Sigs = append(out.Sigs, sig.String())
	}
	return out
}

// mintToken answers POST /_api/v1/tokens: a caller may pass on what it has, all or part
// of it, for at most as long as it has it.
func (s *server) mintToken(x *exchange) error {
	if x.grant.Anonymous() {
		return errUnauthorized
	}
	raw, err := x.readJSON()
	if err != nil {
		return err
	}
	req, err := wire.DecodeTokenRequest(raw)
	if err != nil {
		return jsonError(err)
	}
	claims, err := x.tokenClaims(&req)
	if err != nil {
		return err
	}
	token, err := s.auth.Mint(claims)
	if errors.Is(err, auth.ErrVerifyOnly) {
		return errNoSigningKey
	}
	if err != nil {
		return err
	}
	s.opts.Logger.LogAttrs(x.r.Context(), slog.LevelInfo, "minted a token",
		slog.String("subject", x.grant.Subject), slog.String("for", claims.Subject), slog.String("token_id", claims.ID))
	x.sendJSON(wire.TokenResponse{Token: token, ID: claims.ID, Expires: claims.Expires})
	return nil
}

func (x *exchange) tokenClaims(req *wire.TokenRequest) (auth.Claims, error) {
	if req.Subject == "" || len(req.Subject) > 256 {
		return auth.Claims{}, requestError("subject: expected 1 to 256 bytes, found %d", len(req.Subject))
	}
	if most := int64(maxTokenLife / time.Second); req.ValidFor < 1 || req.ValidFor > most {
		return auth.Claims{}, requestError("valid_for: expected 1 to %d seconds, found %d", most, req.ValidFor)
	}
	if len(req.Rules) == 0 {
		return auth.Claims{}, requestError("rules: expected at least one")
	}
	claims := auth.Claims{
		Subject:   req.Subject,
		NotBefore: x.start.Truncate(time.Second),
		Expires:   x.start.Add(time.Duration(req.ValidFor) * time.Second).Truncate(time.Second).UTC(),
	}
	if end := x.grant.Expires; !end.IsZero() && end.Before(claims.Expires) {
		claims.Expires = end
	}
	for _, rule := range req.Rules {
		pattern, err := auth.ParsePattern(rule.Pattern)
		if err != nil {
			return auth.Claims{}, requestError("%v", err)
		}
		if slices.ContainsFunc(claims.Rules, func(r auth.Rule) bool { return r.Pattern == pattern }) {
			return auth.Claims{}, requestError("rules: pattern %q stands there twice", pattern)
		}
		perm, err := auth.ParsePermission(rule.Permissions...)
		if err != nil {
			return auth.Claims{}, requestError("%v", err)
		}
		if !x.grant.Covers(pattern, perm) {
			return auth.Claims{}, &refusal{
				status: http.StatusForbidden, name: wire.ErrorAccess,
				message: "Access error: a token can only give what the caller has, and " + strconv.Quote(string(pattern)) + " with " + perm.String() + " is more than that.",
			}
		}
		claims.Rules = append(claims.Rules, auth.Rule{Pattern: pattern, Permission: perm})
	}
	var err error
	claims.ID, err = auth.NewTokenID(x.s.opts.Rand)
	return claims, err
}
