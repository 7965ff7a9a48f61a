package catalog

import (
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
)

// packs counts chunks.
func (a *audit) packs() error {
	for p, err := range a.s.Packs() {
		if err == nil {
			err = a.ctx.Err()
		}
		if err != nil {
			return err
		}
		dead := p.Condemned.Chunks()
		a.store.Shift(&Totals{Packs: 1, Chunks: int64(len(p.Layout.Sizes)) - dead, Dead: dead, DeadBytes: p.Condemned.Bytes, ChunkBytes: plainBytes(&p.Layout)})
		for _, r := range p.Condemned.Ranges { // holes among them have no bytes
			for i := r.First; i < r.First+r.Count && int(i) < len(p.Layout.Sizes); i++ {
				a.store.ChunkBytes -= int64(p.Layout.Sizes[i])
			}
		}
		if !p.Layout.Moved() {
			if err := a.object(p.Layout.ID, p.Layout.Bytes, []chunk.PackID{p.Layout.ID}); err != nil {
				return err
			}
		} else if row, _, err := read(a.s.view, keyspace.AppendObjectKey(nil, p.Layout.Object), keyspace.DecodeObject); err != nil {
			return err
		} else if !slices.Contains(row.Packs, p.Layout.ID) {
			if err := a.tell(objectFix(p.Layout.Object, p.Layout.Bytes, p.Layout.ID)); err != nil {
				return err
			}
		}
	}
	return nil
}

// objectFix lists a pack among those that were moved into an object.
func objectFix(object chunk.PackID, bytes int64, pack chunk.PackID) fix {
	return fix{
		Discrepancy{Row: fmt.Sprintf("packs of object %v", object), Found: fmt.Sprintf("%v is not among them", pack), Want: "it is"},
		func(g *graves) error {
			p, err := g.pack(pack)
			if err != nil || !p.known || p.Layout.Where() != object {
				return err
			}
			key := keyspace.AppendObjectKey(nil, object)
			row, _, err := read(g.view, key, keyspace.DecodeObject)
			if err != nil || slices.Contains(row.Packs, pack) {
				return err
			}
			row.Bytes = bytes
			row.Packs = append(row.Packs, pack)
			slices.SortFunc(row.Packs, chunk.PackID.Compare)
			g.put(key, keyspace.AppendObject(nil, &row))
			return nil
		},
	}
}

// objects counts those that packs were moved into, and what is buried.
func (a *audit) objects() error {
	for o, err := range a.s.Objects() {
		if err == nil {
			err = a.object(o.ID, o.Bytes, o.Packs)
		}
		if err != nil {
			return err
		}
	}
	for b, err := range a.s.Buried() {
		if err != nil {
			return err
		}
		a.store.Shift(&Totals{Buried: 1, BuriedBytes: b.Bytes})
	}
	return nil
}

// object counts an object, and checks that it is buried if nothing lives in it, and
// that it is not if something does.
func (a *audit) object(id chunk.PackID, bytes int64, packs []chunk.PackID) error {
	_, buried, err := a.s.view.Get(keyspace.AppendBuriedKey(nil, id))
	if err != nil {
		return err
	}
	if !buried {
		a.store.Shift(&Totals{Objects: 1, StoredBytes: bytes})
	}
	alive := false
	for _, pack := range packs {
		p, known, err := a.s.Pack(pack)
		if err != nil {
			return err
		}
		alive = alive || known && p.Layout.Where() == id && p.Condemned.Chunks() < int64(len(p.Layout.Sizes))
	}
	switch {
	case buried && alive:
		return a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("buried object %v", id), Found: "one", Want: "none, something lives in it"},
			func(g *graves) error { return g.unbury(id) },
		})
	case !buried && !alive:
		return a.tell(fix{
			Discrepancy{Row: fmt.Sprintf("buried object %v", id), Found: "none", Want: "one, nothing lives in it"},
			func(g *graves) error { g.objects = append(g.objects, id); return nil },
		})
	}
	return nil
}

// unbury keeps an object from being deleted if something lives in it.
func (g *graves) unbury(id chunk.PackID) error {
	key := keyspace.AppendBuriedKey(nil, id)
	row, ok, err := read(g.view, key, keyspace.DecodeBuried)
	if !ok || err != nil {
		return err
	}
	packs, _, err := g.tenants(id)
	if err != nil {
		return err
	}
	for _, pack := range packs {
		p, err := g.pack(pack)
		if err != nil {
			return err
		}
		if p.known && p.Layout.Where() == id && !p.dead() {
			g.drop(key)
			g.add(Totals{Objects: 1, StoredBytes: row.Bytes, Buried: -1, BuriedBytes: -row.Bytes})
			return nil
		}
	}
	return nil
}
