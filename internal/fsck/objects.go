package fsck

import (
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/internal/catalog"
)

type objectID = chunk.PackID

// object is one that the state names.
type object struct {
	id     objectID
	bytes  int64
	buried bool // nothing lives in it, and it may go at any time
}

// lostChunks are positions of chunks that live and cannot be read, by pack.
type lostChunks map[chunk.PackID][]chunk.Range

// findObjects compares the objects there must be with a listing.
func (k *check) findObjects(ctx context.Context) error {
	var missing, odd []object
	next := 0
	pass := func(upTo *objectID) {
		for ; next < len(k.objects) && (upTo == nil || k.objects[next].id.Compare(*upTo) < 0); next++ {
			if !k.objects[next].buried {
				missing = append(missing, k.objects[next])
			}
		}
	}
	_, err := each(ctx, k, "objects", k.chunks.Objects(ctx, objectID{}), func(o listed, err error) error {
		if err != nil {
			return err
		}
		pass(&o.ID)
		if next == len(k.objects) || k.objects[next].id != o.ID {
			k.rep.Orphans++
			k.rep.OrphanBytes += o.Bytes
			return nil
		}
		if want := k.objects[next]; want.bytes != o.Bytes && !want.buried {
			odd = append(odd, want)
		}
		next++
		return nil
	})
	if err != nil {
		return err
	}
	pass(nil)
	for i := range k.objects {
		if !k.objects[i].buried {
			k.rep.Objects++
			k.rep.ObjectBytes += k.objects[i].bytes
		}
	}
	for i, o := range missing {
		k.o.Progress(Progress{Phase: "objects that were not listed", Done: int64(i), Total: int64(len(missing))})
		if err := k.notListed(ctx, o); err != nil {
			return err
		}
	}
	for _, o := range odd {
		// Which chunks of it are gone, only reading it can tell.
		if err := k.found(Finding{Kind: Missing, What: fmt.Sprintf("object %v", o.id), Problem: fmt.Sprintf("the bucket says that it has another length than %d bytes", o.bytes)}); err != nil {
			return err
		}
		if k.mode.Repair || k.mode.Read.any() {
			if _, err := k.verify(ctx, o.id); err != nil {
				return err
			}
			k.refoot[o.id] = true
		}
	}
	return nil
}

// notListed looks again for an object that a listing does not have.
func (k *check) notListed(ctx context.Context, o object) error {
	absent, err := k.chunks.Absent(ctx, o.id)
	if err != nil {
		return k.notRead(ctx, fmt.Sprintf("object %v", o.id), err)
	}
	if !absent {
		return nil // it is there, whatever the listing says
	}
	return k.absent(ctx, o.id)
}

// absent notes that an object is gone, if a state that is read now still has any use for
// it: that state came after the object was seen to be gone, and nothing is deleted
// before the state has done with it.
func (k *check) absent(ctx context.Context, id objectID) error {
	packs, err := k.packsIn(ctx, id)
	if err != nil {
		return err
	}
	lost := int64(0)
	for i := range packs {
		lost += k.lost.add(&packs[i], chunk.Range{Count: uint32(len(packs[i].Layout.Sizes))})
	}
	if lost == 0 {
		return nil
	}
	return k.found(Finding{Kind: Missing, What: fmt.Sprintf("object %v", id), Problem: "it is not in the bucket", Chunks: lost})
}

// packsIn returns the packs that lie in an object by a state that is read now.
func (c *Checker) packsIn(ctx context.Context, id objectID) ([]catalog.PackState, error) {
	s, err := c.look(ctx)
	if err != nil {
		return nil, err
	}
	packs, _, err := s.Object(id)
	return packs, joinClose(err, s)
}

// add notes that what lives in a range of a pack is lost, and returns how many chunks
// that are which were not noted before.
func (l lostChunks) add(p *catalog.PackState, r chunk.Range) (fresh int64) {
	end := min(r.First+r.Count, uint32(len(p.Layout.Sizes)))
	for i := r.First; i < end; i++ {
		if p.Layout.Sizes[i] == 0 || p.Condemned.Overlaps(i, 1) || l.has(p.Layout.ID, i) {
			continue
		}
		fresh++
		ranges := l[p.Layout.ID]
		if n := len(ranges); n > 0 && ranges[n-1].First+ranges[n-1].Count == i {
			ranges[n-1].Count++
			continue
		}
		l[p.Layout.ID] = append(ranges, chunk.Range{First: i, Count: 1})
	}
	return fresh
}

func (l lostChunks) has(pack chunk.PackID, i uint32) bool {
	return slices.ContainsFunc(l[pack], func(r chunk.Range) bool { return i >= r.First && i-r.First < r.Count })
}
