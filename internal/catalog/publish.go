package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// Publication is what makes a path appear in a cache.
type Publication struct {
	// Path names the cache and the path. Sig, SigKey, FileSize and Created are
	// filled in.
	Path Path
	// Recipe is how the chunk store put the NAR away. If there is a recipe of this
	// NAR already, and all it names is there, it is kept and this one not looked at.
	Recipe chunk.Recipe
	// Packs are those that the recipe needs and that were not committed yet.
	Packs []chunk.NewPack
	// Pin, if set, is a pin that the path becomes a revision of, in the same
	// operation. Cache, StorePath and By are filled in.
	Pin *PinChange
	// Listing is what is in the NAR, compressed: see keyspace.Listing. It is kept if there
	// is none; nil: it is not known, or too long.
	Listing []byte
	// First leaves alone what is there. A path of the same NAR gets the signatures that
	// it lacks; one of another NAR, or with other references, makes Publish fail with an
	// *OtherNarError.
	First bool
	// Claim, if set, is the file hash of the upload that the NAR came in, and from now
	// on belongs to the path. If there is no such upload any more, Publish fails with
	// ErrNoUpload.
	Claim *[32]byte
}

// Publish puts a path into a cache, in place of an earlier one of the same hash
// part. It fails with ErrNoCache, with ErrChunksMissing if the NAR must be
// written again, and with ErrInvalid if the publication makes no sense.
func (c *Catalog) Publish(ctx context.Context, p Publication) (Seq, error) {
	u := publishing{catalog: c, Publication: p}
	u.Path.Created = c.timestamp()
	if err := u.valid(); err != nil {
		return 0, invalid(err)
	}
	if err := u.prepare(ctx); err != nil {
		return 0, c.countRefusal(err)
	}
	cost := 768 + 64*len(u.Path.References) + len(u.recipe[0]) + len(u.Listing)
	for i := range u.Packs {
		id := u.Packs[i].Layout.ID
		if c.carried.enter(id) {
			cost += packPiece{pack: &u.Packs[i], to: len(u.Packs[i].IDs)}.cost()
		}
		defer c.carried.leave(id)
	}
	seq, err := c.wal.Commit(ctx, wal.Op{Name: publishOp, About: string(p.Path.Cache), Cost: cost, Build: u.build, Intent: u.intent})
	if err != nil {
		return 0, c.countRefusal(err)
	}
	c.metrics.published.Inc()
	return seq, nil
}

func (c *Catalog) countRefusal(err error) error {
	if errors.Is(err, ErrChunksMissing) {
		c.metrics.refused.Inc()
	}
	return err
}

// publishing is a publication on its way.
type publishing struct {
	Publication
	catalog *Catalog
	recipe  [][]byte // rows of the recipe, the head first
	tag     keyspace.RecipeTag
	sig     string         // made ahead of the sequencer
	sigKey  keyspace.KeyID // by which key
}

func (u *publishing) valid() error {
	p := &u.Path
	p.Sig, p.SigKey, p.FileSize = "", keyspace.KeyID{}, u.Recipe.Served.Size
	if err := p.Cache.Valid(); err != nil {
		return err
	}
	if err := p.Valid(); err != nil {
		return err
	}
	if p.NarSize <= 0 || p.NarSize != u.Recipe.Size || p.NarHash != u.Recipe.NarHash {
		return fmt.Errorf("path %s has NAR %x of %d bytes and a recipe of NAR %x of %d bytes", p.StorePath.Base(), p.NarHash, p.NarSize, u.Recipe.NarHash, u.Recipe.Size)
	}
	for i := range u.Packs {
		if err := checkPack(&u.Packs[i]); err != nil {
			return err
		}
	}
	if len(u.Listing) > keyspace.MaxListingBytes {
		return fmt.Errorf("listing of NAR %x has %d compressed bytes, want at most %d", p.NarHash, len(u.Listing), keyspace.MaxListingBytes)
	}
	if u.Pin == nil {
		return nil
	}
	pin := *u.Pin // it is the caller's
	pin.Cache, pin.StorePath, pin.By, pin.at = p.Cache, p.StorePath, p.By, p.Created
	u.Pin = &pin
	return pin.valid()
}

// prepare does what need not wait for the sequencer, and commits what is too much
// for one operation.
func (u *publishing) prepare(ctx context.Context) (err error) {
	c := u.catalog
	if t, err := c.localTenant(u.Path.Cache); t != nil && err == nil {
		if u.sig, err = t.sign(&u.Path); err != nil {
			return invalid(err)
		}
		u.sigKey = t.keyID
	}
	return u.prepareRecipe(ctx)
}

