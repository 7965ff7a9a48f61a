package catalog

import (
	"context"

	"github.com/celler/celler/nix"
)

// MarkDamaged makes chunks that cannot be read dead, whoever refers to them: the next
// push of them stores them again. ids must be given where a chunk row names the place.
func (c *Catalog) MarkDamaged(ctx context.Context, dead []DeadChunks) (Condemnation, error) {
	return Condemnation{}, errNotBuilt
}

// WithdrawBroken removes those of the paths whose NAR cannot be put together any more, and
// returns them. Others are left alone: somebody pushed them again.
func (c *Catalog) WithdrawBroken(ctx context.Context, cache CacheID, hashParts []nix.HashPart) (gone []Path, err error) {
	return nil, errNotBuilt
}

// RemoveBroken removes those of the recipes that name chunks which are dead or not
// known, or that lack a part.
func (c *Catalog) RemoveBroken(ctx context.Context, narHashes [][32]byte) (removed int, err error) {
	return 0, errNotBuilt
}

// RemoveChunks removes those of the chunk rows that name a place which is dead or not known.
func (c *Catalog) RemoveChunks(ctx context.Context, chunks []Chunk) (removed int, err error) {
	return 0, errNotBuilt
}

// Discrepancy is a count, or the row of a use, that is not what the paths, recipes and
// packs say.
type Discrepancy struct {
	Row         string // which row, for people
	Found, Want string
}

// CheckCounts compares all counts, and the rows of uses, with what they count. yield is told each
// discrepancy until it returns false. It reads all paths, some times over if there are many.
func (s *Snapshot) CheckCounts(ctx context.Context, yield func(Discrepancy) bool) error {
	return errNotBuilt
}

// Recount puts right what CheckCounts finds, while others go on committing, and returns how much
// it was.
func (c *Catalog) Recount(ctx context.Context) (fixed int, err error) { return 0, errNotBuilt }
