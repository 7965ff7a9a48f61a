package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
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

// listed looks for one object in a listing.
func (s *Store) listed(ctx context.Context, id chunk.PackID) (Object, bool, error) {
	key := pack.Key(id)
	for info, err := range s.bucket.List(ctx, key, "") {
		if err != nil {
			return Object{}, false, fmt.Errorf("list %s: %w", key, err)
		}
		if info.Key == key {
			return Object{ID: id, Bytes: info.Size, ModTime: info.ModTime}, true, nil
		}
	}
	return Object{}, false, nil
}

// DeleteResult tells what became of objects that were to be deleted.
type DeleteResult struct {
	Deleted []chunk.PackID // gone; those that were not there count as deleted
	Denied  []chunk.PackID // the bucket does not let us: try again later
}

const (
	// deleteBatch is how many objects S3 deletes with one request.
	deleteBatch = 1000

	// deniedAlone is how many objects of one DeleteObjects are tried each by itself
	// once the bucket has denied something: enough to tell a few locked objects from
	// missing rights, without a request for each of a million.
	deniedAlone = 64
)

// DeleteObjects deletes objects that nothing refers to any more, a thousand a
// request. Objects whose deletion the bucket denies (a lock, missing rights) are no
// error. After an error the result is right as far as it goes: what is in neither
// list may be gone or not, and may be given again.
func (s *Store) DeleteObjects(ctx context.Context, ids []chunk.PackID) (DeleteResult, error) {
	d := &deleter{s: s}
	for batch := range slices.Chunk(ids, deleteBatch) {
		if err := d.delete(ctx, batch); err != nil {
			return d.res, fmt.Errorf("delete packs: %w", err)
		}
	}
	return d.res, nil
}

// deleter is one DeleteObjects.
type deleter struct {
	s      *Store
	res    DeleteResult
	denied int // objects that were denied each by itself
}

// delete deletes a batch; one that is denied, in halves, down to the objects that are
// the reason.
func (d *deleter) delete(ctx context.Context, ids []chunk.PackID) error {
	keys := make([]blob.Key, len(ids))
	for i, id := range ids {
		keys[i] = pack.Key(id)
	}
	err := d.s.bucket.Delete(ctx, keys...)
	switch {
	case err == nil:
		d.res.Deleted = append(d.res.Deleted, ids...)
		d.s.m.deleted.Add(len(ids))
		return nil
	case ctx.Err() != nil || blob.KindOf(err) != blob.KindDenied:
		return err
	case len(ids) == 1 || d.denied >= deniedAlone:
		d.denied++
		d.res.Denied = append(d.res.Denied, ids...)
		d.s.m.denied.Add(len(ids))
		return nil
	}
	if err := d.delete(ctx, ids[:len(ids)/2]); err != nil {
		return err
	}
	return d.delete(ctx, ids[len(ids)/2:])
}

// Absent reports whether the object is definitely not there: a listing does not have
// it and a GET finds nothing, both twice. An error says nothing, whatever it is.
func (s *Store) Absent(ctx context.Context, id chunk.PackID) (bool, error) {
	for range 2 {
		if _, found, err := s.listed(ctx, id); found || err != nil {
			return false, err
		}
		if found, err := s.readable(ctx, id); found || err != nil {
			return false, err
		}
	}
	return true, nil
}

// readable asks for the first byte of an object.
func (s *Store) readable(ctx context.Context, id chunk.PackID) (bool, error) {
	body, err := s.bucket.GetRange(ctx, pack.Key(id), 0, 1)
	if errors.Is(err, blob.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", pack.Key(id), err)
	}
	defer body.Close()
	// Some drivers ask only now.
	_, err = io.ReadFull(body, make([]byte, 1))
	if errors.Is(err, blob.ErrNotExist) {
		return false, nil
	}
	if err != nil && !tooShort(err) {
		return false, fmt.Errorf("look for %s: %w", pack.Key(id), err)
	}
	return true, nil
}

// Footer reads what an object of size bytes says of itself. It needs no index.
func (s *Store) Footer(ctx context.Context, id chunk.PackID, size int64) (pack.Footer, error) {
	return s.again(ctx, min(size, pack.MaxFooterBytes), func(ctx context.Context) (pack.Footer, error) {
		return pack.ReadFooter(ctx, s.bucket, id, size)
	})
}
