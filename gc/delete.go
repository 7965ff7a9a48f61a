package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// DeleteRequest names paths that somebody wants to be gone, and their bytes with them.
type DeleteRequest struct {
	Cache catalog.CacheName
	// Paths may also be some that were removed before, if their NARs are still there.
	Paths []nix.HashPart
	// Closure also removes what the paths refer to, as far as nothing that stays in the
	// cache refers to it and no pin keeps it.
	Closure bool
	// Now does not wait until the URLs that clients remember are stale, only for
	// readers and for servers that lag behind.
	Now    bool
	DryRun bool
}

// DeleteReport says what was removed, or would be.
type DeleteReport struct {
	DryRun bool   `json:"dry_run,omitempty"`
	Paths  []Gone `json:"paths"`
	// Former counts NARs that the paths named before, or that are of paths which were
	// removed before; they are to be gone as well.
	Former int `json:"former_nars,omitempty"`
	// ClosureUnknown are paths that were removed before: if what they refer to was to go
	// as well, nobody knows any more what that was.
	ClosureUnknown []nix.HashPart `json:"closure_unknown,omitempty"`
	// Waiting are paths of the cache that were deleted at about the same time as those, and
	// whose NARs wait for their grace. Who wants them gone now has to name them.
	Waiting []nix.HashPart `json:"waiting,omitempty"`
	// Weighed says that Freed is known. It is always in a dry run, and else if that
	// does not take long.
	Weighed bool  `json:"weighed"`
	Freed   int64 `json:"freed_bytes"` // stored bytes that nothing else in the store needs
	// GoneBy is when the bytes will have left the bucket, by its clock, if servers or
	// a timer collect as they are told to and the bucket lets them delete.
	GoneBy time.Time `json:"gone_by,omitzero"`
	// Referrers are paths that stay and refer to one that goes: a client that wants
	// them will miss it. At most a hundred.
	Referrers []string `json:"referrers,omitempty"`
	// Elsewhere are other caches that have one of the paths with the same NAR, whose
	// bytes stay for them.
	Elsewhere []string `json:"elsewhere,omitempty"`
}

// PinnedError reports that a path cannot be deleted because a pin keeps it. It is a
// catalog.ErrPinned.
type PinnedError struct {
	StorePath string
	Pin       string
	Root      string // the pinned path; StorePath itself, or one that needs it
}

func (e *PinnedError) Error() string {
	if e.Root == e.StorePath {
		return fmt.Sprintf("path %s is kept by pin %q: remove the pin first", e.StorePath, e.Pin)
	}
	return fmt.Sprintf("path %s is kept by pin %q, whose path %s needs it: remove the pin first", e.StorePath, e.Pin, e.Root)
}

// Is makes every PinnedError a catalog.ErrPinned.
func (e *PinnedError) Is(target error) bool { return target == catalog.ErrPinned }

const (
	// weighUpTo is how many NARs a store may have for a deletion to weigh them all.
	weighUpTo = 50_000
	// maxReferrers bounds those that are named.
	maxReferrers = 100
)

// Delete withdraws paths from a cache at once and marks their bytes for removal; rounds
// of any Collector remove them. It fails with catalog.ErrNoCache, with catalog.ErrNoPath if
// there is nothing of one of the paths, and with a *PinnedError; then nothing was removed.
// With a catalog.ErrStale it is worth another try: the report says what was removed.
func (c *Collector) Delete(ctx context.Context, req DeleteRequest) (rep DeleteReport, err error) {
	if req.DryRun {
		s, clock, err := c.look(ctx)
		if err != nil {
			return rep, err
		}
		d := &deletion{round: round{Collector: c, clock: clock}, req: req, s: s}
		err = joinClose(d.plan(ctx), s)
		return d.out, err
	}
	for range deleteTries {
		if rep, err = c.tryDelete(ctx, req); !errors.Is(err, catalog.ErrStale) || len(rep.Paths) > 0 {
			break
		}
	}
	return rep, err
}

