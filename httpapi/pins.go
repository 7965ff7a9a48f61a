package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// maxCounting is how many counts of what pins hold run at once; each may hold some
// hundred MB in memory.
const maxCounting = 2

// authoriseToSeePins is authorise for reading pins: who may pull may, and who may pin.
func (x *exchange) authoriseToSeePins() (catalog.Cache, error) {
	name := x.r.PathValue("cache")
	need := auth.Permission{Pull: true}
	if x.grant.Permission(name).Pin {
		need = auth.Permission{Pin: true}
	}
	cache, _, err := x.authorise(name, need)
	return cache, err
}

// listPins answers GET /_api/v1/caches/{cache}/pins.
func (s *server) listPins(x *exchange) error {
	cache, err := x.authoriseToSeePins()
	if err != nil {
		return err
	}
	var list wire.PinList
	err = s.readPins(x, cache.Name, func(r *pinReader) error {
		pins, err := r.snap.Pins(r.cache)
		if err != nil {
			return err
		}
		list.Pins = make([]wire.Pin, len(pins))
		for i := range pins {
			if list.Pins[i], err = r.pin(&pins[i]); err != nil {
				return err
			}
		}
		return r.count(x.r.Context(), pins, list.Pins)
	})
	if err != nil {
		return err
	}
	x.sendJSON(list)
	return nil
}

// pinHistory answers GET /_api/v1/caches/{cache}/pins/{name...}.
func (s *server) pinHistory(x *exchange) error {
	cache, err := x.authoriseToSeePins()
	if err != nil {
		return err
	}
	name, err := x.pinName()
	if err != nil {
		return err
	}
	var history wire.PinHistory
	err = s.readPins(x, cache.Name, func(r *pinReader) error {
		history, err = r.history(x.r.Context(), name)
		return err
	})
	if err != nil {
		return err
	}
	x.sendJSON(history)
	return nil
}

// setPin answers PUT /_api/v1/caches/{cache}/pins/{name...}.
func (s *server) setPin(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Pin: true})
	if err != nil {
		return err
	}
	name, err := x.pinName()
	if err != nil {
		return err
	}
	raw, err := x.readJSON()
	if err != nil {
		return err
	}
	req, err := wire.DecodePinRequest(raw)
	if err != nil {
		return jsonError(err)
	}
	path, err := nix.ParseStorePath(req.StorePath)
	if err != nil {
		return requestError("store_path: %v", err)
	}
	if path.Dir() != cache.StoreDir {
		return requestError("store path %s: expected one in the cache's store dir %s", path, cache.StoreDir)
	}
	if req.Present {
		if _, err := s.newestPath(x.r.Context(), cache.Name, path.HashPart()); err != nil {
			return err
		}
	}
	policy, err := policyOf(req.Policy)
	if err != nil {
		return err
	}
	seq, err := s.cat.SetPin(x.r.Context(), catalog.PinChange{
		Cache: cache.Name, Name: name, StorePath: path, Policy: policy, By: x.grant.Subject,
	})
	if err != nil {
		return err
	}
	x.setSeq(seq)
	pin, err := s.pinNow(x, seq, cache.Name, name)
	if err != nil {
		return err
	}
	x.note(slog.String("pin", name), slog.String("store_path", path.String()))
	x.sendJSON(pin)
	return nil
}

// pinNow returns a pin after its change in slot seq, without what it holds.
func (s *server) pinNow(x *exchange, seq catalog.Seq, cache catalog.CacheName, name string) (out wire.Pin, err error) {
	if err := s.cat.Wait(x.r.Context(), seq); err != nil {
		return wire.Pin{}, err
	}
	pin, err := s.cat.Pin(x.r.Context(), cache, name)
	if err != nil {
		return wire.Pin{}, err
	}
	snap, err := s.cat.Snapshot(x.r.Context())
	if err != nil {
		return wire.Pin{}, err
	}
	out, err = (&pinReader{s: s, snap: snap, cache: pin.Cache, who: true}).pin(&pin)
	return out, errors.Join(err, snap.Close())
}

// removePin answers DELETE /_api/v1/caches/{cache}/pins/{name...}.
func (s *server) removePin(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Pin: true})
	if err != nil {
		return err
	}
	name, err := x.pinName()
	if err != nil {
		return err
	}
	seq, err := s.cat.RemovePin(x.r.Context(), cache.Name, name)
	if err != nil {
		return err
	}
	x.setSeq(seq)
	x.note(slog.String("pin", name))
	return x.sendEmpty()
}

// pinName reads the name of a pin from the URL.
func (x *exchange) pinName() (string, error) {
	name := x.r.PathValue("name")
	if err := wire.CheckPinName(name); err != nil {
		return "", requestError("%v", err)
	}
	return name, nil
}

