package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// BuildLog writes the log of a build to w, if the cache has it. It is named by the base name
// of the derivation.
func (c *Client) BuildLog(ctx context.Context, cache, drv string, w io.Writer) error {
	path := url.PathEscape(cache) + "/log/" + url.PathEscape(drv)
	return c.retrying(ctx, &budget{}, c.noticed(), func(ctx context.Context, _ int) error {
		req, err := c.request(ctx, http.MethodGet, path, nil)
		if err != nil {
			return final(err)
		}
		res, err := c.http.Do(req)
		if err != nil {
			return fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, bare(err))
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return newStatusError(req, res, c.now())
		}
		if _, err := io.Copy(w, res.Body); err != nil {
			return final(fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, err)) // some of it is out
		}
		return nil
	})
}
