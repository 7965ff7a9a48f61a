package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// RestoreBytes is how many bytes of rows one operation restores at most. It is more than
// other operations have, because what is restored at once is restored as a whole.
const RestoreBytes = 3 << 20

// CacheRestore says what one cache is to be again, as the difference between what it was
// and what it is. Packs, chunks and recipes are never brought back: a path whose NAR
// cannot be put together any more is left out.
type CacheRestore struct {
	Name CacheName
	Now  *Cache // as it is; nil: there is none
	Then *Cache // as it was; nil: there was none, and the cache is destroyed

	// Since, if set, is the moment of Now in the state that the difference was made from.
	Since *Moment

	// Aside, if not nil, holds the paths and pins of then, and takes the place of
	// whatever has the name. What follows is not looked at.
	Aside *Rebuild

	Set      []PathRestore
	Drop     []Path // that are there and were not
	SetPins  []Pin  // as they were, in place of those of the same names
	DropPins []Pin  // as they are
}

// PathRestore is a path that is to be as it was.
type PathRestore struct {
	Then Path
	Now  *Path // nil: it is not there
}

// Cost is roughly how many bytes of rows the restore comes to.
func (r *CacheRestore) Cost() (n int) {
	const row = 1 << 10
	if r.Aside != nil {
		return row
	}
	n = row
	for i := range r.Set {
		n += PathRestoreCost(&r.Set[i].Then)
	}
	n += len(r.Drop) * pathCost
	for _, pins := range [][]Pin{r.SetPins, r.DropPins} {
		for i := range pins {
			n += 128 + 192*len(pins[i].Revisions)
		}
	}
	return n
}

// SameCache reports whether two caches have the same settings and the same key, whatever
// their numbers are.
func SameCache(a, b Cache) bool {
	a.ID = b.ID
	return bytes.Equal(keyspace.AppendCache(nil, &a), keyspace.AppendCache(nil, &b))
}

// SamePath reports whether two paths are the same but for the size of what is served,
// which goes with the recipe there is.
func SamePath(a, b Path) bool {
	a.FileSize = b.FileSize
	return bytes.Equal(keyspace.AppendPath(nil, &a), keyspace.AppendPath(nil, &b))
}

// PathRestoreCost is roughly how many bytes of rows one path comes to.
func PathRestoreCost(p *Path) int { return 2*pathCost + len(keyspace.AppendPath(nil, p)) }

// LostPath is a path that was to come back and cannot.
type LostPath struct {
	Cache     CacheName
	StorePath nix.StorePath
	NarHash   [32]byte
}

// Restored says what became of a restore.
type Restored struct {
	Seq   Seq
	Paths int // that came back, or are again what they were
	Lost  []LostPath
}

// Restore performs the restores of several caches in one operation: all of them happen
// or none. If one of the rows is not any more what the restore says it is now, it fails with
// ErrConflict, and the difference is to be worked out anew.
func (c *Catalog) Restore(ctx context.Context, restores []CacheRestore) (Restored, error) {
	about, cost := "", 0
	for i := range restores {
		cost += restores[i].Cost()
	}
	if len(restores) == 1 {
		about = string(restores[0].Name)
	}
	var done Restored
	at := c.timestamp()
	seq, err := c.wal.Commit(ctx, wal.Op{Name: "restore", About: about, Cost: cost, Build: func(v wal.View) (_ []wal.Entry, err error) {
		done = Restored{}
		r := restoring{at: at, done: &done}
		if r.books, err = newBooks(v); err != nil {
			return nil, err
		}
		r.books.mutants = c.mutants
		if r.nextID, err = counter(v, keyspace.NextCacheID); err != nil {
			return nil, err
		}
		r.firstID = r.nextID
		for i := range restores {
			if err := r.cache(&restores[i]); err != nil {
				return nil, fmt.Errorf("restore cache %q: %w", string(restores[i].Name), err)
			}
		}
		if r.nextID != r.firstID {
			r.books.put(keyspace.AppendCounterKey(nil, keyspace.NextCacheID), keyspace.AppendCount(nil, r.nextID))
		}
		return r.books.close()
	}})
	if err != nil {
		return Restored{}, err
	}
	done.Seq = seq
	return done, nil
}

