package catalog

import (
	"context"

	"github.com/celler/celler/nix"
)

// Withdrawal says which paths are to be removed from a cache because somebody asked
// for it.
type Withdrawal struct {
	Cache     CacheName
	HashParts []nix.HashPart
	Purge     bool // their bytes are to be gone from the bucket as far as nothing else shares them
	Pinned    bool // also those that a pin names
}

// Withdrawn says what became of a Withdrawal.
type Withdrawn struct {
	Seq    Seq
	Paths  []Path         // that were removed
	Absent []nix.HashPart // that were not there
}

// WithdrawPaths removes paths, in as many operations as it takes. It fails with
// ErrNoCache, and with a *PinnedError if a kept revision of a pin names one of them.
func (c *Catalog) WithdrawPaths(ctx context.Context, w Withdrawal) (Withdrawn, error) {
	return Withdrawn{}, errNotBuilt
}
