package fsck

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// repairBatch is how many rows are handed to the catalog at once.
const repairBatch = 8192

// repair puts right what was found.
func (k *check) repair(ctx context.Context) error {
	k.rep.Repair = &Repair{}
	if len(k.lost) > 0 {
		k.o.Progress(Progress{Phase: "repair: chunks", Total: int64(len(k.lost))})
		done, err := k.cat.MarkDamaged(ctx, k.lost.deadChunks())
		k.rep.Repair.Chunks = done.Chunks
		if err != nil {
			return err
		}
	}
	if len(k.wrong) > 0 {
		n, err := k.cat.RemoveWrongChunks(ctx, k.wrong)
		k.rep.Repair.ChunkRows += int64(n)
		if err != nil {
			return err
		}
	}
	f := k.rep.Found
	if len(k.lost) > 0 || f[BadRecipe]+f[BadPath] > 0 || k.rep.Strays > 0 {
		if err := k.withdraw(ctx); err != nil {
			return err
		}
	}
	if len(k.refoot) > 0 {
		if err := k.rewrite(ctx); err != nil {
			return err
		}
	}
	if f[BadCount] > 0 {
		k.o.Progress(Progress{Phase: "repair: counts"})
		n, err := k.cat.Recount(ctx)
		k.rep.Repair.Counts = int64(n)
		if err != nil {
			return err
		}
	}
	k.o.Progress(Progress{Phase: "after the repair"})
	return k.again(ctx)
}

// again checks the rows once more, in a state after the repair.
func (k *check) again(ctx context.Context) error {
	if k.Sound() {
		return nil
	}
	after := &check{Checker: k.Checker, lost: lostChunks{}, refoot: map[objectID]bool{}}
	after.rep.Found = map[Kind]int64{}
	if err := after.index(ctx); err != nil {
		return err
	}
	for _, n := range after.rep.Found {
		k.rep.Repair.Left += n
	}
	k.rep.Repair.Left += k.rep.Found[BadTable] + k.rep.Found[Unread] + int64(len(k.refoot))
	return k.readAgain(ctx, after)
}

