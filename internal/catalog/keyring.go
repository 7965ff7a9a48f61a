package catalog

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// tenant is a cache together with what is dear to compute from its row: parsing
// the key derives its public half from the seed.
type tenant struct {
	row   []byte // value it was made of
	cache Cache
	key   nix.SecretKey
	keyID keyspace.KeyID
}

// keyring remembers tenants. It is never asked whether a cache exists, only
// what a row means, so that it cannot be stale.
type keyring struct {
	mu     sync.RWMutex
	byName map[CacheName]*tenant // guarded by mu
}

// maxTenants bounds the keyring, at about 1 KiB each. Past it everything is
// forgotten: a node with more caches than that derives keys a little more often.
const maxTenants = 4096

// tenant decodes the row of the cache called name, or remembers having done so.
func (k *keyring) tenant(name CacheName, row []byte) (*tenant, error) {
	k.mu.RLock()
	t := k.byName[name]
	k.mu.RUnlock()
	if t != nil && bytes.Equal(t.row, row) {
		return t, nil
	}
	cache, err := keyspace.DecodeCache(keyspace.AppendCacheKey(nil, name), row)
	if err != nil {
		return nil, err
	}
	key, err := nix.ParseSecretKey(cache.SecretKey)
	if err != nil {
		return nil, fmt.Errorf("cache %q: %w", string(name), err)
	}
	t = &tenant{row: slices.Clone(row), cache: cache, key: key, keyID: keyIDOf(key)}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byName == nil || len(k.byName) >= maxTenants {
		k.byName = make(map[CacheName]*tenant)
	}
	k.byName[name] = t
	return t, nil
}

// keyIDOf tells key pairs apart by name and public key, as a client does.
func keyIDOf(key nix.SecretKey) keyspace.KeyID {
	sum := sha256.Sum256([]byte(key.Public().String()))
	return keyspace.KeyID(sum[:])
}

// localTenant returns the tenant called name, nil if the index has none.
func (c *Catalog) localTenant(name CacheName) (t *tenant, err error) {
	var buf [1 + keyspace.MaxCacheNameLen]byte
	_, err = c.db.Lookup(keyspace.AppendCacheKey(buf[:0], name), func(row []byte) error {
		t, err = c.keys.tenant(name, row)
		return err
	})
	return t, err
}

// readTenant returns the tenant called name in the state an operation is built
// against, or ErrNoCache.
func (c *Catalog) readTenant(v wal.View, name CacheName) (*tenant, error) {
	row, ok, err := v.Get(keyspace.AppendCacheKey(nil, name))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, noCache(name)
	}
	return c.keys.tenant(name, row)
}

func noCache(name CacheName) error { return fmt.Errorf("cache %q: %w", string(name), ErrNoCache) }

// sign returns the signature of the tenant's key for p.
func (t *tenant) sign(p *Path) (string, error) {
	fingerprint, err := fingerprint(p)
	if err != nil {
		return "", err
	}
	return t.key.Sign(string(fingerprint)).String(), nil
}

func fingerprint(p *Path) ([]byte, error) {
	n := nix.NarInfo{StorePath: p.StorePath, NarHash: nix.SHA256Hash(p.NarHash), NarSize: p.NarSize, References: p.References}
	return n.AppendFingerprint(make([]byte, 0, 128+96*len(p.References)))
}

// sigMemo remembers signatures made again because a cache's key had changed
// since its paths were published.
type sigMemo struct {
	mu         sync.Mutex
	young, old map[[32]byte]string // guarded by mu; by hash of key id and fingerprint
}

// maxYoungSigs bounds each of the two generations, at some 200 bytes a signature.
const maxYoungSigs = 8192

func (m *sigMemo) get(k [32]byte) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.young[k]; ok {
		return s, true
	}
	s, ok := m.old[k]
	if ok {
		m.putLocked(k, s)
	}
	return s, ok
}

func (m *sigMemo) put(k [32]byte, sig string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.putLocked(k, sig)
}

func (m *sigMemo) putLocked(k [32]byte, sig string) {
	if m.young == nil || len(m.young) >= maxYoungSigs {
		m.young, m.old = make(map[[32]byte]string), m.young
	}
	m.young[k] = sig
}

// resign replaces a signature of p that another key made.
func (c *Catalog) resign(t *tenant, p *Path) error {
	fp, err := fingerprint(p)
	if err != nil {
		return err
	}
	k := sha256.Sum256(append(fp, t.keyID[:]...))
	sig, ok := c.sigs.get(k)
	if !ok {
		sig = t.key.Sign(string(fp)).String()
		c.sigs.put(k, sig)
		c.metrics.resigned.Inc()
	}
	p.Sig, p.SigKey = sig, t.keyID
	return nil
}
