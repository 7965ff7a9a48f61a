package catalog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

const (
	// recountPasses is how often Recount looks again: what others commit while it
	// counts may leave small differences where nothing was counted before.
	recountPasses = 5
	// recountNars is how many NARs are counted in memory at once.
	recountNars = 1 << 20
)

// Discrepancy is a count, or the row of a use, that is not what the paths, recipes and
// packs say.
type Discrepancy struct {
	Row         string // which row, for people
	Found, Want string
}

// CheckCounts compares all counts, and the rows of uses, with what they count. yield is told each
// discrepancy until it returns false. It reads all paths, some times over if there are many.
func (s *Snapshot) CheckCounts(ctx context.Context, yield func(Discrepancy) bool) error {
	err := (&audit{s: s, ctx: ctx, tell: func(f fix) error {
		if !yield(f.Discrepancy) {
			return errEnough
		}
		return nil
	}}).run()
	if err == errEnough { //nolint:errorlint // our own, never wrapped
		return nil
	}
	return err
}

// Recount puts right what CheckCounts finds, while others go on committing, and returns how much
// it was. It changes counts by what they are off, so that two at once would do so twice: one that
// begins fences those before it, which fail with ErrFenced.
func (c *Catalog) Recount(ctx context.Context) (fixed int, err error) {
	for range recountPasses {
		n, err := c.recount(ctx)
		fixed += n
		if err != nil || n == 0 {
			return fixed, err
		}
	}
	return fixed, nil
}

func (c *Catalog) recount(ctx context.Context) (fixed int, err error) {
	r, err := c.beginRecount(ctx)
	if err == nil {
		fixed, err = r.putRight(ctx)
		err = errors.Join(err, r.snapshot.Close())
	}
	if err != nil {
		return fixed, fmt.Errorf("recount: %w", err)
	}
	return fixed, nil
}

// recounting is one pass over a store: the state that is counted, in which all is put right
// that passes before this one have found, and will ever put right.
type recounting struct {
	catalog  *Catalog
	number   uint32
	snapshot *Snapshot
}

func (c *Catalog) beginRecount(ctx context.Context) (*recounting, error) {
	r := &recounting{catalog: c}
	_, err := c.wal.Commit(ctx, wal.Op{Name: "begin recount", Cost: 32, Build: func(v wal.View) ([]wal.Entry, error) {
		n, err := counter(v, keyspace.Recounts)
		r.number = n + 1
		return []wal.Entry{set(keyspace.AppendCounterKey(nil, keyspace.Recounts), keyspace.AppendCount(nil, r.number))}, err
	}})
	if err == nil {
		r.snapshot, err = c.Snapshot(ctx)
	}
	return r, err
}

func (r *recounting) putRight(ctx context.Context) (fixed int, err error) {
	var fixes []fix
	flush := func() error {
		_, err := r.catalog.wal.Commit(ctx, wal.Op{Name: "recount", Cost: len(fixes) * pathCost, Build: func(v wal.View) ([]wal.Entry, error) {
			if n, err := counter(v, keyspace.Recounts); err != nil || n != r.number {
				return nil, errors.Join(err, ErrFenced)
			}
			g, err := newGraves(v)
			if err != nil {
				return nil, err
			}
			for i := range fixes {
				if err := fixes[i].apply(g); err != nil {
					return nil, err
				}
			}
			if _, err := g.bury(); err != nil {
				return nil, err
			}
			return g.close()
		}})
		if err == nil {
			fixed += len(fixes)
		}
		fixes = nil
		return err
	}
	err = (&audit{s: r.snapshot, ctx: ctx, tell: func(f fix) error {
		if fixes = append(fixes, f); len(fixes) < opPaths {
			return nil
		}
		return flush()
	}}).run()
	if err == nil && len(fixes) > 0 {
		err = flush()
	}
	return fixed, err
}

// fix is a discrepancy and what puts it right in the state an operation is built
// against, in which others may have changed what is counted, and the count with it.
type fix struct {
	Discrepancy
	apply func(*graves) error
}

// audit counts a snapshot and compares.
type audit struct {
	s     *Snapshot
	ctx   context.Context //nolint:containedctx // lives for one call
	tell  func(fix) error
	paths int64  // rows in all
	store Totals // what the row of the whole store should say
}

