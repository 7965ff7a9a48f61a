package catalog

import (
	"context"

	"github.com/celler/celler/wal"
)

// As returns a context under which changes are made on behalf of who: the subject of a
// token, or the name of a program. The log remembers it for people.
func As(ctx context.Context, who string) context.Context { return wal.As(ctx, who) }

type forCache struct{}

// For returns a context under which packs are brought by a push to a cache, which
// counts them (Totals.BroughtBytes).
func For(ctx context.Context, cache CacheName) context.Context {
	return context.WithValue(ctx, forCache{}, cache)
}
