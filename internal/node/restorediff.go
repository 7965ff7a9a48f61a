package node

import (
	"bytes"
	"fmt"
	"iter"
	"slices"

	"github.com/celler/celler/internal/catalog"
)

// cacheDiff is how a cache differs from what it was.
type cacheDiff struct {
	catalog.CacheRestore
	sum  RestoredCache
	over bool // it was too much for one operation: Set and Drop were given up
	size int  // roughly, in bytes of rows
}

// cost is roughly how many bytes of rows the difference comes to.
func (d *cacheDiff) cost() int {
	if d.over {
		return catalog.RestoreBytes + d.size
	}
	return d.Cost()
}

// small says that to put the cache together aside would not make the operation smaller.
func (d *cacheDiff) small() bool { return d.Then == nil || d.Aside != nil || d.cost() < 64<<10 }

func (d *cacheDiff) empty() bool {
	s := &d.sum
	return d.Aside == nil && d.Now != nil && d.Then != nil && !s.Config && s.Back+s.Changed+s.Removed+s.Pins == 0
}

// diff works out what differs within what is to be restored.
func (x *restorer) diff() ([]*cacheDiff, error) {
	names := []catalog.CacheName{x.cache}
	if x.Cache == "" {
		var err error
		if names, err = x.names(); err != nil {
			return nil, err
		}
	}
	var diffs []*cacheDiff
	for _, name := range names {
		d, err := x.cacheDiff(name)
		if err != nil {
			return nil, err
		}
		if x.DryRun {
			if err := x.tellRest(d); err != nil {
				return nil, err
			}
		}
		d.sum.Back += x.early[name]
		if !d.empty() {
			x.rep.Caches = append(x.rep.Caches, d.sum)
			diffs = append(diffs, d)
		}
	}
	return diffs, nil
}

