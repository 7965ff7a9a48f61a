package keyspace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/celler/celler/nix"
)

const (
	// MaxPinNameLen is the longest name of a pin, in bytes.
	MaxPinNameLen = 200
	// MaxKeepRevisions bounds the revisions of a policy.
	MaxKeepRevisions = 100_000
	// MaxKeepDays bounds the days of a policy.
	MaxKeepDays = 36_500
)

// PinPolicy says which revisions of a pin keep their closures. A revision that any
// of the rules keeps is kept. Without a rule it is the newest.
type PinPolicy struct {
	KeepRevisions uint32 // the newest of them; 0: no such rule
	KeepDays      uint32 // those made in the last so many days; 0: no such rule
	KeepForever   bool   // all of them
}

// Valid reports what is wrong with the policy, if anything.
func (p *PinPolicy) Valid() error {
	if p.KeepRevisions > MaxKeepRevisions || p.KeepDays > MaxKeepDays {
		return fmt.Errorf("pin is to keep %d revisions and %d days, want at most %d and %d", p.KeepRevisions, p.KeepDays, MaxKeepRevisions, MaxKeepDays)
	}
	return nil
}

// Pin is a name in a cache that keeps closures alive. Its revisions are rows of
// their own.
type Pin struct {
	Cache   CacheID // of the key
	Name    string  // of the key
	Policy  PinPolicy
	Newest  uint32 // number of the newest revision; 0: there is none yet
	Created time.Time
}

// PinRevision is what a pin named at some time. The path need not be there.
type PinRevision struct {
	Cache     CacheID // of the key
	Pin       string  // of the key
	Number    uint32  // of the key; from 1
	StorePath nix.StorePath
	Day       uint32 // store day on which it was made, or made again
	At        time.Time
	By        string // subject of the token
}

// ValidPinName reports what is wrong with the name of a pin, if anything.
func ValidPinName(name string) error {
	if name == "" || len(name) > MaxPinNameLen {
		return fmt.Errorf("pin name %.40q has %d bytes, want 1..%d", name, len(name), MaxPinNameLen)
	}
	for i := range len(name) {
		if c := name[i]; c <= 0x20 || c >= 0x7f {
			return fmt.Errorf("pin name %q has %q at %d, want printable ASCII without spaces", name, c, i)
		}
	}
	return nil
}

// AppendPinPrefix appends what the keys of all pins of a cache, and of their
// revisions, begin with.
func AppendPinPrefix(dst []byte, cache CacheID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, PinPrefix), uint32(cache))
}

// AppendPinKey appends the key of a pin. Those of its revisions begin with it.
func AppendPinKey(dst []byte, cache CacheID, name string) []byte {
	return append(append(AppendPinPrefix(dst, cache), name...), 0)
}

// AppendPinRevisionKey appends the key of a revision.
func AppendPinRevisionKey(dst []byte, cache CacheID, name string, number uint32) []byte {
	return binary.BigEndian.AppendUint32(AppendPinKey(dst, cache, name), number)
}

// DecodePinKey returns what the key of a pin or of a revision says. Number is 0 for
// the pin itself.
func DecodePinKey(key []byte) (cache CacheID, name string, number uint32, err error) {
	rest, ok := cutPrefix(key, PinPrefix, -1)
	if !ok || len(rest) < 4 {
		return 0, "", 0, keyError("pin", key)
	}
	cache = CacheID(binary.BigEndian.Uint32(rest))
	text, revision, ok := bytes.Cut(rest[4:], []byte{0})
	if !ok || cache == 0 || ValidPinName(string(text)) != nil {
		return 0, "", 0, keyError("pin", key)
	}
	switch len(revision) {
	case 0:
	case 4:
		number = binary.BigEndian.Uint32(revision)
	}
	if len(revision) > 0 && number == 0 {
		return 0, "", 0, keyError("pin", key)
	}
	return cache, string(text), number, nil
}

// AppendPin appends the value of p.
func AppendPin(dst []byte, p *Pin) []byte {
	dst = appendTime(append(dst, rowVersion), p.Created)
	dst = append(dst, flagIf(p.Policy.KeepForever, 1))
	dst = binary.AppendUvarint(dst, uint64(p.Policy.KeepRevisions))
	dst = binary.AppendUvarint(dst, uint64(p.Policy.KeepDays))
	return binary.AppendUvarint(dst, uint64(p.Newest))
}

// DecodePin decodes the row of one pin.
func DecodePin(key, value []byte) (Pin, error) {
	cache, name, number, err := DecodePinKey(key)
	if err != nil {
		return Pin{}, err
	}
	if number != 0 {
		return Pin{}, keyError("pin", key)
	}
	d := decoder[[]byte]{what: "pin", src: value}
	d.version()
	p := Pin{Cache: cache, Name: name, Created: d.time()}
	p.Policy.KeepForever = d.flags(1) != 0
	p.Policy.KeepRevisions = uint32(d.upTo(MaxKeepRevisions, "number of revisions to keep"))
	p.Policy.KeepDays = uint32(d.upTo(MaxKeepDays, "number of days to keep"))
	p.Newest = d.uint32("number of the newest revision")
	if err := d.end(); err != nil {
		return Pin{}, err
	}
	return p, nil
}

// Valid reports what is wrong with the row, if anything.
func (r *PinRevision) Valid() error {
	switch {
	case r.Number == 0 || r.Day == 0:
		return errors.New("pin revision has no number or no day")
	case r.StorePath.IsZero():
		return errors.New("pin revision has no store path")
	}
	if err := ValidPinName(r.Pin); err != nil {
		return err
	}
	if err := validTime(r.At); err != nil {
		return err
	}
	return validText("subject", r.By)
}

// AppendPinRevision appends the value of r, which must be valid.
func AppendPinRevision(dst []byte, r *PinRevision) []byte {
	dst = appendTime(append(dst, rowVersion), r.At)
	dst = binary.AppendUvarint(dst, uint64(r.Day))
	dst = appendText(dst, r.StorePath.String())
	return appendText(dst, r.By)
}

// DecodePinRevision decodes the row of one revision.
func DecodePinRevision(key, value []byte) (PinRevision, error) {
	cache, name, number, err := DecodePinKey(key)
	if err != nil {
		return PinRevision{}, err
	}
	if number == 0 {
		return PinRevision{}, keyError("pin revision", key)
	}
	d := decoder[string]{what: "pin revision", src: string(value)}
	d.version()
	r := PinRevision{Cache: cache, Pin: name, Number: number, At: d.time(), Day: d.day()}
	path := d.text()
	r.By = d.text()
	if err := d.end(); err != nil {
		return PinRevision{}, err
	}
	if r.StorePath, err = nix.ParseStorePath(path); err == nil {
		err = r.Valid()
	}
	if err == nil && r.StorePath.String() != path {
		err = fmt.Errorf("store path %q is written in another way than %q", path, r.StorePath.String())
	}
	if err != nil {
		return PinRevision{}, fmt.Errorf("decode pin revision row: %w", err)
	}
	return r, nil
}
