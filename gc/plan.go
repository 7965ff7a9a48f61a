package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// plan says which paths live.
type plan struct {
	*grove
	live      bitset
	crowded   bitset // those that would live if there were no quota; nil: none
	limit     int64  // the quota
	overQuota *Over
}

// plan judges the paths, or returns nil if there is nothing to judge.
func (r *round) plan(ctx context.Context, s *catalog.Snapshot) (*plan, error) {
	caches := r.due.look
	if r.due.quota {
		caches = r.due.caches
	}
	if len(caches) == 0 {
		return nil, nil
	}
	r.o.Progress(Progress{Phase: "read paths"})
	g, err := r.plant(s, caches, r.clock)
	if err != nil {
		return nil, err
	}
	p := &plan{grove: g, live: g.live(g.young), limit: r.o.Quota}
	if r.due.quota {
		return p, p.crowd(ctx, s, r.o.Quota)
	}
	return p, nil
}

// crowd takes from what lives what does not fit into the quota.
func (p *plan) crowd(ctx context.Context, s *catalog.Snapshot, quota int64) error {
	order, pinned := p.byUse(p.live)
	h := newHeap(s)
	weigh := func(i uint32) (int64, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		w, err := p.weigh(s, h, i)
		return w.stored, err
	}
	pins := int64(0)
	n := 0
	kept, _, err := fit(order, pinned, quota, func(i uint32) (int64, error) {
		more, err := weigh(i)
		if n++; n <= pinned {
			pins += more
		}
		return more, err
	})
	if err != nil {
		return fmt.Errorf("weigh paths for the quota: %w", err)
	}
	if pins > quota {
		if p.overQuota, err = p.holders(s, quota, pins); err != nil {
			return err
		}
	}
	if kept == len(order) {
		return nil
	}
	stays := mkBits(len(p.hashes))
	for _, i := range order[:kept] {
		p.reach(stays, int(i)) // order is closed but for rings
	}
	p.live, p.crowded = stays, p.live
	return nil
}

// weigh adds the NAR of a path to a heap and returns what came on top.
func (p *plan) weigh(s *catalog.Snapshot, h *heap, i uint32) (weight, error) {
	row, ok, err := s.Path(p.caches[p.treeOf(int(i))].ID, p.hashes[i])
	if err != nil || !ok {
		return weight{}, err
	}
	return h.add(row.NarHash)
}

func (p *plan) weighAll(s *catalog.Snapshot, paths []uint32) (sum int64, err error) {
	h := newHeap(s)
	for _, i := range paths {
		w, err := p.weigh(s, h, i)
		if err != nil {
			return 0, err
		}
		sum += w.stored
	}
	return sum, nil
}

// holders says which pins hold how much.
func (p *plan) holders(s *catalog.Snapshot, quota, pinned int64) (*Over, error) {
	over := &Over{Quota: quota, Pinned: pinned}
	roots := map[PinHold][]int{} // by cache and pin
	for _, root := range p.pinned {
		key := PinHold{Cache: p.caches[root.tree].Name, Pin: root.pin}
		roots[key] = append(roots[key], root.path)
	}
	for hold, paths := range roots {
		closure := mkBits(len(p.hashes))
		p.reach(closure, paths...)
		var members []uint32
		for i := range p.hashes {
			if closure.has(i) {
				members = append(members, uint32(i))
			}
		}
		var err error
		if hold.Bytes, err = p.weighAll(s, members); err != nil {
			return nil, err
		}
		over.Pins = append(over.Pins, hold)
	}
	slices.SortFunc(over.Pins, func(a, b PinHold) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Cache, b.Cache), cmp.Compare(a.Pin, b.Pin))
	})
	over.Pins = over.Pins[:min(len(over.Pins), maxHolders)]
	return over, nil
}

// maxHolders bounds the pins that are named.
const maxHolders = 100

