package catalog

import (
	"fmt"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// cache counts the paths of a cache and compares their uses.
func (a *audit) cache(id CacheID) (t Totals, err error) {
	t.Cache = id
	destroyed, ok, err := read(a.s.view, keyspace.AppendDestroyedKey(nil, id), keyspace.DecodeDestroyed)
	if err != nil {
		return t, err
	}
	swept := ok && destroyed.Building == 0 // its uses go in one piece, at the end
	for p, err := range a.s.Paths(id) {
		if err == nil {
			err = a.ctx.Err()
		}
		if err != nil {
			return t, err
		}
		a.paths++
		t.Shift(&Totals{Paths: 1, NarBytes: p.NarSize, ServedBytes: p.FileSize})
		if !swept {
			if err := a.pathUse(id, p.StorePath.HashPart()); err != nil {
				return t, err
			}
		}
	}
	if swept {
		return t, nil
	}
	return t, a.strayUses(id)
}

// pathUse checks that the two rows of the use of a path are there.
func (a *audit) pathUse(id CacheID, hashPart nix.HashPart) error {
	last, known, err := a.s.LastUse(id, hashPart)
	if err != nil {
		return err
	}
	if known {
		if _, known, err = a.s.view.Get(keyspace.AppendUseOrderKey(nil, last)); known || err != nil {
			return err
		}
	}
	return a.tell(fix{
		Discrepancy{Row: fmt.Sprintf("last use of path %v of cache %d", hashPart, id), Found: "none", Want: "one"},
		func(g *graves) error { return g.repairUse(id, hashPart) },
	})
}

// repairUse makes the rows of the use of a path agree with each other and with whether
// there is such a path.
func (b *books) repairUse(id CacheID, hashPart nix.HashPart) error {
	_, there, err := b.view.Get(keyspace.AppendPathKey(nil, id, hashPart))
	if err != nil {
		return err
	}
	key := keyspace.AppendLastUseKey(nil, id, hashPart)
	last, known, err := read(b.view, key, keyspace.DecodeLastUse)
	switch {
	case err != nil:
		return err
	case there && known:
		b.put(keyspace.AppendUseOrderKey(nil, last), keyspace.AppendUseOrder(nil))
		return nil
	case there:
		return b.use(id, hashPart)
	default:
		return b.unuse(id, hashPart)
	}
}

// strayUses finds rows of uses without a path, and rows of another day than the last.
func (a *audit) strayUses(id CacheID) error {
	for u, err := range a.s.Uses(id) {
		if err != nil {
			return err
		}
		_, there, err := a.s.view.Get(keyspace.AppendPathKey(nil, id, u.HashPart))
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if err := a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("last use of path %v of cache %d", u.HashPart, id), Found: fmt.Sprintf("day %d", u.Day), Want: "none, the path is not there"},
			func(g *graves) error { return g.repairUse(id, u.HashPart) },
		}); err != nil {
			return err
		}
	}
	for u, err := range a.s.UsesByDay(id) {
		if err != nil {
			return err
		}
		last, known, err := a.s.LastUse(id, u.HashPart)
		if err != nil {
			return err
		}
		if known && last.Day == u.Day {
			continue
		}
		if err := a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("use of path %v of cache %d", u.HashPart, id), Found: fmt.Sprintf("day %d", u.Day), Want: fmt.Sprintf("day %d, or none if 0", last.Day)},
			func(g *graves) error {
				last, known, err := read(g.view, keyspace.AppendLastUseKey(nil, id, u.HashPart), keyspace.DecodeLastUse)
				if err == nil && (!known || last.Day != u.Day) {
					g.drop(keyspace.AppendUseOrderKey(nil, u))
				}
				return err
			},
		}); err != nil {
			return err
		}
	}
	return nil
}
