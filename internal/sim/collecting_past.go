package sim

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/celler/celler/index"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/wal"
)

// operator sets bookmarks, removes them, and makes the cache again what it was.
// It takes its time for that.
func (c *collecting) operator(ctx context.Context, i int) {
	name := fmt.Sprintf("oper%d", i)
	rng := rand.New(rand.NewPCG(c.Collecting.Seed, 6000+uint64(i)))
	for k := range c.Collecting.Ops {
		c.sleep(ctx, name, time.Duration(rng.IntN(48))*time.Hour)
		c.w.Pause(name, "operation")
		switch rng.IntN(6) {
		case 0, 1:
			c.bookmark(name, rng, fmt.Sprintf("%s.%d", name, k))
		case 2:
			c.dropBookmark(name, rng)
		default:
			c.onAny(name, rng, func(s *service) { c.restore(s, name, rng) })
		}
	}
}

// look notes the state that a node has, and compares it with what others had.
func (c *collecting) look(db *index.DB, who string) (wal.Seq, bool) {
	v, err := db.View()
	if err != nil {
		c.violate("%s: %v", who, err)
		return 0, false
	}
	defer func() { _ = v.Close() }()
	h := sha256.New()
	for row, err := range v.Scan(nil, nil) {
		if err != nil {
			c.violate("%s: %v", who, err)
			return 0, false
		}
		fmt.Fprintf(h, "%x=%x\n", row.Key, row.Value)
	}
	sum := fmt.Sprintf("%x", h.Sum(nil))
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok := c.states[v.Seq()]; ok && was != sum {
		c.violate("%s: the state of slot %d was %s for somebody else and is %s", who, v.Seq(), was, sum)
		return 0, false
	}
	c.states[v.Seq()] = sum
	return v.Seq(), true
}

// bookmark sets a bookmark on the state that a node has just seen.
func (c *collecting) bookmark(name string, rng *rand.Rand, mark string) {
	c.onAny(name, rng, func(s *service) {
		began := c.begun()
		_, err := s.cat.CatchUp(s.ctx)
		if c.next(name); err != nil {
			return
		}
		seq, ok := c.look(s.db, name)
		if !ok {
			return
		}
		change := wal.RootChange{Env: c.w.Env(name, uint64(began.step)*100+70, 0), By: name}
		_, err = change.SetBookmark(s.ctx, c.w.Bucket(name), wal.Bookmark{Name: mark, Seq: seq})
		c.note("%s bookmarks slot %d: %v", name, seq, err)
		if err == nil {
			c.mu.Lock()
			c.marks[mark] = seq
			if c.w.time().Sub(began.at) >= simNarGrace-time.Hour {
				c.tardy = append(c.tardy, mark) // by now it is one on the past, of which NARs may have gone
			}
			c.res.Bookmarks++
			c.mu.Unlock()
		}
	})
}

func (c *collecting) dropBookmark(name string, rng *rand.Rand) {
	c.mu.Lock()
	marks := slices.Sorted(maps.Keys(c.marks))
	c.mu.Unlock()
	if len(marks) == 0 {
		return
	}
	mark := marks[rng.IntN(len(marks))]
	c.mu.Lock()
	delete(c.marks, mark) // whatever becomes of it
	c.mu.Unlock()
	c.onAny(name, rng, func(s *service) {
		change := wal.RootChange{Env: c.w.Env(name, uint64(c.begun().step)*100+71, 0), By: name}
		err := change.DropBookmark(s.ctx, c.w.Bucket(name), mark)
		c.note("%s removes the bookmark %s: %v", name, mark, err)
	})
}

// openPast makes the state of a slot, and compares it with what it was.
func (c *collecting) openPast(ctx context.Context, name string, seq wal.Seq) (*index.Past, error) {
	p, err := index.OpenPast(ctx, c.w.Bucket(name), "past", seq, index.Options{FS: vfs.NewMem(), Now: c.w.time, CacheBytes: 1 << 20, FetchParallel: 1})
	c.next(name)
	if err != nil {
		return nil, err
	}
	c.look(p.DB, name+", of the past")
	return p, nil
}

