package chunkstore_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
)

// directory is a Directory in memory.
type directory struct {
	mu     sync.Mutex // guards all below
	epoch  uint32
	chunks map[chunk.ID]chunk.Location
	refs   map[chunk.Ref]chunk.Location
	packs  map[chunk.PackID]chunk.Layout
	ids    map[chunk.PackID][]chunk.ID
	dead   map[chunk.PackID][]chunk.Range // condemned, in packs that are known or were
	fail   error                          // of CommitPacks
	calls  int                            // of CommitPacks
	asked  int                            // chunks that LookupChunks was asked for
}

func newDirectory() *directory {
	return &directory{epoch: 1, chunks: make(map[chunk.ID]chunk.Location), refs: make(map[chunk.Ref]chunk.Location), packs: make(map[chunk.PackID]chunk.Layout), ids: make(map[chunk.PackID][]chunk.ID), dead: make(map[chunk.PackID][]chunk.Range)}
}

// forget makes it a directory that knows nothing.
func (d *directory) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.chunks)
	clear(d.refs)
	clear(d.packs)
	clear(d.ids)
}

func (d *directory) LookupChunks(_ context.Context, ids []chunk.ID) ([]chunk.Location, []bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked += len(ids)
	at, known := make([]chunk.Location, len(ids)), make([]bool, len(ids))
	for i, id := range ids {
		at[i], known[i] = d.chunks[id]
	}
	return at, known, nil
}

func (d *directory) LookupRefs(_ context.Context, refs []chunk.Ref) ([]chunk.Location, []bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, known := make([]chunk.Location, len(refs)), make([]bool, len(refs))
	for i, r := range refs {
		if at[i], known[i] = d.refs[r]; known[i] {
			known[i] = d.alive(chunk.Run{Pack: at[i].Pack, First: at[i].Index, Count: 1})
		}
	}
	return at, known, nil
}

// alive reports whether all of a run is there and not condemned.
func (d *directory) alive(run chunk.Run) bool {
	if _, ok := d.packs[run.Pack]; !ok {
		return false
	}
	return !slices.ContainsFunc(d.dead[run.Pack], func(r chunk.Range) bool {
		return r.First < run.First+run.Count && run.First < r.First+r.Count
	})
}

func (d *directory) ProveChunks(_ context.Context, ids []chunk.ID, proofs []chunk.Proof) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, id := range ids {
		if at, ok := d.chunks[id]; ok {
			d.refs[chunk.Ref{Name: id.Name(), Proof: proofs[i]}] = at
		}
	}
	return nil
}

func (d *directory) PackLayout(_ context.Context, id chunk.PackID) (chunk.Layout, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, ok := d.packs[id]
	if !ok {
		return chunk.Layout{}, fmt.Errorf("pack %v: %w", id, chunk.ErrNoPack)
	}
	return l, nil
}

func (d *directory) CommitPacks(_ context.Context, packs []chunk.NewPack) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.fail != nil {
		return d.fail
	}
	for _, p := range packs {
		if _, ok := d.packs[p.Layout.ID]; ok || len(d.dead[p.Layout.ID]) > 0 {
			continue
		}
		// As it is stored: through the codec.
		l, rest, err := chunk.DecodeLayout(chunk.AppendLayout(nil, &p.Layout))
		if err != nil || len(rest) > 0 || len(p.IDs) != len(l.Sizes) {
			return fmt.Errorf("pack %v: %d ids, %d sizes, %d bytes too many: %w", l.ID, len(p.IDs), len(l.Sizes), len(rest), err)
		}
		d.packs[l.ID], d.ids[l.ID] = l, slices.Clone(p.IDs)
		for i, id := range p.IDs {
			if _, ok := d.chunks[id]; !ok {
				d.chunks[id] = chunk.Location{Pack: l.ID, Index: uint32(i)}
				if p.Proofs != nil {
					d.refs[chunk.Ref{Name: id.Name(), Proof: p.Proofs[i]}] = d.chunks[id]
				}
			}
		}
	}
	return nil
}

// publish commits the packs of a recipe, and says whether all that it names is there.
func (d *directory) publish(res *chunkstore.Result) (bool, error) {
	if err := d.CommitPacks(context.Background(), res.Packs); err != nil {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, run := range res.Recipe.Runs {
		if !d.alive(run) {
			return false, nil
		}
	}
	return true, nil
}

func (d *directory) UploadEpoch(context.Context) (uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.epoch, nil
}

func (d *directory) packIDs() []chunk.PackID {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []chunk.PackID
	for id := range d.packs {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, chunk.PackID.Compare)
	return ids
}

// known returns a copy of where the chunks are.
func (d *directory) known() map[chunk.ID]chunk.Location {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.chunks)
}

// believe adds rows, as an index has them that lags behind.
func (d *directory) believe(chunks map[chunk.ID]chunk.Location) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(d.chunks, chunks)
}

// clock stands still unless told otherwise.
type clock struct{ seconds atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(1_000_000+c.seconds.Load(), 0) }

func (c *clock) advance(seconds int64) { c.seconds.Add(seconds) }

// copy returns a directory with the same rows.
func (d *directory) copy() *directory {
	d.mu.Lock()
	defer d.mu.Unlock()
	other := newDirectory()
	maps.Copy(other.chunks, d.chunks)
	maps.Copy(other.refs, d.refs)
	maps.Copy(other.packs, d.packs)
	maps.Copy(other.ids, d.ids)
	maps.Copy(other.dead, d.dead)
	return other
}
