package catalog

import (
	"context"
	"fmt"
	"iter"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// formerEntry notes that a path which goes, or comes to name another NAR, named the one
// in p: the URL that narinfos gave out for it goes on answering while the recipe is there.
func formerEntry(cache CacheID, p *Path, day uint32) wal.Entry {
	f := keyspace.Former{NarHash: p.NarHash, Cache: cache, HashPart: p.StorePath.HashPart(), Day: max(day, keyspace.FirstCount)}
	return set(keyspace.AppendFormerKey(nil, f.NarHash, f.Cache, f.HashPart), keyspace.AppendFormer(nil, &f))
}

// formerGone returns the entries that forget who had a NAR: one cache, for the operation
// in which it is not to be fetched from there any more; all of them (cache 0) for that in
// which its recipe goes.
func formerGone(v wal.View, narHash [32]byte, cache CacheID) ([]wal.Entry, error) {
	var entries []wal.Entry
	for row, err := range v.Scan(keyspace.AppendFormerPrefix(nil, narHash), nil) {
		var f keyspace.Former
		if err == nil {
			f, err = keyspace.DecodeFormer(row.Key, row.Value)
		}
		if err != nil {
			return nil, fmt.Errorf("forget who had NAR %x: %w", narHash, err)
		}
		if cache == 0 || f.Cache == cache {
			entries = append(entries, remove(row.Key))
		}
	}
	return entries, nil
}

// Former reports whether a path of a cache once named a NAR, so that those who may read
// the cache may have it, unless somebody wants it gone at once. It reads the index only:
// whoever has asked for the path before has caught up already.
func (c *Catalog) Former(_ context.Context, cache CacheName, hashPart nix.HashPart, narHash [32]byte) (bool, error) {
	t, err := c.localTenant(cache)
	if t == nil || err != nil {
		return false, err
	}
	_, ok, err := local(c, keyspace.AppendFormerKey(nil, narHash, t.cache.ID, hashPart), keyspace.DecodeFormer)
	if !ok || err != nil {
		return false, err
	}
	u, waits, err := local(c, keyspace.AppendUnreferencedKey(nil, narHash), keyspace.DecodeUnreferenced)
	return !waits || !u.Now, err
}

// Formers yields which paths of which caches once named a NAR, in the order of the NARs.
func (s *Snapshot) Formers() iter.Seq2[keyspace.Former, error] {
	return rowsOf(s.view, "URLs that were given out", []byte{keyspace.FormerPrefix}, keyspace.DecodeFormer)
}

// UnreferencedNar returns since when no path names a NAR that has a recipe; false if a
// path does, or if there is no such NAR.
func (s *Snapshot) UnreferencedNar(narHash [32]byte) (Unreferenced, bool, error) {
	return read(s.view, keyspace.AppendUnreferencedKey(nil, narHash), keyspace.DecodeUnreferenced)
}
