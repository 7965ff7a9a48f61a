package gc

import (
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/internal/catalog"
)

// deleteBatch is how many objects one request deletes.
const deleteBatch = 1000

// bury deletes the objects in which nothing lives, when no reader can need them any more,
// and forgets them. No commit can refer to them: their chunks are dead in the state. An
// object that was deleted and not forgotten is deleted again.
func (r *round) bury(ctx context.Context) error {
	s, err := r.cat.Snapshot(ctx)
	if err != nil {
		return err
	}
	var due []catalog.Buried
	for b, iterErr := range s.Buried() {
		if iterErr != nil {
			err = iterErr
			break
		}
		if r.objectIsDue(&b) {
			due = append(due, b)
		}
	}
	if err := joinClose(err, s); err != nil {
		return err
	}
	done := 0
	for part := range slices.Chunk(due, deleteBatch) {
		r.o.Progress(Progress{Phase: "delete objects", Done: done, Total: len(due)})
		done += len(part)
		if err := r.buryPart(ctx, part); err != nil {
			return fmt.Errorf("delete objects in which nothing lives: %w", err)
		}
	}
	return nil
}

func (r *round) buryPart(ctx context.Context, part []catalog.Buried) error {
	ids := make([]chunk.PackID, len(part))
	bytes := make(map[chunk.PackID]catalog.Buried, len(part))
	for i, b := range part {
		ids[i], bytes[b.Object] = b.Object, b
	}
	deleted, err := r.delete(ctx, ids)
	forget := make([]catalog.Buried, 0, len(deleted))
	for _, id := range deleted {
		forget = append(forget, bytes[id])
		r.rep.DeletedBytes += bytes[id].Bytes
	}
	if len(forget) > 0 {
		if forgetErr := r.cat.Forget(ctx, forget); err == nil {
			err = forgetErr
		}
		r.rep.Commits++
	}
	return err
}

// delete deletes objects and counts those that the bucket keeps.
func (r *round) delete(ctx context.Context, ids []chunk.PackID) ([]chunk.PackID, error) {
	res, err := r.chunks.DeleteObjects(ctx, ids)
	r.rep.Deleted += len(res.Deleted)
	r.rep.Undeleted += len(res.Denied)
	if len(res.Denied) > 0 && r.rep.Refusal == "" {
		r.rep.Refusal = fmt.Sprintf("the bucket denies it, for object %v first: it is locked, or rights are missing", res.Denied[0])
	}
	return res.Deleted, err
}

// sweep does what is due once an upload epoch: it deletes what was uploaded and never
// committed, and drops rows that nobody can need any more.
func (r *round) sweep(ctx context.Context) error {
	r.rep.Swept = r.due.swept
	n, err := r.cat.SweepSessions(ctx, r.clock)
	if err != nil {
		return fmt.Errorf("drop writers that fell silent: %w", err)
	}
	r.rep.Sessions += n
	early := r.o.Mutants.sweepEarly()
	if !early && (r.due.epoch <= r.due.swept || r.due.epoch < catalog.FirstEpoch+2) {
		return nil
	}
	if err := r.forgetCondemned(ctx); err != nil {
		return err
	}
	if err := r.orphans(ctx); err != nil {
		return err
	}
	r.rep.Swept = r.due.epoch
	return nil
}

// expired reports whether a pack of this name can no longer be committed.
func (r *round) expired(id chunk.PackID) bool { return uint64(id.Epoch)+1 < uint64(r.due.epoch) }

// forgetCondemned drops what says of packs that are gone that they are dead.
func (r *round) forgetCondemned(ctx context.Context) error {
	s, err := r.cat.Snapshot(ctx)
	if err != nil {
		return err
	}
	gone, err := r.goneCondemned(s)
	if err := joinClose(err, s); err != nil {
		return err
	}
	for part := range slices.Chunk(gone, r.o.Batch) {
		r.rep.Commits++
		if _, err := r.cat.ForgetCondemned(ctx, part); err != nil {
			return fmt.Errorf("forget what died in packs that are gone: %w", err)
		}
	}
	return nil
}

func (r *round) goneCondemned(s *catalog.Snapshot) (gone []chunk.PackID, err error) {
	for x, err := range s.Condemned() {
		if err != nil {
			return nil, err
		}
		if !r.expired(x.Pack) {
			continue
		}
		_, known, err := s.Pack(x.Pack)
		if err != nil {
			return nil, err
		}
		if !known {
			gone = append(gone, x.Pack)
		}
	}
	return gone, nil
}

// orphans deletes objects that the state has no use for and that nobody can commit any
// more, because their upload began two upload epochs ago. Neither a clock nor the listing
// decides that: an object that is not listed is swept another time.
func (r *round) orphans(ctx context.Context) error {
	defer r.closeView()
	var found []chunkObject
	for o, err := range r.chunks.Objects(ctx, chunk.PackID{}) {
		if err != nil {
			return err
		}
		if !r.expired(o.ID) && !r.o.Mutants.sweepEarly() {
			break // they are in the order of their epochs
		}
		known, err := r.knows(ctx, o.ID)
		if err != nil {
			return err
		}
		if !known {
			found = append(found, chunkObject{o.ID, o.Bytes})
		}
	}
	r.closeView()
	if len(found) == 0 {
		return nil
	}
	// Once more, in a state that is newer than the listing.
	if _, err := r.cat.CatchUp(ctx); err != nil {
		return err
	}
	for part := range slices.Chunk(found, deleteBatch) {
		if err := r.orphansPart(ctx, part); err != nil {
			return fmt.Errorf("delete objects that were never committed: %w", err)
		}
	}
	return nil
}

type chunkObject struct {
	id    chunk.PackID
	bytes int64
}

func (r *round) orphansPart(ctx context.Context, part []chunkObject) error {
	var ids []chunk.PackID
	size := map[chunk.PackID]int64{}
	for _, o := range part {
		known, err := r.knows(ctx, o.id)
		if err != nil {
			return err
		}
		if !known {
			ids, size[o.id] = append(ids, o.id), o.bytes
		}
	}
	deleted, err := r.delete(ctx, ids)
	for _, id := range deleted {
		r.rep.Orphans++
		r.rep.OrphanBytes += size[id]
		r.rep.DeletedBytes += size[id]
	}
	return err
}

// knows reports whether the state has a use for an object, in a state that is as new as
// the last closeView.
func (r *round) knows(ctx context.Context, id chunk.PackID) (bool, error) {
	if r.view == nil {
		var err error
		if r.view, err = r.cat.Snapshot(ctx); err != nil {
			return false, err
		}
	}
	return r.view.KnowsObject(id)
}
