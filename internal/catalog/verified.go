package catalog

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// Verified says when an object was last read back.
type Verified = keyspace.Verified

// Verified yields what is known of objects that were read back.
func (s *Snapshot) Verified() iter.Seq2[Verified, error] {
	return rowsOf(s.view, "objects that were read back", []byte{keyspace.VerifiedPrefix}, keyspace.DecodeVerified)
}

// BucketTime asks the bucket for the time, by a commit.
func (c *Catalog) BucketTime(ctx context.Context) (time.Time, error) {
	k, err := c.Tick(ctx, TickOptions{Day: math.MaxInt64, Epoch: math.MaxInt64})
	return k.Now, err
}

// NoteVerified notes that objects were read back, as far as the state still knows them, and
// forgets what was noted of those that it does not know any more. What it has noted before and
// is newer stays.
func (c *Catalog) NoteVerified(ctx context.Context, objects []Verified) error {
	for part := range slices.Chunk(objects, opPaths) {
		_, err := c.wal.Commit(ctx, wal.Op{Name: "note what was read back", Cost: len(part) * 32, Build: func(v wal.View) (entries []wal.Entry, err error) {
			for i := range part {
				o := &part[i]
				key := keyspace.AppendVerifiedKey(nil, o.Object)
				before, noted, err := read(v, key, keyspace.DecodeVerified)
				if err != nil {
					return nil, err
				}
				known, err := knowsObject(v, o.Object)
				switch {
				case err != nil:
					return nil, err
				case known && !before.At.After(o.At):
					entries = append(entries, set(key, keyspace.AppendVerified(nil, o)))
				case !known && noted:
					entries = append(entries, remove(key))
				}
			}
			return entries, nil
		}})
		if err != nil {
			return fmt.Errorf("note what was read back: %w", err)
		}
	}
	return nil
}

// RemoveWrongChunks removes those of the chunk rows that still say exactly this. Chunks
// that a row leads to are stored again when they are pushed next; recipes need no rows of chunks.
func (c *Catalog) RemoveWrongChunks(ctx context.Context, chunks []Chunk) (removed int, err error) {
	for part := range slices.Chunk(chunks, opChunks) {
		n := 0
		_, err := c.wal.Commit(ctx, wal.Op{Name: "remove wrong chunks", Cost: len(part) * 48, Build: func(v wal.View) ([]wal.Entry, error) {
			n = 0
			b, err := newBooks(v)
			if err != nil {
				return nil, err
			}
			for _, row := range part {
				before := len(b.entries)
				if err := b.dropChunk(row.ID, row.Location); err != nil {
					return nil, err
				}
				n += len(b.entries) - before
			}
			return b.close()
		}})
		if err != nil {
			return removed, fmt.Errorf("remove wrong chunks: %w", err)
		}
		removed += n
	}
	return removed, nil
}

// Object returns the packs that lie in an object, and its length; none if the state has
// no pack in it.
func (s *Snapshot) Object(id chunk.PackID) (packs []PackState, bytes int64, err error) {
	row, moved, err := read(s.view, keyspace.AppendObjectKey(nil, id), keyspace.DecodeObject)
	if err != nil {
		return nil, 0, err
	}
	ids := row.Packs
	if !moved {
		ids = []chunk.PackID{id}
	}
	for _, pack := range ids {
		p, known, err := s.Pack(pack)
		if err != nil {
			return nil, 0, err
		}
		if known && p.Layout.Where() == id {
			packs, bytes = append(packs, p), p.Layout.Bytes
		}
	}
	return packs, bytes, nil
}
