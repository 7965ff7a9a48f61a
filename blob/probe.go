package blob

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	probeRounds   = 16
	probeRacers   = 32
	probeAttempts = 3                // of one check, when the bucket does not answer
	probeWait     = time.Second      // before the second attempt; doubled for the third
	probeCleanup  = 30 * time.Second // for removing what the probe wrote, even after cancellation
	probeFarewell = 2 * time.Second  // likewise, if the bucket does not answer at all
	probeLeftover = 24 * time.Hour   // age after which another probe's objects are nobody's

	clockWarn = time.Minute      // beyond this an operator should know
	clockFail = 15 * time.Minute // beyond this S3 refuses signatures
)

// Finding is the result of one check of Probe.
type Finding struct {
	Check   string `json:"check"` // short name, e.g. "create-race"
	OK      bool   `json:"ok"`
	Detail  string `json:"detail"`         // what was seen
	Promise string `json:"promise"`        // what the bucket must do
	Hint    string `json:"hint,omitempty"` // what the operator can do about it; empty if there is nothing to do
}

// ProbeOptions tunes Probe. The zero value is the full probe.
type ProbeOptions struct {
	Short  bool             // only the six requests made at every start
	Rounds int              // rounds of each race; default 16
	Racers int              // concurrent writers in each round; default 32
	Now    func() time.Time // local clock; default time.Now
	Rand   io.Reader        // default crypto/rand
}

func (o ProbeOptions) withDefaults() ProbeOptions {
	if o.Rounds <= 0 {
		o.Rounds = probeRounds
	}
	if o.Racers <= 1 {
		o.Racers = probeRacers
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	return o
}

// Probe checks that b keeps the promises celler stands on, writing only below
// "probe/" and removing what it wrote.
//
// Broken promises are findings that are not OK; see Verdict. An error means that
// the probe could not be finished (no answer, no right to write), which says
// nothing about the promises.
//
// The races are what finds servers that check the condition first and write
// later. They alternate bodies of 1 KiB and 1 MiB, because the long ones hold
// that window open: against such a server one round of 32 fails with probability
// 0.3 (short) or 0.7 (long), so that the full probe misses it once in 10^5 runs.
func Probe(ctx context.Context, b Bucket, o ProbeOptions) ([]Finding, error) {
	o = o.withDefaults()
	var nonce [8]byte
	if _, err := io.ReadFull(o.Rand, nonce[:]); err != nil {
		return nil, fmt.Errorf("probe bucket: %w", err)
	}
	p := &prober{b: b, o: o, dir: Key("probe/" + hex.EncodeToString(nonce[:]))}
	checks := p.fullChecks()
	if o.Short {
		checks = p.shortChecks()
	}
	err := p.run(ctx, checks)
	patience := probeCleanup
	if KindOf(err) == KindUnreachable {
		patience = probeFarewell
	}
	if cleanErr := p.cleanup(ctx, patience); err == nil {
		err = cleanErr
	}
	if err != nil {
		return p.findings, fmt.Errorf("probe bucket: %w", err)
	}
	return p.findings, nil
}

// ProbeError lists the promises a bucket breaks.
type ProbeError struct{ Failed []Finding }

func (e *ProbeError) Error() string {
	var s strings.Builder
	s.WriteString("bucket breaks its promises")
	for i, f := range e.Failed {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&s, "%s%s: %s", sep, f.Check, f.Detail)
	}
	return s.String()
}

// Verdict returns a *ProbeError with the findings that are not OK, or nil.
func Verdict(findings []Finding) error {
	var failed []Finding
	for _, f := range findings {
		if !f.OK {
			failed = append(failed, f)
		}
	}
	if failed == nil {
		return nil
	}
	return &ProbeError{failed}
}

// prober holds the state of one run of Probe.
type prober struct {
	b        Bucket
	o        ProbeOptions
	dir      Key
	findings []Finding

	mu   sync.Mutex // guards keys
	keys []Key      // everything that was ever written, for cleanup
}

// check is one promise and the requests that put it to the test. run returns
// what it saw; a *brokenError if that breaks the promise; any other error if it
// cannot tell.
type check struct {
	name, promise, hint string
	run                 func(context.Context) (detail string, err error)
}

// brokenError is how a check says that the promise is broken.
type brokenError struct{ detail string }

func (e *brokenError) Error() string { return e.detail }

func broken(format string, args ...any) error {
	return &brokenError{fmt.Sprintf(format, args...)}
}

func (p *prober) run(ctx context.Context, checks []check) error {
	for _, c := range checks {
		detail, err := p.attempt(ctx, c)
		f := Finding{Check: c.name, Promise: c.promise}
		switch b, isBroken := errors.AsType[*brokenError](err); {
		case err == nil:
			f.OK, f.Detail = true, detail
		case isBroken:
			f.Detail, f.Hint = b.detail, c.hint
		case KindOf(err) == KindUnsupported:
			f.Detail, f.Hint = err.Error(), c.hint
		default:
			return fmt.Errorf("%s: %w", c.name, err)
		}
		p.findings = append(p.findings, f)
	}
	return nil
}

// attempt repeats a check that got no answer; every attempt uses fresh keys.
func (p *prober) attempt(ctx context.Context, c check) (string, error) {
	for n := 1; ; n++ {
		detail, err := c.run(ctx)
		kind := KindOf(err)
		if err == nil || n == probeAttempts || kind != KindThrottled && kind != KindUnreachable || ctx.Err() != nil {
			return detail, err
		}
		timer := time.NewTimer(probeWait << (n - 1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", ctx.Err()
		}
	}
}

// key returns a name that was never used before, to be removed at the end. All are in
// one place, because where keys are paths each place is a directory that stays.
func (p *prober) key(name string) Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := Key(fmt.Sprintf("%s-%s-%04x", p.dir, name, len(p.keys)))
	p.keys = append(p.keys, k)
	return k
}

// cleanup removes everything that was written, even if ctx has ended. Being
// refused the right to delete is not an error here: writers may lack it on
// purpose, and the objects are small and in nobody's way.
func (p *prober) cleanup(ctx context.Context, patience time.Duration) error {
	if len(p.keys) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := p.b.Delete(ctx, p.keys...); err != nil && KindOf(err) != KindDenied {
		return fmt.Errorf("remove probe objects %s-…: %w", p.dir, err)
	}
	return nil
}

// sweep removes objects that probes killed long ago left behind.
func (p *prober) sweep(ctx context.Context, now time.Time) error {
	var old []Key
	for info, err := range p.b.List(ctx, "probe/", "") {
		if err != nil {
			return err
		}
		if now.Sub(info.ModTime) > probeLeftover {
			old = append(old, info.Key)
		}
	}
	if len(old) == 0 {
		return nil
	}
	if err := p.b.Delete(ctx, old...); err != nil && KindOf(err) != KindDenied {
		return err
	}
	return nil
}
