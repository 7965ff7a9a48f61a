package catalog

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// Move says that live frames of packs were copied into another object.
type Move struct {
	Object chunk.PackID
	Bytes  int64 // length of the object
	Packs  []MovedPack
}

// MovedPack is the layout that a pack had when it was copied, and the one it is to have.
type MovedPack struct{ Old, New chunk.Layout }

func (m *Move) valid() error {
	if len(m.Packs) == 0 || len(m.Packs) > keyspace.MaxObjectPacks {
		return fmt.Errorf("%d packs are to be moved into object %v, want 1..%d", len(m.Packs), m.Object, keyspace.MaxObjectPacks)
	}
	seen := make(map[chunk.PackID]bool, len(m.Packs))
	for i := range m.Packs {
		old, l := &m.Packs[i].Old, &m.Packs[i].New
		if l.ID != old.ID || seen[l.ID] || l.Object != m.Object || l.Bytes != m.Bytes || len(l.Sizes) != len(old.Sizes) || old.Where() == m.Object {
			return fmt.Errorf("pack %v with %d chunks in %v cannot become pack %v with %d chunks in %v", old.ID, len(old.Sizes), old.Where(), l.ID, len(l.Sizes), l.Where())
		}
		seen[l.ID] = true
		for j, size := range l.Sizes {
			if size != old.Sizes[j] && size != 0 {
				return fmt.Errorf("pack %v: chunk %d has %d bytes and cannot have %d", l.ID, j, old.Sizes[j], size)
			}
		}
	}
	return nil
}

// MovePacks makes the object hold the packs, all or none. It fails with ErrStale if one of
// the packs has another layout by now, or the new one lacks a chunk that is not condemned;
// and with ErrChunksMissing if the object was uploaded too long ago. Objects in which
// nothing lives any more are buried and returned.
func (c *Catalog) MovePacks(ctx context.Context, move Move) (buried []chunk.PackID, err error) {
	if err := move.valid(); err != nil {
		return nil, invalid(err)
	}
	cost := 64
	for i := range move.Packs {
		l := &move.Packs[i].New
		cost += 128 + len(l.Sizes)*sizeCost + len(l.Frames)*frameCost
	}
	_, err = c.wal.Commit(ctx, wal.Op{Name: "move packs", Cost: cost, Build: func(v wal.View) (entries []wal.Entry, err error) {
		entries, buried, err = movePacks(v, &move, c.mutants)
		return entries, err
	}})
	if err != nil {
		return nil, fmt.Errorf("move %d packs into object %v: %w", len(move.Packs), move.Object, err)
	}
	return buried, nil
}

func movePacks(v wal.View, move *Move, mutants Mutants) (entries []wal.Entry, buried []chunk.PackID, err error) {
	g, err := newGraves(v)
	if err != nil {
		return nil, nil, err
	}
	if known, err := knowsObject(v, move.Object); known || err != nil {
		if err == nil {
			err = fmt.Errorf("object %v is in use: %w", move.Object, ErrStale)
		}
		return nil, nil, err
	}
	if ok, err := inTime(v, move.Object); !ok && !mutants.noMoveFence() || err != nil {
		if err == nil {
			err = &ChunksMissingError{Expired: []chunk.PackID{move.Object}}
		}
		return nil, nil, err
	}
	g.mutants = mutants
	row := Object{Bytes: move.Bytes}
	alive := false
	for i := range move.Packs {
		p, err := g.move(&move.Packs[i])
		if err != nil {
			return nil, nil, err
		}
		alive = alive || !p.dead()
		row.Packs = append(row.Packs, p.Layout.ID)
	}
	slices.SortFunc(row.Packs, chunk.PackID.Compare)
	g.put(keyspace.AppendObjectKey(nil, move.Object), keyspace.AppendObject(nil, &row))
	g.add(Totals{Objects: 1, StoredBytes: move.Bytes})
	if err := g.leave(); err != nil {
		return nil, nil, err
	}
	if buried, err = g.bury(); err != nil {
		return nil, nil, err
	}
	if !alive {
		g.buryBytes(move.Object, move.Bytes)
		buried = append(buried, move.Object)
	}
	entries, err = g.close()
	return entries, buried, err
}

