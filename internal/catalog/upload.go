package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// Upload is a file that was put into a cache, as plain Nix does, and the NAR in it.
type Upload = keyspace.Upload

// NarUpload is a NAR that is in the store and that no path names yet: the narinfo which
// does may come to another node.
type NarUpload struct {
	Cache       CacheName
	FileHash    [32]byte // SHA-256 of the file as it was sent
	FileSize    int64
	Compression string
	Recipe      chunk.Recipe
	Packs       []chunk.NewPack
	Listing     []byte // as in Publication
}

// CommitUpload makes an upload known. Its recipe is one of a NAR that no path names, as of
// today, and is collected like others if none ever does; the upload then counts for
// nothing. To upload a file again renews it. It fails as Publish does.
func (c *Catalog) CommitUpload(ctx context.Context, n NarUpload) (Seq, error) {
	u := publishing{catalog: c, Publication: Publication{
		Path:   Path{Cache: n.Cache, NarHash: n.Recipe.NarHash, NarSize: n.Recipe.Size},
		Recipe: n.Recipe, Packs: n.Packs, Listing: n.Listing,
	}}
	row := Upload{
		Day: keyspace.FirstCount, NarHash: n.Recipe.NarHash, NarSize: n.Recipe.Size,
		FileHash: n.FileHash, FileSize: n.FileSize, Compression: n.Compression,
	}
	if err := errors.Join(n.Cache.Valid(), row.Valid(), u.validParts()); err != nil {
		return 0, invalid(err)
	}
	return u.commitRecipe(ctx, "upload", func(b *books, cache keyspace.CacheID, _ int64) error {
		row.Cache, row.Day = cache, b.day
		key := keyspace.AppendUploadKey(nil, cache, row.FileHash)
		old, there, err := read(b.view, key, keyspace.DecodeUpload)
		if err != nil {
			return err
		}
		row.Claimed, row.HashPart = false, nix.HashPart{}
		if there && old.Claimed && old.NarHash == row.NarHash {
			p, ok, err := read(b.view, keyspace.AppendPathKey(nil, cache, old.HashPart), keyspace.DecodePath)
			if err != nil {
				return err
			}
			if row.Claimed = ok && p.NarHash == row.NarHash; row.Claimed {
				row.HashPart = old.HashPart
			}
		}
		b.put(key, keyspace.AppendUpload(nil, &row))
		return b.hold(row.NarHash)
	})
}

// validParts checks what comes with a recipe.
func (u *publishing) validParts() error {
	if len(u.Listing) > keyspace.MaxListingBytes {
		return fmt.Errorf("listing of NAR %x has %d compressed bytes, want at most %d", u.Recipe.NarHash, len(u.Listing), keyspace.MaxListingBytes)
	}
	for i := range u.Packs {
		if err := checkPack(&u.Packs[i]); err != nil {
			return err
		}
	}
	return nil
}

// commitRecipe makes a recipe known without a path. more adds what is to happen in the
// same operation; it is told the number of the cache and the size of what is served.
func (u *publishing) commitRecipe(ctx context.Context, name string, more func(*books, keyspace.CacheID, int64) error) (Seq, error) {
	c := u.catalog
	if err := u.prepareRecipe(ctx); err != nil {
		return 0, c.countRefusal(err)
	}
	cost := 512 + len(u.recipe[0]) + len(u.Listing)
	for i := range u.Packs {
		id := u.Packs[i].Layout.ID
		if c.carried.enter(id) {
			cost += packPiece{pack: &u.Packs[i], to: len(u.Packs[i].IDs)}.cost()
		}
		defer c.carried.leave(id)
	}
	seq, err := c.wal.Commit(ctx, wal.Op{Name: name, About: string(u.Path.Cache), Cost: cost, Build: func(v wal.View) ([]wal.Entry, error) {
		t, err := c.readTenant(v, u.Path.Cache)
		if err != nil {
			return nil, err
		}
		b, err := newBooks(v)
		if err != nil {
			return nil, err
		}
		b.mutants = c.mutants
		served, written, err := u.buildRecipe(b, t.cache.ID)
		if err == nil {
			err = u.keepListing(b)
		}
		if err == nil {
			err = more(b, t.cache.ID, served)
		}
		if err != nil {
			return nil, err
		}
		if written {
			b.touch(Touch{Recipe: true, NarHash: u.Path.NarHash})
		}
		return b.close()
	}})
	return seq, c.countRefusal(err)
}