func (a *audit) run() error {
	caches, err := a.s.Caches()
	if err != nil {
		return err
	}
	destroyed, err := a.s.Destroyed()
	if err != nil {
		return err
	}
	var ids []CacheID
	var totals []Totals
	for i := range caches {
		t, err := a.cache(caches[i].ID)
		if err != nil {
			return err
		}
		ids, totals = append(ids, t.Cache), append(totals, t)
		a.store.Shift(&t)
	}
	for i := range destroyed {
		t, err := a.cache(destroyed[i].ID)
		if err != nil {
			return err
		}
		ids = append(ids, destroyed[i].ID)
		if destroyed[i].Building != 0 {
			totals = append(totals, t)
		}
	}
	a.store.Cache = 0
	for _, step := range []func() error{func() error { return a.nars(ids) }, a.unreferenced, a.packs, a.objects} {
		if err := step(); err != nil {
			return err
		}
	}
	for i := range totals { // after the NARs: a cache with totals counts as counted
		if err := a.totals(totals[i]); err != nil {
			return err
		}
	}
	return a.totals(a.store)
}

// cache counts the paths of a cache and compares their uses.
func (a *audit) cache(id CacheID) (t Totals, err error) {
	t.Cache = id
	destroyed, ok, err := read(a.s.view, keyspace.AppendDestroyedKey(nil, id), keyspace.DecodeDestroyed)
	if err != nil {
		return t, err
	}
	swept := ok && destroyed.Building == 0 // its uses go in one piece, at the end
	for p, err := range a.s.Paths(id) {
		if err == nil {
			err = a.ctx.Err()
		}
		if err != nil {
			return t, err
		}
		a.paths++
		t.Shift(&Totals{Paths: 1, NarBytes: p.NarSize, ServedBytes: p.FileSize})
		if !swept {
			if err := a.pathUse(id, p.StorePath.HashPart()); err != nil {
				return t, err
			}
		}
	}
	if swept {
		return t, nil
	}
	return t, a.strayUses(id)
}

// pathUse checks that the two rows of the use of a path are there.
func (a *audit) pathUse(id CacheID, hashPart nix.HashPart) error {
	last, known, err := a.s.LastUse(id, hashPart)
	if err != nil {
		return err
	}
	if known {
		if _, known, err = a.s.view.Get(keyspace.AppendUseOrderKey(nil, last)); known || err != nil {
			return err
		}
	}
	return a.tell(fix{
		Discrepancy{Row: fmt.Sprintf("last use of path %v of cache %d", hashPart, id), Found: "none", Want: "one"},
		func(g *graves) error { return g.repairUse(id, hashPart) },
	})
}

// repairUse makes the rows of the use of a path agree with each other and with whether
// there is such a path.
func (b *books) repairUse(id CacheID, hashPart nix.HashPart) error {
	_, there, err := b.view.Get(keyspace.AppendPathKey(nil, id, hashPart))
	if err != nil {
		return err
	}
	key := keyspace.AppendLastUseKey(nil, id, hashPart)
	last, known, err := read(b.view, key, keyspace.DecodeLastUse)
	switch {
	case err != nil:
		return err
	case there && known:
		b.put(keyspace.AppendUseOrderKey(nil, last), keyspace.AppendUseOrder(nil))
		return nil
	case there:
		return b.use(id, hashPart)
	default:
		return b.unuse(id, hashPart)
	}
}

