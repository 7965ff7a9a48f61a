package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// pinHistory is how many revisions of a pin are known at least, kept or not.
const pinHistory = 100

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

	at time.Time
}

func (p *PinChange) valid() error {
	if err := p.Cache.Valid(); err != nil {
		return err
	}
	if p.Policy != nil {
		if err := p.Policy.Valid(); err != nil {
			return err
		}
	}
	r := PinRevision{Pin: p.Name, Number: 1, StorePath: p.StorePath, Day: 1, At: p.at, By: p.By}
	return r.Valid()
}

// SetPin makes a new revision of a pin, and the pin if there is none. If the newest
// revision names the same path it is made anew instead of a further one. It fails
// with ErrNoCache and ErrInvalid.
func (c *Catalog) SetPin(ctx context.Context, p PinChange) (Seq, error) {
	p.at = c.timestamp()
	if err := p.valid(); err != nil {
		return 0, invalid(err)
	}
	return c.wal.Commit(ctx, wal.Op{Name: "pin", About: string(p.Cache), Cost: 512, Build: func(v wal.View) ([]wal.Entry, error) {
		t, err := c.readTenant(v, p.Cache)
		if err != nil {
			return nil, err
		}
		if dir := p.StorePath.Dir(); dir != t.cache.StoreDir {
			return nil, invalid(fmt.Errorf("path %v is not in %s, the store dir of cache %q", p.StorePath, t.cache.StoreDir, string(p.Cache)))
		}
		b, err := newBooks(v)
		if err != nil {
			return nil, err
		}
		b.mutants = c.mutants
		if err := b.setPin(t.cache.ID, &p); err != nil {
			return nil, err
		}
		b.touch(Touch{Cache: t.cache.ID, HashPart: p.StorePath.HashPart()})
		return b.close()
	}})
}

// setPin makes a revision. What it pins is used by that, if it is there.
func (b *books) setPin(id keyspace.CacheID, p *PinChange) error {
	key := keyspace.AppendPinKey(nil, id, p.Name)
	pin, ok, err := read(b.view, key, keyspace.DecodePin)
	if err != nil {
		return err
	}
	if !ok {
		pin = keyspace.Pin{Cache: id, Name: p.Name, Created: p.at}
	}
	if p.Policy != nil && pin.Policy != *p.Policy {
		pin.Policy = *p.Policy
		if err := b.touchRevisions(&pin); err != nil {
			return err
		}
	}
	newest, ok, err := read(b.view, keyspace.AppendPinRevisionKey(nil, id, p.Name, pin.Newest), keyspace.DecodePinRevision)
	if pin.Newest > 0 && err != nil {
		return err
	}
	if pin.Newest == 0 || !ok || newest.StorePath != p.StorePath {
		pin.Newest++
	}
	b.put(key, keyspace.AppendPin(nil, &pin))
	r := PinRevision{StorePath: p.StorePath, Day: b.day, At: p.at, By: p.By}
	b.put(keyspace.AppendPinRevisionKey(nil, id, p.Name, pin.Newest), keyspace.AppendPinRevision(nil, &r))
	if err := b.dropRevisions(&pin); err != nil {
		return err
	}
	hashPart := p.StorePath.HashPart()
	if _, there, err := b.view.Get(keyspace.AppendPathKey(nil, id, hashPart)); !there || err != nil {
		return err
	}
	return b.use(id, hashPart)
}

// touchRevisions tells a running collection that some of the revisions of a pin may be
// roots now that were none.
func (b *books) touchRevisions(pin *keyspace.Pin) error {
	key := keyspace.AppendPinKey(nil, pin.Cache, pin.Name)
	for row, err := range b.view.Scan(key, key) {
		if err != nil {
			return err
		}
		r, err := keyspace.DecodePinRevision(row.Key, row.Value)
		if err != nil {
			return err
		}
		b.touch(Touch{Cache: pin.Cache, HashPart: r.StorePath.HashPart()})
	}
	return nil
}

// dropRevisions removes old revisions that are not kept, some at a time.
func (b *books) dropRevisions(pin *keyspace.Pin) error {
	const most = 8
	if pin.Newest <= pinHistory || pin.Policy.KeepForever {
		return nil
	}
	k, err := readClock(b.view)
	if err != nil {
		return err
	}
	key := keyspace.AppendPinKey(nil, pin.Cache, pin.Name)
	dropped := 0
	for row, err := range b.view.Scan(key, key) {
		if err != nil {
			return err
		}
		r, err := keyspace.DecodePinRevision(row.Key, row.Value)
		if err != nil {
			return err
		}
		if r.Number+pinHistory > pin.Newest || dropped == most || keeps(&pin.Policy, &r, int(pin.Newest-r.Number), &k) {
			return nil // the later ones are kept all the more
		}
		b.drop(row.Key)
		dropped++
	}
	return nil
}

// keeps reports whether a policy keeps a revision, after which there were some later.
func keeps(p *PinPolicy, r *PinRevision, later int, k *Clock) bool {
	switch {
	case p.KeepForever, p.KeepRevisions > 0 && later < int(p.KeepRevisions):
		return true
	case p.KeepDays > 0:
		return k.Age(r.Day) < time.Duration(p.KeepDays)*24*time.Hour
	default:
		return later == 0 && p.KeepRevisions == 0
	}
}

