package blob

import (
	"context"
	"errors"
	"io"
	"time"
)

// Finding is the result of one check of Probe.
type Finding struct {
	Check   string // short name, e.g. "create-race"
	OK      bool
	Detail  string // what was seen
	Promise string // what the bucket must do
	Hint    string // what the operator can do about it; empty if OK
}

// ProbeOptions tunes Probe. The zero value is the full probe.
type ProbeOptions struct {
	Short  bool             // only the six requests made at every start
	Rounds int              // rounds of each race; default 16
	Racers int              // concurrent writers in each round; default 32
	Now    func() time.Time // local clock; default time.Now
	Rand   io.Reader        // default crypto/rand
}

// Probe checks that b keeps the promises celler stands on.
func Probe(ctx context.Context, b Bucket, o ProbeOptions) ([]Finding, error) {
	return nil, errUnimplemented
}

var errUnimplemented = errors.New("probe is not implemented yet")