// revive makes a path live that somebody has pushed, used or pinned since the plan was
// made, and all it refers to now.
func (p *plan) revive(cur *catalog.Snapshot, cache catalog.CacheID, hashPart nix.HashPart) error {
	t := slices.IndexFunc(p.caches, func(c catalog.Cache) bool { return c.ID == cache })
	if t < 0 {
		return nil // not one we judge
	}
	seen := map[nix.HashPart]bool{} // those that are new, too
	stack := []nix.HashPart{hashPart}
	for len(stack) > 0 {
		hp := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[hp] {
			continue
		}
		seen[hp] = true
		if i, ok := p.find(t, hp); ok {
			p.reach(p.live, i)
		} else {
			p.follow(t, hp)
		}
		row, ok, err := cur.Path(cache, hp)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		for _, ref := range row.References {
			// What the plan knows to live lives with all it led to then; only rows that
			// were changed since can lead further, and each of those has its touch.
			if !p.lives(t, ref.HashPart()) {
				stack = append(stack, ref.HashPart())
			}
		}
	}
	return nil
}

// lives reports whether a path is known to live with all it refers to, or not to be there
// and to leave a touch when it comes: whoever meets it need not look further.
func (p *plan) lives(t int, hashPart nix.HashPart) bool {
	if i, ok := p.find(t, hashPart); ok {
		return p.live.has(i)
	}
	return p.followed[t][hashPart]
}

// namedGone is a path to be removed, for people.
type namedGone struct {
	Gone
	hashPart nix.HashPart
	narHash  [32]byte
}

// describe says of paths what they are and why they go.
func (p *plan) describe(s *catalog.Snapshot, t int, paths []catalog.Use) ([]namedGone, error) {
	out := make([]namedGone, 0, len(paths))
	for _, u := range paths {
		row, ok, err := s.Path(u.Cache, u.HashPart)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		idle := p.clock.Age(u.Day)
		g := Gone{Cache: string(p.caches[t].Name), StorePath: row.StorePath.String(), Why: Unused, NarBytes: row.NarSize, Idle: days(idle), Limit: "retention " + days(p.keep[t])}
		if !p.clock.Now.IsZero() {
			g.LastUse = p.clock.Now.Add(-idle)
		}
		if i, ok := p.find(t, u.HashPart); ok && p.crowded != nil && p.crowded.has(i) {
			g.Why, g.Limit = OverQuota, fmt.Sprintf("quota %d bytes", p.limit)
		}
		out = append(out, namedGone{Gone: g, hashPart: u.HashPart, narHash: row.NarHash})
	}
	return out, nil
}

// days writes a span for people.
func days(d time.Duration) string {
	if n := d / (24 * time.Hour); n >= 2 {
		return fmt.Sprintf("%d days", n)
	}
	return d.Round(time.Second).String()
}

// heap is some NARs, each chunk of which is weighed once.
type heap struct {
	s      *catalog.Snapshot
	marks  *marks
	scales *scales
}

func newHeap(s *catalog.Snapshot) *heap {
	h := &heap{s: s, marks: mkMarks()}
	h.scales = newScales(func(id chunk.PackID) (*chunk.Layout, error) {
		p, ok, err := s.Pack(id)
		if err == nil && !ok {
			err = catalog.ErrNoPack
		}
		return &p.Layout, err
	})
	return h
}

// add puts a NAR on the heap and returns what came on top. One that cannot be put together
// weighs what is left of it.
func (h *heap) add(narHash [32]byte) (sum weight, err error) {
	recipe, ok, err := h.s.Recipe(narHash)
	if err != nil || !ok {
		return weight{}, err
	}
	h.marks.stretch(&recipe)
	h.marks.recipe(&recipe, func(run chunk.Run) {
		w, runErr := h.scales.of(run)
		switch {
		case runErr == nil:
			sum.add(w)
		case !errors.Is(runErr, catalog.ErrNoPack):
			err = runErr
		}
	})
	return sum, err
}
