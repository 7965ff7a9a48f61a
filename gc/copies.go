package gc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/internal/catalog"
)

// Bytes that somebody wants to be gone may lie in the bucket more than once: in packs in
// which they died before, and where two servers stored them at the same time. No row of the
// state leads from a chunk to its other copies; the footers of packs do.

// copiesApart is how many upload epochs apart two servers may have stored the same chunk
// without knowing of each other. Of earlier copies that nothing names the chunks are dead.
const copiesApart = 2

// findCopies marks packs for rewriting that hold other copies of what is to be purged with
// NARs, before their recipes go. What cannot be read is told and left.
func (r *round) findCopies(ctx context.Context, s *catalog.Snapshot, nars []catalog.Unreferenced) error {
	named := mkMarks()
	for _, u := range nars {
		if !u.Purge {
			continue
		}
		recipe, ok, err := s.Recipe(u.NarHash)
		if err != nil {
			r.o.Logger.Warn("what a NAR to be purged is made of cannot be read", "err", err)
		} else if ok {
			named.stretch(&recipe)
			named.recipe(&recipe, nil)
		}
	}
	if len(named.packs) == 0 {
		return nil
	}
	secret, sizes, epochs := map[chunk.ID]bool{}, map[uint32]bool{}, map[uint32]bool{}
	for _, id := range slices.SortedFunc(maps.Keys(named.packs), chunk.PackID.Compare) {
		pm := named.packs[id]
		p, ok, err := s.Pack(id)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		for e := id.Epoch - min(copiesApart, id.Epoch); e <= id.Epoch+copiesApart; e++ {
			epochs[e] = true
		}
		for i, size := range p.Layout.Sizes {
			if i < pm.chunks && pm.live.has(i) {
				sizes[size] = true
			}
		}
		h := suspect{p.Layout.Where(), p.Layout.Bytes, []chunk.PackID{id}}
		for _, ids := range r.idsOf(ctx, &h) {
			for i, id := range ids {
				if i < pm.chunks && pm.live.has(i) {
					secret[id] = true
				}
			}
		}
	}
	delete(secret, chunk.ID{}) // of holes
	delete(sizes, 0)
	suspects, err := r.suspects(ctx, s, named, sizes, epochs)
	if err != nil {
		return err
	}
	if err := r.compare(ctx, suspects, secret); err != nil {
		return fmt.Errorf("look for copies of what is to be purged: %w", err)
	}
	if err := r.mark.Purge(ctx, r.copies); err != nil {
		return fmt.Errorf("mark packs to be purged: %w", err)
	}
	return nil
}

// footersAtOnce is how many footers are read at a time: each is a request and little more.
const footersAtOnce = 16

// compare adds those packs of the suspects to the copies that have chunks of the secret.
func (r *round) compare(ctx context.Context, suspects []*suspect, secret map[chunk.ID]bool) error {
	var mu sync.Mutex // guards done and r.copies
	done := 0
	var g errgroup.Group
	g.SetLimit(footersAtOnce)
	for _, h := range suspects {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			packs := r.idsOf(ctx, h)
			if ctx.Err() != nil {
				return ctx.Err() // what could not be read was not looked at
			}
			mu.Lock()
			defer mu.Unlock()
			for id, ids := range packs {
				if slices.ContainsFunc(ids, func(id chunk.ID) bool { return secret[id] }) {
					r.copies[id] = true
				}
			}
			done++
			r.o.Progress(Progress{Phase: "look for copies", Done: done, Total: len(suspects)})
			return nil
		})
	}
	return g.Wait()
}

// suspect is an object with those of its packs that may have copies.
type suspect struct {
	object chunk.PackID
	bytes  int64
	packs  []chunk.PackID
}

// suspects returns where chunks died and were not removed, and what was stored at about
// the same time as the named packs, if there is a chunk of a length that is wanted: a copy
// is as long as the chunk.
func (r *round) suspects(ctx context.Context, s *catalog.Snapshot, named *marks, sizes map[uint32]bool, epochs map[uint32]bool) (all []*suspect, err error) {
	byObject := map[chunk.PackID]*suspect{}
	for p, err := range s.Packs() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		id, at := p.Layout.ID, p.Layout.Where()
		var dead holder
		if dead.add(p); p.Condemned.Purge || named.packs[id] != nil || dead.dead == 0 && !epochs[id.Epoch] {
			continue
		}
		if !slices.ContainsFunc(p.Layout.Sizes, func(size uint32) bool { return sizes[size] }) {
			continue
		}
		h := byObject[at]
		if h == nil {
			h = &suspect{object: at, bytes: p.Layout.Bytes}
			byObject[at] = h
			all = append(all, h)
		}
		h.packs = append(h.packs, id)
	}
	return all, nil
}

// idsOf returns the ids of the chunks of packs in an object, zero for those that are not
// there any more, and nothing of what cannot be read.
func (r *round) idsOf(ctx context.Context, h *suspect) map[chunk.PackID][]chunk.ID {
	f, err := r.chunks.Footer(ctx, h.object, h.bytes)
	if err != nil {
		r.o.Logger.Warn("copies of what is to be purged cannot be looked for in an object", "object", h.object.String(), "err", err)
		return nil
	}
	ids := make(map[chunk.PackID][]chunk.ID, len(h.packs))
	for _, id := range h.packs {
		if section := f.Section(id); section != nil {
			ids[id] = f.NewPack(section).IDs
		}
	}
	return ids
}