// strayUses finds rows of uses without a path, and rows of another day than the last.
func (a *audit) strayUses(id CacheID) error {
	for u, err := range a.s.Uses(id) {
		if err != nil {
			return err
		}
		_, there, err := a.s.view.Get(keyspace.AppendPathKey(nil, id, u.HashPart))
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if err := a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("last use of path %v of cache %d", u.HashPart, id), Found: fmt.Sprintf("day %d", u.Day), Want: "none, the path is not there"},
			func(g *graves) error { return g.repairUse(id, u.HashPart) },
		}); err != nil {
			return err
		}
	}
	for u, err := range a.s.UsesByDay(id) {
		if err != nil {
			return err
		}
		last, known, err := a.s.LastUse(id, u.HashPart)
		if err != nil {
			return err
		}
		if known && last.Day == u.Day {
			continue
		}
		if err := a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("use of path %v of cache %d", u.HashPart, id), Found: fmt.Sprintf("day %d", u.Day), Want: fmt.Sprintf("day %d, or none if 0", last.Day)},
			func(g *graves) error {
				last, known, err := read(g.view, keyspace.AppendLastUseKey(nil, id, u.HashPart), keyspace.DecodeLastUse)
				if err == nil && (!known || last.Day != u.Day) {
					g.drop(keyspace.AppendUseOrderKey(nil, u))
				}
				return err
			},
		}); err != nil {
			return err
		}
	}
	return nil
}

// nars counts the paths of each NAR, a part of all NARs at a time.
func (a *audit) nars(caches []CacheID) error {
	shards := 1 + uint64(a.paths)/recountNars
	for shard := range shards {
		in := func(narHash [32]byte) bool { return binary.BigEndian.Uint64(narHash[:])%shards == shard }
		want := map[[32]byte]Nar{}
		for _, id := range caches {
			for p, err := range a.s.Paths(id) {
				if err != nil {
					return err
				}
				if !in(p.NarHash) {
					continue
				}
				n := want[p.NarHash]
				n.Paths++
				n.NarHash, n.NarSize, n.ServedSize = p.NarHash, p.NarSize, p.FileSize
				want[p.NarHash] = n
			}
			for side, err := range a.s.Sides(id) {
				if err != nil {
					return err
				}
				if !side.Stored || !in(side.TextSum) {
					continue
				}
				n := want[side.TextSum]
				n.Paths++
				if n.NarHash = side.TextSum; n.NarSize == 0 {
					n.NarSize, n.ServedSize = side.Size, side.Served
				}
				want[side.TextSum] = n
			}
		}
		if err := a.compareNars(want, in); err != nil {
			return err
		}
	}
	return nil
}

func (a *audit) compareNars(want map[[32]byte]Nar, in func([32]byte) bool) error {
	for n, err := range a.s.Nars() {
		if err == nil {
			err = a.ctx.Err()
		}
		if err != nil {
			return err
		}
		if !in(n.NarHash) {
			continue
		}
		w := want[n.NarHash]
		delete(want, n.NarHash)
		if w.Paths > 0 {
			a.store.Shift(&Totals{Nars: 1, NarsBytes: n.NarSize, NarsServed: n.ServedSize})
		}
		if w.Paths != n.Paths {
			if err := a.tell(narFix(n, w)); err != nil {
				return err
			}
		}
	}
	left := make([]Nar, 0, len(want))
	for _, w := range want {
		left = append(left, w)
	}
	slices.SortFunc(left, func(a, b Nar) int { return slices.Compare(a.NarHash[:], b.NarHash[:]) })
	for _, w := range left {
		a.store.Shift(&Totals{Nars: 1, NarsBytes: w.NarSize, NarsServed: w.ServedSize})
		if err := a.tell(narFix(Nar{NarHash: w.NarHash}, w)); err != nil {
			return err
		}
	}
	return nil
}

// narFix changes how many paths name a NAR by what was found to be wrong. The totals
// of the store are put right by themselves, so what close makes of the change is not
// to be added to them.
func narFix(found, want Nar) fix {
	return fix{
		Discrepancy{Row: fmt.Sprintf("paths of NAR %x", found.NarHash), Found: fmt.Sprint(found.Paths), Want: fmt.Sprint(want.Paths)},
		func(g *graves) error {
			n, err := g.nar(found.NarHash)
			if err != nil {
				return err
			}
			n.fixed = true
			if n.now.Paths == 0 {
				n.now.NarSize, n.now.ServedSize = want.NarSize, want.ServedSize
			}
			n.now.Paths = uint64(max(0, int64(n.now.Paths)+int64(want.Paths)-int64(found.Paths)))
			return nil
		},
	}
}

