package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/celler/celler/httpapi/wire"
)

// Cache is what a server tells about one of its caches.
type Cache struct {
	Name             string
	Endpoint         string // what a Nix substitutes from; "" in a list
	APIEndpoint      string // what the server believes its own address to be; "" in a list
	PublicKey        string
	Public           bool
	StoreDir         string
	Priority         int32
	UpstreamKeyNames []string       // nil in a list
	Retention        *time.Duration // nil = the server's default; 0 = keep for ever
	Created          time.Time      // zero if the server did not say
	Permissions      []string       // the caller's; nil if the server did not say
	IsCeller         bool           // the server is celler, not one that only shares the protocol
	Version          int            // of what celler can do beyond that protocol; 0 = unknown
	Delta            []int          // versions of the delta protocol that it speaks
	Closures         bool           // it answers questions about closures
}

// NewCache is what a cache is created with. Its zero value is a private cache with the
// usual defaults.
type NewCache struct {
	Public           bool
	StoreDir         string   // default /nix/store
	Priority         int32    // default 41, just behind cache.nixos.org
	UpstreamKeyNames []string // paths signed by these are not pushed; nil = cache.nixos.org-1
	SecretKey        string   // "name:base64", the content of a Nix secret-key file; "" = the server makes one
}

// CacheChange is what is to change in a cache; nil fields stay as they are.
type CacheChange struct {
	Public           *bool
	StoreDir         *string
	Priority         *int32
	UpstreamKeyNames *[]string
	Retention        *Retention
	RegenerateKey    bool
	SecretKey        *string
}

// Retention is a cache's rule for paths that nobody pinned: the server's default, or
// a period after which they may go. A zero period keeps them for ever.
type Retention struct {
	Default bool
	Period  time.Duration // whole seconds
}

// Cache returns the configuration of a cache.
func (c *Client) Cache(ctx context.Context, name string) (Cache, error) {
	var answer wire.CacheConfig
	if err := c.call(ctx, http.MethodGet, cacheConfigPath(name), nil, &answer); err != nil {
		return Cache{}, err
	}
	cache := Cache{
		Name:        name,
		Endpoint:    deref(answer.SubstituterEndpoint),
		APIEndpoint: deref(answer.APIEndpoint),
		PublicKey:   deref(answer.PublicKey),
		Public:      deref(answer.IsPublic),
		StoreDir:    deref(answer.StoreDir),
		Priority:    deref(answer.Priority),
		IsCeller:    answer.Celler != nil,
	}
	if c := answer.Celler; c != nil {
		cache.Version, cache.Permissions, cache.Delta, cache.Closures = c.Version, c.Permissions, c.Delta, c.Closures
	}
	cache.UpstreamKeyNames = deref(answer.UpstreamCacheKeyNames)
	if p := answer.RetentionPeriod; p != nil && !p.Global {
		d := time.Duration(p.Period) * time.Second
		cache.Retention = &d
	}
	return cache, nil
}

// Caches lists the caches that the caller may see. Only celler answers this.
func (c *Client) Caches(ctx context.Context) ([]Cache, error) {
	var answer wire.CacheList
	if err := c.call(ctx, http.MethodGet, "_api/v1/caches", nil, &answer); err != nil {
		return nil, err
	}
	caches := make([]Cache, 0, len(answer.Caches))
	for _, s := range answer.Caches {
		caches = append(caches, Cache{
			Name: s.Name, Public: s.IsPublic, StoreDir: s.StoreDir, Priority: s.Priority,
			PublicKey: s.PublicKey, Created: s.Created, Permissions: s.Permissions, IsCeller: true,
		})
	}
	return caches, nil
}

// CreateCache creates a cache.
func (c *Client) CreateCache(ctx context.Context, name string, n NewCache) error {
	body := wire.CreateCacheRequest{
		Keypair:               wire.Keypair{Secret: n.SecretKey},
		IsPublic:              n.Public,
		StoreDir:              n.StoreDir,
		Priority:              n.Priority,
		UpstreamCacheKeyNames: n.UpstreamKeyNames,
	}
	if body.StoreDir == "" {
		body.StoreDir = "/nix/store"
	}
	if body.Priority == 0 {
		body.Priority = 41
	}
	if body.UpstreamCacheKeyNames == nil {
		body.UpstreamCacheKeyNames = []string{"cache.nixos.org-1"}
	}
	return c.callCreate(ctx, cacheConfigPath(name), body)
}

// ConfigureCache changes a cache. Only what is set in change is sent.
func (c *Client) ConfigureCache(ctx context.Context, name string, change CacheChange) error {
	body := wire.CacheConfig{
		IsPublic: change.Public, StoreDir: change.StoreDir, Priority: change.Priority,
		UpstreamCacheKeyNames: change.UpstreamKeyNames,
	}
	switch {
	case change.SecretKey != nil:
		body.Keypair = &wire.Keypair{Secret: *change.SecretKey}
	case change.RegenerateKey:
		body.Keypair = &wire.Keypair{}
	}
	if r := change.Retention; r != nil {
		seconds := int64(r.Period / time.Second)
		if seconds < 0 || seconds > wire.MaxPeriod || r.Period%time.Second != 0 {
			return fmt.Errorf("retention period %v: expected whole seconds, at most %v", r.Period, time.Duration(wire.MaxPeriod)*time.Second)
		}
		body.RetentionPeriod = &wire.RetentionPeriod{Global: r.Default, Period: uint32(seconds)}
	}
	return c.call(ctx, http.MethodPatch, cacheConfigPath(name), body, nil)
}

// DestroyCache removes a cache and every path in it.
func (c *Client) DestroyCache(ctx context.Context, name string) error {
	return c.callDelete(ctx, cacheConfigPath(name))
}

func cacheConfigPath(name string) string { return "_api/v1/cache-config/" + url.PathEscape(name) }

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
