package gc

import (
	"context"
	"slices"

	"github.com/celler/celler/internal/catalog"
)

// rehearse says what a round would do. It reads the index and changes nothing.
func (r *round) rehearse(ctx context.Context) (err error) {
	s, err := r.cat.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer func() { err = joinClose(err, s) }()
	p, err := r.plan(ctx, s)
	if err != nil {
		return err
	}
	if p != nil {
		r.rep.OverQuota = p.overQuota
		if err := r.rehearsePaths(ctx, s, p); err != nil {
			return err
		}
	}
	r.rep.Recipes = len(r.due.nars)
	for b, err := range s.Buried() {
		if err != nil {
			return err
		}
		if r.objectIsDue(&b) {
			r.rep.Deleted++
			r.rep.DeletedBytes += b.Bytes
		}
	}
	r.rep.Waiting, err = r.waiting(s, r.clock, true)
	return err
}

// rehearsePaths names the paths that would go, and what each of them would free.
func (r *round) rehearsePaths(ctx context.Context, s *catalog.Snapshot, p *plan) error {
	var gone []namedGone
	for t := range p.caches {
		if !r.chosen(&p.caches[t]) {
			continue
		}
		var paths []catalog.Use
		for _, i := range p.fellingOrder(t, p.live) {
			paths = append(paths, catalog.Use{Cache: p.caches[t].ID, HashPart: p.hashes[i], Day: p.days[i]})
		}
		named, err := p.describe(s, t, paths)
		if err != nil {
			return err
		}
		gone = append(gone, named...)
	}
	freed, err := r.weighGone(ctx, s, gone)
	if err != nil {
		return err
	}
	r.rep.Freed = freed
	if len(gone) > 0 && !r.clock.Now.IsZero() {
		r.rep.FreedFrom = r.clock.Now.Add(r.o.NarGrace + r.o.ReaderGrace)
	}
	for i := range gone {
		r.rep.Removed++
		r.rep.NarBytes += gone[i].NarBytes
		if err := r.mode.Each(gone[i].Gone); err != nil {
			return err
		}
	}
	return nil
}

// weighGone fills in what each of the paths frees: the stored bytes of the chunks that
// no NAR needs any more once it and those before it are gone. They add up to what all of
// them free, which is returned.
//
// It begins with a heap of all that stays and puts back what goes, last first: what a
// path then adds is what its going took away.
func (r *round) weighGone(ctx context.Context, s *catalog.Snapshot, gone []namedGone) (sum int64, err error) {
	if len(gone) == 0 {
		return 0, nil
	}
	dying := map[[32]byte]uint64{}
	for i := range gone {
		dying[gone[i].narHash]++
	}
	stays := newHeap(s)
	n := 0
	for nar, err := range s.Nars() {
		if err != nil {
			return 0, err
		}
		if n++; n%1024 == 0 {
			r.o.Progress(Progress{Phase: "weigh what stays", Done: n})
			if err := ctx.Err(); err != nil {
				return 0, err
			}
		}
		if nar.Paths > dying[nar.NarHash] {
			if _, err := stays.add(nar.NarHash); err != nil {
				return 0, err
			}
		}
	}
	for i := range slices.Backward(gone) {
		w, err := stays.add(gone[i].narHash) // nothing if it stays, or came up already
		if err != nil {
			return 0, err
		}
		gone[i].Freed = w.stored
		sum += w.stored
	}
	return sum, nil
}
