package chunkstore

import (
	"context"
	"errors"

	"github.com/celler/celler/blob/chunk"
)

// RewriteJob is a pack that is to be moved without what is dead of it.
type RewriteJob struct {
	Layout chunk.Layout  // as the index has it
	Dead   []chunk.Range // ascending; what is a hole already may be named or not
}

// RewrittenObject is an object that Rewrite has made. It is durable.
type RewrittenObject struct {
	ID      chunk.PackID
	Bytes   int64
	Layouts []chunk.Layout // of the packs moved into it
}

// RewriteFailure is a pack that was not moved, because it cannot be read.
type RewriteFailure struct {
	Pack chunk.PackID
	Err  error // a *pack.CorruptError, or blob.ErrNotExist
}

// RewriteResult tells what a Rewrite did.
type RewriteResult struct {
	Objects []RewrittenObject
	Empty   []chunk.PackID // packs of which nothing is alive
	Failed  []RewriteFailure

	ReadBytes    int64 // compressed bytes read
	CopiedBytes  int64 // compressed bytes of frames that were copied
	EncodedBytes int64 // compressed bytes of frames that were encoded again
}

// Rewrite moves packs, without what is dead of them, into new objects.
func (s *Store) Rewrite(ctx context.Context, jobs []RewriteJob) (RewriteResult, error) {
	return RewriteResult{}, errors.New("not built yet")
}
