package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
)

// Object is an object that holds packs, as a listing shows it.
type Object struct {
	ID      chunk.PackID
	Bytes   int64
	ModTime time.Time // by the bucket's clock
}

// Objects lists the objects that hold packs, in the order of their names, from the
// one after after on; the zero id begins at the first. Objects below pack/ whose
// names are no pack's are passed over. The iteration ends after the first error.
func (s *Store) Objects(ctx context.Context, after chunk.PackID) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		from := blob.Key("")
		if after != (chunk.PackID{}) {
			from = pack.Key(after)
		}
		for info, err := range s.bucket.List(ctx, pack.Prefix, from) {
			if err != nil {
				yield(Object{}, fmt.Errorf("list packs: %w", err))
				return
			}
			id, err := pack.ParseKey(info.Key)
			if err != nil {
				continue // not ours
			}
			if !yield(Object{ID: id, Bytes: info.Size, ModTime: info.ModTime}, nil) {
				return
			}
		}
	}
}

// DeleteResult tells what became of objects that were to be deleted.
type DeleteResult struct {
	Deleted []chunk.PackID // gone; those that were not there count as deleted
	Denied  []chunk.PackID // the bucket does not let us: try again later
}

// DeleteObjects deletes objects that nothing refers to any more, a thousand a
// request. Objects whose deletion the bucket denies (a lock, missing rights) are no
// error. After an error the result is right as far as it goes: what is in neither
// list may be gone or not, and may be given again.
func (s *Store) DeleteObjects(ctx context.Context, ids []chunk.PackID) (DeleteResult, error) {
	return DeleteResult{}, errors.New("not built yet")
}

// Absent reports whether the object is definitely not there: a listing does not have
// it and a GET finds nothing, both twice. An error says nothing, whatever it is.
func (s *Store) Absent(ctx context.Context, id chunk.PackID) (bool, error) {
	return false, errors.New("not built yet")
}

// Footer reads what an object of size bytes says of itself. It needs no index.
func (s *Store) Footer(ctx context.Context, id chunk.PackID, size int64) (pack.Footer, error) {
	return pack.Footer{}, errors.New("not built yet")
}
