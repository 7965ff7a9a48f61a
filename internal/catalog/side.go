package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// Side is a text that a cache keeps beside its paths.
type (
	Side      = keyspace.Side
	SideKind  = keyspace.SideKind
	OwnerKind = keyspace.OwnerKind
)

// What side objects there are, and to what they belong: see package keyspace.
const (
	SideLog         = keyspace.SideLog
	SideDebugInfo   = keyspace.SideDebugInfo
	SideRealisation = keyspace.SideRealisation
	SideBuildTrace  = keyspace.SideBuildTrace

	OwnerNone   = keyspace.OwnerNone
	OwnerPath   = keyspace.OwnerPath
	OwnerUpload = keyspace.OwnerUpload

	MaxSideInline = keyspace.MaxSideInline
)

// PathOwner is the owner of what belongs to a path.
func PathOwner(hashPart nix.HashPart) [32]byte { return keyspace.PathOwner(hashPart) }

// SideUpload is a side object that is to be kept, in place of an earlier one of its kind and
// name.
type SideUpload struct {
	Cache CacheName
	Side  Side // Cache and Day are filled in; Served, if it is stored

	// If it is stored:
	Recipe chunk.Recipe
	Packs  []chunk.NewPack
}

// PutSide keeps a side object. It fails as Publish does.
func (c *Catalog) PutSide(ctx context.Context, up SideUpload) (Seq, error) {
	row := up.Side
	if row.Stored {
		row.TextSum, row.Size = up.Recipe.NarHash, up.Recipe.Size
	}
	if err := errors.Join(up.Cache.Valid(), row.Valid()); err != nil {
		return 0, invalid(err)
	}
	if row.Stored {
		u := publishing{catalog: c, Publication: Publication{
			Path:   Path{Cache: up.Cache, NarHash: up.Recipe.NarHash, NarSize: up.Recipe.Size},
			Recipe: up.Recipe, Packs: up.Packs,
		}}
		if err := u.validParts(); err != nil {
			return 0, invalid(err)
		}
		return u.commitRecipe(ctx, "put side object", func(b *books, cache keyspace.CacheID, served int64) error {
			row.Served = served
			return b.putSide(cache, row)
		})
	}
	return c.wal.Commit(ctx, wal.Op{Name: "put side object", About: string(up.Cache), Cost: 128 + len(row.Name) + len(row.Zstd), Build: func(v wal.View) ([]wal.Entry, error) {
		t, err := c.readTenant(v, up.Cache)
		if err != nil {
			return nil, err
		}
		b, err := newBooks(v)
		if err != nil {
			return nil, err
		}
		if err := b.putSide(t.cache.ID, row); err != nil {
			return nil, err
		}
		return b.close()
	}})
}

// putSide writes a side object in place of the one there is.
func (b *books) putSide(cache keyspace.CacheID, row Side) error {
	row.Cache, row.Day = cache, b.day
	key := keyspace.AppendSideKey(nil, cache, row.Kind, row.Name)
	old, there, err := read(b.view, key, keyspace.DecodeSide)
	if err != nil {
		return err
	}
	b.put(key, keyspace.AppendSide(nil, &row))
	same := there && old.Stored && row.Stored && old.TextSum == row.TextSum
	if there && old.Stored && !same {
		if err := b.unname(textOf(&old), purgeNot); err != nil {
			return err
		}
	}
	if row.Stored {
		return b.name(textOf(&row), !same)
	}
	return nil
}

// textOf is a stored side object as something that names a recipe.
func textOf(s *Side) *Path { return &Path{NarHash: s.TextSum, NarSize: s.Size, FileSize: s.Served} }

// dropSide removes a side object.
func (b *books) dropSide(s *Side) error {
	b.drop(keyspace.AppendSideKey(nil, s.Cache, s.Kind, s.Name))
	if !s.Stored {
		return nil
	}
	return b.unname(textOf(s), purgeNot)
}

