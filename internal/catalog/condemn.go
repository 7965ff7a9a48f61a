package catalog

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// opChunks is how many chunks one operation condemns: some 48 bytes each, of which
// none compress.
const opChunks = opBytes / 48

// DeadChunks are chunks of one pack that no recipe names.
type DeadChunks struct {
	Pack   chunk.PackID
	Chunks []DeadChunk // in the order of the pack, each position once
}

// DeadChunk is one of them.
type DeadChunk struct {
	Index uint32
	ID    chunk.ID // of the chunk row at this place; zero if there is none
}

// Condemnation says what became of a Condemn.
type Condemnation struct {
	Chunks  int64          // that are dead now and were not before
	Bytes   int64          // their plain bytes
	Spared  int64          // chunks that recipes name which were written meanwhile
	Objects []chunk.PackID // that were buried
}

// Condemn makes chunks dead: nothing can refer to them from then on. It spares those
// that recipes written after the first processed touches name. All recipes that
// Snapshot has, and that RemoveRecipes did not remove, must have been looked at.
func (m *Mark) Condemn(ctx context.Context, processed uint32, dead []DeadChunks) (Condemnation, error) {
	return m.catalog.condemn(ctx, "condemn chunks", dead, func(v wal.View) (map[chunk.PackID][]Range, error) {
		touches, err := m.unseen(v, processed)
		if err != nil {
			return nil, err
		}
		return namedBy(v, touches)
	})
}

// namedBy returns the chunks that recipes name which touches concern.
func namedBy(v wal.View, touches []Touch) (map[chunk.PackID][]Range, error) {
	named := make(map[chunk.PackID][]Range)
	seen := make(map[[32]byte]bool)
	for _, t := range touches {
		if !t.Recipe || seen[t.NarHash] {
			continue
		}
		seen[t.NarHash] = true
		head, ok, err := v.Get(keyspace.AppendRecipeKey(nil, keyspace.RecipeKey{NarHash: t.NarHash}))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		r, _, err := readRecipe(v, t.NarHash, head)
		if err != nil {
			return nil, err
		}
		for _, run := range r.Runs {
			named[run.Pack] = append(named[run.Pack], Range{First: run.First, Count: run.Count})
		}
	}
	return named, nil
}

// condemn makes chunks dead but for those that spare returns.
func (c *Catalog) condemn(ctx context.Context, name string, dead []DeadChunks, spare func(wal.View) (map[chunk.PackID][]Range, error)) (sum Condemnation, err error) {
	for _, part := range cutDead(dead) {
		var one Condemnation
		cost := 0
		for i := range part {
			cost += 64 + 48*len(part[i].Chunks)
		}
		_, err := c.wal.Commit(ctx, wal.Op{Name: name, Cost: cost, Build: func(v wal.View) ([]wal.Entry, error) {
			one = Condemnation{}
			spared, err := spare(v)
			if err != nil {
				return nil, err
			}
			g, err := newGraves(v)
			if err != nil {
				return nil, err
			}
			for i := range part {
				if err := g.condemn(&part[i], spared[part[i].Pack], &one); err != nil {
					return nil, err
				}
			}
			one.Objects, err = g.bury()
			if err != nil {
				return nil, err
			}
			return g.close()
		}})
		if err != nil {
			return sum, fmt.Errorf("%s: %w", name, err)
		}
		sum.Chunks += one.Chunks
		sum.Bytes += one.Bytes
		sum.Spared += one.Spared
		sum.Objects = append(sum.Objects, one.Objects...)
	}
	return sum, nil
}

// cutDead deals dead chunks out to operations.
func cutDead(dead []DeadChunks) (ops [][]DeadChunks) {
	room := 0
	for _, d := range dead {
		for part := range slices.Chunk(d.Chunks, opChunks) {
			if len(part) > room {
				ops, room = append(ops, nil), opChunks
			}
			room -= len(part)
			ops[len(ops)-1] = append(ops[len(ops)-1], DeadChunks{Pack: d.Pack, Chunks: part})
		}
	}
	return ops
}

// graves collects what an operation makes dead or moves, pack by pack, and then sees
// which objects nothing lives in any more.
type graves struct {
	*books
	packs   map[chunk.PackID]*grave
	order   []chunk.PackID         // of packs that were changed
	objects []chunk.PackID         // where something died or was moved away
	left    map[chunk.PackID]int64 // length of those that packs of their own name leave
}

// grave is what an operation makes of one pack.
type grave struct {
	PackState
	known   bool
	changed bool // the row that says what is dead
}

func (g *grave) dead() bool { return g.Condemned.Chunks() >= int64(len(g.Layout.Sizes)) }

func newGraves(v wal.View) (*graves, error) {
	b, err := newBooks(v)
	return &graves{books: b, packs: make(map[chunk.PackID]*grave), left: make(map[chunk.PackID]int64)}, err
}

func (g *graves) pack(id chunk.PackID) (*grave, error) {
	if p := g.packs[id]; p != nil {
		return p, nil
	}
	var p grave
	var err error
	if p.PackState, p.known, err = readPack(g.view, id); err != nil {
		return nil, err
	}
	g.packs[id] = &p
	return &p, nil
}

