package gc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// remove takes out of the state what is dead, in the order that makes it safe: paths,
// then recipes that no path names, then chunks that no recipe names. All of it is one
// collection: whoever begins another takes the right to remove anything away from this one.
func (r *round) remove(ctx context.Context) (err error) {
	if !r.due.busy && !r.lookAtChunks() {
		return nil
	}
	if err := r.cat.EnsureCounted(ctx); err != nil {
		return fmt.Errorf("count what was never counted: %w", err)
	}
	r.mark, err = r.cat.BeginMark(ctx)
	if err != nil {
		return fmt.Errorf("begin a collection: %w", err)
	}
	defer func() {
		err = errors.Join(err, r.mark.Close())
		r.mark = nil
	}()
	r.seen = r.mark.Seen()
	if err := r.expire(ctx); err != nil {
		return err
	}
	if err := r.removeRecipes(ctx); err != nil {
		return err
	}
	if err := r.sweepSides(ctx); err != nil {
		return err
	}
	if r.lookAtChunks() {
		if err := r.condemn(ctx); err != nil {
			return err
		}
	}
	return r.mark.End(ctx)
}

// expire removes paths by retention and by quota.
func (r *round) expire(ctx context.Context) error {
	s := r.mark.Snapshot()
	p, err := r.plan(ctx, s)
	if err != nil || p == nil {
		return err
	}
	r.rep.OverQuota = p.overQuota
	for t := range p.caches {
		if !r.chosen(&p.caches[t]) {
			continue
		}
		if err := r.fell(ctx, p, t); err != nil {
			return fmt.Errorf("remove paths of cache %q: %w", string(p.caches[t].Name), err)
		}
	}
	if len(p.adopt) > 0 {
		// From now on they grow old like others.
		if err := r.cat.RecordUses(ctx, p.adopt); err != nil {
			return fmt.Errorf("note that paths are there: %w", err)
		}
	}
	return nil
}

// fell removes the dead paths of one cache.
func (r *round) fell(ctx context.Context, p *plan, t int) error {
	dead := p.fellingOrder(t, p.live)
	done := 0
	for part := range slices.Chunk(dead, r.o.Batch) {
		r.o.Progress(Progress{Phase: "remove paths of " + string(p.caches[t].Name), Done: done, Total: len(dead)})
		done += len(part)
		if err := r.fellSome(ctx, p, t, part); err != nil {
			return err
		}
	}
	return nil
}