// move gives one pack its new layout.
func (g *graves) move(m *MovedPack) (*grave, error) {
	id := m.Old.ID
	key := keyspace.AppendPackKey(nil, id)
	now, ok, err := g.view.Get(key)
	if err != nil {
		return nil, err
	}
	if !ok || !g.mutants.noMoveCheck() && !bytes.Equal(now, keyspace.AppendPack(nil, &m.Old)) {
		return nil, fmt.Errorf("pack %v has another layout: %w", id, ErrStale)
	}
	p, err := g.pack(id)
	if err != nil {
		return nil, err
	}
	if at, ok := uncovered(m.New.Holes(), p.Condemned.Ranges); ok && !g.mutants.noMoveCheck() {
		return nil, fmt.Errorf("chunk %d of pack %v is not condemned and would be lost: %w", at, id, ErrStale)
	}
	p.Layout = m.New
	g.put(key, keyspace.AppendPack(nil, &m.New))
	g.objects = append(g.objects, m.Old.Where())
	if !m.Old.Moved() {
		g.left[id] = m.Old.Bytes
	}
	return p, nil
}

// uncovered returns the first position in holes that no range covers.
func uncovered(holes []chunk.Range, ranges []Range) (uint32, bool) {
	for _, h := range holes {
		for at := h.First; at < h.First+h.Count; {
			i := slices.IndexFunc(ranges, func(r Range) bool { return at >= r.First && at-r.First < r.Count })
			if i < 0 {
				return at, true
			}
			at = ranges[i].First + ranges[i].Count
		}
	}
	return 0, false
}

// leave takes packs that were moved away out of the rows of the objects that they were
// moved into before.
func (g *graves) leave() error {
	slices.SortFunc(g.objects, chunk.PackID.Compare)
	g.objects = slices.Compact(g.objects)
	for _, id := range g.objects {
		key := keyspace.AppendObjectKey(nil, id)
		row, moved, err := read(g.view, key, keyspace.DecodeObject)
		if err != nil {
			return err
		}
		if !moved {
			continue
		}
		row.Packs = slices.DeleteFunc(row.Packs, func(pack chunk.PackID) bool {
			p := g.packs[pack]
			return p != nil && p.Layout.Where() != id
		})
		g.put(key, keyspace.AppendObject(nil, &row))
	}
	return nil
}

// PurgeDone forgets that packs were to be rewritten at any ratio, of those in which
// everything dead is a hole, and of those that are not known any more. It is for the
// collection that has looked at all chunks, also after its end, and fails with ErrFenced
// once another has begun: that may have removed recipes of chunks that only look alive.
func (m *Mark) PurgeDone(ctx context.Context, packs []chunk.PackID) error {
	for part := range slices.Chunk(packs, opPaths) {
		_, err := m.catalog.wal.Commit(ctx, wal.Op{Name: "purge done", Cost: len(part) * 64, Build: func(v wal.View) ([]wal.Entry, error) {
			if row, _, err := read(v, keyspace.AppendMarkKey(nil), keyspace.DecodeMark); err != nil || row.Generation != m.generation && !m.catalog.mutants.noPurgeFence() {
				return nil, cmp.Or(err, ErrFenced)
			}
			b, err := newBooks(v)
			if err != nil {
				return nil, err
			}
			for _, id := range part {
				p, known, err := readPack(v, id)
				if err != nil {
					return nil, err
				}
				if !p.Condemned.Purge || known && !onlyHoles(&p) && !m.catalog.mutants.noHoleCheck() {
					continue
				}
				p.Condemned.Purge = false
				b.putCondemned(&p.Condemned)
			}
			return b.close()
		}})
		if err != nil {
			return fmt.Errorf("note that packs were purged: %w", err)
		}
	}
	return nil
}

