package compact

import (
	"fmt"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
)

// FencedError reports that another compactor has claimed a later epoch. What the
// loser wrote and did not install is garbage; it starts over from ROOT or not at
// all. errors.Is(err, wal.ErrFenced).
type FencedError struct{ Ours, Theirs wal.Epoch }

func (e *FencedError) Error() string {
	return fmt.Sprintf("compaction epoch %v was superseded by %v", e.Ours, e.Theirs)
}

// Is makes every FencedError a wal.ErrFenced.
func (e *FencedError) Is(target error) bool { return target == wal.ErrFenced }

// SumError reports that entries got lost or changed on their way through a flush or
// a merge, or lie in a table other than they were written. Nothing is installed.
type SumError struct {
	What       string
	Table      blob.Key // empty if it has no name yet
	Want, Have string
}

func (e *SumError) Error() string {
	name := string(e.Table)
	if name == "" {
		name = "new table"
	}
	return fmt.Sprintf("%s: %s: want %s, found %s", name, e.What, e.Want, e.Have)
}
