package chunkstore

import (
	"context"
	"errors"

	"github.com/celler/celler/blob/chunk"
)

// VerifyJob says what of an object is to be verified.
type VerifyJob struct {
	// Layouts are the packs that lie in the object, as the index has them; all must
	// name the same object.
	Layouts []chunk.Layout
	// Budget is called before so many bytes are read. It may wait, and its error ends
	// the Verify. Nil = no limit.
	Budget func(ctx context.Context, bytes int64) error
}

// Damage is a part of a pack that cannot be read any more, or reads as something else.
type Damage struct {
	Pack  chunk.PackID
	Range chunk.Range // the chunks that are lost
	Err   error       // a *pack.CorruptError
}

// VerifyReport is what Verify found.
type VerifyReport struct {
	Damage []Damage
	// Footer says what is wrong with the footer, if anything. Without a footer the
	// chunks were compared with what the index has of them.
	Footer error

	Bytes  int64 // read
	Frames int
	Chunks int // whose SHA-256 is right
}

// Verify reads all frames of an object and its footer and compares them with the
// layouts: the checksum of every frame, the SHA-256 of every chunk. An error says
// nothing about the object, but blob.ErrNotExist that it was not there; Absent makes
// sure of that.
func (s *Store) Verify(ctx context.Context, job VerifyJob) (VerifyReport, error) {
	return VerifyReport{}, errors.New("not built yet")
}