// policyOf checks a policy; nil stays nil.
func policyOf(p *wire.PinPolicy) (*catalog.PinPolicy, error) {
	if p == nil {
		return nil, nil //nolint:nilnil // nothing was said
	}
	const most = 1 << 30
	if p.KeepRevisions > most || p.KeepDays > most {
		return nil, requestError("policy: expected numbers below %d", most)
	}
	policy := &catalog.PinPolicy{KeepRevisions: uint32(p.KeepRevisions), KeepDays: uint32(p.KeepDays), KeepForever: p.KeepForever}
	if err := policy.Valid(); err != nil {
		return nil, requestError("policy: %v", err)
	}
	return policy, nil
}

// pinReader answers what is asked of pins from one state.
type pinReader struct {
	s     *server
	snap  *catalog.Snapshot
	cache catalog.CacheID
	who   bool // the caller is told who set them
}

// readPins reads from a state that has everything which was acknowledged before.
func (s *server) readPins(x *exchange, name catalog.CacheName, read func(*pinReader) error) error {
	if err := x.catchUp(x.r.Context()); err != nil {
		return err
	}
	snap, err := s.cat.Snapshot(x.r.Context())
	if err != nil {
		return err
	}
	cache, ok, err := snap.Cache(name)
	if err == nil && !ok {
		err = errNoSuchCache // destroyed since
	}
	if err == nil {
		err = read(&pinReader{s: s, snap: snap, cache: cache.ID, who: x.seesWho(name)})
	}
	return errors.Join(err, snap.Close())
}

// history returns a pin with all its revisions. The other pins are read as well, because
// what a pin holds alone depends on them.
func (r *pinReader) history(ctx context.Context, name string) (wire.PinHistory, error) {
	pins, err := r.snap.Pins(r.cache)
	if err != nil {
		return wire.PinHistory{}, err
	}
	at := slices.IndexFunc(pins, func(p catalog.Pin) bool { return p.Name == name })
	if at < 0 {
		return wire.PinHistory{}, errNoSuchPin
	}
	all := make([]wire.Pin, len(pins))
	if all[at], err = r.pin(&pins[at]); err != nil {
		return wire.PinHistory{}, err
	}
	if err := r.count(ctx, pins, all); err != nil {
		return wire.PinHistory{}, err
	}
	history := wire.PinHistory{Pin: all[at], Revisions: make([]wire.PastRevision, 0, len(pins[at].Revisions))}
	for i := range pins[at].Revisions {
		rev, err := r.revision(&pins[at].Revisions[i])
		if err != nil {
			return wire.PinHistory{}, err
		}
		history.Revisions = append(history.Revisions, wire.PastRevision{
			Revision: uint64(pins[at].Revisions[i].Number), PinRevision: rev, Kept: pins[at].Kept[i],
		})
	}
	return history, nil
}

func (r *pinReader) pin(p *catalog.Pin) (wire.Pin, error) {
	out := wire.Pin{
		Name: p.Name, Revision: uint64(p.Newest),
		Policy: wire.PinPolicy{KeepRevisions: int(p.Policy.KeepRevisions), KeepDays: int(p.Policy.KeepDays), KeepForever: p.Policy.KeepForever},
	}
	for _, kept := range p.Kept {
		if kept {
			out.Kept++
		}
	}
	if len(p.Revisions) == 0 {
		return out, nil
	}
	var err error
	out.PinRevision, err = r.revision(&p.Revisions[0])
	return out, err
}

func (r *pinReader) revision(rev *catalog.PinRevision) (wire.PinRevision, error) {
	_, there, err := r.snap.Path(r.cache, rev.StorePath.HashPart())
	out := wire.PinRevision{StorePath: rev.StorePath.String(), Created: rev.At, Waiting: !there}
	if r.who {
		out.CreatedBy = rev.By
	}
	return out, err
}

// count fills in what the pins hold, unless that is more than one wants to count.
func (r *pinReader) count(ctx context.Context, pins []catalog.Pin, out []wire.Pin) error {
	select {
	case r.s.countingSlots <- struct{}{}:
		defer func() { <-r.s.countingSlots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	roots := make([][]nix.HashPart, len(pins))
	for i := range pins {
		for j, rev := range pins[i].Revisions {
			if pins[i].Kept[j] {
				roots[i] = append(roots[i], rev.StorePath.HashPart())
			}
		}
	}
	closures, only, err := countHoldings(ctx, roots, maxHoldingPaths, func(hashPart nix.HashPart) (heldPath, bool, error) {
		p, ok, err := r.snap.Path(r.cache, hashPart)
		held := heldPath{narBytes: p.NarSize, fileBytes: p.FileSize, refs: make([]nix.HashPart, 0, len(p.References))}
		for _, ref := range p.References {
			held.refs = append(held.refs, ref.HashPart())
		}
		return held, ok, err
	})
	if _, ok := errors.AsType[*tooManyError](err); ok {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range out {
		out[i].Closure, out[i].Only = &closures[i], &only[i]
	}
	return nil
}
