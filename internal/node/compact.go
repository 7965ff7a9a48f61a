package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/celler/celler/compact"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/wal"
)

// maintenancePoll is how often the node asks itself whether a round is due. Asking
// costs nothing.
const maintenancePoll = 10 * time.Second

// CompactRequest says what a single round may do.
type CompactRequest struct {
	DryRun  bool
	Steal   bool
	Version string // for people: in ROOT
}

// CompactResult says what a round did, or would do.
type CompactResult = compact.Report

// Compact performs one round of compaction on the log in a bucket. It needs no server,
// and does not mind servers or other rounds at work at the same time.
func Compact(ctx context.Context, b config.Buckets, c config.Compact, r CompactRequest) (CompactResult, error) {
	bucket, err := OpenBucket(ctx, b.LogBucket, b.S3, nil)
	if err != nil {
		return CompactResult{}, err
	}
	rep, err := func() (CompactResult, error) {
		if err := checkFounded(ctx, bucket, b.LogBucket); err != nil {
			return CompactResult{}, err
		}
		o := compactOptions(c)
		o.By = "celler compact " + r.Version
		return compact.New(bucket, o).Round(ctx, compact.Mode{DryRun: r.DryRun, Steal: r.Steal})
	}()
	if err != nil {
		err = fmt.Errorf("compact the log in bucket %s: %w", b.LogBucket, err)
	}
	return rep, errors.Join(err, closeBucket(bucket))
}

// compactOptions turns settings, where 0 means none, into options, where it means the
// default.
func compactOptions(c config.Compact) compact.Options {
	o := compact.Options{KeepSegments: c.KeepSegments, LogRetention: time.Duration(c.LogRetention)}
	if o.KeepSegments == 0 {
		o.KeepSegments = -1
	}
	if o.LogRetention == 0 {
		o.LogRetention = -1
	}
	return o
}

// IsFenced reports whether a round lost to another, which is nothing to worry about.
func IsFenced(err error) bool { return errors.Is(err, wal.ErrFenced) }

// maintain performs a round every maintenance-interval, and earlier if the log has
// grown by maintenance-segments. Servers of one bucket need not agree on who does it.
func (n *Node) maintain(ctx context.Context) {
	o := compactOptions(n.cfg.Compact)
	o.By, o.Logger, o.Metrics = "celler "+n.o.Version, n.o.Logger, n.o.Metrics
	c := compact.New(n.logBucket, o)
	interval := time.Duration(n.cfg.MaintenanceInterval)
	poll := time.NewTicker(min(maintenancePoll, interval))
	defer poll.Stop()
	// Servers that were started together do not work together.
	due := n.o.Now().Add(rand.N(interval) / 2)
	folded := n.log.Seq()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
		grown := n.log.Seq() >= folded+wal.Seq(n.cfg.MaintenanceSegments)
		if n.log.Err() != nil || n.o.Now().Before(due) && !grown {
			continue // a log that is in doubt is not to be touched
		}
		rep, err := c.Round(ctx, compact.Mode{})
		n.reportRound(ctx, &rep, err)
		due, folded = n.o.Now().Add(interval), n.log.Seq()
	}
}

func (n *Node) reportRound(ctx context.Context, rep *compact.Report, err error) {
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, wal.ErrFenced):
		n.o.Logger.Info("another compactor was faster", "epoch", uint64(rep.Epoch))
	case err != nil:
		n.o.Logger.Warn("the log could not be compacted", "err", err, "epoch", uint64(rep.Epoch))
	case !rep.Idle() && rep.Busy == nil:
		n.o.Logger.Info("compacted the log", "seq", uint64(rep.Snapshot), "epoch", uint64(rep.Epoch), "bytes", rep.BytesWritten)
	}
}