// restore makes the cache again what it was at some moment.
func (c *collecting) restore(s *service, name string, rng *rand.Rand) {
	c.mu.Lock()
	seqs := slices.Sorted(maps.Keys(c.states))
	c.mu.Unlock()
	if len(seqs) == 0 {
		return
	}
	seq := seqs[rng.IntN(len(seqs))]
	held := c.holds(seq)
	past, err := c.openPast(s.ctx, name, seq)
	var gone *wal.UnreachableError
	if errors.As(err, &gone) && held && c.holds(seq) {
		c.violate("%s: slot %d has a bookmark: %v", name, seq, err)
	}
	if err != nil {
		return
	}
	defer func() { _ = past.Close() }()
	then, err := catalog.SnapshotOf(past.DB)
	if err != nil {
		c.violate("%s: %v", name, err)
		return
	}
	defer func() { _ = then.Close() }()
	keepNew, aside := rng.IntN(2) == 0, rng.IntN(3) == 0
	for range 3 {
		if !errors.Is(c.restoreOnce(s, name, then, keepNew, aside), catalog.ErrConflict) {
			return
		}
	}
}

// holds reports whether there is a bookmark of a slot.
func (c *collecting) holds(seq wal.Seq) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(slices.Collect(maps.Values(c.marks)), seq)
}