func (r *round) fellSome(ctx context.Context, p *plan, t int, part []uint32) error {
	for {
		e := catalog.Expiry{Cache: p.caches[t].ID}
		for _, i := range part {
			if !p.live.has(int(i)) {
				e.Paths = append(e.Paths, catalog.Use{Cache: e.Cache, HashPart: p.hashes[i], Day: p.days[i]})
			}
		}
		e.Live = func(hp nix.HashPart) bool { return p.lives(t, hp) }
		if len(e.Paths) == 0 {
			return nil
		}
		gone, err := p.describe(r.mark.Snapshot(), t, e.Paths)
		if err != nil {
			return err
		}
		x, err := r.mark.Expire(ctx, r.seen, e)
		r.rep.Commits++
		r.rep.Removed += x.Removed
		r.rep.NarBytes += x.NarBytes
		if errors.Is(err, catalog.ErrTouched) {
			if err := r.absorb(ctx, p); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		return r.tell(gone, x.Spared)
	}
}

// tell names the paths that were removed.
func (r *round) tell(gone []namedGone, spared []nix.HashPart) error {
	kept := make(map[nix.HashPart]bool, len(spared))
	for _, hp := range spared {
		kept[hp] = true
	}
	for i := range gone {
		if !kept[gone[i].hashPart] {
			if err := r.mode.Each(gone[i].Gone); err != nil {
				return err
			}
		}
	}
	return nil
}

// absorb takes into account what came to life or was used since this collection began:
// its paths, with all they refer to, and what its recipes name.
func (r *round) absorb(ctx context.Context, p *plan) error {
	r.rep.Retries++
	for more := true; more; {
		touches, further, err := r.mark.Touches(ctx, r.seen)
		if err != nil {
			return err
		}
		r.o.Progress(Progress{Phase: "look again", Done: int(r.seen)})
		// After the touches: an older state may lack what they concern.
		cur, err := r.mark.Current(ctx)
		if err != nil {
			return err
		}
		if err := joinClose(r.absorbFrom(cur, p, touches), cur); err != nil {
			return err
		}
		more = further
	}
	return nil
}

func (r *round) absorbFrom(cur *catalog.Snapshot, p *plan, touches []catalog.Touch) error {
	for _, touch := range touches {
		if touch.Cache != 0 && p != nil {
			if err := p.revive(cur, touch.Cache, touch.HashPart); err != nil {
				return err
			}
		}
		if touch.Recipe && r.live != nil {
			recipe, ok, err := cur.Recipe(touch.NarHash)
			if err != nil {
				return err
			}
			if ok { // it may name packs that no recipe named before
				r.live.stretch(&recipe)
				r.live.recipe(&recipe, nil)
			}
		}
		r.seen = touch.Serial
	}
	return nil
}

// removeRecipes removes the NARs whose grace has ended, and what is left of pushes that
// never ended.
func (r *round) removeRecipes(ctx context.Context) error {
	s := r.mark.Snapshot()
	r.gone, r.copies, r.hot = map[[32]byte]bool{}, map[chunk.PackID]bool{}, mkMarks()
	if err := r.findCopies(ctx, s, r.due.nars); err != nil {
		return err
	}
	for part := range slices.Chunk(r.due.nars, r.o.Batch) {
		r.o.Progress(Progress{Phase: "remove NARs", Done: r.rep.Recipes, Total: len(r.due.nars)})
		r.setMarked(0) // should this round be broken off, the next one looks at all chunks
		removed, err := r.mark.RemoveRecipes(ctx, part)
		r.rep.Commits++
		for _, u := range removed {
			r.gone[u.NarHash] = true
			r.purge = r.purge || u.Purge
		}
		r.rep.Recipes += len(removed)
		if err != nil {
			return fmt.Errorf("remove NARs that no path names: %w", err)
		}
		for _, u := range removed {
			recipe, ok, err := s.Recipe(u.NarHash)
			if err != nil {
				return err
			}
			if ok {
				r.hot.stretch(&recipe)
				r.hot.recipe(&recipe, nil)
			}
		}
	}
	if !r.lookAtChunks() {
		return nil
	}
	return r.removeParts(ctx, s)
}

// unfinishedAfter is how long parts of a recipe may be without their head: a push writes
// them, and then the head.
const unfinishedAfter = time.Hour

// removeParts removes parts of recipes that pushes left which broke off: those that
// an earlier round saw already.
func (r *round) removeParts(ctx context.Context, s *catalog.Snapshot) error {
	last := lastReport(r.due.last)
	old := r.clock.Now.Sub(r.due.last.Ended) >= unfinishedAfter
	var parts []catalog.RecipeParts
	for p, err := range s.OrphanParts() {
		if err != nil {
			return err
		}
		name := hex.EncodeToString(p.NarHash[:8]) + hex.EncodeToString(p.Tag[:])
		switch known := slices.Contains(last.Unfinished, name); {
		case known && old:
			parts = append(parts, p)
		case len(r.rep.Unfinished) < maxUnfinished:
			r.rep.Unfinished = append(r.rep.Unfinished, name)
		}
	}
	if len(parts) == 0 {
		return nil
	}
	n, err := r.mark.RemoveParts(ctx, parts)
	r.rep.Commits++
	r.rep.Parts += n
	return err
}

// maxUnfinished bounds what a round remembers for the next.
const maxUnfinished = 256

// joinClose closes s and adds what that says to err.
func joinClose(err error, s interface{ Close() error }) error { return errors.Join(err, s.Close()) }
