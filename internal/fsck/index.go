package fsck

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/internal/catalog"
)

// progressEvery is after how many rows progress is told.
const progressEvery = 1 << 16

// index checks the rows of one state against each other.
func (k *check) index(ctx context.Context) error {
	s, err := k.look(ctx)
	if err != nil {
		return err
	}
	k.rep.Seq = uint64(s.Seq())
	return joinClose(k.rows(ctx, s), s)
}

func (k *check) rows(ctx context.Context, s *catalog.Snapshot) error {
	k.o.Progress(Progress{Phase: "rows"})
	var failed error
	rows, err := s.CheckRows(ctx, func(b catalog.BadRow) bool {
		failed = k.found(Finding{Kind: BadRow, What: b.Row, Problem: b.Problem})
		return failed == nil
	})
	if k.rep.Rows = rows; err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	for _, step := range []func(context.Context, *catalog.Snapshot) error{k.packs, k.recipes, k.paths, k.chunkRows, k.counts} {
		if err := step(ctx, s); err != nil {
			if k.rep.Found[BadRow] == 0 || ctx.Err() != nil {
				return err
			}
			// Nobody gets past a row that does not decode.
			if err := k.found(Finding{Kind: Unread, What: "rows after one that cannot be read", Problem: err.Error()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// each calls do for what a scan yields and tells progress.
func each[T any](ctx context.Context, k *check, phase string, rows func(func(T, error) bool), do func(T, error) error) (n int64, err error) {
	for row, rowErr := range rows {
		if n++; n%progressEvery == 1 {
			k.o.Progress(Progress{Phase: phase, Done: n - 1})
		}
		if n%64 == 0 && ctx.Err() != nil {
			return n, ctx.Err()
		}
		if err := do(row, rowErr); err != nil {
			return n, err
		}
	}
	return n, nil
}

// packs fills in the places, and what objects there must be.
func (k *check) packs(ctx context.Context, s *catalog.Snapshot) (err error) {
	k.places = &places{}
	moved := map[chunk.PackID]int64{}
	k.rep.Packs, err = each(ctx, k, "packs", s.Packs(), func(p catalog.PackState, err error) error {
		if err != nil {
			return err
		}
		k.places.add(&p)
		l := &p.Layout
		if l.Moved() {
			if bytes, ok := moved[l.Object]; ok && bytes != l.Bytes {
				return k.badPack(l.ID, fmt.Errorf("object %v has %d bytes for it and %d for another pack", l.Object, l.Bytes, bytes))
			}
			moved[l.Object] = l.Bytes
		}
		if err := soundPack(&p); err != nil {
			return k.badPack(l.ID, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.objects, err = listObjects(s)
	return err
}

// listObjects returns the objects that the state names, in the order of their names.
func listObjects(s *catalog.Snapshot) (objects []object, err error) {
	last := chunk.PackID{} // of many packs that follow each other most lie in one object
	for p, err := range s.Packs() {
		if err != nil {
			return nil, err
		}
		if where := p.Layout.Where(); where != last {
			objects, last = append(objects, object{id: where, bytes: p.Layout.Bytes}), where
		}
	}
	for b, err := range s.Buried() {
		if err != nil {
			return nil, err
		}
		objects = append(objects, object{id: b.Object, bytes: b.Bytes, buried: true})
	}
	slices.SortStableFunc(objects, func(a, b object) int { return a.id.Compare(b.id) })
	kept := objects[:0]
	for _, o := range objects {
		if n := len(kept); n > 0 && kept[n-1].id == o.id {
			kept[n-1].buried = kept[n-1].buried || o.buried
			continue
		}
		kept = append(kept, o)
	}
	return kept, nil
}

func (k *check) badPack(id chunk.PackID, err error) error {
	return k.found(Finding{Kind: BadPack, What: fmt.Sprintf("pack %v", id), Problem: err.Error()})
}

// soundPack compares the layout of a pack with what is dead of it.
func soundPack(p *catalog.PackState) error {
	l, x := &p.Layout, &p.Condemned
	dead := make([]bool, len(l.Sizes))
	plain := int64(0)
	for _, r := range x.Ranges {
		if uint64(r.First)+uint64(r.Count) > uint64(len(l.Sizes)) {
			return fmt.Errorf("chunks %d+%d are dead, and it has %d", r.First, r.Count, len(l.Sizes))
		}
		for i := r.First; i < r.First+r.Count; i++ {
			dead[i] = true
			plain += int64(l.Sizes[i])
		}
	}
	holes := false
	for i, size := range l.Sizes {
		if size > 0 {
			continue
		}
		if holes = true; !dead[i] {
			return fmt.Errorf("chunk %d has no bytes, and is not dead", i)
		}
	}
	if !holes && plain != x.Bytes {
		return fmt.Errorf("%d plain bytes are dead, and %d are said to be", plain, x.Bytes)
	}
	return nil
}

// recipes looks whether each NAR can be put together.
func (k *check) recipes(ctx context.Context, s *catalog.Snapshot) (err error) {
	k.rep.Recipes, err = each(ctx, k, "recipes", s.Recipes(), func(r chunk.Recipe, err error) error {
		narHash, problem, err := k.recipe(s, &r, err)
		if problem == nil || err != nil {
			return err
		}
		return k.found(Finding{Kind: BadRecipe, What: fmt.Sprintf("recipe of NAR %x", narHash), Problem: problem.Error(), NarHash: fmt.Sprintf("%x", narHash)})
	})
	if err != nil {
		return err
	}
	for p, err := range s.OrphanParts() {
		if err != nil {
			return err
		}
		k.rep.Parts += int64(p.Parts)
	}
	return nil
}

// recipe says why a recipe, or what a scan yields in its place, cannot be used, if so.
func (k *check) recipe(s *catalog.Snapshot, r *chunk.Recipe, scanned error) (narHash [32]byte, problem, err error) {
	if bad, isBad := errors.AsType[*catalog.BadRecipeError](scanned); isBad {
		return bad.NarHash, bad.Err, nil
	}
	if scanned != nil {
		return narHash, nil, scanned
	}
	problem, err = k.places.check(s, r)
	return r.NarHash, problem, err
}

// paths looks whether each path has its NAR.
func (k *check) paths(ctx context.Context, s *catalog.Snapshot) error {
	caches, err := k.caches(s)
	if err != nil {
		return err
	}
	for _, c := range caches {
		n, err := each(ctx, k, "paths", s.Paths(c.id), func(p catalog.Path, err error) error {
			if err != nil {
				return err
			}
			for _, r := range p.References {
				if _, there, err := s.Path(c.id, r.HashPart()); err != nil {
					return err
				} else if !there {
					k.rep.References++
				}
			}
			problem, err := k.narOf(s, &p)
			if problem == nil || err != nil {
				return err
			}
			return k.found(c.finding(BadPath, &p, problem.Error()))
		})
		k.rep.Paths += n
		if err != nil {
			return err
		}
	}
	return nil
}

// cacheRef is a cache whose paths are to be there.
type cacheRef struct {
	id   catalog.CacheID
	name string
}

func (c *cacheRef) finding(kind Kind, p *catalog.Path, problem string) Finding {
	return Finding{
		Kind: kind, What: fmt.Sprintf("path %s of cache %s", p.StorePath, c.name), Problem: problem,
		Cache: c.name, StorePath: p.StorePath.String(), NarHash: fmt.Sprintf("%x", p.NarHash),
	}
}

func (k *check) caches(s *catalog.Snapshot) (refs []cacheRef, err error) {
	caches, err := s.Caches()
	if err != nil {
		return nil, err
	}
	destroyed, err := s.Destroyed()
	if err != nil {
		return nil, err
	}
	k.rep.Caches = len(caches)
	for i := range caches {
		refs = append(refs, cacheRef{caches[i].ID, string(caches[i].Name)})
	}
	for i := range destroyed {
		if destroyed[i].Building != 0 { // it is being restored
			refs = append(refs, cacheRef{destroyed[i].ID, string(destroyed[i].Name)})
		}
	}
	return refs, nil
}

// narOf says why the NAR of a path cannot be served, if so.
func (k *check) narOf(s *catalog.Snapshot, p *catalog.Path) (problem, err error) {
	r, ok, err := s.Recipe(p.NarHash)
	if bad, isBad := errors.AsType[*catalog.BadRecipeError](err); isBad {
		return bad, nil
	}
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return fmt.Errorf("there is no recipe of its NAR %x", p.NarHash), nil
	case r.Size != p.NarSize || r.Served.Size != p.FileSize:
		return fmt.Errorf("its NAR is to have %d bytes, and %d as it is served; the recipe has %d and %d", p.NarSize, p.FileSize, r.Size, r.Served.Size), nil
	}
	return k.places.check(s, &r)
}

// chunkRows looks whether the rows of chunks lead to chunks, each to one of its own.
func (k *check) chunkRows(ctx context.Context, s *catalog.Snapshot) (err error) {
	var bad []catalog.BadRow
	rows := s.AllChunks(func(b catalog.BadRow) { bad = append(bad, b) })
	var rivals []chunk.Location
	k.rep.Chunks, err = each(ctx, k, "chunks", rows, func(c catalog.Chunk, err error) error {
		if err != nil {
			return err
		}
		switch k.places.name(c.Location) {
		case nowhere:
			k.rep.Strays++
		case taken:
			if rivals = append(rivals, c.Location); len(rivals) > maxRivals {
				return fmt.Errorf("the rows of more than %d chunks lead to those of others", maxRivals)
			}
			return k.found(Finding{
				Kind: BadChunk, What: fmt.Sprintf("row of chunk %v", c.ID), Problem: fmt.Sprintf("it leads to chunk %d of pack %v, as does that of another", c.Location.Index, c.Location.Pack),
			})
		case alive:
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, b := range bad {
		if err := k.found(Finding{Kind: BadRow, What: b.Row, Problem: b.Problem}); err != nil {
			return err
		}
	}
	if k.mode.Repair && len(rivals) > 0 {
		return k.rivals(s, rivals)
	}
	return nil
}

// maxRivals bounds what is kept of chunk rows that are wrong.
const maxRivals = 1 << 20

// rivals collects all rows that lead to the given places.
func (k *check) rivals(s *catalog.Snapshot, at []chunk.Location) error {
	contested := make(map[chunk.Location]bool, len(at))
	for _, l := range at {
		contested[l] = true
	}
	for c, err := range s.AllChunks(func(catalog.BadRow) {}) {
		if err != nil {
			return err
		}
		if contested[c.Location] {
			k.wrong = append(k.wrong, c)
		}
	}
	return nil
}

// counts compares what is counted with what there is.
func (k *check) counts(ctx context.Context, s *catalog.Snapshot) error {
	k.o.Progress(Progress{Phase: "counts"})
	var failed error
	err := s.CheckCounts(ctx, func(d catalog.Discrepancy) bool {
		failed = k.found(Finding{Kind: BadCount, What: d.Row, Problem: fmt.Sprintf("found %s, want %s", d.Found, d.Want)})
		return failed == nil
	})
	return errors.Join(err, failed)
}
