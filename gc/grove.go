package gc

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// grove is a forest of caches, with what judging it takes.
type grove struct {
	forest
	caches []catalog.Cache // of the trees
	keep   []time.Duration // retention of each; 0: for ever
	clock  catalog.Clock
	pinned []pinnedPath
	broken Mutants
	adopt  []catalog.PathKey // paths of which nobody knows when they were used: from before that was noted

	// followed are, by tree, paths that live or are waited for and are not in it.
	followed []map[nix.HashPart]bool
}

func (g *grove) follow(t int, hashPart nix.HashPart) { g.followed[t][hashPart] = true }

// pinnedPath is a root, and whose.
type pinnedPath struct {
	path, tree int
	pin        string
}

// plant reads the paths of the caches.
func (c *Collector) plant(s *catalog.Snapshot, caches []catalog.Cache, clock catalog.Clock) (*grove, error) {
	g := &grove{caches: caches, clock: clock, broken: c.o.Mutants}
	for i := range caches {
		g.keep = append(g.keep, c.retention(&caches[i]))
		if err := g.plantCache(s, &caches[i]); err != nil {
			return nil, fmt.Errorf("read the paths of cache %q: %w", string(caches[i].Name), err)
		}
	}
	return g, nil
}

// retention returns for how long an unused path stays in a cache; 0: for ever.
func (c *Collector) retention(cache *catalog.Cache) time.Duration {
	if cache.Retention != nil {
		return *cache.Retention
	}
	return c.o.Retention
}

func (g *grove) plantCache(s *catalog.Snapshot, cache *catalog.Cache) error {
	t := g.forest.plant()
	g.followed = append(g.followed, map[nix.HashPart]bool{})
	uses, stop := iter.Pull2(s.Uses(cache.ID))
	defer stop()
	use, err, more := uses()
	for p, pathErr := range s.Paths(cache.ID) {
		if pathErr != nil {
			return pathErr
		}
		hp := p.StorePath.HashPart()
		for more && err == nil && compareParts(use.HashPart, hp) < 0 {
			use, err, more = uses()
		}
		if err != nil {
			return err
		}
		day := g.clock.Day
		if more && use.HashPart == hp {
			day = use.Day
		} else {
			g.adopt = append(g.adopt, catalog.PathKey{Cache: cache.Name, HashPart: hp})
		}
		g.add(hp, day, uint32(max(0, p.Created.Unix())))
	}
	var refs []nix.HashPart
	for p, err := range s.Paths(cache.ID) {
		if err != nil {
			return err
		}
		refs = refs[:0]
		for _, r := range p.References {
			refs = append(refs, r.HashPart())
		}
		if g.broken.noReferences() {
			refs = nil
		}
		g.refer(t, refs)
	}
	return g.plantPins(s, t)
}

func (g *grove) plantPins(s *catalog.Snapshot, t int) error {
	pins, err := s.Pins(g.caches[t].ID)
	if err != nil {
		return err
	}
	for _, p := range pins {
		for i, r := range p.Revisions {
			switch at, there := g.find(t, r.StorePath.HashPart()); {
			case !p.Kept[i] || g.broken.noPins():
			case !there:
				g.follow(t, r.StorePath.HashPart())
			default:
				g.pin(t, r.StorePath.HashPart())
				g.pinned = append(g.pinned, pinnedPath{path: at, tree: t, pin: p.Name})
			}
		}
	}
	return nil
}

func compareParts(a, b nix.HashPart) int { return bytes.Compare(a[:], b[:]) }

// young reports whether path i lives by its own use.
func (g *grove) young(i int) bool {
	keep := g.keep[g.treeOf(i)]
	return keep == 0 || g.clock.Age(g.days[i]) < keep
}

// fellingOrder returns the paths of a tree that are not in live, each before what it
// refers to, so that what is left is complete wherever the work is broken off.
func (g *grove) fellingOrder(t int, live bitset) []uint32 {
	var order []uint32
	seen := slices.Clone(live)
	for i := g.trees[t].first; i < g.trees[t].end; i++ {
		order = g.postOrder(order, seen, uint32(i))
	}
	slices.Reverse(order)
	return order
}

func (g *grove) isPinned(i int) bool { return g.forest.pinned(i) }

// pinOf returns the name of a pin of a path.
func (g *grove) pinOf(i int) string {
	for _, p := range g.pinned {
		if p.path == i {
			return p.pin
		}
	}
	return ""
}

// withClosure adds to targets what they refer to and what nothing else does.
func (g *grove) withClosure(targets bitset) bitset {
	closure := mkBits(len(g.hashes))
	for i := range g.hashes {
		if targets.has(i) {
			g.reach(closure, i)
		}
	}
	// What stays keeps what it refers to, but not through what goes.
	kept := slices.Clone(targets)
	for i := range g.hashes {
		if !closure.has(i) || g.isPinned(i) {
			g.reach(kept, i)
		}
	}
	dead := slices.Clone(targets)
	for i := range g.hashes {
		if closure.has(i) && !kept.has(i) {
			dead.set(i)
		}
	}
	return dead
}