// unreferenced checks that a recipe has either paths or a row that says since when it
// has none.
func (a *audit) unreferenced() error {
	for row, err := range a.s.recipeRows() {
		if err == nil {
			err = a.ctx.Err()
		}
		if err != nil {
			return err
		}
		if row.key.Part > 0 {
			continue
		}
		narHash := row.key.NarHash
		named, err := hasEither(a.s.view, keyspace.AppendNarKey(nil, narHash), keyspace.AppendUnreferencedKey(nil, narHash))
		if err != nil {
			return err
		}
		if named {
			continue
		}
		if err := a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("NAR %x without paths", narHash), Found: "none", Want: "one"},
			func(g *graves) error {
				named, err := hasEither(g.view, keyspace.AppendNarKey(nil, narHash), keyspace.AppendUnreferencedKey(nil, narHash))
				if n := g.nars[narHash]; named || err != nil || n != nil && n.now.Paths > 0 {
					return err
				}
				g.put(keyspace.AppendUnreferencedKey(nil, narHash), keyspace.AppendUnreferenced(nil, &Unreferenced{Day: g.day}))
				g.add(Totals{Unreferenced: 1})
				return nil
			},
		}); err != nil {
			return err
		}
	}
	for u, err := range a.s.Unreferenced() {
		if err != nil {
			return err
		}
		a.store.Unreferenced++
		if _, named, err := a.s.view.Get(keyspace.AppendNarKey(nil, u.NarHash)); err != nil {
			return err
		} else if !named {
			continue
		}
		if err := a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("NAR %x without paths", u.NarHash), Found: "one", Want: "none, paths name it"},
			func(g *graves) error {
				key := keyspace.AppendUnreferencedKey(nil, u.NarHash)
				_, named, err := g.view.Get(keyspace.AppendNarKey(nil, u.NarHash))
				_, there, err2 := g.view.Get(key)
				if err != nil || err2 != nil || !named || !there {
					return firstError(err, err2)
				}
				g.drop(key)
				g.add(Totals{Unreferenced: -1})
				return nil
			},
		}); err != nil {
			return err
		}
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func hasEither(v getter, keys ...[]byte) (bool, error) {
	for _, key := range keys {
		if _, ok, err := v.Get(key); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// packs counts chunks.
func (a *audit) packs() error {
	for p, err := range a.s.Packs() {
		if err == nil {
			err = a.ctx.Err()
		}
		if err != nil {
			return err
		}
		dead := p.Condemned.Chunks()
		a.store.Shift(&Totals{Packs: 1, Chunks: int64(len(p.Layout.Sizes)) - dead, Dead: dead, DeadBytes: p.Condemned.Bytes, ChunkBytes: plainBytes(&p.Layout)})
		for _, r := range p.Condemned.Ranges { // holes among them have no bytes
			for i := r.First; i < r.First+r.Count && int(i) < len(p.Layout.Sizes); i++ {
				a.store.ChunkBytes -= int64(p.Layout.Sizes[i])
			}
		}
		if !p.Layout.Moved() {
			if err := a.object(p.Layout.ID, p.Layout.Bytes, []chunk.PackID{p.Layout.ID}); err != nil {
				return err
			}
		} else if row, _, err := read(a.s.view, keyspace.AppendObjectKey(nil, p.Layout.Object), keyspace.DecodeObject); err != nil {
			return err
		} else if !slices.Contains(row.Packs, p.Layout.ID) {
			if err := a.tell(objectFix(p.Layout.Object, p.Layout.Bytes, p.Layout.ID)); err != nil {
				return err
			}
		}
	}
	return nil
}

// objectFix lists a pack among those that were moved into an object.
func objectFix(object chunk.PackID, bytes int64, pack chunk.PackID) fix {
	return fix{
		Discrepancy{Row: fmt.Sprintf("packs of object %v", object), Found: fmt.Sprintf("%v is not among them", pack), Want: "it is"},
		func(g *graves) error {
			p, err := g.pack(pack)
			if err != nil || !p.known || p.Layout.Where() != object {
				return err
			}
			key := keyspace.AppendObjectKey(nil, object)
			row, _, err := read(g.view, key, keyspace.DecodeObject)
			if err != nil || slices.Contains(row.Packs, pack) {
				return err
			}
			row.Bytes = bytes
			row.Packs = append(row.Packs, pack)
			slices.SortFunc(row.Packs, chunk.PackID.Compare)
			g.put(key, keyspace.AppendObject(nil, &row))
			return nil
		},
	}
}

// objects counts those that packs were moved into, and what is buried.
func (a *audit) objects() error {
	for o, err := range a.s.Objects() {
		if err == nil {
			err = a.object(o.ID, o.Bytes, o.Packs)
		}
		if err != nil {
			return err
		}
	}
	for b, err := range a.s.Buried() {
		if err != nil {
			return err
		}
		a.store.Shift(&Totals{Buried: 1, BuriedBytes: b.Bytes})
	}
	return nil
}

// object counts an object, and checks that it is buried if nothing lives in it, and
// that it is not if something does.
func (a *audit) object(id chunk.PackID, bytes int64, packs []chunk.PackID) error {
	_, buried, err := a.s.view.Get(keyspace.AppendBuriedKey(nil, id))
	if err != nil {
		return err
	}
	if !buried {
		a.store.Shift(&Totals{Objects: 1, StoredBytes: bytes})
	}
	alive := false
	for _, pack := range packs {
		p, known, err := a.s.Pack(pack)
		if err != nil {
			return err
		}
		alive = alive || known && p.Layout.Where() == id && p.Condemned.Chunks() < int64(len(p.Layout.Sizes))
	}
	switch {
	case buried && alive:
		return a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("buried object %v", id), Found: "one", Want: "none, something lives in it"},
			func(g *graves) error { return g.unbury(id) },
		})
	case !buried && !alive:
		return a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("buried object %v", id), Found: "none", Want: "one, nothing lives in it"},
			func(g *graves) error { g.objects = append(g.objects, id); return nil },
		})
	}
	return nil
}

