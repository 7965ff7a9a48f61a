package httpapi

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// getCacheConfig answers GET /_api/v1/cache-config/{cache} and GET /{cache}/attic-cache-info.
func (s *server) getCacheConfig(x *exchange) error {
	cache, perm, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Pull: true})
	if err != nil {
		return err
	}
	publicKey, err := publicKeyOf(&cache)
	if err != nil {
		return err
	}
	api := x.apiEndpoint()
	substituter := s.opts.SubstituterEndpoint
	if substituter == "" {
		substituter = api
	}
	substituter += string(cache.Name)
	storeDir := string(cache.StoreDir)
	upstream := cache.UpstreamKeyNames
	if upstream == nil {
		upstream = []string{}
	}
	x.sendJSON(wire.CacheConfig{
		SubstituterEndpoint:   &substituter,
		APIEndpoint:           &api,
		PublicKey:             &publicKey,
		IsPublic:              &cache.Public,
		StoreDir:              &storeDir,
		Priority:              &cache.Priority,
		UpstreamCacheKeyNames: &upstream,
		RetentionPeriod:       retentionToWire(cache.Retention),
		Celler:                &wire.Capabilities{Version: wire.CapabilitiesVersion, Permissions: perm.Names(), Delta: s.deltaVersions(), Closures: s.asksClosures()},
	})
	return nil
}

// apiEndpoint is how the caller reaches us: as configured, or as it just did.
func (x *exchange) apiEndpoint() string {
	if e := x.s.opts.APIEndpoint; e != "" {
		return e
	}
	scheme := "http"
	if x.r.TLS != nil || x.r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	return scheme + "://" + x.r.Host + "/"
}

func publicKeyOf(cache *catalog.Cache) (string, error) {
	key, err := nix.ParseSecretKey(cache.SecretKey)
	if err != nil {
		return "", err
	}
	return key.Public().String(), nil
}

// createCache answers POST /_api/v1/cache-config/{cache}.
func (s *server) createCache(x *exchange) error {
	name, err := cacheName(x.r.PathValue("cache"))
	if err != nil {
		return err
	}
	// That a cache is public gives nobody anything here: it is about a name.
	if perm := x.grant.Permission(string(name)); !perm.CreateCache {
		if perm.CanDiscover() {
			return errAccess
		}
		return errUnauthorized
	}
	raw, err := x.readJSON()
	if err != nil {
		return err
	}
	req, err := wire.DecodeCreateCache(raw)
	if err != nil {
		return jsonError(err)
	}
	storeDir, err := nix.ParseStoreDir(req.StoreDir)
	if err != nil {
		return requestError("store_dir: %v", err)
	}
	secret, err := s.keypair(name, req.Keypair)
	if err != nil {
		return err
	}
	seq, err := s.cat.CreateCache(x.r.Context(), catalog.Cache{
		Name:             name,
		Created:          s.opts.Now(),
		SecretKey:        secret,
		Public:           req.IsPublic,
		StoreDir:         storeDir,
		Priority:         req.Priority,
		UpstreamKeyNames: req.UpstreamCacheKeyNames,
	})
	if err != nil {
		return err
	}
	x.setSeq(seq)
	return x.sendEmpty()
}

// keypair makes or checks a cache's signing key.
func (s *server) keypair(name catalog.CacheName, k wire.Keypair) (string, error) {
	if k.Secret == "" {
		key, err := nix.GenerateSecretKey(string(name), s.opts.Rand)
		return key.Secret(), err
	}
	key, err := nix.ParseSecretKey(k.Secret)
	if err != nil {
		return "", extractorError(http.StatusUnprocessableEntity, "Failed to deserialize the JSON body into the target type: keypair: %v", err)
	}
	return key.Secret(), nil
}

