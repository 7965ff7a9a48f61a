package catalog

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// opUses is how many uses one operation records.
const opUses = 2048

// PathKey names a path in a cache.
type PathKey struct {
	Cache    CacheName
	HashPart nix.HashPart
}

func comparePathKeys(a, b PathKey) int {
	return cmp.Or(cmp.Compare(a.Cache, b.Cache), bytes.Compare(a.HashPart[:], b.HashPart[:]))
}

// RecordUses notes that paths were used on the open store day. Paths and caches that
// are not there, and uses that are known already, are passed over. It may be given
// any number of them.
func (c *Catalog) RecordUses(ctx context.Context, uses []PathKey) error {
	uses = slices.Clone(uses)
	slices.SortFunc(uses, comparePathKeys)
	uses = slices.Compact(uses)
	for part := range slices.Chunk(uses, opUses) {
		_, err := c.wal.Commit(ctx, wal.Op{Name: "record uses", Cost: len(part) * 96, Build: func(v wal.View) ([]wal.Entry, error) {
			return c.recordUses(v, part)
		}})
		if err != nil {
			return fmt.Errorf("record the use of paths: %w", err)
		}
	}
	return nil
}

func (c *Catalog) recordUses(v wal.View, uses []PathKey) ([]wal.Entry, error) {
	b, err := newBooks(v)
	if err != nil {
		return nil, err
	}
	b.mutants = c.mutants
	var cache Cache
	for i, u := range uses {
		if i == 0 || u.Cache != uses[i-1].Cache {
			if cache, _, err = read(v, keyspace.AppendCacheKey(nil, u.Cache), keyspace.DecodeCache); err != nil {
				return nil, err
			}
		}
		if cache.ID == 0 {
			continue
		}
		if _, ok, err := v.Get(keyspace.AppendPathKey(nil, cache.ID, u.HashPart)); !ok || err != nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		n := len(b.entries)
		if err := b.use(cache.ID, u.HashPart); err != nil {
			return nil, err
		}
		if len(b.entries) > n {
			b.touch(Touch{Cache: cache.ID, HashPart: u.HashPart})
		}
	}
	return b.close()
}

// UnrecordedUses returns which of those hashParts that the cache has would be news to
// RecordUses. It reads the index only. Whoever is about to answer that a path is present
// records these first.
func (c *Catalog) UnrecordedUses(ctx context.Context, cache CacheName, hashParts []nix.HashPart) ([]nix.HashPart, error) {
	t, err := c.localTenant(cache)
	if t == nil || err != nil {
		return nil, err
	}
	day, err := counter(c.db, keyspace.OpenDay)
	if err != nil {
		return nil, err
	}
	var news []nix.HashPart
	for _, hashPart := range hashParts {
		last, known, err := local(c, keyspace.AppendLastUseKey(nil, t.cache.ID, hashPart), keyspace.DecodeLastUse)
		switch {
		case err != nil:
			return nil, err
		case known && last.Day == day:
			continue
		case !known:
			if there, err := c.db.Lookup(keyspace.AppendPathKey(nil, t.cache.ID, hashPart), func([]byte) error { return nil }); !there || err != nil {
				if err != nil {
					return nil, err
				}
				continue
			}
		}
		news = append(news, hashPart)
	}
	return news, ctx.Err()
}