// unbury keeps an object from being deleted if something lives in it.
func (g *graves) unbury(id chunk.PackID) error {
	key := keyspace.AppendBuriedKey(nil, id)
	row, ok, err := read(g.view, key, keyspace.DecodeBuried)
	if !ok || err != nil {
		return err
	}
	packs, _, err := g.tenants(id)
	if err != nil {
		return err
	}
	for _, pack := range packs {
		p, err := g.pack(pack)
		if err != nil {
			return err
		}
		if p.known && p.Layout.Where() == id && !p.dead() {
			g.drop(key)
			g.add(Totals{Objects: 1, StoredBytes: row.Bytes, Buried: -1, BuriedBytes: -row.Bytes})
			return nil
		}
	}
	return nil
}

// totals compares the row of a cache, or of the store. What pushes have brought cannot
// be counted afterwards and is left as it is.
func (a *audit) totals(want Totals) error {
	found, counted, err := a.s.Totals(want.Cache)
	if err != nil {
		return err
	}
	want.BroughtBytes, want.BroughtStored = found.BroughtBytes, found.BroughtStored
	if found == want && (counted || want.Cache == 0) {
		return nil
	}
	name := "totals of the store"
	if want.Cache != 0 {
		name = fmt.Sprintf("totals of cache %d", want.Cache)
	}
	difference := found
	difference.Negate()
	difference.Shift(&want)
	return a.tell(fix{
		Discrepancy{Row: name, Found: fmt.Sprintf("%+v", found), Want: fmt.Sprintf("%+v", want)},
		func(g *graves) error {
			if want.Cache != 0 {
				if gone, err := hasNone(g.view, want.Cache); gone || err != nil {
					return err
				}
				if _, counted, err := g.view.Get(keyspace.AppendTotalsKey(nil, want.Cache)); err != nil {
					return err
				} else if !counted {
					row := want
					g.put(keyspace.AppendTotalsKey(nil, want.Cache), keyspace.AppendTotals(nil, &row))
					return nil
				}
			}
			g.add(difference)
			return nil
		},
	})
}

// hasNone reports whether a cache was destroyed, so that it has no totals.
func hasNone(v wal.View, id CacheID) (bool, error) {
	mark, ok, err := read(v, keyspace.AppendDestroyedKey(nil, id), keyspace.DecodeDestroyed)
	return ok && mark.Building == 0, err
}