// dropSides removes up to most side objects of a cache, and reports whether there may
// be more.
func (b *books) dropSides(cache keyspace.CacheID, most int) (more bool, err error) {
	for s, err := range rowsOf(b.view, "side objects", keyspace.AppendSidePrefix(nil, cache), keyspace.DecodeSide) {
		if err != nil {
			return false, err
		}
		if most == 0 {
			return true, nil
		}
		if err := b.dropSide(&s); err != nil {
			return false, err
		}
		most--
	}
	return false, nil
}

// Side returns a side object of a cache, or fails with ErrNoSide or ErrNoCache.
func (c *Catalog) Side(ctx context.Context, cache CacheName, kind keyspace.SideKind, name string) (Side, error) {
	key := func(id keyspace.CacheID) []byte { return keyspace.AppendSideKey(nil, id, kind, name) }
	decode := func(key, value []byte) (Side, error) {
		s, err := keyspace.DecodeSide(key, value)
		s.Zstd = slices.Clone(s.Zstd)
		return s, err
	}
	s, ok, err := ofCache(ctx, c, cache, "look up the side object", key, decode)
	if err == nil && !ok {
		err = fmt.Errorf("side object %q of cache %q: %w", name, string(cache), ErrNoSide)
	}
	return s, err
}

// Sides yields the side objects of a cache.
func (s *Snapshot) Sides(cache CacheID) iter.Seq2[Side, error] {
	return rowsOf(s.view, "side objects", keyspace.AppendSidePrefix(nil, cache), func(key, value []byte) (Side, error) {
		side, err := keyspace.DecodeSide(key, value)
		side.Zstd = slices.Clone(side.Zstd)
		return side, err
	})
}

// sideGrace is for how long a side object waits for the path that it belongs to: plain
// Nix sends some of them before the path.
const sideGrace = 48 * time.Hour

// SweepSides removes side objects of a cache that outlive what they belong to: those of a
// path go when the path has, logs of derivations of which the cache has no output after
// the retention of the cache (0: never). processed is as in Expire; if too much
// was touched since, nothing is removed this time.
func (m *Mark) SweepSides(ctx context.Context, cache CacheID, clock Clock, retention time.Duration, processed uint32) (removed int, err error) {
	dead, err := m.snapshot.DeadSides(ctx, cache, clock, retention)
	if err != nil {
		return 0, err
	}
	for part := range slices.Chunk(dead, opPaths) {
		n := 0
		_, err := m.catalog.wal.Commit(ctx, wal.Op{Name: "sweep side objects", Cost: len(part) * pathCost, Build: func(v wal.View) ([]wal.Entry, error) {
			n = 0
			touches, err := m.unseen(v, processed)
			if err != nil {
				return nil, err
			}
			b, err := newBooks(v)
			if err != nil {
				return nil, err
			}
			b.mutants = m.catalog.mutants
			if n, err = b.sweepSides(part, touches); err != nil {
				return nil, err
			}
			return b.close()
		}})
		switch {
		case errors.Is(err, ErrTouched):
			return removed, nil
		case err != nil:
			return removed, fmt.Errorf("remove side objects: %w", err)
		}
		removed += n
	}
	return removed, nil
}

// sweepSides removes those of sides that are still what they were and still nobody's.
func (b *books) sweepSides(sides []Side, touches []Touch) (removed int, err error) {
	derivers := make(map[string]bool)
	for _, t := range touches {
		if len(sides) == 0 || t.Cache != sides[0].Cache {
			continue
		}
		p, _, err := read(b.view, keyspace.AppendPathKey(nil, t.Cache, t.HashPart), keyspace.DecodePath)
		if err != nil {
			return 0, err
		}
		derivers[p.Deriver] = true
	}
	for i := range sides {
		now, there, err := read(b.view, keyspace.AppendSideKey(nil, sides[i].Cache, sides[i].Kind, sides[i].Name), keyspace.DecodeSide)
		if err != nil {
			return 0, err
		}
		if !there || !b.mutants.noSideCheck() && (now.Day != sides[i].Day || derivers[now.Name]) {
			continue
		}
		owned, err := sideIsOwned(b.view, &now)
		if err != nil {
			return 0, err
		}
		if owned && !b.mutants.noSideCheck() {
			continue
		}
		if err := b.dropSide(&now); err != nil {
			return 0, err
		}
		removed++
	}
	return removed, nil
}