// SetPinPolicy changes which revisions of a pin are kept, or fails with ErrNoCache or ErrNoPin.
func (c *Catalog) SetPinPolicy(ctx context.Context, cache CacheName, name string, p PinPolicy) (Seq, error) {
	if err := errors.Join(keyspace.ValidPinName(name), p.Valid()); err != nil {
		return 0, invalid(err)
	}
	return c.wal.Commit(ctx, wal.Op{Name: "change pin", About: string(cache), Cost: 256, Build: func(v wal.View) ([]wal.Entry, error) {
		pin, err := c.readPin(v, cache, name)
		if err != nil || pin.Policy == p {
			return nil, err
		}
		b, err := newBooks(v)
		if err != nil {
			return nil, err
		}
		pin.Policy = p
		b.put(keyspace.AppendPinKey(nil, pin.Cache, name), keyspace.AppendPin(nil, &pin.Pin))
		if err := b.touchRevisions(&pin.Pin); err != nil {
			return nil, err
		}
		return b.close()
	}})
}

// RemovePin removes a pin with its revisions, or fails with ErrNoCache or ErrNoPin.
func (c *Catalog) RemovePin(ctx context.Context, cache CacheName, name string) (Seq, error) {
	if err := keyspace.ValidPinName(name); err != nil {
		return 0, invalid(err)
	}
	return c.wal.Commit(ctx, wal.Op{Name: "remove pin", About: string(cache), Cost: 256, Build: func(v wal.View) ([]wal.Entry, error) {
		pin, err := c.readPin(v, cache, name)
		if err != nil {
			return nil, err
		}
		return removePin(&pin), nil
	}})
}

func removePin(p *Pin) []wal.Entry {
	entries := []wal.Entry{remove(keyspace.AppendPinKey(nil, p.Cache, p.Name))}
	for _, r := range p.Revisions {
		entries = append(entries, remove(keyspace.AppendPinRevisionKey(nil, p.Cache, p.Name, r.Number)))
	}
	return entries
}

// readPin returns a pin in the state an operation is built against.
func (c *Catalog) readPin(v wal.View, cache CacheName, name string) (Pin, error) {
	t, err := c.readTenant(v, cache)
	if err != nil {
		return Pin{}, err
	}
	pins, err := readPins(v, keyspace.AppendPinKey(nil, t.cache.ID, name))
	if err == nil && len(pins) == 0 {
		err = noPin(cache, name)
	}
	if err != nil {
		return Pin{}, err
	}
	return pins[0], nil
}

func noPin(cache CacheName, name string) error {
	return fmt.Errorf("pin %q of cache %q: %w", name, string(cache), ErrNoPin)
}

// readPins returns the pins whose keys begin with prefix, in the order of their names.
func readPins(v scanner, prefix []byte) (pins []Pin, err error) {
	for row, err := range v.Scan(prefix, nil) {
		if err != nil {
			return nil, fmt.Errorf("read pins: %w", err)
		}
		_, _, number, err := keyspace.DecodePinKey(row.Key)
		if err != nil {
			return nil, fmt.Errorf("read pins: %w", err)
		}
		if number == 0 {
			pin, err := keyspace.DecodePin(row.Key, row.Value)
			if err != nil {
				return nil, fmt.Errorf("read pins: %w", err)
			}
			pins = append(pins, Pin{Pin: pin})
			continue
		}
		r, err := keyspace.DecodePinRevision(row.Key, row.Value)
		if err == nil && (len(pins) == 0 || pins[len(pins)-1].Name != r.Pin) {
			err = fmt.Errorf("revision %d is of pin %q, which is not there", r.Number, r.Pin)
		}
		if err != nil {
			return nil, fmt.Errorf("read pins: %w", err)
		}
		pins[len(pins)-1].Revisions = append(pins[len(pins)-1].Revisions, r)
	}
	if len(pins) == 0 {
		return nil, nil
	}
	k, err := readClock(v)
	if err != nil {
		return nil, err
	}
	for i := range pins {
		p := &pins[i]
		slices.Reverse(p.Revisions)
		p.Kept = make([]bool, len(p.Revisions))
		for j := range p.Revisions {
			p.Kept[j] = keeps(&p.Policy, &p.Revisions[j], j, &k)
		}
	}
	return pins, nil
}

// pinned returns which paths of a cache kept revisions of pins name.
func pinned(v scanner, id keyspace.CacheID) (map[nix.HashPart]PinRevision, error) {
	pins, err := readPins(v, keyspace.AppendPinPrefix(nil, id))
	if err != nil {
		return nil, err
	}
	roots := make(map[nix.HashPart]PinRevision)
	for i := range pins {
		for j, r := range pins[i].Revisions {
			if pins[i].Kept[j] {
				roots[r.StorePath.HashPart()] = r
			}
		}
	}
	return roots, nil
}

// Pin returns a pin, or ErrNoCache or ErrNoPin.
func (c *Catalog) Pin(ctx context.Context, cache CacheName, name string) (Pin, error) {
	if err := keyspace.ValidPinName(name); err != nil {
		return Pin{}, invalid(err)
	}
	pins, err := c.pins(ctx, cache, func(id keyspace.CacheID) []byte { return keyspace.AppendPinKey(nil, id, name) })
	if err == nil && len(pins) == 0 {
		err = noPin(cache, name)
	}
	if err != nil {
		return Pin{}, err
	}
	return pins[0], nil
}

// Pins returns the pins of a cache in the order of their names.
func (c *Catalog) Pins(ctx context.Context, cache CacheName) ([]Pin, error) {
	return c.pins(ctx, cache, func(id keyspace.CacheID) []byte { return keyspace.AppendPinPrefix(nil, id) })
}

func (c *Catalog) pins(ctx context.Context, cache CacheName, prefix func(keyspace.CacheID) []byte) ([]Pin, error) {
	if err := c.catchUp(ctx, "list pins"); err != nil {
		return nil, err
	}
	t, err := c.localTenant(cache)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	if t == nil {
		return nil, noCache(cache)
	}
	return readPins(c.db, prefix(t.cache.ID))
}
