package gc

import (
	"context"
	"fmt"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// maxWaiting bounds the paths that are named because they may have gone with another one.
const maxWaiting = 10_000

// findFormer finds NARs that the paths named before. A path of which there is
// neither the path nor a NAR is an error.
func (d *deletion) findFormer(ctx context.Context, cache catalog.CacheID, absent []nix.HashPart) error {
	asked := make(map[nix.HashPart]bool, len(d.req.Paths)) // whether there is nothing of it yet
	for _, hp := range d.req.Paths {
		asked[hp] = false
	}
	for _, hp := range absent {
		asked[hp] = true
	}
	days := map[uint32]bool{} // on which paths went that were asked for, give or take one
	for f, err := range d.s.Formers() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if _, is := asked[f.HashPart]; !is || f.Cache != cache {
			continue
		}
		_, there, err := d.s.UnreferencedNar(f.NarHash)
		if err != nil {
			return err
		}
		if there {
			d.former = append(d.former, f.NarHash)
			asked[f.HashPart] = false
			days[f.Day-1], days[f.Day], days[f.Day+1] = true, true, true
		}
	}
	d.out.Former = len(d.former)
	for _, hp := range absent {
		if asked[hp] {
			return fmt.Errorf("path %v in cache %q: %w", hp, string(d.req.Cache), catalog.ErrNoPath)
		}
	}
	if !d.req.Closure || !d.req.Now || len(absent) == 0 {
		return nil
	}
	d.out.ClosureUnknown = absent
	return d.findWaiting(ctx, cache, days)
}

// findWaiting finds other paths that were deleted on the given days and whose NARs wait for
// their grace. A path that was pushed again is not among them: to name it would delete it.
func (d *deletion) findWaiting(ctx context.Context, cache catalog.CacheID, days map[uint32]bool) error {
	known := make(map[nix.HashPart]bool, len(d.req.Paths))
	for _, hp := range d.req.Paths {
		known[hp] = true
	}
	for f, err := range d.s.Formers() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if f.Cache != cache || known[f.HashPart] || !days[f.Day] {
			continue
		}
		u, waits, err := d.s.UnreferencedNar(f.NarHash)
		if err != nil {
			return err
		}
		if !waits || !u.Purge || u.Now {
			continue
		}
		_, present, err := d.s.Path(cache, f.HashPart)
		if err != nil {
			return err
		}
		if present {
			continue
		}
		known[f.HashPart] = true
		if d.out.Waiting = append(d.out.Waiting, f.HashPart); len(d.out.Waiting) == maxWaiting {
			break
		}
	}
	return nil
}