// sideIsOwned reports whether the path that a side object names as its own is there. Logs
// name none.
func sideIsOwned(v getter, s *Side) (bool, error) {
	hashPart := nix.HashPart(s.Owner[:len(nix.HashPart{})])
	switch s.OwnerKind {
	case keyspace.OwnerUpload:
		u, there, err := read(v, keyspace.AppendUploadKey(nil, s.Cache, s.Owner), keyspace.DecodeUpload)
		if !there || err != nil || !u.Claimed {
			return there, err // the narinfo may be on its way
		}
		hashPart = u.HashPart
	case keyspace.OwnerNone:
		return false, nil
	case keyspace.OwnerPath:
	}
	_, there, err := v.Get(keyspace.AppendPathKey(nil, s.Cache, hashPart))
	return there, err
}

// DeadSides returns the side objects of a cache that SweepSides would remove, without their
// texts.
func (s *Snapshot) DeadSides(ctx context.Context, cache CacheID, clock Clock, retention time.Duration) (dead []Side, err error) {
	if dead, err = s.deadSides(ctx, cache, clock, retention); err != nil {
		return nil, fmt.Errorf("look for side objects that outlive their paths: %w", err)
	}
	return dead, nil
}

func (s *Snapshot) deadSides(ctx context.Context, cache CacheID, clock Clock, retention time.Duration) (dead []Side, err error) {
	logs := make(map[string]Side)
	for side, err := range s.Sides(cache) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		age := clock.Age(side.Day)
		side.Zstd = nil
		if side.OwnerKind == keyspace.OwnerNone {
			if retention > 0 && age >= max(retention, sideGrace) {
				logs[string(rune(side.Kind))+side.Name] = side
			}
			continue
		}
		if age < sideGrace {
			continue
		}
		owned, err := sideIsOwned(s.view, &side)
		if err != nil {
			return nil, err
		}
		if !owned {
			dead = append(dead, side)
		}
	}
	if len(logs) == 0 {
		return dead, nil
	}
	for p, err := range s.Paths(cache) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		delete(logs, string(rune(keyspace.SideLog))+p.Deriver)
	}
	for _, side := range logs {
		dead = append(dead, side)
	}
	slices.SortFunc(dead, func(a, b Side) int { return strings.Compare(a.Name, b.Name) })
	return dead, nil
}

// RemoveBrokenSides removes the side objects of a cache whose text cannot be put together
// any more, and returns them. It is for a check that repairs, before RemoveBroken.
func (c *Catalog) RemoveBrokenSides(ctx context.Context, cache CacheID) (gone []Side, err error) {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	var stored []Side
	for side, err := range s.Sides(cache) {
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		if side.Stored {
			stored = append(stored, side)
		}
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	for part := range slices.Chunk(stored, opPaths) {
		var one []Side
		_, err := c.wal.Commit(ctx, wal.Op{Name: "remove broken side objects", Cost: len(part) * pathCost, Build: func(v wal.View) ([]wal.Entry, error) {
			one = nil
			b, err := newBooks(v)
			if err != nil {
				return nil, err
			}
			if one, err = b.dropBrokenSides(part); err != nil {
				return nil, err
			}
			return b.close()
		}})
		if err != nil {
			return gone, fmt.Errorf("remove broken side objects: %w", err)
		}
		gone = append(gone, one...)
	}
	return gone, nil
}

func (b *books) dropBrokenSides(sides []Side) (gone []Side, err error) {
	packs := newPackBuilder(b, 0)
	for i := range sides {
		now, there, err := read(b.view, keyspace.AppendSideKey(nil, sides[i].Cache, sides[i].Kind, sides[i].Name), keyspace.DecodeSide)
		if err != nil {
			return nil, err
		}
		if !there || !now.Stored {
			continue
		}
		_, bad, err := broken(b.view, packs, now.TextSum)
		if err != nil {
			return nil, err
		}
		if !bad {
			continue
		}
		if err := b.dropSide(&now); err != nil {
			return nil, err
		}
		gone = append(gone, now)
	}
	return gone, nil
}
