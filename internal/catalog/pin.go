package catalog

import (
	"context"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// The rows of pins.
type (
	PinPolicy   = keyspace.PinPolicy
	PinRevision = keyspace.PinRevision
)

// Pin is a pin with all revisions that are still known.
type Pin struct {
	keyspace.Pin
	Revisions []PinRevision // newest first
	Kept      []bool        // for each of them, whether its closure is kept
}

// PinChange is what a pin is to name from now on.
type PinChange struct {
	Cache     CacheName
	Name      string
	StorePath nix.StorePath // need not be there yet
	Policy    *PinPolicy    // nil: as it was; a new pin keeps its newest revision
	By        string
}

// SetPin makes a new revision of a pin, and the pin if there is none. If the newest
// revision names the same path it is made anew instead of a further one. It fails
// with ErrNoCache and ErrInvalid.
func (c *Catalog) SetPin(ctx context.Context, p PinChange) (Seq, error) { return 0, errNotBuilt }

// SetPinPolicy changes which revisions of a pin are kept, or fails with ErrNoCache or ErrNoPin.
func (c *Catalog) SetPinPolicy(ctx context.Context, cache CacheName, name string, p PinPolicy) (Seq, error) {
	return 0, errNotBuilt
}

// RemovePin removes a pin with its revisions, or fails with ErrNoCache or ErrNoPin.
func (c *Catalog) RemovePin(ctx context.Context, cache CacheName, name string) (Seq, error) {
	return 0, errNotBuilt
}

// Pin returns a pin, or ErrNoCache or ErrNoPin.
func (c *Catalog) Pin(ctx context.Context, cache CacheName, name string) (Pin, error) {
	return Pin{}, errNotBuilt
}

// Pins returns the pins of a cache in the order of their names.
func (c *Catalog) Pins(ctx context.Context, cache CacheName) ([]Pin, error) {
	return nil, errNotBuilt
}