// onlyHoles reports whether nothing is left of what is dead in a pack.
func onlyHoles(p *PackState) bool {
	for _, r := range p.Condemned.Ranges {
		for i := r.First; i < r.First+r.Count; i++ {
			if int(i) < len(p.Layout.Sizes) && p.Layout.Sizes[i] != 0 {
				return false
			}
		}
	}
	return true
}

// Forget removes the rows of buried objects, which are no longer in the bucket, and of
// the packs that were in them.
func (c *Catalog) Forget(ctx context.Context, objects []Buried) error {
	for part := range slices.Chunk(objects, opPaths) {
		_, err := c.wal.Commit(ctx, wal.Op{Name: "forget objects", Cost: len(part) * 64, Build: func(v wal.View) ([]wal.Entry, error) {
			g, err := newGraves(v)
			if err != nil {
				return nil, err
			}
			for i := range part {
				if err := g.forget(&part[i]); err != nil {
					return nil, err
				}
			}
			return g.close()
		}})
		if err != nil {
			return fmt.Errorf("forget %d deleted objects: %w", len(part), err)
		}
	}
	return nil
}

func (g *graves) forget(b *Buried) error {
	key := keyspace.AppendBuriedKey(nil, b.Object)
	row, ok, err := read(g.view, key, keyspace.DecodeBuried)
	if !ok || err != nil {
		return err
	}
	packs, _, err := g.tenants(b.Object)
	if err != nil {
		return err
	}
	for _, id := range packs {
		p, err := g.pack(id)
		if err != nil {
			return err
		}
		if !p.known || p.Layout.Where() != b.Object {
			continue
		}
		if !p.dead() {
			return fmt.Errorf("object %v is buried, and pack %v lives in it: %w", b.Object, id, ErrStale)
		}
		g.drop(keyspace.AppendPackKey(nil, id))
		g.add(Totals{Packs: -1, Dead: -p.Condemned.Chunks(), DeadBytes: -p.Condemned.Bytes})
	}
	g.drop(key)
	verified := keyspace.AppendVerifiedKey(nil, b.Object)
	if _, noted, err := g.view.Get(verified); err != nil {
		return err
	} else if noted {
		g.drop(verified)
	}
	if _, moved, err := g.view.Get(keyspace.AppendObjectKey(nil, b.Object)); err != nil {
		return err
	} else if moved {
		g.drop(keyspace.AppendObjectKey(nil, b.Object))
	}
	g.add(Totals{Buried: -1, BuriedBytes: -row.Bytes})
	return nil
}

// ForgetCondemned removes the rows of what is dead in packs that are not known any more
// and were uploaded so long ago that nobody can commit them.
func (c *Catalog) ForgetCondemned(ctx context.Context, packs []chunk.PackID) (removed int, err error) {
	for part := range slices.Chunk(packs, opPaths) {
		n := 0
		_, err := c.wal.Commit(ctx, wal.Op{Name: "forget condemned chunks", Cost: len(part) * 24, Build: func(v wal.View) (entries []wal.Entry, err error) {
			n = 0
			epoch, err := counter(v, keyspace.UploadEpoch)
			if err != nil {
				return nil, err
			}
			for _, id := range part {
				_, known, err := v.Get(keyspace.AppendPackKey(nil, id))
				if err != nil {
					return nil, err
				}
				key := keyspace.AppendCondemnedKey(nil, id)
				_, there, err := v.Get(key)
				if err != nil {
					return nil, err
				}
				if there && !known && uint64(id.Epoch)+1 < uint64(epoch) {
					entries = append(entries, remove(key))
					n++
				}
			}
			return entries, nil
		}})
		if err != nil {
			return removed, fmt.Errorf("forget what was condemned: %w", err)
		}
		removed += n
	}
	return removed, nil
}
