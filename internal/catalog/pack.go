package catalog

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// What the chunk store asks of the metadata.

// LookupChunks says where chunks lie, and of which of them nothing is known here.
// It never asks the bucket: what it overlooks is only stored twice.
func (c *Catalog) LookupChunks(_ context.Context, ids []chunk.ID) ([]chunk.Location, []bool, error) {
	locations, found := make([]chunk.Location, len(ids)), make([]bool, len(ids))
	var buf [1 + len(chunk.ID{})]byte
	var places placeMemo
	for i := range ids {
		key := keyspace.AppendChunkKey(buf[:0], ids[i])
		ok, err := c.db.Lookup(key, func(value []byte) error {
			row, err := keyspace.DecodeChunk(key, value)
			locations[i] = row.Location
			return err
		})
		if ok && err == nil {
			ok, err = places.alive(c, locations[i])
		}
		if err != nil {
			return nil, nil, fmt.Errorf("look up chunk %v: %w", ids[i], err)
		}
		found[i] = ok
	}
	return locations, found, nil
}

// placeMemo remembers what the index says of packs, for the length of a call.
type placeMemo map[chunk.PackID]packState

// alive reports whether there is something at the place that a chunk row names. The
// row may have outlived it: chunks are condemned by place.
func (m *placeMemo) alive(c *Catalog, l chunk.Location) (bool, error) {
	s, ok := (*m)[l.Pack]
	if !ok {
		var err error
		if s.known, err = c.knows(l.Pack); err != nil {
			return false, err
		}
		if s.condemned, _, err = local(c, keyspace.AppendCondemnedKey(nil, l.Pack), keyspace.DecodeCondemned); err != nil {
			return false, err
		}
		if *m == nil {
			*m = make(placeMemo)
		}
		(*m)[l.Pack] = s
	}
	return s.known && !s.condemned.Overlaps(l.Index, 1), nil
}

// PackLayout returns the layout of a pack, or ErrNoPack.
func (c *Catalog) PackLayout(ctx context.Context, id chunk.PackID) (chunk.Layout, error) {
	l, ok, err := lookup(ctx, c, "look up the pack", keyspace.AppendPackKey(nil, id), keyspace.DecodePack)
	if err == nil && !ok {
		err = fmt.Errorf("pack %v: %w", id, ErrNoPack)
	}
	return l, err
}

// UploadEpoch returns the epoch that names the packs whose upload begins now.
func (c *Catalog) UploadEpoch(context.Context) (uint32, error) {
	n, ok, err := local(c, keyspace.AppendCounterKey(nil, keyspace.UploadEpoch), keyspace.DecodeCount)
	if !ok {
		n = keyspace.FirstCount
	}
	return n, err
}

// CommitPacks makes packs and their chunks known; they are when it returns nil.
// Packs that are known already change nothing. It fails with ErrChunksMissing if
// a pack was uploaded too long ago.
func (c *Catalog) CommitPacks(ctx context.Context, packs []chunk.NewPack) error {
	for i := range packs {
		if err := checkPack(&packs[i]); err != nil {
			return err
		}
	}
	cache, _ := ctx.Value(forCache{}).(CacheName)
	return c.commitPacks(ctx, cache, packs)
}

// commitPacks is CommitPacks of packs that are in order, on behalf of a push to a
// cache, "" if that is not known.
func (c *Catalog) commitPacks(ctx context.Context, cache CacheName, packs []chunk.NewPack) error {
	for _, pieces := range cutPacks(packs) {
		_, err := c.wal.Commit(ctx, wal.Op{Name: "commit packs", About: string(cache), Cost: packCost(pieces), Build: func(v wal.View) ([]wal.Entry, error) {
			books, err := newBooks(v)
			if err != nil {
				return nil, err
			}
			books.mutants = c.mutants
			var id keyspace.CacheID
			if cache != "" {
				row, _, err := read(v, keyspace.AppendCacheKey(nil, cache), keyspace.DecodeCache)
				if err != nil {
					return nil, err
				}
				id = row.ID
			}
			b := newPackBuilder(books, id)
			for _, p := range pieces {
				if err := b.add(p); err != nil {
					return nil, err
				}
			}
			if err := b.refuse(); err != nil {
				return nil, err
			}
			return books.close()
		}})
		if err != nil {
			return c.countRefusal(err)
		}
	}
	return nil
}

// knows reports whether the index has a row for the pack.
func (c *Catalog) knows(id chunk.PackID) (bool, error) {
	return c.db.Lookup(keyspace.AppendPackKey(nil, id), func([]byte) error { return nil })
}