// errMoved tells that the difference is out of date.
var errMoved = fmt.Errorf("what is to be restored was changed meanwhile: %w", ErrConflict)

// restoring is a restore on its way.
type restoring struct {
	books           *books
	at              time.Time
	firstID, nextID uint32
	done            *Restored
}

// fresh gives out the number of a cache.
func (r *restoring) fresh() (keyspace.CacheID, error) {
	if r.nextID == math.MaxUint32 {
		return 0, fmt.Errorf("all %d cache ids were given", r.nextID)
	}
	r.nextID++
	return keyspace.CacheID(r.nextID - 1), nil
}

func (r *restoring) cache(c *CacheRestore) error {
	v := r.books.view
	key := keyspace.AppendCacheKey(nil, c.Name)
	value, there, err := v.Get(key)
	if err != nil {
		return err
	}
	if c.Aside != nil {
		return r.show(c, key, value, there)
	}
	if there != (c.Now != nil) || there && !bytes.Equal(value, keyspace.AppendCache(nil, c.Now)) {
		return errMoved
	}
	if c.Then == nil {
		return r.books.destroy(c.Now, r.at)
	}
	row := *c.Then
	if there {
		row.ID = c.Now.ID
		if err := r.since(row.ID, c.Since); err != nil {
			return err
		}
	} else if row.ID, err = r.fresh(); err != nil {
		return err
	}
	if changed := keyspace.AppendCache(nil, &row); !there || !bytes.Equal(value, changed) {
		r.books.put(key, changed)
	}
	return r.fill(row.ID, !there, c)
}

// since holds that no path has gone and no pin was changed since the difference was made:
// it does not name what was as it is to be.
func (r *restoring) since(id keyspace.CacheID, then *Moment) error {
	if then == nil {
		return nil
	}
	now, err := momentOf(r.books.view, id, then.day)
	if err == nil && now != *then && !r.books.mutants.noMomentCheck() {
		err = errMoved
	}
	return err
}

// fill brings the paths and pins of a cache to what they were. One that is new has its
// totals written at once, because books add only to those that are there.
func (r *restoring) fill(id keyspace.CacheID, isNew bool, c *CacheRestore) error {
	b := r.books
	sum := Totals{Cache: id}
	for i := range c.Set {
		p := &c.Set[i]
		row, ok, err := r.sound(c.Name, &p.Then)
		if err != nil {
			return err
		}
		if err := r.expect(id, p.Then.StorePath.HashPart(), p.Now); err != nil {
			return err
		}
		if !ok {
			continue
		}
		r.done.Paths++
		if isNew {
			err = b.setAside(id, &row, &sum)
		} else {
			err = b.setPath(id, &row)
			b.touch(Touch{Cache: id, HashPart: row.StorePath.HashPart(), NarHash: row.NarHash})
		}
		if err != nil {
			return err
		}
	}
	for i := range c.Drop {
		p := &c.Drop[i]
		if err := r.expect(id, p.StorePath.HashPart(), p); err != nil {
			return err
		}
		if err := b.removePath(id, p, purgeNot); err != nil {
			return err
		}
	}
	for i := range c.DropPins {
		if err := r.dropPin(id, &c.DropPins[i]); err != nil {
			return err
		}
	}
	for i := range c.SetPins {
		if err := r.setPin(id, &c.SetPins[i]); err != nil {
			return err
		}
	}
	if isNew {
		b.put(keyspace.AppendTotalsKey(nil, id), keyspace.AppendTotals(nil, &sum))
		r.appear(&sum)
	}
	return nil
}

// appear counts a cache that has become visible with all that it has.
func (r *restoring) appear(t *Totals) {
	r.books.add(Totals{Paths: t.Paths, NarBytes: t.NarBytes, ServedBytes: t.ServedBytes})
	r.books.grow(Growth{Day: r.books.day, Cache: t.Cache, AddedPaths: t.Paths, AddedBytes: t.NarBytes})
}

