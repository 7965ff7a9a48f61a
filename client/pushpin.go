package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// pinsOf are the pins that a push is to set, by path.
type pinsOf map[nix.StorePath][]string

// pinLater is a pin that no upload sets, because its path is there already.
type pinLater struct {
	name string
	path nix.StorePath
}

// load gives each upload its pin and returns the pins that are left: those of paths
// that are not uploaded, and all but the first of a path with several.
func (pins pinsOf) load(uploads []path) []pinLater {
	uploaded := map[nix.StorePath]bool{}
	for i := range uploads {
		if names := pins[uploads[i].storePath]; len(names) > 0 {
			uploads[i].pin = names[0]
			uploaded[uploads[i].storePath] = true
		}
	}
	var later []pinLater
	for path, names := range pins {
		if uploaded[path] {
			names = names[1:]
		}
		for _, name := range names {
			later = append(later, pinLater{name, path})
		}
	}
	slices.SortFunc(later, func(a, b pinLater) int { return strings.Compare(a.name, b.name) })
	return later
}

// firstVersionWithPins is the first wire.CapabilitiesVersion that pins.
const firstVersionWithPins = 2

// CannotPinError reports a server or a token that cannot pin, before anything is pushed.
type CannotPinError struct {
	Endpoint string
	Cache    string
	Right    bool // the server could, but the token has no right to
}

func (e *CannotPinError) Error() string {
	if e.Right {
		return fmt.Sprintf("the token has no right to pin in cache %q", e.Cache)
	}
	return fmt.Sprintf("the server at %s cannot pin", e.Endpoint)
}

// mayPin finds out early what else would be found out after hours of uploads. A server
// that does not show us its configuration is left to say so itself.
func (p *push) mayPin(cache *Cache) error {
	switch {
	case cache.Name == "":
		return nil
	case cache.Version < firstVersionWithPins:
		return &CannotPinError{Endpoint: p.c.Endpoint(), Cache: p.o.Cache}
	case cache.Permissions != nil && !slices.Contains(cache.Permissions, "pin"):
		return &CannotPinError{Endpoint: p.c.Endpoint(), Cache: p.o.Cache, Right: true}
	}
	return nil
}

// errVanished means that a path which was present could not be pinned because it is gone.
var errVanished = errors.New("a path that was in the cache is gone")

// pin sets the pins that no upload has set. None is set if something of the push failed:
// what a pin names is complete.
func (p *push) pin(ctx context.Context, later []pinLater) error {
	if p.result.Incomplete() {
		p.result.Unpinned = len(p.o.Pins) - p.result.Pinned
		return nil
	}
	for i, l := range later {
		pin, err := p.c.AddPin(ctx, p.o.Cache, l.name, PinRequest{StorePath: l.path.String(), Policy: p.o.PinPolicy, Present: true})
		if err != nil {
			p.result.Unpinned = len(later) - i
			if status, ok := errors.AsType[*StatusError](err); ok && status.Name == NoSuchObject {
				return fmt.Errorf("pin %s: %w: %w", l.name, errVanished, err)
			}
			return fmt.Errorf("pin %s: %w", l.name, err)
		}
		p.result.Pinned++
		p.ev.pinned(pin)
	}
	return nil
}

// pinArrived sets the pin of an upload whose answer was lost, although the path, as
// somebody's, arrived. It makes one attempt.
func (p *push) pinArrived(ctx context.Context, path *path, to *Outcome) bool {
	payload, err := encode(wire.PinRequest{StorePath: path.storePath.String(), Policy: p.o.PinPolicy, Present: true})
	if err != nil {
		return false
	}
	var pin Pin
	if p.c.attempt(ctx, http.MethodPut, pinsPath(p.o.Cache, path.pin), payload, &pin) != nil {
		return false
	}
	to.Pin = &pin
	return true
}