// deleteTries is how often a deletion is thought over because of what came meanwhile.
const deleteTries = 32

// tryDelete fails with ErrStale if a path that is to go has come to be needed since it was
// chosen. What operations before that have removed is then in the report.
func (c *Collector) tryDelete(ctx context.Context, req DeleteRequest) (rep DeleteReport, err error) {
	m, err := c.cat.JoinMark(ctx)
	if errors.Is(err, catalog.ErrFenced) {
		return rep, catalog.ErrStale
	}
	if err != nil {
		return rep, err
	}
	defer func() { err = joinClose(err, m) }()
	d := &deletion{round: round{Collector: c}, req: req, s: m.Snapshot()}
	if d.clock, err = d.s.Clock(); err == nil {
		err = c.setNow(ctx, &d.clock)
	}
	if err == nil {
		err = d.plan(ctx)
	}
	if err == nil {
		err = d.commit(ctx, m)
	}
	return d.out, errors.Join(err, m.End(ctx))
}

// deletion is one call of Delete.
type deletion struct {
	round
	req DeleteRequest
	s   *catalog.Snapshot

	grove  *grove
	kept   bitset // what pins lead to
	gone   []namedGone
	former [][32]byte
	out    DeleteReport
}

// plan finds out what is to go.
func (d *deletion) plan(ctx context.Context) error {
	cache, ok, err := d.s.Cache(d.req.Cache)
	if err == nil && !ok {
		err = fmt.Errorf("cache %q: %w", string(d.req.Cache), catalog.ErrNoCache)
	}
	if err != nil {
		return err
	}
	if d.grove, err = d.plant(d.s, []catalog.Cache{cache}, d.clock); err != nil {
		return err
	}
	targets, absent := mkBits(len(d.grove.hashes)), []nix.HashPart(nil)
	for _, hp := range d.req.Paths {
		if i, ok := d.grove.find(0, hp); ok {
			targets.set(i)
		} else {
			absent = append(absent, hp)
		}
	}
	if err := d.findFormer(ctx, cache.ID, absent); err != nil {
		return err
	}
	d.kept = mkBits(len(d.grove.hashes))
	for _, p := range d.grove.pinned {
		d.grove.reach(d.kept, p.path)
	}
	if err := d.checkPins(targets); err != nil {
		return err
	}
	dead := targets
	if d.req.Closure {
		dead = d.grove.withClosure(targets)
	}
	if err := d.describe(dead); err != nil {
		return err
	}
	d.out.DryRun = d.req.DryRun
	d.out.GoneBy = d.goneBy()
	return d.weigh(ctx)
}

// checkPins refuses paths that a pin keeps.
func (d *deletion) checkPins(targets bitset) error {
	for i := range d.grove.hashes {
		if !targets.has(i) || !d.kept.has(i) {
			continue
		}
		way := d.grove.way(i, d.grove.isPinned)
		e := &PinnedError{Pin: d.grove.pinOf(way[0])}
		for at, name := range map[int]*string{i: &e.StorePath, way[0]: &e.Root} {
			row, _, err := d.s.Path(d.grove.caches[0].ID, d.grove.hashes[at])
			if err != nil {
				return err
			}
			*name = row.StorePath.String()
		}
		if way[0] == i { // one entry of the map for both
			e.StorePath = e.Root
		}
		return e
	}
	return nil
}