// names are those of all caches that are, and that were.
func (x *restorer) names() (names []catalog.CacheName, err error) {
	for _, s := range []*catalog.Snapshot{x.then, x.now} {
		caches, err := s.Caches()
		if err != nil {
			return nil, err
		}
		for i := range caches {
			names = append(names, caches[i].Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (x *restorer) cacheDiff(name catalog.CacheName) (*cacheDiff, error) {
	d := &cacheDiff{CacheRestore: catalog.CacheRestore{Name: name}, sum: RestoredCache{Name: string(name)}}
	then, wasThere, err := x.then.Cache(name)
	if err != nil {
		return nil, err
	}
	now, isThere, err := x.now.Cache(name)
	if err != nil {
		return nil, err
	}
	if isThere {
		d.Now, d.sum.What = &now, "changed"
		since, err := x.now.Moment(now.ID)
		if err != nil {
			return nil, err
		}
		d.Since = &since
	}
	if wasThere {
		d.Then = &then
	}
	if x.Pin != "" || x.Path != "" {
		return d, x.partDiff(d)
	}
	switch {
	case !wasThere && x.Cache != "":
		return nil, &RestoreError{
			Problem: fmt.Sprintf("there was no cache %q at %v", string(name), x.rep.At),
			Hint:    "\"celler log show --cache NAME\" says when it was created and destroyed",
		}
	case !wasThere && x.KeepNew:
		d.Then = d.Now
		return d, nil
	case !wasThere:
		d.sum.What = "removed"
		return d, x.countRemoved(d)
	case !isThere:
		d.sum.What = "back"
	case x.KeepNew:
		d.Then = d.Now // with its settings as they are
	default:
		d.sum.Config = !catalog.SameCache(then, now)
	}
	if err := x.pathsDiff(d, then.ID); err != nil {
		return nil, err
	}
	return d, x.pinsDiff(d, then.ID)
}

func (x *restorer) countRemoved(d *cacheDiff) error {
	for _, err := range x.now.Paths(d.Now.ID) {
		if err != nil {
			return err
		}
		d.sum.Removed++
	}
	return nil
}

// nowPaths yields the paths that are in the cache; none if there is no cache.
func (x *restorer) nowPaths(d *cacheDiff) iter.Seq2[catalog.Path, error] {
	if d.Now == nil {
		return func(func(catalog.Path, error) bool) {}
	}
	return x.now.Paths(d.Now.ID)
}

// pathsDiff merges the paths of then and of now, both in the order of their hash parts.
func (x *restorer) pathsDiff(d *cacheDiff, thenID catalog.CacheID) error {
	nextThen, stopThen := iter.Pull2(x.then.Paths(thenID))
	defer stopThen()
	nextNow, stopNow := iter.Pull2(x.nowPaths(d))
	defer stopNow()
	then, errThen, moreThen := nextThen()
	now, errNow, moreNow := nextNow()
	for moreThen || moreNow {
		if errThen != nil || errNow != nil {
			return fmt.Errorf("compare cache %q with what it was: %w", string(d.Name), firstOf(errThen, errNow))
		}
		var err error
		var order int
		switch {
		case !moreNow:
			order = -1
		case !moreThen:
			order = 1
		default:
			a, b := then.StorePath.HashPart(), now.StorePath.HashPart()
			order = bytes.Compare(a[:], b[:])
		}
		switch {
		case order < 0:
			d.sum.Back++
			err = x.set(d, catalog.PathRestore{Then: then})
		case order > 0 && !x.KeepNew:
			d.sum.Removed++
			err = x.drop(d, now)
		case order == 0 && !x.KeepNew && !catalog.SamePath(then, now):
			d.sum.Changed++
			old := now
			err = x.set(d, catalog.PathRestore{Then: then, Now: &old})
		}
		if err != nil {
			return err
		}
		if order <= 0 {
			then, errThen, moreThen = nextThen()
		}
		if order >= 0 {
			now, errNow, moreNow = nextNow()
		}
	}
	return nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// set takes note of a path that is to be as it was. A dry run tells it at once. What
// only adds is added bit by bit; of other differences that are too much for one
// operation only the size is kept, because the cache is put together aside.
func (x *restorer) set(d *cacheDiff, p catalog.PathRestore) error {
	if x.DryRun {
		return x.tellPath(d, &p)
	}
	if d.size += catalog.PathRestoreCost(&p.Then); d.over {
		return nil
	}
	d.Set = append(d.Set, p)
	switch {
	case d.size < catalog.RestoreBytes:
	case x.additive() && d.Now != nil:
		done, err := x.cat.Restore(x.ctx, []catalog.CacheRestore{{Name: d.Name, Now: d.Now, Then: d.Now, Set: d.Set}})
		if err != nil {
			return err
		}
		if err := x.done(done); err != nil {
			return err
		}
		x.added[d.Name] += len(d.Set) - len(done.Lost)
		d.Set, d.size = nil, 0
	default:
		d.Set, d.Drop, d.over = nil, nil, true
	}
	return nil
}

// drop takes note of a path that was not there.
func (x *restorer) drop(d *cacheDiff, p catalog.Path) error {
	if x.DryRun {
		return x.tell(d, "removed", "path", p.StorePath.String())
	}
	if d.size += 256; d.over {
		return nil
	}
	d.Drop = append(d.Drop, p)
	if d.size >= catalog.RestoreBytes {
		d.Set, d.Drop, d.over = nil, nil, true
	}
	return nil
}

func (x *restorer) pinsDiff(d *cacheDiff, thenID catalog.CacheID) error {
	then, err := x.then.Pins(thenID)
	if err != nil {
		return err
	}
	var now []catalog.Pin
	if d.Now != nil {
		if now, err = x.now.Pins(d.Now.ID); err != nil {
			return err
		}
	}
	for i := range then {
		j := slices.IndexFunc(now, func(p catalog.Pin) bool { return p.Name == then[i].Name })
		switch {
		case j < 0:
		case x.KeepNew || samePin(&then[i], &now[j]):
			continue
		default:
			d.DropPins = append(d.DropPins, now[j])
		}
		d.SetPins = append(d.SetPins, then[i])
		d.sum.Pins++
	}
	for j := range now {
		if x.KeepNew || slices.ContainsFunc(then, func(p catalog.Pin) bool { return p.Name == now[j].Name }) {
			continue
		}
		d.DropPins = append(d.DropPins, now[j])
		d.sum.Pins++
	}
	return nil
}

func samePin(a, b *catalog.Pin) bool {
	if a.Policy != b.Policy || a.Newest != b.Newest || len(a.Revisions) != len(b.Revisions) {
		return false
	}
	for i := range a.Revisions {
		x, y := a.Revisions[i], b.Revisions[i]
		if x.Number != y.Number || x.StorePath != y.StorePath || x.Day != y.Day || x.By != y.By || !x.At.Equal(y.At) {
			return false
		}
	}
	return a.Created.Equal(b.Created)
}
