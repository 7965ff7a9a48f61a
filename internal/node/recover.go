package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/recovery"
	"github.com/celler/celler/wal"
)

// What a recovery says, so that commands need not import package recovery.
type (
	RecoveryPlan   = recovery.Plan
	RecoveryResult = recovery.Result
)

// RecoverRequest says how a bucket is to be examined.
type RecoverRequest struct {
	Salvage  bool
	Profile  string // chunk profile of a FORMAT that is made anew; "": found out
	Seen     uint64 // a slot that a server had applied; 0: none is known
	Version  string // for people
	Progress func(doing string)
}

// Recovery is a bucket that was examined.
type Recovery struct {
	Plan    *RecoveryPlan
	cfg     config.Config
	version string
	closers []blob.Bucket
}

// Recover examines a bucket. It writes nothing; Recovery.Execute does.
func Recover(ctx context.Context, cfg config.Config, r RecoverRequest) (*Recovery, error) {
	if _, err := parseProfile(r.Profile); err != nil {
		return nil, &UnknownProfileError{r.Profile, err}
	}
	out := &Recovery{cfg: cfg, version: r.Version}
	open := func(url string) (blob.Bucket, error) {
		b, err := openExisting(ctx, url, cfg.S3)
		if err == nil {
			out.closers = append(out.closers, b)
		}
		return b, err
	}
	err := func() error {
		log, err := open(cfg.LogBucket)
		if err != nil {
			return err
		}
		data := log
		if !cfg.Same() {
			if data, err = open(cfg.DataBucket); err != nil {
				return err
			}
		}
		dir := filepath.Join(cfg.CacheDir, "recover")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make a directory for the state: %w", err)
		}
		out.Plan, err = recovery.Examine(ctx, log, data, recovery.Options{
			By: "celler recover " + r.Version, Profile: r.Profile, Salvage: r.Salvage, Seen: wal.Seq(r.Seen), Dir: dir, Progress: r.Progress,
		})
		if nothing, ok := errors.AsType[*recovery.NothingError](err); ok {
			return fmt.Errorf("bucket %s: %w", cfg.LogBucket, nothing)
		}
		return err
	}()
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// Execute does what the plan says, and counts anew what there is if something was lost.
func (r *Recovery) Execute(ctx context.Context) (RecoveryResult, error) {
	res, err := r.Plan.Execute(ctx)
	if err != nil {
		return res, fmt.Errorf("recover bucket %s: %w", r.cfg.LogBucket, err)
	}
	if res.Check {
		if err := r.recount(ctx); err != nil {
			return res, fmt.Errorf("bucket %s is recovered; count what is in it: %w", r.cfg.LogBucket, err)
		}
	}
	return res, nil
}

// recount counts what there is, which a collector would do as well.
func (r *Recovery) recount(ctx context.Context) error {
	// An index of an earlier recovery may know slots that this one has not written.
	if err := os.RemoveAll(filepath.Join(r.cfg.CacheDir, "recover", r.Plan.Store)); err != nil {
		return fmt.Errorf("remove the index of an earlier recovery: %w", err)
	}
	n, err := openDirect(catalog.As(ctx, "celler recover"), r.cfg, Options{Version: r.version}, "recover", nil)
	if err != nil {
		return err
	}
	_, err = n.cat.Recount(ctx)
	return errors.Join(err, n.Close())
}

// Close lets go of the buckets.
func (r *Recovery) Close() error {
	var errs []error
	for _, b := range r.closers {
		errs = append(errs, closeBucket(b))
	}
	return errors.Join(errs...)
}