// carriers counts the publications under way that bring a pack along. A batch is
// cut by what its operations say they cost, and only the first of those that share
// a pack will have entries for it.
type carriers struct {
	mu sync.Mutex
	n  map[chunk.PackID]int // guarded by mu
}

// enter reports whether nobody else carries the pack. The caller leaves it.
func (c *carriers) enter(id chunk.PackID) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[chunk.PackID]int)
	}
	c.n[id]++
	return c.n[id] == 1
}

func (c *carriers) leave(id chunk.PackID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n[id]--; c.n[id] == 0 {
		delete(c.n, id)
	}
}

func checkPack(p *chunk.NewPack) error {
	if len(p.IDs) != len(p.Layout.Sizes) || len(p.IDs) > chunk.MaxPackChunks {
		return invalid(fmt.Errorf("pack %v has %d chunk ids and %d sizes, want as many and at most %d", p.Layout.ID, len(p.IDs), len(p.Layout.Sizes), chunk.MaxPackChunks))
	}
	if p.Proofs != nil && len(p.Proofs) != len(p.IDs) {
		return invalid(fmt.Errorf("pack %v has %d chunk ids and %d proofs, want as many or none", p.Layout.ID, len(p.IDs), len(p.Proofs)))
	}
	return nil
}

// packPiece is some chunks of a pack: what fits in one operation.
type packPiece struct {
	pack     *chunk.NewPack
	from, to int
}

const (
	chunkCost = 1 + 32 + 22 + rowOverhead // bytes a chunk row takes in the log
	sizeCost  = 3                         // bytes a chunk takes in its pack's row
	frameCost = 10                        // bytes a frame takes there
)

func (p packPiece) cost() int {
	n := (p.to - p.from) * chunkCost
	if p.from == 0 {
		n += 64 + len(p.pack.Layout.Sizes)*sizeCost + len(p.pack.Layout.Frames)*frameCost
	}
	return n
}

func packCost(pieces []packPiece) int {
	n := 0
	for _, p := range pieces {
		n += p.cost()
	}
	return n
}

// cutPacks deals packs out to operations. The first piece of a pack brings its
// row, the others come after it.
func cutPacks(packs []chunk.NewPack) (ops [][]packPiece) {
	const chunks = opBytes / (2 * chunkCost)
	room := 0
	for i := range packs {
		p := &packs[i]
		for from := 0; from == 0 || from < len(p.IDs); from += chunks {
			piece := packPiece{pack: p, from: from, to: min(from+chunks, len(p.IDs))}
			if cost := piece.cost(); cost > room {
				ops, room = append(ops, nil), opBytes
			}
			room -= piece.cost()
			ops[len(ops)-1] = append(ops[len(ops)-1], piece)
		}
	}
	return ops
}

// packBuilder collects the entries that make packs known, and what keeps them
// from being so.
type packBuilder struct {
	books   *books
	cache   keyspace.CacheID // whose push brings them; 0 if that is not known
	missing ChunksMissingError
	packs   map[chunk.PackID]packState
}

// packState is what the state says of a pack.
type packState struct {
	known     bool
	condemned keyspace.Condemned // no ranges: nothing in it is dead
}

func newPackBuilder(b *books, cache keyspace.CacheID) *packBuilder {
	return &packBuilder{books: b, cache: cache, packs: make(map[chunk.PackID]packState)}
}

func (b *packBuilder) state(id chunk.PackID) (packState, error) {
	if s, ok := b.packs[id]; ok {
		return s, nil
	}
	var s packState
	var err error
	if _, s.known, err = b.books.view.Get(keyspace.AppendPackKey(nil, id)); err != nil {
		return s, err
	}
	s.condemned, _, err = read(b.books.view, keyspace.AppendCondemnedKey(nil, id), keyspace.DecodeCondemned)
	if err == nil {
		b.packs[id] = s
	}
	return s, err
}

