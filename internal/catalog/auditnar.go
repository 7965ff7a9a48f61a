package catalog

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/celler/celler/index/keyspace"
)

// nars counts the paths of each NAR, a part of all NARs at a time.
func (a *audit) nars(caches []CacheID) error {
	shards := 1 + uint64(a.paths)/recountNars
	for shard := range shards {
		in := func(narHash [32]byte) bool { return binary.BigEndian.Uint64(narHash[:])%shards == shard }
		want := map[[32]byte]Nar{}
		for _, id := range caches {
			for p, err := range a.s.Paths(id) {
				if err != nil {
					return err
				}
				if !in(p.NarHash) {
					continue
				}
				n := want[p.NarHash]
				n.Paths++
				n.NarHash, n.NarSize, n.ServedSize = p.NarHash, p.NarSize, p.FileSize
				want[p.NarHash] = n
			}
			for side, err := range a.s.Sides(id) {
				if err != nil {
					return err
				}
				if !side.Stored || !in(side.TextSum) {
					continue
				}
				n := want[side.TextSum]
				n.Paths++
				if n.NarHash = side.TextSum; n.NarSize == 0 {
					n.NarSize, n.ServedSize = side.Size, side.Served
				}
				want[side.TextSum] = n
			}
		}
		if err := a.compareNars(want, in); err != nil {
			return err
		}
	}
	return nil
}

func (a *audit) compareNars(want map[[32]byte]Nar, in func([32]byte) bool) error {
	for n, err := range a.s.Nars() {
		if err == nil {
			err = a.ctx.Err()
		}
		if err != nil {
			return err
		}
		if !in(n.NarHash) {
			continue
		}
		w := want[n.NarHash]
		delete(want, n.NarHash)
		if w.Paths > 0 {
			a.store.Shift(&Totals{Nars: 1, NarsBytes: n.NarSize, NarsServed: n.ServedSize})
		}
		if w.Paths != n.Paths {
			if err := a.tell(narFix(n, w)); err != nil {
				return err
			}
		}
	}
	left := make([]Nar, 0, len(want))
	for _, w := range want {
		left = append(left, w)
	}
	slices.SortFunc(left, func(a, b Nar) int { return slices.Compare(a.NarHash[:], b.NarHash[:]) })
	for _, w := range left {
		a.store.Shift(&Totals{Nars: 1, NarsBytes: w.NarSize, NarsServed: w.ServedSize})
		if err := a.tell(narFix(Nar{NarHash: w.NarHash}, w)); err != nil {
			return err
		}
	}
	return nil
}

// narFix changes how many paths name a NAR by what was found to be wrong. The totals
// of the store are put right by themselves, so what close makes of the change is not
// to be added to them.
func narFix(found, want Nar) fix {
	return fix{
		Discrepancy{Row: fmt.Sprintf("paths of NAR %x", found.NarHash), Found: fmt.Sprint(found.Paths), Want: fmt.Sprint(want.Paths)},
		func(g *graves) error {
			n, err := g.nar(found.NarHash)
			if err != nil {
				return err
			}
			n.fixed = true
			if n.now.Paths == 0 {
				n.now.NarSize, n.now.ServedSize = want.NarSize, want.ServedSize
			}
			n.now.Paths = uint64(max(0, int64(n.now.Paths)+int64(want.Paths)-int64(found.Paths)))
			return nil
		},
	}
}

// unreferenced checks that a recipe has either paths or a row that says since when it
// has none.
func (a *audit) unreferenced() error {
	for row, err := range a.s.recipeRows() {
		if err == nil {
			err = a.ctx.Err()
		}
		if err != nil {
			return err
		}
		if row.key.Part > 0 {
			continue
		}
		narHash := row.key.NarHash
		named, err := hasEither(a.s.view, keyspace.AppendNarKey(nil, narHash), keyspace.AppendUnreferencedKey(nil, narHash))
		if err != nil {
			return err
		}
		if named {
			continue
		}
		if err := a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("NAR %x without paths", narHash), Found: "none", Want: "one"},
			func(g *graves) error {
				named, err := hasEither(g.view, keyspace.AppendNarKey(nil, narHash), keyspace.AppendUnreferencedKey(nil, narHash))
				if n := g.nars[narHash]; named || err != nil || n != nil && n.now.Paths > 0 {
					return err
				}
				g.put(keyspace.AppendUnreferencedKey(nil, narHash), keyspace.AppendUnreferenced(nil, &Unreferenced{Day: g.day}))
				g.add(Totals{Unreferenced: 1})
				return nil
			},
		}); err != nil {
			return err
		}
	}
	for u, err := range a.s.Unreferenced() {
		if err != nil {
			return err
		}
		a.store.Unreferenced++
		if _, named, err := a.s.view.Get(keyspace.AppendNarKey(nil, u.NarHash)); err != nil {
			return err
		} else if !named {
			continue
		}
		if err := a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("NAR %x without paths", u.NarHash), Found: "one", Want: "none, paths name it"},
			func(g *graves) error {
				key := keyspace.AppendUnreferencedKey(nil, u.NarHash)
				_, named, err := g.view.Get(keyspace.AppendNarKey(nil, u.NarHash))
				_, there, err2 := g.view.Get(key)
				if err != nil || err2 != nil || !named || !there {
					return cmp.Or(err, err2)
				}
				g.drop(key)
				g.add(Totals{Unreferenced: -1})
				return nil
			},
		}); err != nil {
			return err
		}
	}
	return nil
}

func hasEither(v getter, keys ...[]byte) (bool, error) {
	for _, key := range keys {
		if _, ok, err := v.Get(key); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
