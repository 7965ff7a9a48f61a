package wire

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// PinPolicy says which revisions of a pin are kept: those that any of the rules keeps.
// Without a rule it is the newest alone.
type PinPolicy struct {
	KeepRevisions int  `json:"keep_revisions,omitempty"` // this many of the newest; 0: no such rule
	KeepDays      int  `json:"keep_days,omitempty"`      // those set in the last so many days; 0: no such rule
	KeepForever   bool `json:"keep_forever,omitempty"`   // all
}

// PinRequest is the body of PUT pins, and part of an [UploadInfo]: what to pin, and for
// how long. Without a policy a pin keeps the one it has.
type PinRequest struct {
	StorePath string     `json:"store_path,omitempty"` // not in an upload, which says it already
	Name      string     `json:"name,omitempty"`       // in an upload only; PUT pins has it in the URL
	Policy    *PinPolicy `json:"policy,omitempty"`
	// Present: refuse with NoSuchObject unless the path is in the cache now.
	Present bool `json:"present,omitempty"`
}

// DecodePinRequest reads the body of PUT pins.
func DecodePinRequest(body []byte) (PinRequest, error) {
	f, err := parseFields(body)
	if err != nil {
		return PinRequest{}, err
	}
	var p PinRequest
	var present *bool
	for _, err := range []error{
		required(f, "store_path", &p.StorePath),
		optional(f, "policy", &p.Policy),
		optional(f, "present", &present),
	} {
		if err != nil {
			return PinRequest{}, err
		}
	}
	if p.StorePath == "" {
		return PinRequest{}, &ShapeError{Field: "store_path", Err: errors.New("the text is empty")}
	}
	p.Present = deref(present)
	return p, p.valid()
}

func (p *PinRequest) valid() error {
	if p.Policy == nil {
		return nil
	}
	if q := p.Policy; q.KeepRevisions < 0 || q.KeepDays < 0 {
		return &ShapeError{Field: "policy", Err: errors.New("expected numbers that are not negative")}
	}
	return nil
}

// UnmarshalJSON implements json.Unmarshaler: keys in their exact spelling, others skipped.
func (p *PinPolicy) UnmarshalJSON(raw []byte) error {
	f, err := parseFields(raw)
	if err != nil {
		return err
	}
	var revisions, days *int
	var forever *bool
	for _, err := range []error{
		optional(f, "keep_revisions", &revisions),
		optional(f, "keep_days", &days),
		optional(f, "keep_forever", &forever),
	} {
		if err != nil {
			return err
		}
	}
	*p = PinPolicy{KeepRevisions: deref(revisions), KeepDays: deref(days), KeepForever: deref(forever)}
	return nil
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// PinList is the answer to GET pins: the pins of a cache by name.
type PinList struct {
	Pins []Pin `json:"pins"`
}

// Pin is one pin: its newest revision, and what it holds.
type Pin struct {
	Name     string    `json:"name"`
	Policy   PinPolicy `json:"policy"`
	Revision uint64    `json:"revision"` // of the newest, from 1
	PinRevision
	Kept int `json:"kept"` // how many revisions the policy keeps

	// Closure is what the kept revisions keep alive, and Only the part of it that no
	// other pin of the cache does. Both are absent where the answer does not count them.
	Closure *Holding `json:"closure,omitempty"`
	Only    *Holding `json:"only,omitempty"`
}

// PinRevision is one setting of a pin.
type PinRevision struct {
	StorePath string    `json:"store_path"`
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by,omitempty"`
	Waiting   bool      `json:"waiting"` // the path is not in the cache yet, or no more
}

// Holding is a number of store paths and what they take.
type Holding struct {
	Paths     int   `json:"paths"`
	NarBytes  int64 `json:"nar_bytes"`  // plain
	FileBytes int64 `json:"file_bytes"` // as served
}

// PinHistory is the answer to GET pins/{name}: the pin and its revisions, newest first.
type PinHistory struct {
	Pin       Pin            `json:"pin"`
	Revisions []PastRevision `json:"revisions"`
}

// PastRevision is a revision in a history.
type PastRevision struct {
	Revision uint64 `json:"revision"`
	PinRevision
	Kept bool `json:"kept"` // the policy keeps it; else its closure may be collected
}

// maxPinName bounds the name of a pin, in bytes.
const maxPinName = 200

// CheckPinName says what is wrong with the name of a pin: it is 1 to 200 letters,
// digits and characters of "-_+.:@/", with no empty, "." or ".." part between slashes, so
// that branches, tags and versions can be names, and names can be URLs.
func CheckPinName(name string) error {
	if name == "" || len(name) > maxPinName {
		return fmt.Errorf("pin name: expected 1 to %d characters, found %d", maxPinName, len(name))
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_+.:@/", c) >= 0:
		default:
			r, _ := utf8.DecodeRuneInString(name[i:])
			return fmt.Errorf("pin name %.40q: unexpected %q; expected letters, digits and \"-_+.:@/\"", name, r)
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("pin name %.40q: expected something between its slashes that is not %q", name, part)
		}
	}
	return nil
}
