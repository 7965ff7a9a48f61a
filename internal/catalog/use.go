package catalog

import (
	"context"
	"time"

	"github.com/celler/celler/nix"
)

// PathKey names a path in a cache.
type PathKey struct {
	Cache    CacheName
	HashPart nix.HashPart
}

// RecordUses notes that paths were used on the open store day. Paths and caches that
// are not there, and uses that are known already, are passed over. It may be given
// any number of them.
func (c *Catalog) RecordUses(ctx context.Context, uses []PathKey) error { return errNotBuilt }

// UnrecordedUses returns which of those hashParts that the cache has would be news to
// RecordUses and were last used longer ago than olderThan. It reads the index only.
// Whoever is about to answer that a path is present records these first.
func (c *Catalog) UnrecordedUses(ctx context.Context, cache CacheName, hashParts []nix.HashPart, olderThan time.Duration) ([]nix.HashPart, error) {
	return nil, errNotBuilt
}