// hold notes that a NAR which no path names was wanted today.
func (b *books) hold(narHash [32]byte) error {
	n, err := b.nar(narHash)
	if err != nil || n.now.Paths > 0 {
		return err
	}
	b.put(keyspace.AppendUnreferencedKey(nil, narHash), keyspace.AppendUnreferenced(nil, &Unreferenced{Day: b.day}))
	if n.orphan == nil {
		b.add(Totals{Unreferenced: 1})
		n.orphan = &Unreferenced{NarHash: narHash, Day: b.day}
	}
	return nil
}

// Upload returns what a file was found to hold that was put into a cache, or fails with
// ErrNoUpload or ErrNoCache. Whether the NAR is still there it does not say.
func (c *Catalog) Upload(ctx context.Context, cache CacheName, fileHash [32]byte) (Upload, error) {
	key := func(id keyspace.CacheID) []byte { return keyspace.AppendUploadKey(nil, id, fileHash) }
	u, ok, err := ofCache(ctx, c, cache, "look up the upload", key, keyspace.DecodeUpload)
	if err == nil && !ok {
		err = fmt.Errorf("file %x in cache %q: %w", fileHash, string(cache), ErrNoUpload)
	}
	return u, err
}

// UploadIsFresh reports whether the NAR of an upload that no narinfo has claimed will be
// there for long enough for one to come: a path names it, or it came today or yesterday and
// nobody wants it gone. It reads the index only.
func (c *Catalog) UploadIsFresh(u *Upload) (bool, error) {
	if _, named, err := local(c, keyspace.AppendNarKey(nil, u.NarHash), keyspace.DecodeNar); named || err != nil {
		return named, err
	}
	w, held, err := local(c, keyspace.AppendUnreferencedKey(nil, u.NarHash), keyspace.DecodeUnreferenced)
	if !held || err != nil {
		return false, err
	}
	day, err := counter(c.db, keyspace.OpenDay)
	return !w.Purge && !w.Now && w.Day+1 >= day, err
}

// ofCache decodes a row of a cache. If it is not in the index it looks again after a
// catch-up.
func ofCache[T any](ctx context.Context, c *Catalog, cache CacheName, doing string, key func(keyspace.CacheID) []byte, decode func(key, value []byte) (T, error)) (row T, ok bool, err error) {
	for caughtUp := false; ; caughtUp = true {
		t, err := c.localTenant(cache)
		if err != nil {
			return row, false, err
		}
		if t != nil {
			if row, ok, err = local(c, key(t.cache.ID), decode); ok || err != nil {
				return row, ok, err
			}
		}
		switch {
		case caughtUp && t == nil:
			return row, false, noCache(cache)
		case caughtUp:
			return row, false, nil
		}
		if err := c.catchUp(ctx, doing); err != nil {
			return row, false, err
		}
	}
}

// claim gives the upload of a publication to its path.
func (u *publishing) claim(b *books, cache keyspace.CacheID) error {
	key := keyspace.AppendUploadKey(nil, cache, *u.Claim)
	row, there, err := read(b.view, key, keyspace.DecodeUpload)
	if err != nil {
		return err
	}
	if !there || row.NarHash != u.Path.NarHash {
		return fmt.Errorf("file %x in cache %q: %w", *u.Claim, string(u.Path.Cache), ErrNoUpload)
	}
	hashPart := u.Path.StorePath.HashPart()
	if !row.Claimed || row.HashPart != hashPart {
		row.Claimed, row.HashPart = true, hashPart
		b.put(key, keyspace.AppendUpload(nil, &row))
	}
	return nil
}

