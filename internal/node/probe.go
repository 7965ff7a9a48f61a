package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/wal"
)

// BrokenPromiseError reports a bucket that does not keep what celler relies on.
type BrokenPromiseError struct {
	Bucket string
	Failed []blob.Finding
	Full   bool // found by the full probe
}

func (e *BrokenPromiseError) Error() string {
	text := fmt.Sprintf("bucket %s breaks a promise celler stands on: %s (%s)", e.Bucket, e.Failed[0].Promise, e.Failed[0].Detail)
	if n := len(e.Failed) - 1; n > 0 {
		text += fmt.Sprintf(", and %d more", n)
	}
	return text
}

// Hints say what to do about it.
func (e *BrokenPromiseError) Hints() []string {
	var hints []string
	for _, f := range e.Failed {
		if f.Hint != "" && !slices.Contains(hints, f.Hint) {
			hints = append(hints, f.Hint)
		}
	}
	if !e.Full {
		hints = append(hints, fmt.Sprintf("the full probe says more: celler doctor bucket '%s'", e.Bucket))
	}
	return hints
}

// ProbeError reports a probe that could not be finished: no answer, or no right to
// ask. It says nothing about promises.
type ProbeError struct {
	Bucket string
	Err    error
}

func (e *ProbeError) Error() string { return e.Err.Error() } // which names the bucket itself

// Unwrap returns what stopped the probe.
func (e *ProbeError) Unwrap() error { return e.Err }

// probeShort is made at every start.
func probeShort(ctx context.Context, b blob.Bucket, name string, now func() time.Time) error {
	findings, err := blob.Probe(ctx, b, blob.ProbeOptions{Short: true, Now: now})
	if err != nil {
		return &ProbeError{name, err}
	}
	return verdict(name, findings, false)
}

// probeStart is probeShort for a server that starts: a bucket that has been founded and
// takes no writes at the moment still has what it has.
func probeStart(ctx context.Context, b blob.Bucket, name string, now func() time.Time, logger *slog.Logger) error {
	err := probeShort(ctx, b, name, now)
	if kind := blob.KindOf(err); err == nil || kind != blob.KindFull && kind != blob.KindReadOnly {
		return err
	}
	if _, ferr := wal.ReadFormat(ctx, b); ferr != nil {
		return err
	}
	logger.Warn("the bucket takes no writes: serving what it has", "bucket", name, "err", err)
	return nil
}

// probeFounding makes the full probe of a bucket on S3 that is about to be founded: there
// are servers on which two concurrent creates can win, which only the races find. What
// celler itself does in directories is known.
func probeFounding(ctx context.Context, b blob.Bucket, name string, now func() time.Time) error {
	if !strings.HasPrefix(name, "s3:") {
		return nil
	}
	if _, err := wal.ReadFormat(ctx, b); !errors.Is(err, blob.ErrNotExist) {
		return nil // founded, or found says what is the matter
	}
	if err := refuseForeign(ctx, b, name); err != nil {
		return err
	}
	findings, err := blob.Probe(ctx, b, blob.ProbeOptions{Now: now})
	if err != nil {
		return &ProbeError{name, err}
	}
	// Nothing of ours rests on this machine's clock. Where signatures do, that fails by itself.
	findings = slices.DeleteFunc(findings, func(f blob.Finding) bool { return f.Check == "clock" })
	return verdict(name, findings, true)
}

func verdict(name string, findings []blob.Finding, full bool) error {
	if broken, ok := errors.AsType[*blob.ProbeError](blob.Verdict(findings)); ok {
		return &BrokenPromiseError{Bucket: name, Failed: broken.Failed, Full: full}
	}
	return nil
}

// Probe checks every promise the log needs of a bucket, races included.
func Probe(ctx context.Context, url string, b config.Buckets, o blob.ProbeOptions) ([]blob.Finding, error) {
	bucket, err := openExisting(ctx, url, b.S3)
	if err != nil {
		return nil, err
	}
	findings, err := blob.Probe(ctx, bucket, o)
	if err != nil {
		err = &ProbeError{url, err}
	}
	return findings, errors.Join(err, closeBucket(bucket))
}

// probeData checks what packs need: put, read back, delete. Nothing conditional.
func probeData(ctx context.Context, b blob.Bucket, name string) error {
	var nonce [8]byte
	if _, err := io.ReadFull(rand.Reader, nonce[:]); err != nil {
		return fmt.Errorf("make a name for the probe: %w", err)
	}
	key := blob.Key(fmt.Sprintf("probe/%x", nonce))
	if _, err := b.Put(ctx, key, nonce[:]); err != nil {
		return &ProbeError{name, err}
	}
	got, _, err := b.Get(ctx, key)
	if err != nil {
		return &ProbeError{name, err}
	}
	if string(got) != string(nonce[:]) {
		return &BrokenPromiseError{Bucket: name, Failed: []blob.Finding{{
			Check: "read-back", Promise: "an object is readable as it was written once put has succeeded",
			Detail: fmt.Sprintf("wrote %x, read %x", nonce, got),
		}}}
	}
	if err := b.Delete(ctx, key); err != nil {
		return &ProbeError{name, err}
	}
	return nil
}

// ProbeOptions tune a probe.
type ProbeOptions = blob.ProbeOptions

// Finding is what one check of a probe found.
type Finding = blob.Finding

// Broken returns a *BrokenPromiseError with the findings of a full probe that are not
// OK, or nil.
func Broken(bucket string, findings []blob.Finding) error { return verdict(bucket, findings, true) }
