package gc

import (
	"context"

	"github.com/celler/celler/internal/catalog"
)

// hasDeadSides reports whether a cache has logs or the like that outlive their paths.
func (r *round) hasDeadSides(ctx context.Context, s *catalog.Snapshot, caches []catalog.Cache) (bool, error) {
	for i := range caches {
		if !r.chosen(&caches[i]) {
			continue
		}
		dead, err := s.DeadSides(ctx, caches[i].ID, r.clock, r.retention(&caches[i]))
		if len(dead) > 0 || err != nil {
			return len(dead) > 0, err
		}
	}
	return false, nil
}

// sweepSides removes what is kept beside paths and NARs and has outlived them: logs and the
// like, and what files of plain Nix held. The texts of logs are NARs that nobody names
// from then on, and go like others.
func (r *round) sweepSides(ctx context.Context) error {
	r.o.Progress(Progress{Phase: "remove side objects"})
	n, err := r.mark.SweepUploads(ctx)
	r.rep.Uploads += n
	if err != nil {
		return err
	}
	for i := range r.due.caches {
		cache := &r.due.caches[i]
		if !r.chosen(cache) {
			continue
		}
		n, err := r.mark.SweepSides(ctx, cache.ID, r.clock, r.retention(cache), r.seen)
		r.rep.Sides += n
		if err != nil {
			return err
		}
	}
	return nil
}