// amend makes row the path that is there, if there is one, with what it gains from the
// publication.
func (u *publishing) amend(v wal.View, cache keyspace.CacheID, row *Path) error {
	old, there, err := read(v, keyspace.AppendPathKey(nil, cache, row.StorePath.HashPart()), keyspace.DecodePath)
	if !there || err != nil {
		return err
	}
	if old.NarHash != row.NarHash || old.NarSize != row.NarSize || old.StorePath != row.StorePath || !sameReferences(old.References, row.References) {
		return &OtherNarError{Cache: u.Path.Cache, StorePath: old.StorePath, There: old.NarHash, Given: row.NarHash}
	}
	given := *row
	*row = old
	row.Cache, row.FileSize = given.Cache, given.FileSize
	for _, sig := range given.Sigs {
		if !slices.Contains(row.Sigs, sig) && len(row.Sigs) < keyspace.MaxSigs {
			row.Sigs = append(row.Sigs, sig)
		}
	}
	for _, f := range [...]struct {
		have *string
		new  string
	}{{&row.Deriver, given.Deriver}, {&row.System, given.System}, {&row.CA, given.CA}} {
		if *f.have == "" {
			*f.have = f.new
		}
	}
	return nil
}

// Uploads yields the uploads of a cache.
func (s *Snapshot) Uploads(cache CacheID) iter.Seq2[Upload, error] {
	return rowsOf(s.view, "uploads", keyspace.AppendUploadPrefix(nil, cache), keyspace.DecodeUpload)
}

// SweepUploads removes uploads whose NAR is gone, and returns how many.
func (m *Mark) SweepUploads(ctx context.Context) (removed int, err error) {
	s, err := m.Current(ctx) // the recipes may have gone since the mark
	if err != nil {
		return 0, err
	}
	dead, err := s.deadUploads(ctx)
	if err := errors.Join(err, s.Close()); err != nil {
		return 0, fmt.Errorf("look for uploads whose NAR is gone: %w", err)
	}
	return m.sweepUploads(ctx, dead)
}

func (s *Snapshot) deadUploads(ctx context.Context) (dead []Upload, err error) {
	caches, err := s.Caches()
	if err != nil {
		return nil, err
	}
	for i := range caches {
		for u, err := range s.Uploads(caches[i].ID) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return nil, err
			}
			there, err := hasEither(s.view, keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: u.NarHash}))
			if err != nil {
				return nil, err
			}
			if !there {
				dead = append(dead, u)
			}
		}
	}
	return dead, nil
}

func (m *Mark) sweepUploads(ctx context.Context, dead []Upload) (removed int, err error) {
	for part := range slices.Chunk(dead, opPaths) {
		n := 0
		_, err := m.catalog.wal.Commit(ctx, wal.Op{Name: "sweep uploads", Cost: len(part) * 48, Build: func(v wal.View) (entries []wal.Entry, err error) {
			n = 0
			if _, err := m.row(v); err != nil {
				return nil, err
			}
			for i := range part {
				key := keyspace.AppendUploadKey(nil, part[i].Cache, part[i].FileHash)
				u, there, err := read(v, key, keyspace.DecodeUpload)
				if err != nil {
					return nil, err
				}
				if !there {
					continue
				}
				if there, err = hasEither(v, keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: u.NarHash})); err != nil {
					return nil, err
				}
				if !there {
					entries = append(entries, remove(key))
					n++
				}
			}
			return entries, nil
		}})
		if err != nil {
			return removed, fmt.Errorf("sweep uploads: %w", err)
		}
		removed += n
	}
	return removed, nil
}

// sameReferences compares references as sets: their order means nothing.
func sameReferences(a, b []nix.StorePath) bool {
	sorted := func(refs []nix.StorePath) []nix.StorePath {
		refs = slices.Clone(refs)
		slices.SortFunc(refs, func(a, b nix.StorePath) int { return strings.Compare(a.Base(), b.Base()) })
		return slices.Compact(refs)
	}
	return slices.Equal(sorted(a), sorted(b))
}
