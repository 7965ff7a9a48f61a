package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/celler/celler/httpapi/wire"
)

// What a server tells about how much there is.
type (
	Stats      = wire.Stats
	CacheStats = wire.CacheStats
	StoreStats = wire.StoreStats
	Growth     = wire.Growth
)

// Stats returns the numbers of all caches that the caller may see, and those of the whole
// store if that is all of them. Only celler answers this.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	var answer Stats
	err := c.call(ctx, http.MethodGet, "_api/v1/stats", nil, &answer)
	return answer, err
}

// CacheStats returns the numbers of one cache. Only celler answers this.
func (c *Client) CacheStats(ctx context.Context, cache string) (CacheStats, error) {
	var answer CacheStats
	err := c.call(ctx, http.MethodGet, "_api/v1/caches/"+url.PathEscape(cache)+"/stats", nil, &answer)
	return answer, err
}