// readAgain reads what was noted as damaged once more: what is left of it may be sound.
func (k *check) readAgain(ctx context.Context, after *check) error {
	n := &notes{c: k.Checker}
	for _, o := range k.damaged {
		if err := n.before(ctx); err != nil && ctx.Err() != nil {
			return err
		}
		v, err := after.verify(ctx, o.id)
		if err != nil {
			return err
		}
		if v == damaged {
			k.rep.Repair.Left++
		}
		if err := n.add(ctx, o, v); err != nil && ctx.Err() != nil {
			return err
		}
	}
	if err := n.flush(ctx); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// Sound says that nothing was found.
func (k *check) Sound() bool { return k.rep.Sound() }

// withdraw removes what cannot be used by a state after what is lost was condemned: paths,
// then recipes, then rows of chunks.
func (k *check) withdraw(ctx context.Context) error {
	s, err := k.look(ctx)
	if err != nil {
		return err
	}
	return joinClose(k.withdrawFrom(ctx, s), s)
}

func (k *check) withdrawFrom(ctx context.Context, s *catalog.Snapshot) error {
	after := &check{Checker: k.Checker, places: &places{}}
	after.rep.Found = map[Kind]int64{}
	if err := after.packs(ctx, s); err != nil {
		return err
	}
	caches, err := after.caches(s)
	if err != nil {
		return err
	}
	for i := range caches {
		if err := k.withdrawPaths(ctx, s, after, &caches[i]); err != nil {
			return err
		}
	}
	if err := k.removeRecipes(ctx, s, after); err != nil {
		return err
	}
	return k.removeChunks(ctx, s, after)
}

func (k *check) withdrawPaths(ctx context.Context, s *catalog.Snapshot, after *check, c *cacheRef) error {
	var batch []nix.HashPart
	flush := func() error {
		gone, err := k.cat.WithdrawBroken(ctx, c.id, batch)
		batch = batch[:0]
		k.rep.Repair.Paths += int64(len(gone))
		for i := range gone {
			if tell := k.found(c.finding(Withdrawn, &gone[i], "its NAR is lost: push it again")); tell != nil {
				return errors.Join(err, tell)
			}
		}
		return err
	}
	_, err := each(ctx, k, "repair: paths", s.Paths(c.id), func(p catalog.Path, err error) error {
		if err != nil {
			return err
		}
		problem, err := after.narOf(s, &p)
		if problem == nil || err != nil {
			return err
		}
		if batch = append(batch, p.StorePath.HashPart()); len(batch) < repairBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

func (k *check) removeRecipes(ctx context.Context, s *catalog.Snapshot, after *check) error {
	var batch [][32]byte
	flush := func() error {
		n, err := k.cat.RemoveBroken(ctx, batch)
		k.rep.Repair.Recipes += int64(n)
		batch = batch[:0]
		return err
	}
	_, err := each(ctx, k, "repair: recipes", s.Recipes(), func(r chunk.Recipe, err error) error {
		narHash, problem, err := after.recipe(s, &r, err)
		if problem == nil || err != nil {
			return err
		}
		if batch = append(batch, narHash); len(batch) < repairBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

func (k *check) removeChunks(ctx context.Context, s *catalog.Snapshot, after *check) error {
	var batch []catalog.Chunk
	flush := func() error {
		n, err := k.cat.RemoveWrongChunks(ctx, batch)
		k.rep.Repair.ChunkRows += int64(n)
		batch = batch[:0]
		return err
	}
	_, err := each(ctx, k, "repair: chunks", s.AllChunks(func(catalog.BadRow) {}), func(c catalog.Chunk, err error) error {
		if err != nil || after.places.name(c.Location) != nowhere {
			return err
		}
		if batch = append(batch, c); len(batch) < repairBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// rewrite writes packs again that lie in objects whose footers are damaged.
func (k *check) rewrite(ctx context.Context) error {
	for id := range k.refoot {
		k.o.Progress(Progress{Phase: "repair: footers"})
		done, err := k.rewriteObject(ctx, id)
		if err != nil {
			return fmt.Errorf("write the packs in object %v again: %w", id, err)
		}
		if done {
			delete(k.refoot, id)
		}
	}
	return nil
}

func (k *check) rewriteObject(ctx context.Context, id objectID) (done bool, err error) {
	packs, err := k.packsIn(ctx, id)
	if err != nil {
		return false, err
	}
	var jobs []chunkstore.RewriteJob
	for i := range packs {
		p := &packs[i]
		if p.Condemned.Chunks() >= int64(len(p.Layout.Sizes)) {
			continue
		}
		job := chunkstore.RewriteJob{Layout: p.Layout}
		for _, x := range p.Condemned.Ranges {
			job.Dead = append(job.Dead, chunk.Range(x))
		}
		jobs = append(jobs, job)
	}
	if len(jobs) == 0 {
		return true, nil // nothing lives in it any more
	}
	res, err := k.chunks.Rewrite(ctx, jobs)
	for _, f := range res.Failed {
		k.o.Logger.Warn("a pack could not be written again", "pack", f.Pack.String(), "err", f.Err)
	}
	for _, o := range res.Objects {
		move := catalog.Move{Object: o.ID, Bytes: o.Bytes}
		for _, l := range o.Layouts {
			i := slices.IndexFunc(packs, func(p catalog.PackState) bool { return p.Layout.ID == l.ID })
			move.Packs = append(move.Packs, catalog.MovedPack{Old: packs[i].Layout, New: l})
		}
		_, moveErr := k.cat.MovePacks(ctx, move)
		switch {
		case errors.Is(moveErr, catalog.ErrStale), errors.Is(moveErr, catalog.ErrChunksMissing):
			return false, err // somebody was here meanwhile; the next repair looks again
		case moveErr != nil:
			return false, errors.Join(err, moveErr)
		}
		k.rep.Repair.Rewritten += int64(len(o.Layouts))
	}
	return err == nil && len(res.Failed) == 0, err
}