// configureCache answers PATCH /_api/v1/cache-config/{cache}.
func (s *server) configureCache(x *exchange) error {
	nameText := x.r.PathValue("cache")
	cache, perm, err := x.authorise(nameText, auth.Permission{ConfigureCache: true})
	if err != nil {
		return err
	}
	raw, err := x.readJSON()
	if err != nil {
		return err
	}
	req, err := wire.DecodeCacheConfig(raw)
	if err != nil {
		return jsonError(err)
	}
	if req.RetentionPeriod != nil && !perm.ConfigureRetention {
		// Stock clients send "Global" with every change, whether it was asked for or not.
		// Whoever may not change retention cannot have meant it.
		only := req
		only.RetentionPeriod = nil
		if !req.RetentionPeriod.Global || !changesAnything(&only) {
			return errAccess
		}
		req = only
		s.opts.Logger.LogAttrs(x.r.Context(), slog.LevelInfo, "retention period of a stock client is not applied",
			slog.String("cache", nameText))
	}
	if !changesAnything(&req) {
		return requestError("No modifiable fields were set.")
	}
	change, err := s.cacheChange(cache.Name, &req)
	if err != nil {
		return err
	}
	seq, err := s.cat.ConfigureCache(x.r.Context(), cache.Name, change)
	if err != nil {
		return err
	}
	x.setSeq(seq)
	return x.sendEmpty()
}

func changesAnything(c *wire.CacheConfig) bool {
	return c.Keypair != nil || c.IsPublic != nil || c.StoreDir != nil || c.Priority != nil ||
		c.UpstreamCacheKeyNames != nil || c.RetentionPeriod != nil
}

// cacheChange turns a request into the function that the catalog runs against the row
// as it is when the change gets its place in the log, maybe more than once.
func (s *server) cacheChange(name catalog.CacheName, req *wire.CacheConfig) (func(*catalog.Cache) error, error) {
	var secret string
	var storeDir nix.StoreDir
	var err error
	if req.Keypair != nil {
		if secret, err = s.keypair(name, *req.Keypair); err != nil {
			return nil, err
		}
	}
	if req.StoreDir != nil {
		if storeDir, err = nix.ParseStoreDir(*req.StoreDir); err != nil {
			return nil, requestError("store_dir: %v", err)
		}
	}
	var retention *time.Duration
	if p := req.RetentionPeriod; p != nil && !p.Global {
		if p.Period > wire.MaxPeriod {
			return nil, requestError("Invalid retention period: expected at most %d seconds, found %d", wire.MaxPeriod, p.Period)
		}
		d := time.Duration(p.Period) * time.Second
		retention = &d
	}
	return func(c *catalog.Cache) error {
		if req.Keypair != nil {
			c.SecretKey = secret
		}
		if req.IsPublic != nil {
			c.Public = *req.IsPublic
		}
		if req.StoreDir != nil {
			c.StoreDir = storeDir
		}
		if req.Priority != nil {
			c.Priority = *req.Priority
		}
		if req.UpstreamCacheKeyNames != nil {
			c.UpstreamKeyNames = *req.UpstreamCacheKeyNames
		}
		if req.RetentionPeriod != nil {
			c.Retention = retention
		}
		return nil
	}, nil
}

func retentionToWire(d *time.Duration) *wire.RetentionPeriod {
	if d == nil {
		return &wire.RetentionPeriod{Global: true}
	}
	return &wire.RetentionPeriod{Period: uint32(*d / time.Second)}
}

// destroyCache answers DELETE /_api/v1/cache-config/{cache}.
func (s *server) destroyCache(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{DestroyCache: true})
	if err != nil {
		return err
	}
	seq, err := s.cat.DestroyCache(x.r.Context(), cache.Name)
	if err != nil {
		return err
	}
	x.setSeq(seq)
	return x.sendEmpty()
}

// sendEmpty answers 200 with no body, which is all that stock clients look for.
func (x *exchange) sendEmpty() error {
	x.Header().Set("Cache-Control", "no-store")
	x.Header().Set("Content-Length", "0")
	x.WriteHeader(http.StatusOK)
	return nil
}
