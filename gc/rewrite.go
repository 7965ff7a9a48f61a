package gc

import (
	"context"
	"errors"
	"fmt"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/catalog"
)

// rewriteGroup is how many live bytes are written again before they are committed.
const rewriteGroup = 64 << 20

// holder is an object of the bucket with the packs that lie in it.
type holder struct {
	id    chunk.PackID
	packs []catalog.PackState
	live  int64 // stored bytes
	dead  int64
	purge bool
}

// add counts a pack.
func (h *holder) add(p catalog.PackState) {
	scale := newScale(&p.Layout)
	dead := int64(0)
	for _, x := range p.Condemned.Ranges {
		end := min(int64(x.First)+int64(x.Count), int64(len(p.Layout.Sizes)))
		if int64(x.First) < end {
			dead += scale.of(x.First, uint32(end-int64(x.First))).stored
		}
	}
	h.dead += dead
	h.live += p.Layout.Stored() - dead
	h.purge = h.purge || p.Condemned.Purge
	h.packs = append(h.packs, p)
}

// due reports whether the object is to be written again without what is dead in it.
func (h *holder) due(above float64) bool {
	return h.dead > 0 && (h.purge || float64(h.dead) > above*float64(h.dead+h.live))
}

// rewrite writes objects again that are mostly dead, or hold what somebody wants to be
// gone, without it. The packs keep their names, and recipes are not touched: what is
// served of them stays what it was. The old objects wait for their readers like others.
func (r *round) rewrite(ctx context.Context) error {
	groups, clean, err := r.rewriteGroups(ctx)
	if err != nil {
		return err
	}
	for i, g := range groups {
		r.o.Progress(Progress{Phase: "write packs again", Done: i, Total: len(groups)})
		moved, err := r.rewriteGroup(ctx, g)
		if err != nil {
			return fmt.Errorf("write packs again without what is dead: %w", err)
		}
		clean = append(clean, moved...)
	}
	if r.looked == nil || len(clean) == 0 {
		return nil
	}
	r.rep.Commits++
	if err := r.looked.PurgeDone(ctx, clean); !errors.Is(err, catalog.ErrFenced) {
		return err
	}
	return nil // the collection that has begun meanwhile will see to it
}

// rewriteGroups chooses objects, a group for each commit. clean are packs that were to be
// purged and in which nothing dead is left, as far as this round has looked.
func (r *round) rewriteGroups(ctx context.Context) (groups [][]*holder, clean []chunk.PackID, err error) {
	s, err := r.cat.Snapshot(ctx)
	if err != nil {
		return nil, nil, err
	}
	due, clean, err := r.holders(s)
	if err := joinClose(err, s); err != nil {
		return nil, nil, err
	}
	size, total := int64(0), int64(0)
	for _, h := range due {
		if total += h.live; total > r.o.RewriteBytes {
			break // the next round goes on
		}
		if len(groups) == 0 || size+h.live > rewriteGroup {
			groups, size = append(groups, nil), 0
		}
		size += h.live
		groups[len(groups)-1] = append(groups[len(groups)-1], h)
	}
	return groups, clean, nil
}

// holders finds the objects that are to be written again. Only those of which a pack has
// anything dead are looked at closely.
func (r *round) holders(s *catalog.Snapshot) (due []*holder, clean []chunk.PackID, err error) {
	worth := map[chunk.PackID]bool{}
	for x, err := range s.Condemned() {
		if err != nil {
			return nil, nil, err
		}
		p, ok, err := s.Pack(x.Pack)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			continue
		}
		worth[p.Layout.Where()] = true
		if x.Purge {
			h := new(holder)
			switch h.add(p); {
			case h.dead > 0:
			case r.looked != nil:
				clean = append(clean, x.Pack)
			default: // a round broke off that had not condemned yet what is to be purged
				r.setMarked(0)
			}
		}
	}
	if len(worth) == 0 {
		return nil, clean, nil
	}
	byObject := map[chunk.PackID]*holder{}
	var order []*holder
	for p, err := range s.Packs() {
		if err != nil {
			return nil, nil, err
		}
		id := p.Layout.Where()
		if !worth[id] {
			continue
		}
		h := byObject[id]
		if h == nil {
			h = &holder{id: id}
			byObject[id] = h
			order = append(order, h)
		}
		h.add(p)
	}
	for _, h := range order {
		if h.due(r.o.RewriteAbove) {
			due = append(due, h)
		}
	}
	return due, clean, nil
}

// rewriteGroup writes the live part of some objects into new ones and moves the packs.
// It returns those of the packs that were to be purged.
func (r *round) rewriteGroup(ctx context.Context, group []*holder) (purged []chunk.PackID, err error) {
	var jobs []chunkstore.RewriteJob
	old := map[chunk.PackID]catalog.PackState{}
	purge := false
	for _, h := range group {
		purge = purge || h.purge
		for _, p := range h.packs {
			job := chunkstore.RewriteJob{Layout: p.Layout}
			for _, x := range p.Condemned.Ranges {
				job.Dead = append(job.Dead, chunk.Range(x))
			}
			jobs = append(jobs, job)
			old[p.Layout.ID] = p
		}
	}
	res, err := r.chunks.Rewrite(ctx, jobs)
	r.rep.ReadBytes += res.ReadBytes
	r.rep.Unreadable += len(res.Failed)
	for _, f := range res.Failed {
		r.o.Logger.Warn("a pack could not be written again", "pack", f.Pack.String(), "err", f.Err)
	}
	for _, o := range res.Objects {
		r.rep.WrittenBytes += o.Bytes
		move := catalog.Move{Object: o.ID, Bytes: o.Bytes}
		for _, l := range o.Layouts {
			move.Packs = append(move.Packs, catalog.MovedPack{Old: old[l.ID].Layout, New: l})
		}
		buried, moveErr := r.cat.MovePacks(ctx, move)
		r.rep.Commits++
		switch {
		case errors.Is(moveErr, catalog.ErrStale), errors.Is(moveErr, catalog.ErrChunksMissing):
			continue // somebody was here meanwhile; what was written is an orphan
		case moveErr != nil:
			return purged, errors.Join(err, moveErr)
		}
		r.rep.Rewritten += len(o.Layouts)
		r.purged = r.purged || purge && len(buried) > 0
		for _, l := range o.Layouts {
			if old[l.ID].Condemned.Purge {
				purged = append(purged, l.ID)
			}
		}
	}
	return purged, err
}
