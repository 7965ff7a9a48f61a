package catalog

import (
	"context"

	"github.com/celler/celler/blob/chunk"
)

// LookupRefs says for every reference where the chunk lies, and whether it is known to
// whoever made the reference. Rows of chunks hold no proofs, so none is.
func (c *Catalog) LookupRefs(_ context.Context, refs []chunk.Ref) ([]chunk.Location, []bool, error) {
	return make([]chunk.Location, len(refs)), make([]bool, len(refs)), nil
}