// change notes that what is dead in a pack has changed.
func (g *graves) change(p *grave) {
	if !p.changed {
		p.changed = true
		g.order = append(g.order, p.Condemned.Pack)
	}
}

// condemn makes chunks of one pack dead but for the spared.
func (g *graves) condemn(d *DeadChunks, spared []Range, done *Condemnation) error {
	p, err := g.pack(d.Pack)
	if err != nil {
		return err
	}
	var fresh []Range
	for i, c := range d.Chunks {
		if i > 0 && c.Index <= d.Chunks[i-1].Index || p.known && int(c.Index) >= len(p.Layout.Sizes) {
			return invalid(fmt.Errorf("dead chunk %d of pack %v comes late or is beyond its %d chunks", c.Index, d.Pack, len(p.Layout.Sizes)))
		}
		if overlaps(spared, c.Index) {
			done.Spared++
			continue
		}
		if err := g.dropChunk(c.ID, chunk.Location{Pack: d.Pack, Index: c.Index}); err != nil {
			return err
		}
		if !p.known || p.Condemned.Overlaps(c.Index, 1) {
			continue
		}
		fresh = append(fresh, Range{First: c.Index, Count: 1})
		done.Chunks++
		done.Bytes += int64(p.Layout.Sizes[c.Index])
		p.Condemned.Bytes += int64(p.Layout.Sizes[c.Index])
		g.add(Totals{
			Chunks: -1, ChunkBytes: -int64(p.Layout.Sizes[c.Index]), Dead: 1, DeadBytes: int64(p.Layout.Sizes[c.Index]),
		})
	}
	if len(fresh) > 0 {
		p.Condemned.Ranges = union(p.Condemned.Ranges, fresh)
		g.change(p)
		if p.dead() {
			g.objects = append(g.objects, p.Layout.Where())
		}
	}
	return nil
}

func overlaps(ranges []Range, index uint32) bool {
	return slices.ContainsFunc(ranges, func(r Range) bool { return index >= r.First && index-r.First < r.Count })
}

// dropChunk removes the row of a chunk if it names the place.
func (b *books) dropChunk(id chunk.ID, place chunk.Location) error {
	if id == (chunk.ID{}) {
		return nil
	}
	key := keyspace.AppendChunkKey(nil, id)
	row, ok, err := read(b.view, key, keyspace.DecodeChunk)
	if ok && row.Location == place {
		b.drop(key)
	}
	return err
}

// union returns the ranges that cover what a and b do, disjoint and not touching.
func union(a, b []Range) []Range {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y Range) int { return cmp.Compare(x.First, y.First) })
	joined := all[:0]
	for _, r := range all {
		if n := len(joined); n > 0 && r.First <= joined[n-1].First+joined[n-1].Count {
			last := &joined[n-1]
			last.Count = max(last.First+last.Count, r.First+r.Count) - last.First
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// bury writes what is dead, and buries those of the objects in which nothing is left.
func (g *graves) bury() (buried []chunk.PackID, err error) {
	for _, id := range g.order {
		g.putCondemned(&g.packs[id].Condemned)
	}
	slices.SortFunc(g.objects, chunk.PackID.Compare)
	for _, id := range slices.Compact(g.objects) {
		done, err := g.buryObject(id)
		if err != nil {
			return nil, err
		}
		if done {
			buried = append(buried, id)
		}
	}
	return buried, nil
}

func (b *books) putCondemned(x *Condemned) {
	key := keyspace.AppendCondemnedKey(nil, x.Pack)
	if len(x.Ranges) == 0 && !x.Purge {
		b.drop(key)
		return
	}
	b.put(key, keyspace.AppendCondemned(nil, x))
}

// tenants returns which packs have, or may have, frames in an object, and its length.
func (g *graves) tenants(id chunk.PackID) (packs []chunk.PackID, bytes int64, err error) {
	row, moved, err := read(g.view, keyspace.AppendObjectKey(nil, id), keyspace.DecodeObject)
	if err != nil || moved {
		return row.Packs, row.Bytes, err
	}
	if bytes, is := g.left[id]; is {
		return []chunk.PackID{id}, bytes, nil
	}
	p, err := g.pack(id)
	if err != nil || !p.known {
		return nil, 0, err
	}
	return []chunk.PackID{id}, p.Layout.Bytes, nil
}

// buryObject buries an object unless something lives in it or it is buried already.
func (g *graves) buryObject(id chunk.PackID) (bool, error) {
	key := keyspace.AppendBuriedKey(nil, id)
	if _, already, err := g.view.Get(key); already || err != nil {
		return false, err
	}
	packs, bytes, err := g.tenants(id)
	if err != nil {
		return false, err
	}
	for _, pack := range packs {
		p, err := g.pack(pack)
		if err != nil {
			return false, err
		}
		if p.known && p.Layout.Where() == id && !p.dead() {
			return false, nil
		}
	}
	g.buryBytes(id, bytes)
	return true, nil
}

func (g *graves) buryBytes(id chunk.PackID, bytes int64) {
	g.put(keyspace.AppendBuriedKey(nil, id), keyspace.AppendBuried(nil, &Buried{Day: g.day, Bytes: bytes}))
	g.add(Totals{Objects: -1, StoredBytes: -bytes, Buried: 1, BuriedBytes: bytes})
}
