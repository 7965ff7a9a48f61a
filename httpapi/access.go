package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
)

// authorise finds a cache and checks that the caller has the rights in need on it.
//
// Who has no right on the name must not learn whether the cache exists, by the answer
// or by how long it takes: an absent cache is only denied after a catch-up with the log,
// so a private one is too. The same catch-up makes a cache that was opened to the public
// a moment ago, through another node, visible here.
func (x *exchange) authorise(nameText string, need auth.Permission) (catalog.Cache, auth.Permission, error) {
	name, err := cacheName(nameText)
	if err != nil {
		return catalog.Cache{}, auth.Permission{}, err
	}
	ctx := x.r.Context()
	granted := x.grant.Permission(string(name))
	for caughtUp := false; ; caughtUp = true {
		cache, err := x.s.cat.Cache(ctx, name)
		switch {
		case errors.Is(err, catalog.ErrNoCache) && granted.CanDiscover():
			return catalog.Cache{}, granted, errNoSuchCache
		case errors.Is(err, catalog.ErrNoCache):
			return catalog.Cache{}, granted, errUnauthorized
		case err != nil:
			return catalog.Cache{}, granted, err
		}
		perm := granted
		if cache.Public {
			perm.Pull = true
		}
		switch {
		case perm.Covers(need):
			if need.Push {
				x.r = x.r.WithContext(catalog.For(ctx, cache.Name))
			}
			return cache, perm, nil
		case perm.CanDiscover():
			return catalog.Cache{}, perm, errAccess
		case caughtUp:
			return catalog.Cache{}, perm, errUnauthorized
		}
		if err := x.catchUp(ctx); err != nil {
			return catalog.Cache{}, perm, err
		}
	}
}

// cacheName parses a cache's name from a URL.
func cacheName(text string) (catalog.CacheName, error) {
	name, err := catalog.ParseCacheName(text)
	switch {
	case err == nil:
		return name, nil
	case text == "_api":
		return "", errNotFound // no cache can be called so; this is an API call that does not exist
	default:
		return "", extractorError(http.StatusBadRequest, "Invalid URL: Invalid cache name: %v", err)
	}
}

func (x *exchange) catchUp(ctx context.Context) error {
	_, err := x.s.cat.CatchUp(ctx)
	return err
}

// authorisePull is authorise for the Nix protocol: it reads the cache from the URL and
// marks answers about public caches.
func (x *exchange) authorisePull() (catalog.Cache, error) {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Pull: true})
	if err == nil && cache.Public {
		x.Header().Set(wire.HeaderAtticVisibility, wire.VisibilityPublic)
		x.Header().Set(wire.HeaderCellerVisibility, wire.VisibilityPublic)
	}
	return cache, err
}

// cacheable sets the caching headers of an answer from a cache. What a private cache
// answers depends on who asks.
func (x *exchange) cacheable(cache *catalog.Cache, age string) {
	h := x.Header()
	if cache.Public {
		h.Set("Cache-Control", "public, "+age)
		return
	}
	h.Set("Cache-Control", "private, "+age)
	h.Set("Vary", "Authorization")
}

// note adds to the access line.
func (x *exchange) note(attrs ...slog.Attr) { x.attrs = append(x.attrs, attrs...) }

// seesWho reports whether the caller is told who did what in a cache: names of tokens, often
// of people, are not for everybody who may read because the cache is public.
func (x *exchange) seesWho(cache catalog.CacheName) bool {
	return x.grant.Permission(string(cache)).CanDiscover()
}
