package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/fsck"
	"github.com/celler/celler/wal"
)

// What a check says, so that commands need not import package fsck.
type (
	FsckReport   = fsck.Report
	FsckFinding  = fsck.Finding
	FsckKind     = fsck.Kind
	FsckRead     = fsck.Read
	FsckProgress = fsck.Progress
	FsckStatus   = fsck.Status
)

// FsckWithdrawn is the kind of findings that have to be pushed again.
const FsckWithdrawn = fsck.Withdrawn

// FsckRequest says what a check is to look at, and what it may do.
type FsckRequest struct {
	Objects  bool
	Read     FsckRead
	Repair   bool
	Version  string // for people
	Each     func(FsckFinding) error
	Progress func(FsckProgress)
}

// Fsck checks what a bucket holds. It needs no server, and does not mind servers or
// collectors at work at the same time.
func Fsck(ctx context.Context, cfg config.Config, r FsckRequest) (rep FsckReport, err error) {
	err = withChecker(ctx, cfg, r.Version, r.Progress, func(ctx context.Context, c *fsck.Checker) (err error) {
		rep, err = c.Check(ctx, fsck.Mode{Objects: r.Objects, Read: r.Read, Repair: r.Repair, Each: r.Each})
		return err
	})
	if err != nil {
		err = fmt.Errorf("check bucket %s: %w", cfg.LogBucket, err)
	}
	return rep, err
}

// ScrubStatus says when what a bucket holds was last read back.
func ScrubStatus(ctx context.Context, cfg config.Config, version string) (st FsckStatus, err error) {
	err = withChecker(ctx, cfg, version, nil, func(ctx context.Context, c *fsck.Checker) (err error) {
		st, err = c.Status(ctx)
		return err
	})
	if err != nil {
		err = fmt.Errorf("look what was read back of bucket %s: %w", cfg.DataBucket, err)
	}
	return st, err
}

// withChecker opens a bucket for a check and closes it again.
func withChecker(ctx context.Context, cfg config.Config, version string, progress func(FsckProgress), use func(context.Context, *fsck.Checker) error) error {
	var counts requestCounts
	n, err := openDirect(ctx, cfg, Options{Version: version}, "fsck", counts.wrap)
	if err != nil {
		return err
	}
	o := n.fsckOptions()
	o.Progress, o.Requests = progress, counts.read
	return errors.Join(use(wal.As(ctx, "celler fsck "+version), fsck.New(n.cat, n.chunks, o)), n.Close())
}

func (n *Node) fsckOptions() fsck.Options {
	return fsck.Options{
		Logger: n.o.Logger, Metrics: n.o.Metrics, Log: n.logBucket,
		Clock: func(ctx context.Context) (time.Time, error) { return n.bucketTime(ctx) },
	}
}
