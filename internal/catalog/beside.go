package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// RestoreBeside brings back what a cache of an earlier state kept beside its paths and has
// no more: logs and the like, and the URLs of what plain Nix has sent. It adds and never
// replaces; what cannot be put together any more is left out. It comes after the cache
// itself was restored, in as many operations as it takes, and may be repeated.
func (c *Catalog) RestoreBeside(ctx context.Context, then *Snapshot, name CacheName) (restored int, err error) {
	old, was, err := then.Cache(name)
	if !was || err != nil {
		return 0, err
	}
	var sides []Side
	var uploads []Upload
	flush := func() error {
		n := 0
		_, err := c.wal.Commit(ctx, wal.Op{Name: "restore side objects", About: string(name), Cost: (len(sides) + len(uploads)) * 2 * pathCost, Build: func(v wal.View) (entries []wal.Entry, err error) {
			entries, n, err = c.besideRows(v, name, sides, uploads)
			return entries, err
		}})
		restored += n
		sides, uploads = nil, nil
		return err
	}
	for s, err := range then.Sides(old.ID) {
		if err != nil {
			return restored, err
		}
		if sides = append(sides, s); len(sides) == besideRows {
			if err := flush(); err != nil {
				return restored, fmt.Errorf("restore side objects: %w", err)
			}
		}
	}
	for u, err := range then.Uploads(old.ID) {
		if err != nil {
			return restored, err
		}
		if !u.Claimed {
			continue
		}
		if uploads = append(uploads, u); len(uploads) == opPaths {
			if err := flush(); err != nil {
				return restored, fmt.Errorf("restore side objects: %w", err)
			}
		}
	}
	if len(sides)+len(uploads) == 0 {
		return restored, nil
	}
	if err := flush(); err != nil {
		return restored, fmt.Errorf("restore side objects: %w", err)
	}
	return restored, nil
}

// besideRows is how many side objects, of up to 4 KiB each, one operation restores.
const besideRows = 128

func (c *Catalog) besideRows(v wal.View, name CacheName, sides []Side, uploads []Upload) ([]wal.Entry, int, error) {
	t, err := c.readTenant(v, name)
	if err != nil {
		return nil, 0, err
	}
	b, err := newBooks(v)
	if err != nil {
		return nil, 0, err
	}
	n := 0
	packs := newPackBuilder(b, 0)
	for i := range sides {
		s := sides[i]
		_, there, err := v.Get(keyspace.AppendSideKey(nil, t.cache.ID, s.Kind, s.Name))
		lost := false
		if err == nil && !there && s.Stored {
			_, lost, err = broken(v, packs, s.TextSum)
		}
		if err != nil {
			return nil, 0, err
		}
		if there || lost {
			continue
		}
		if err := b.putSide(t.cache.ID, s); err != nil {
			return nil, 0, err
		}
		n++
	}
	for i := range uploads {
		u := uploads[i]
		key := keyspace.AppendUploadKey(nil, t.cache.ID, u.FileHash)
		p, named, err := read(v, keyspace.AppendPathKey(nil, t.cache.ID, u.HashPart), keyspace.DecodePath)
		if err != nil {
			return nil, 0, err
		}
		_, there, err := v.Get(key)
		if err != nil {
			return nil, 0, err
		}
		if there || !named || p.NarHash != u.NarHash {
			continue
		}
		u.Cache, u.Day = t.cache.ID, b.day
		b.put(key, keyspace.AppendUpload(nil, &u))
		n++
	}
	entries, err := b.close()
	return slices.Clip(entries), n, err
}