// restoreOnce works out the difference and restores it.
func (c *collecting) restoreOnce(s *service, name string, then *catalog.Snapshot, keepNew, aside bool) error {
	began := c.begun()
	_, err := s.cat.CatchUp(s.ctx)
	if c.next(name); err != nil {
		return err
	}
	now, err := s.cat.Snapshot(s.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = now.Close() }()
	d, err := difference(then, now, keepNew)
	if err != nil || d == nil || len(d.Set)+len(d.Drop)+len(d.SetPins)+len(d.DropPins) == 0 {
		return err
	}
	op := *d
	var lost []catalog.LostPath
	if aside && !keepNew {
		// It takes the place of all that is there by then, whatever the difference was.
		if d, err = everything(then, d); err != nil {
			return err
		}
		var b *catalog.Rebuild
		if b, lost, err = c.rebuild(s, name, then, d.Then); err != nil {
			return err
		}
		op = catalog.CacheRestore{Name: simCache, Now: d.Now, Then: d.Then, Aside: b}
	}
	c.linger(s.ctx, name, rand.New(rand.NewPCG(uint64(began.step), 6)))
	ends := c.restoring(d, lost)
	asked := c.begun()
	done, err := s.cat.Restore(s.ctx, []catalog.CacheRestore{op})
	c.next(name)
	c.note("%s restores slot %d: %d paths back, %d dropped, keep new %v, aside %v, %d lost: %v",
		name, then.Seq(), len(d.Set), len(d.Drop), keepNew, op.Aside != nil, len(done.Lost)+len(lost), err)
	if err == nil {
		c.checkRestored(s.ctx, name, done.Seq, then, asked, append(done.Lost, lost...))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, end := range ends {
		end(err)
	}
	if err == nil {
		c.res.Restored++
		c.restored(d, append(done.Lost, lost...), began)
	}
	return err
}

// everything is what a cache that was put together aside brings and takes away.
func everything(then *catalog.Snapshot, d *catalog.CacheRestore) (*catalog.CacheRestore, error) {
	all := &catalog.CacheRestore{Name: simCache, Now: d.Now, Then: d.Then}
	for name := range simPaths {
		p, ok, err := then.Path(d.Then.ID, simPath(name).HashPart())
		if err != nil {
			return nil, err
		}
		if ok {
			all.Set = append(all.Set, catalog.PathRestore{Then: p})
		} else {
			all.Drop = append(all.Drop, catalog.Path{StorePath: simPath(name)})
		}
	}
	var err error
	if all.SetPins, err = then.Pins(d.Then.ID); err != nil {
		return nil, err
	}
	for name := range simPaths {
		if named(all.SetPins, name) < 0 {
			p := catalog.Pin{}
			p.Name = name
			all.DropPins = append(all.DropPins, p)
		}
	}
	return all, nil
}

// named returns where a pin stands, or -1.
func named(pins []catalog.Pin, name string) int {
	return slices.IndexFunc(pins, func(p catalog.Pin) bool { return p.Name == name })
}

// restoring notes what a restore may take away.
func (c *collecting) restoring(d *catalog.CacheRestore, lost []catalog.LostPath) (ends []func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range d.Drop {
		ends = append(ends, c.facts.removing(d.Drop[i].StorePath.Name()))
	}
	for _, l := range lost {
		ends = append(ends, c.facts.removing(l.StorePath.Name()))
	}
	for i := range d.DropPins {
		if named(d.SetPins, d.DropPins[i].Name) < 0 {
			ends = append(ends, c.facts.unpinning(d.DropPins[i].Name))
		}
	}
	for i := range d.SetPins {
		c.facts.pinning(d.SetPins[i].Name)
	}
	return ends
}

// restored notes what a restore has brought back. The caller holds c.mu.
func (c *collecting) restored(d *catalog.CacheRestore, lost []catalog.LostPath, began moment) {
	var back []string
	for i := range d.Set {
		p := d.Set[i].Then.StorePath
		if !slices.ContainsFunc(lost, func(l catalog.LostPath) bool { return l.StorePath == p }) {
			back = append(back, p.Name())
			c.facts.isThere(p.Name(), began)
		}
	}
	for _, name := range back {
		c.facts.cameToBe(name)
	}
	for i := range d.SetPins {
		c.facts.isPinned(d.SetPins[i].Name, began)
	}
}

// rebuild puts the cache together aside.
func (c *collecting) rebuild(s *service, name string, then *catalog.Snapshot, row *catalog.Cache) (*catalog.Rebuild, []catalog.LostPath, error) {
	b, err := s.cat.BeginRebuild(s.ctx, *row)
	if c.next(name); err != nil {
		return nil, nil, err
	}
	var paths []catalog.Path
	for p, err := range then.Paths(row.ID) {
		if err != nil {
			return nil, nil, err
		}
		paths = append(paths, p)
	}
	var lost []catalog.LostPath
	for part := range slices.Chunk(paths, 3) {
		done, err := b.AddPaths(s.ctx, part)
		if c.next(name); err != nil {
			return nil, nil, err
		}
		lost = append(lost, done.Lost...)
	}
	pins, err := then.Pins(row.ID)
	if err == nil {
		err = b.AddPins(s.ctx, pins)
		c.next(name)
	}
	return b, lost, err
}

// difference is what makes the cache what it was: nil if there was none.
func difference(then, now *catalog.Snapshot, keepNew bool) (*catalog.CacheRestore, error) {
	was, ok, err := then.Cache(simCache)
	if !ok || err != nil {
		return nil, err
	}
	is, ok, err := now.Cache(simCache)
	if !ok || err != nil {
		return nil, err
	}
	since, err := now.Moment(is.ID)
	if err != nil {
		return nil, err
	}
	d := &catalog.CacheRestore{Name: simCache, Now: &is, Then: &was, Since: &since}
	if keepNew {
		d.Then = &is
	}
	old := map[string]bool{}
	for p, err := range then.Paths(was.ID) {
		if err != nil {
			return nil, err
		}
		old[p.StorePath.Name()] = true
		n, there, err := now.Path(is.ID, p.StorePath.HashPart())
		switch {
		case err != nil:
			return nil, err
		case !there:
			d.Set = append(d.Set, catalog.PathRestore{Then: p})
		case !keepNew && !catalog.SamePath(p, n):
			d.Set = append(d.Set, catalog.PathRestore{Then: p, Now: &n})
		}
	}
	for p, err := range now.Paths(is.ID) {
		if err != nil {
			return nil, err
		}
		if !old[p.StorePath.Name()] && !keepNew {
			d.Drop = append(d.Drop, p)
		}
	}
	return d, pinDifference(d, then, now, keepNew, was.ID)
}

func pinDifference(d *catalog.CacheRestore, then, now *catalog.Snapshot, keepNew bool, thenID catalog.CacheID) error {
	was, err := then.Pins(thenID)
	if err != nil {
		return err
	}
	is, err := now.Pins(d.Now.ID)
	if err != nil {
		return err
	}
	for _, p := range was {
		j := named(is, p.Name)
		if j >= 0 && (keepNew || p.Newest == is[j].Newest && p.Policy == is[j].Policy && reflect.DeepEqual(p.Revisions, is[j].Revisions)) {
			continue
		}
		if j >= 0 {
			d.DropPins = append(d.DropPins, is[j])
		}
		d.SetPins = append(d.SetPins, p)
	}
	for _, p := range is {
		if !keepNew && named(was, p.Name) < 0 {
			d.DropPins = append(d.DropPins, p)
		}
	}
	return nil
}
