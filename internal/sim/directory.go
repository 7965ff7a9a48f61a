package sim

import (
	"context"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/internal/catalog"
)

// directory is a catalog that clients are slow with, and in which requests take turns.
type directory struct {
	*catalog.Catalog
	c *collecting
}

// lingering is the key of a function in a context that is called when a push has looked
// up which chunks are known, and when it has uploaded packs.
type lingering struct{}

// turns is the key of the name of who makes a request that may go on at the same time as
// others, because they waited for the same answer. Here it parks, so that a run is a
// function of its seed.
type turns struct{}

func (d directory) turn(ctx context.Context) {
	if name, ok := ctx.Value(turns{}).(string); ok {
		d.c.next(name)
	}
}

func linger(ctx context.Context) {
	if do, ok := ctx.Value(lingering{}).(func()); ok {
		do()
	}
}

func (d directory) LookupChunks(ctx context.Context, ids []chunk.ID) ([]chunk.Location, []bool, error) {
	at, found, err := d.Catalog.LookupChunks(ctx, ids)
	linger(ctx)
	return at, found, err
}

func (d directory) LookupRefs(ctx context.Context, refs []chunk.Ref) ([]chunk.Location, []bool, error) {
	at, found, err := d.Catalog.LookupRefs(ctx, refs)
	linger(ctx)
	return at, found, err
}

func (d directory) ProveChunks(ctx context.Context, ids []chunk.ID, proofs []chunk.Proof) error {
	d.turn(ctx)
	return d.Catalog.ProveChunks(ctx, ids, proofs)
}

func (d directory) PackLayout(ctx context.Context, id chunk.PackID) (chunk.Layout, error) {
	l, err := d.Catalog.PackLayout(ctx, id)
	d.turn(ctx)
	return l, err
}

func (d directory) CommitPacks(ctx context.Context, packs []chunk.NewPack) error {
	linger(ctx)
	if d.c.Unsettled {
		return nil
	}
	err := d.Catalog.CommitPacks(ctx, packs)
	d.turn(ctx)
	return err
}

func (d directory) UploadEpoch(ctx context.Context) (uint32, error) {
	d.turn(ctx)
	return d.Catalog.UploadEpoch(ctx)
}
