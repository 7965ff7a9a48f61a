package sim

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/celler/celler/blob/pack"
	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/fsck"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

func (c *collecting) settleAll(ctx context.Context) {
	c.auditReplicas(ctx)
	for _, n := range c.nodes {
		_ = n.stop()
	}
	n := c.mkNode("fresh", 99, rand.New(rand.NewPCG(c.Collecting.Seed, 8)))
	if err := n.start(ctx, true); err != nil {
		c.violate("a fresh node does not start: %v", err)
		return
	}
	defer func() {
		if err := n.stop(); err != nil {
			c.violate("stop the fresh node: %v", err)
		}
	}()
	c.on(n, func(s *service) {
		c.audit(s, "at the end", false)
		c.pushAgain(ctx, n)
		pass := func(rounds int) {
			for range rounds {
				c.sleep(ctx, n.name, 5*24*time.Hour)
				c.round(s, -1, 99)
			}
		}
		pass(5)
		c.checkBookmarks(s)
		pass(4) // by now everything that nobody keeps must be gone
		c.audit(s, "long after", true)
	})
}

// checkBookmarks opens the state of each bookmark, of which everything must still be
// there, and removes them all.
func (c *collecting) checkBookmarks(s *service) {
	for _, name := range slices.Sorted(maps.Keys(c.marks)) {
		seq := c.marks[name]
		past, err := c.openPast(s.ctx, "fresh", seq)
		if err != nil {
			c.violate("bookmark %s: %v", name, err)
			continue
		}
		if err := errors.Join(c.checkThen(s, name, past.DB), past.Close()); err != nil {
			c.violate("bookmark %s: %v", name, err)
		}
	}
	all, err := wal.Bookmarks(s.ctx, c.w.Bucket("fresh"))
	if err != nil {
		c.violate("list bookmarks: %v", err)
	}
	change := wal.RootChange{Env: c.w.Env("fresh", c.Collecting.Seed*100+72, 0), By: "fresh"}
	for _, b := range all {
		if err := change.DropBookmark(s.ctx, c.w.Bucket("fresh"), b.Name); err != nil {
			c.violate("remove bookmark %s: %v", b.Name, err)
		}
	}
}

// audit checks counts, that everything in the state reads back, that what clients were
// promised is there, and later that nothing else is.
func (c *collecting) audit(s *service, when string, later bool) {
	if _, err := s.cat.CatchUp(s.ctx); err != nil {
		c.violate("%s: %v", when, err)
		return
	}
	snap, err := s.cat.Snapshot(s.ctx)
	if err != nil {
		c.violate("%s: %v", when, err)
		return
	}
	defer func() { _ = snap.Close() }()
	if err := snap.CheckCounts(s.ctx, func(d catalog.Discrepancy) bool {
		c.violate("%s: %s: found %s, want %s", when, d.Row, d.Found, d.Want)
		return true
	}); err != nil {
		c.violate("%s: %v", when, err)
	}
	c.check(s, when, c.w.Bucket("fresh"), fsck.Mode{Read: fsck.Read{All: true}})
	nars := c.auditRecipes(s, snap, when)
	there := c.auditPaths(snap, when, nars)
	for name := range simPaths {
		if c.facts.promised(name) && !there[simPath(name).HashPart()] {
			c.violate("%s: %s was promised and is not there: %+v", when, name, *c.facts.of(name))
		}
	}
	if later {
		c.auditRest(s, snap, when, there, nars)
	}
}

// auditRecipes reads every NAR back. It returns which there are.
func (c *collecting) auditRecipes(s *service, snap *catalog.Snapshot, when string) map[[32]byte]bool {
	nars := map[[32]byte]bool{}
	for r, err := range snap.Recipes() {
		if err == nil {
			nars[r.NarHash] = false
			err = errors.Join(c.readPlain(s, &r), c.readServed(s, &r, func() {}))
		}
		if err != nil {
			c.violate("%s: recipe: %v", when, err)
		}
	}
	return nars
}

// auditPaths wants a NAR of each path, and notes those that have one.
func (c *collecting) auditPaths(snap *catalog.Snapshot, when string, nars map[[32]byte]bool) map[nix.HashPart]bool {
	there := map[nix.HashPart]bool{}
	c.auditOther(snap, when)
	cache, ok, err := snap.Cache(simCache)
	if !ok || err != nil {
		c.violate("%s: the cache is there: %v, %v", when, ok, err)
	}
	for p, err := range snap.Paths(cache.ID) {
		if err != nil {
			c.violate("%s: %v", when, err)
			return there
		}
		there[p.StorePath.HashPart()] = true
		c.auditTry(&p, when)
		if _, ok := nars[p.NarHash]; !ok {
			c.violate("%s: path %s has no recipe", when, p.StorePath.Name())
		}
		nars[p.NarHash] = true
	}
	return there
}

// auditRest wants nothing to be there that nobody needs.
func (c *collecting) auditRest(s *service, snap *catalog.Snapshot, when string, there map[nix.HashPart]bool, nars map[[32]byte]bool) {
	wanted := c.facts.maybePinned()
	for name := range simPaths {
		if there[simPath(name).HashPart()] && !wanted[name] {
			c.violate("%s: %s is still there, and nobody wants it", when, name)
		}
	}
	for nar, used := range nars {
		if !used {
			c.violate("%s: NAR %x is still there, and no path has it", when, nar)
		}
	}
	for info, err := range c.w.Bucket("fresh").List(s.ctx, "pack/", "") {
		if err != nil {
			continue
		}
		id, err := pack.ParseKey(info.Key)
		if err != nil {
			c.violate("%s: %v", when, err)
			continue
		}
		if ok, err := snap.KnowsObject(id); !ok || err != nil {
			c.violate("%s: object %s is nobody's, %v", when, info.Key, err)
		}
	}
}

// checkThen wants every path of an earlier state to be one that can be had again, but for
// those of which somebody wanted the bytes to be gone.
func (c *collecting) checkThen(s *service, name string, db *index.DB) error {
	then, err := catalog.SnapshotOf(db)
	if err != nil {
		return err
	}
	defer func() { _ = then.Close() }()
	now, err := s.cat.Snapshot(s.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = now.Close() }()
	cache, _, err := then.Cache(simCache)
	if err != nil {
		return err
	}
	for p, err := range then.Paths(cache.ID) {
		if err != nil {
			return err
		}
		ok, err := now.Servable(p.NarHash)
		if err != nil {
			return err
		}
		if !ok && !c.facts.of(p.StorePath.Name()).purged && !slices.Contains(c.tardy, name) {
			c.violate("bookmark %s: the NAR of %s is gone", name, p.StorePath.Name())
		}
	}
	return nil
}
