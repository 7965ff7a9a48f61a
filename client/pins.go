package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/celler/celler/httpapi/wire"
)

// What a server tells about pins.
type (
	Pin          = wire.Pin
	PinPolicy    = wire.PinPolicy
	PinHistory   = wire.PinHistory
	PastRevision = wire.PastRevision
	Holding      = wire.Holding
)

// PinRequest says what to pin.
type PinRequest struct {
	StorePath string     // the whole path; it need not be in the cache yet
	Policy    *PinPolicy // which revisions to keep; nil = as before, or the newest of a new pin
	Present   bool       // refuse a path that is not in the cache
}

// Pins lists the pins of a cache. Only celler answers this.
func (c *Client) Pins(ctx context.Context, cache string) ([]Pin, error) {
	var answer wire.PinList
	err := c.call(ctx, http.MethodGet, pinsPath(cache, ""), nil, &answer)
	return answer.Pins, err
}

// AddPin sets a pin to a path: a new revision of it, unless the newest names that path.
func (c *Client) AddPin(ctx context.Context, cache, name string, p PinRequest) (Pin, error) {
	var answer Pin
	body := wire.PinRequest{StorePath: p.StorePath, Policy: p.Policy, Present: p.Present}
	err := c.call(ctx, http.MethodPut, pinsPath(cache, name), body, &answer)
	return answer, err
}

// RemovePin removes a pin with all its revisions.
func (c *Client) RemovePin(ctx context.Context, cache, name string) error {
	return c.callDelete(ctx, pinsPath(cache, name))
}

// PinHistory returns a pin with its revisions, newest first.
func (c *Client) PinHistory(ctx context.Context, cache, name string) (PinHistory, error) {
	var answer PinHistory
	err := c.call(ctx, http.MethodGet, pinsPath(cache, name), nil, &answer)
	return answer, err
}

// pinsPath is the URL of a cache's pins, or of one of them. The name of a pin may hold
// slashes, which stay as they are.
func pinsPath(cache, name string) string {
	path := "_api/v1/caches/" + url.PathEscape(cache) + "/pins"
	if name == "" {
		return path
	}
	segments := strings.Split(name, "/")
	for i := range segments {
		segments[i] = url.PathEscape(segments[i])
	}
	return path + "/" + strings.Join(segments, "/")
}

// CheckPinName says what is wrong with the name of a pin, if anything is.
func CheckPinName(name string) error { return wire.CheckPinName(name) }