// expect holds that the row of a path is what the difference was made from.
func (r *restoring) expect(id keyspace.CacheID, hashPart nix.HashPart, now *Path) error {
	value, there, err := r.books.view.Get(keyspace.AppendPathKey(nil, id, hashPart))
	if err == nil && !r.books.mutants.noDiffCheck() && (there != (now != nil) || there && !bytes.Equal(value, keyspace.AppendPath(nil, now))) {
		err = errMoved
	}
	return err
}

// sound returns the row of a path that comes back, with the size its NAR is served in
// now; ok is false if the NAR cannot be put together, which goes into the report.
func (r *restoring) sound(cache CacheName, then *Path) (row Path, ok bool, err error) {
	size, ok, err := servable(r.books.view, then.NarHash)
	if err != nil {
		return row, false, err
	}
	if !ok && !r.books.mutants.noSoundCheck() {
		r.done.Lost = append(r.done.Lost, LostPath{Cache: cache, StorePath: then.StorePath, NarHash: then.NarHash})
		return row, false, nil
	}
	row = *then
	row.FileSize = size
	return row, true, nil
}

// servable reports whether there is a recipe of a NAR and all that it names.
func servable(v wal.View, narHash [32]byte) (servedSize int64, ok bool, err error) {
	head, ok, err := v.Get(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: narHash}))
	if !ok || err != nil {
		return 0, false, err
	}
	recipe, complete, err := readRecipe(v, narHash, head)
	if !complete || err != nil {
		return 0, false, err
	}
	gone, err := newPackBuilder(&books{view: v}, 0).gone(&recipe)
	return recipe.Served.Size, len(gone) == 0 && err == nil, err
}

// Servable reports whether there is a recipe of a NAR and all that it names, so that a
// path which names the NAR can be had.
func (s *Snapshot) Servable(narHash [32]byte) (bool, error) {
	_, ok, err := servable(s.view, narHash)
	return ok, err
}

// dropPin removes a pin, which must be as the difference has it.
func (r *restoring) dropPin(id keyspace.CacheID, p *Pin) error {
	value, there, err := r.books.view.Get(keyspace.AppendPinKey(nil, id, p.Name))
	if err != nil {
		return err
	}
	if (!there || !bytes.Equal(value, keyspace.AppendPin(nil, &p.Pin))) && !r.books.mutants.noDiffCheck() {
		return errMoved
	}
	for _, e := range removePin(p) {
		r.books.drop(e.Key)
	}
	return nil
}

// setPin writes a pin with all its revisions, as it was.
func (r *restoring) setPin(id keyspace.CacheID, p *Pin) error {
	r.books.writePin(id, p)
	for _, rev := range p.Revisions {
		r.books.touch(Touch{Cache: id, HashPart: rev.StorePath.HashPart()})
	}
	return nil
}

func (b *books) writePin(id keyspace.CacheID, p *Pin) {
	b.put(keyspace.AppendPinKey(nil, id, p.Name), keyspace.AppendPin(nil, &p.Pin))
	for i := range p.Revisions {
		rev := &p.Revisions[i]
		b.put(keyspace.AppendPinRevisionKey(nil, id, p.Name, rev.Number), keyspace.AppendPinRevision(nil, rev))
	}
}

// setAside writes the row of a path into a cache that nobody can reach yet, and counts
// it into sum.
func (b *books) setAside(id keyspace.CacheID, row *Path, sum *Totals) error {
	b.put(keyspace.AppendPathKey(nil, id, row.StorePath.HashPart()), keyspace.AppendPath(nil, row))
	sum.Paths, sum.NarBytes, sum.ServedBytes = sum.Paths+1, sum.NarBytes+row.NarSize, sum.ServedBytes+row.FileSize
	return errors.Join(b.name(row, true), b.use(id, row.StorePath.HashPart()))
}