// describe names what goes, and who will miss it.
func (d *deletion) describe(dead bitset) error {
	cache := &d.grove.caches[0]
	live := mkBits(len(d.grove.hashes))
	for i := range d.grove.hashes {
		if !dead.has(i) {
			live.set(i)
		}
	}
	for _, i := range d.grove.fellingOrder(0, live) {
		row, ok, err := d.s.Path(cache.ID, d.grove.hashes[i])
		if err != nil || !ok {
			return err
		}
		d.gone = append(d.gone, namedGone{
			Gone:     Gone{Cache: string(cache.Name), StorePath: row.StorePath.String(), Why: Asked, NarBytes: row.NarSize},
			hashPart: d.grove.hashes[i], narHash: row.NarHash,
		})
	}
	for i := range d.grove.hashes {
		if dead.has(i) || len(d.out.Referrers) == maxReferrers {
			continue
		}
		if slices.ContainsFunc(d.grove.refsOf(i), func(r uint32) bool { return dead.has(int(r)) }) {
			row, _, err := d.s.Path(cache.ID, d.grove.hashes[i])
			if err != nil {
				return err
			}
			d.out.Referrers = append(d.out.Referrers, row.StorePath.String())
		}
	}
	return d.findElsewhere()
}

// findElsewhere finds other caches that have one of the paths with the same NAR.
func (d *deletion) findElsewhere() error {
	caches, err := d.s.Caches()
	if err != nil {
		return err
	}
	for _, cache := range caches {
		if cache.Name == d.req.Cache {
			continue
		}
		for i := range d.gone {
			row, ok, err := d.s.Path(cache.ID, d.gone[i].hashPart)
			if err != nil {
				return err
			}
			if ok && row.NarHash == d.gone[i].narHash {
				d.out.Elsewhere = append(d.out.Elsewhere, string(cache.Name))
				break
			}
		}
	}
	return nil
}

// weigh says what will be freed.
func (d *deletion) weigh(ctx context.Context) error {
	t, _, err := d.s.Totals(0)
	if err != nil {
		return err
	}
	if d.req.DryRun || t.Nars <= weighUpTo {
		if d.out.Freed, err = d.weighGone(ctx, d.s, d.gone); err != nil {
			return err
		}
		d.out.Weighed = true
	}
	d.out.Paths = make([]Gone, len(d.gone))
	for i := range d.gone {
		d.out.Paths[i] = d.gone[i].Gone
	}
	return nil
}

// goneBy is when the bytes will be gone: a round picks the NARs up when their grace has
// ended, and another one their objects when no reader can need them any more.
func (d *deletion) goneBy() time.Time {
	if d.clock.Now.IsZero() {
		return time.Time{}
	}
	wait := d.o.ReaderGrace + 2*d.o.Pickup
	if !d.req.Now {
		wait += longestDay + d.o.NarGrace
	}
	return d.clock.Now.Add(wait)
}

// forget leaves in the report what was removed: of two who delete a path at once, one did.
func (d *deletion) forget(done *catalog.Withdrawn) {
	removed := make(map[nix.HashPart]bool, len(done.Paths))
	for i := range done.Paths {
		removed[done.Paths[i].StorePath.HashPart()] = true
	}
	paths := make([]Gone, 0, len(d.gone))
	for i := range d.gone {
		if removed[d.gone[i].hashPart] {
			paths = append(paths, d.out.Paths[i])
		}
	}
	d.out.Paths = paths
}

// commit removes the paths, if nobody has come to need one of them.
func (d *deletion) commit(ctx context.Context, m *catalog.Mark) error {
	w := catalog.Withdrawal{Cache: d.req.Cache, Purge: true, Now: d.req.Now, Since: m, Kept: func(hp nix.HashPart) bool {
		i, ok := d.grove.find(0, hp)
		return ok && d.kept.has(i)
	}}
	for i := range d.gone {
		w.HashParts = append(w.HashParts, d.gone[i].hashPart)
	}
	if len(w.HashParts) > 0 {
		done, err := d.cat.WithdrawPaths(ctx, w)
		d.forget(&done)
		if _, ok := errors.AsType[*catalog.PinnedError](err); ok {
			return catalog.ErrStale // a pin that came meanwhile
		}
		if err != nil {
			return err
		}
	}
	_, err := d.cat.Hurry(ctx, d.former, d.req.Now)
	return err
}