// prepareRecipe is prepare for all but the path.
func (u *publishing) prepareRecipe(ctx context.Context) (err error) {
	c := u.catalog
	if u.recipe, u.tag, err = keyspace.EncodeRecipe(&u.Recipe); err != nil {
		return invalid(err)
	}
	u.Packs = slices.Clone(u.Packs) // it is the caller's
	u.Packs = slices.DeleteFunc(u.Packs, func(p chunk.NewPack) bool {
		known, lookupErr := c.knows(p.Layout.ID)
		err = errors.Join(err, lookupErr)
		return known
	})
	if err != nil {
		return err
	}
	if ops := cutPacks(u.Packs); len(ops) > 1 {
		if err := c.commitPacks(ctx, u.Path.Cache, u.Packs); err != nil {
			return err
		}
		u.Packs = nil
	}
	for i := 1; i < len(u.recipe); i++ {
		part := set(u.recipeKey(i), u.recipe[i])
		_, err := c.wal.Commit(ctx, wal.Op{Name: "commit recipe part", About: string(u.Path.Cache), Cost: len(part.Value) + len(part.Key), Build: func(v wal.View) ([]wal.Entry, error) {
			if _, exists, err := v.Get(part.Key); exists || err != nil {
				return nil, err
			}
			return []wal.Entry{part}, nil
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *publishing) recipeKey(part int) []byte {
	return keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: u.Path.NarHash, Tag: u.tag, Part: part})
}

// build is the operation that makes the path appear.
func (u *publishing) build(v wal.View) ([]wal.Entry, error) {
	t, err := u.catalog.readTenant(v, u.Path.Cache)
	if err != nil {
		return nil, err
	}
	if dir := u.Path.StorePath.Dir(); dir != t.cache.StoreDir {
		return nil, invalid(fmt.Errorf("path %v is not in %s, the store dir of cache %q", u.Path.StorePath, t.cache.StoreDir, string(u.Path.Cache)))
	}
	b, err := newBooks(v)
	if err != nil {
		return nil, err
	}
	b.mutants = u.catalog.mutants
	fileSize, written, err := u.buildRecipe(b, t.cache.ID)
	if err != nil {
		return nil, err
	}
	row := u.Path
	row.FileSize = fileSize
	row.Sig, row.SigKey = u.sig, u.sigKey
	if u.First {
		if err := u.amend(v, t.cache.ID, &row); err != nil {
			return nil, err
		}
	}
	if u.Claim != nil {
		if err := u.claim(b, t.cache.ID); err != nil {
			return nil, err
		}
	}
	if err := u.keepListing(b); err != nil {
		return nil, err
	}
	if row.SigKey != t.keyID { // the key was changed meanwhile, or the cache was unknown here
		if row.Sig, err = t.sign(&row); err != nil {
			return nil, err
		}
		row.SigKey = t.keyID
	}
	if err := checkPathSize(&row); err != nil {
		return nil, err
	}
	if err := b.setPath(t.cache.ID, &row); err != nil {
		return nil, err
	}
	b.touch(Touch{Cache: t.cache.ID, HashPart: row.StorePath.HashPart(), Recipe: written, NarHash: row.NarHash})
	if u.Pin != nil {
		if err := b.setPin(t.cache.ID, u.Pin); err != nil {
			return nil, err
		}
	}
	return b.close()
}

func checkPathSize(row *Path) error {
	if n := len(keyspace.AppendPath(nil, row)); n > keyspace.MaxPathBytes {
		return invalid(fmt.Errorf("path %s takes %d bytes of metadata, want at most %d", row.StorePath.Base(), n, keyspace.MaxPathBytes))
	}
	return nil
}

// buildRecipe makes the NAR known, if it is not, and returns the size of what is
// served of it and whether the recipe was written.
func (u *publishing) buildRecipe(books *books, cache keyspace.CacheID) (servedSize int64, written bool, err error) {
	key := u.recipeKey(0)
	value, ok, err := books.view.Get(key)
	if err != nil {
		return 0, false, err
	}
	b := newPackBuilder(books, cache)
	for i := range u.Packs {
		if err := b.add(packPiece{pack: &u.Packs[i], to: len(u.Packs[i].IDs)}); err != nil {
			return 0, false, err
		}
	}
	if ok {
		if size, sound, err := u.known(b, value); sound || err != nil {
			// The recipe does not need our packs, but they may hold chunks of other
			// pushes, too. Those that are too old are left to be swept.
			return size, false, err
		}
	}
	if err := b.check(&u.Recipe); err != nil {
		return 0, false, err
	}
	if err := b.refuse(); err != nil {
		return 0, false, err
	}
	for i := 1; i < len(u.recipe); i++ {
		if _, ok, err := books.view.Get(u.recipeKey(i)); !ok || err != nil {
			return 0, false, errors.Join(err, fmt.Errorf("part %d of the recipe of NAR %x is gone: %w", i, u.Path.NarHash, ErrConflict))
		}
	}
	books.put(key, u.recipe[0])
	return u.Recipe.Served.Size, true, nil
}

// known reports whether the recipe in the state, whose head is value, can be
// served. Whoever condemns chunks removes the recipes that name them first, so it
// always can; but if not, keeping it would acknowledge a push that is lost.
func (u *publishing) known(b *packBuilder, value []byte) (servedSize int64, sound bool, err error) {
	recipe := &u.Recipe
	if !bytes.Equal(value, u.recipe[0]) {
		r, complete, err := readRecipe(b.books.view, u.Path.NarHash, value)
		if !complete || err != nil {
			return 0, false, err // a recipe of a later celler, perhaps
		}
		recipe = &r
	}
	gone, err := b.gone(recipe)
	return recipe.Served.Size, len(gone) == 0, err
}