// add makes the pack of a piece known, if it is not, and those of the chunks of
// the piece of which no copy is known yet. Pieces come in order.
func (b *packBuilder) add(p packPiece) error {
	id := p.pack.Layout.ID
	s, err := b.state(id)
	if err != nil {
		return err
	}
	if !s.known {
		if p.from > 0 || len(s.condemned.Ranges) > 0 {
			// It was known and is not any more: its object may be gone.
			b.missing.Expired = append(b.missing.Expired, id)
			return nil
		}
		if ok, err := b.inTime(id); !ok || err != nil {
			return err
		}
		b.bring(&p.pack.Layout)
		s.known = true
		b.packs[id] = s
	} else if p.from == 0 {
		// The row came together with the chunks of this piece. Many pushes share a
		// pack and each brings it along: only the first has work to do.
		return nil
	}
	// In the order of their rows, in which they are found and inserted with the fewest steps.
	order := make([]int, 0, p.to-p.from)
	for i := p.from; i < p.to; i++ {
		order = append(order, i)
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Or(bytes.Compare(p.pack.IDs[i][:], p.pack.IDs[j][:]), i-j) })
	for _, i := range order {
		key := keyspace.AppendChunkKey(make([]byte, 0, 33), p.pack.IDs[i])
		if s.condemned.Overlaps(uint32(i), 1) {
			continue
		}
		var proof chunk.Proof // zero if it is not known
		if p.pack.Proofs != nil {
			proof = p.pack.Proofs[i]
		}
		row, alive, err := b.living(key)
		switch {
		case err != nil:
			return err
		case !alive:
			row = keyspace.Chunk{Location: chunk.Location{Pack: id, Index: uint32(i)}}
		case row.Proof != (chunk.Proof{}) || proof == (chunk.Proof{}):
			continue
		}
		b.books.put(key, keyspace.AppendChunk(make([]byte, 0, 24), row.Location, proof))
	}
	return nil
}

// bring makes a pack known and counts it.
func (b *packBuilder) bring(l *chunk.Layout) {
	b.books.put(keyspace.AppendPackKey(nil, l.ID), keyspace.AppendPack(nil, l))
	plain := plainBytes(l)
	b.books.add(Totals{Packs: 1, Objects: 1, StoredBytes: l.Bytes, Chunks: int64(len(l.Sizes)), ChunkBytes: plain})
	b.books.count(Totals{Cache: b.cache, BroughtBytes: plain, BroughtStored: l.Bytes})
}

// alive reports whether the chunk whose row has the key is known to lie somewhere. A
// row that names a place which is dead counts for nothing and is written anew.
func (b *packBuilder) alive(key []byte) (bool, error) {
	_, alive, err := b.living(key)
	return alive, err
}

// living is alive with the row.
func (b *packBuilder) living(key []byte) (row keyspace.Chunk, alive bool, err error) {
	row, ok, err := read(b.books.view, key, keyspace.DecodeChunk)
	if !ok || err != nil {
		return keyspace.Chunk{}, false, err
	}
	s, err := b.state(row.Location.Pack)
	return row, s.known && !s.condemned.Overlaps(row.Location.Index, 1), err
}

func plainBytes(l *chunk.Layout) (n int64) {
	for _, size := range l.Sizes {
		n += int64(size)
	}
	return n
}

// inTime holds the rule that lets a sweeper delete what was uploaded and never
// committed: see keyspace.UploadEpoch.
func (b *packBuilder) inTime(id chunk.PackID) (bool, error) {
	ok, err := inTime(b.books.view, id)
	if ok = ok || b.books.mutants.noUploadFence(); !ok && err == nil {
		b.missing.Expired = append(b.missing.Expired, id)
	}
	return ok, err
}

// inTime reports whether an object may still become part of the state.
func inTime(v wal.View, id chunk.PackID) (bool, error) {
	epoch, err := counter(v, keyspace.UploadEpoch)
	return id.Epoch <= epoch && uint64(id.Epoch)+1 >= uint64(epoch), err
}

// check notes what a recipe names and the state, with the packs added so far,
// does not have.
func (b *packBuilder) check(r *chunk.Recipe) error {
	gone, err := b.gone(r)
	b.missing.Runs = append(b.missing.Runs, gone...)
	return err
}

// gone returns the runs of a recipe that cannot be served.
func (b *packBuilder) gone(r *chunk.Recipe) (runs []chunk.Run, err error) {
	for _, run := range r.Runs {
		s, err := b.state(run.Pack)
		if err != nil {
			return nil, err
		}
		if (!s.known || s.condemned.Overlaps(run.First, run.Count)) && !b.books.mutants.noChunkCheck() {
			runs = append(runs, run)
		}
	}
	return runs, nil
}

// refuse returns what is missing as an error, if anything is.
func (b *packBuilder) refuse() error {
	if len(b.missing.Runs) == 0 && len(b.missing.Expired) == 0 {
		return nil
	}
	return &b.missing
}
