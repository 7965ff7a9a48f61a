package keyspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/celler/celler/nix"
)

const (
	// MaxCacheNameLen is the longest name of a cache, in bytes; Attic's limit.
	MaxCacheNameLen = 50
	// MaxUpstreamKeyNames bounds the list a client filters closures by.
	MaxUpstreamKeyNames = 1024
	// maxRetention is what a 32-bit count of seconds can say on the wire.
	maxRetention = math.MaxInt32 * time.Second
)

// CacheName is the name of a cache: a letter or digit, then up to 49 letters,
// digits, "-", "_" and "+".
type CacheName string

// ParseCacheName accepts the name of a cache.
func ParseCacheName(s string) (CacheName, error) {
	n := CacheName(s)
	if err := n.Valid(); err != nil {
		return "", err
	}
	return n, nil
}

// Valid reports what is wrong with the name, if anything.
func (n CacheName) Valid() error {
	switch {
	case n == "":
		return errors.New("cache name is empty")
	case len(n) > MaxCacheNameLen:
		return fmt.Errorf("cache name %.*q… has %d bytes, want at most %d", MaxCacheNameLen, string(n), len(n), MaxCacheNameLen)
	}
	for i := range len(n) {
		c := n[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '-' || c == '_' || c == '+'):
		default:
			r, _ := utf8.DecodeRuneInString(string(n[i:]))
			return fmt.Errorf("cache name %q has %q at %d, want letters, digits and after the first of them - _ +", string(n), r, i)
		}
	}
	return nil
}

// CacheID is the number of a cache, given once and never again: destroying a
// cache and creating another of the same name leaves no way from the new one to
// the rows of the old one. 0 is no cache.
type CacheID uint32

// Cache is a named tenant with keys, visibility, priority and retention.
type Cache struct {
	Name             CacheName // of the key
	ID               CacheID
	Created          time.Time
	SecretKey        string // "<name>:<base64>", as in a Nix secret key file
	Public           bool
	StoreDir         nix.StoreDir
	Priority         int32
	UpstreamKeyNames []string
	Retention        *time.Duration // nil: the node's default; 0: keep for ever. Whole seconds
}

// Valid reports what is wrong with the row, if anything. The key pair is
// checked by whoever signs with it.
func (c *Cache) Valid() error {
	if err := c.Name.Valid(); err != nil {
		return err
	}
	if err := c.valid(); err != nil {
		return fmt.Errorf("cache %q: %w", string(c.Name), err)
	}
	return nil
}

func (c *Cache) valid() error {
	if c.ID == 0 {
		return errors.New("has no id")
	}
	if err := validTime(c.Created); err != nil {
		return err
	}
	if err := c.StoreDir.Valid(); err != nil {
		return err
	}
	if c.SecretKey == "" || len(c.SecretKey) > maxText || !printable(c.SecretKey) {
		return fmt.Errorf("secret key has %d bytes or a control character, want 1..%d printable bytes", len(c.SecretKey), maxText)
	}
	if len(c.UpstreamKeyNames) > MaxUpstreamKeyNames {
		return fmt.Errorf("%d upstream key names, want at most %d", len(c.UpstreamKeyNames), MaxUpstreamKeyNames)
	}
	for _, n := range c.UpstreamKeyNames {
		if n == "" || len(n) > maxText || !printable(n) {
			return fmt.Errorf("upstream key name %.100q is empty, too long or has a control character", n)
		}
	}
	if r := c.Retention; r != nil && (*r < 0 || *r > maxRetention || *r%time.Second != 0) {
		return fmt.Errorf("retention is %v, want whole seconds up to %v", *r, maxRetention)
	}
	return nil
}

// AppendCacheKey appends the key of the cache called name.
func AppendCacheKey(dst []byte, name CacheName) []byte {
	return append(append(dst, CachePrefix), name...)
}

// DecodeCacheKey returns the name in the key of a cache.
func DecodeCacheKey(key []byte) (CacheName, error) {
	rest, ok := cutPrefix(key, CachePrefix, -1)
	if !ok || CacheName(rest).Valid() != nil {
		return "", keyError("cache", key)
	}
	return CacheName(rest), nil
}

const (
	flagPublic    = 1 << 0
	flagRetention = 1 << 1
)

// AppendCache appends the value of c, which must be valid.
func AppendCache(dst []byte, c *Cache) []byte {
	dst = append(dst, rowVersion)
	dst = binary.AppendUvarint(dst, uint64(c.ID))
	dst = appendTime(dst, c.Created)
	var flags byte
	if c.Public {
		flags |= flagPublic
	}
	if c.Retention != nil {
		flags |= flagRetention
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(uint32(c.Priority<<1^c.Priority>>31)))
	if c.Retention != nil {
		dst = binary.AppendUvarint(dst, uint64(*c.Retention/time.Second))
	}
	dst = appendText(dst, string(c.StoreDir))
	dst = appendText(dst, c.SecretKey)
	dst = binary.AppendUvarint(dst, uint64(len(c.UpstreamKeyNames)))
	for _, n := range c.UpstreamKeyNames {
		dst = appendText(dst, n)
	}
	return dst
}

// DecodeCache decodes the row of one cache.
func DecodeCache(key, value []byte) (Cache, error) {
	name, err := DecodeCacheKey(key)
	if err != nil {
		return Cache{}, err
	}
	d := decoder[string]{what: "cache", src: string(value)}
	d.version()
	c := Cache{Name: name}
	c.ID = CacheID(d.upTo(math.MaxUint32, "cache id"))
	c.Created = d.time()
	flags := d.byte()
	if flags&^(flagPublic|flagRetention) != 0 {
		d.fail("flags are %#x, want none but %#x", flags, flagPublic|flagRetention)
	}
	c.Public = flags&flagPublic != 0
	p := uint32(d.upTo(math.MaxUint32, "priority"))
	c.Priority = int32(p>>1) ^ -int32(p&1)
	if flags&flagRetention != 0 {
		r := time.Duration(d.upTo(uint64(maxRetention/time.Second), "retention")) * time.Second
		c.Retention = &r
	}
	c.StoreDir = nix.StoreDir(d.text())
	c.SecretKey = d.text()
	if n := d.count(2); n > 0 {
		c.UpstreamKeyNames = make([]string, n)
		for i := range c.UpstreamKeyNames {
			c.UpstreamKeyNames[i] = d.text()
		}
	}
	if err := d.end(); err != nil {
		return Cache{}, err
	}
	if err := c.Valid(); err != nil {
		return Cache{}, fmt.Errorf("decode cache row: %w", err)
	}
	return c, nil
}
