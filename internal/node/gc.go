package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/gc"
	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/nix"
	"github.com/celler/celler/wal"
)

// What a collection says, so that commands need not import package gc.
type (
	GCReport      = gc.Report
	GCWaiting     = gc.Waiting
	GCGone        = gc.Gone
	GCProgress    = gc.Progress
	GCStatus      = gc.Status
	GCExplanation = gc.Explanation
)

// GCOverQuota is the reason of a GCGone that had to make room.
const GCOverQuota = gc.OverQuota

// GCRequest says what a single round may do.
type GCRequest struct {
	DryRun   bool
	Cache    string // remove paths of this cache only; "": of all
	Version  string // for people
	Each     func(GCGone) error
	Progress func(GCProgress)
}

// CollectGarbage performs one round of collection on a bucket. It needs no server, and
// does not mind servers or other rounds at work at the same time.
func CollectGarbage(ctx context.Context, cfg config.Config, r GCRequest) (rep GCReport, err error) {
	err = withCollector(ctx, cfg, r.Version, r.Progress, func(c *gc.Collector, _ *Node) error {
		cache, err := cacheOrNone(r.Cache)
		if err == nil {
			rep, err = c.Round(ctx, gc.Mode{DryRun: r.DryRun, Cache: cache, Each: r.Each})
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("collect garbage in bucket %s: %w", cfg.LogBucket, err)
	}
	return rep, err
}

// GarbageStatus says what the last round did and what waits.
func GarbageStatus(ctx context.Context, cfg config.Config) (st GCStatus, err error) {
	err = withCollector(ctx, cfg, "", nil, func(c *gc.Collector, _ *Node) (err error) {
		st, err = c.Status(ctx)
		return err
	})
	if err != nil {
		err = fmt.Errorf("look for garbage in bucket %s: %w", cfg.LogBucket, err)
	}
	return st, err
}

// ExplainPath says why a path is in a cache, or why it is not. path is a store path, its
// base name, or its hash part.
func ExplainPath(ctx context.Context, cfg config.Config, cache, path string) (ex GCExplanation, err error) {
	name, err := catalog.ParseCacheName(cache)
	if err != nil {
		return ex, err
	}
	hashPart, err := parseAnyPath(path)
	if err != nil {
		return ex, err
	}
	err = withCollector(ctx, cfg, "", nil, func(c *gc.Collector, _ *Node) (err error) {
		ex, err = c.Explain(ctx, name, hashPart)
		return err
	})
	return ex, err
}

func cacheOrNone(name string) (catalog.CacheName, error) {
	if name == "" {
		return "", nil
	}
	return catalog.ParseCacheName(name)
}

// withCollector opens a bucket for a collector and closes it again.
func withCollector(ctx context.Context, cfg config.Config, version string, progress func(GCProgress), use func(*gc.Collector, *Node) error) error {
	var counts requestCounts
	n, err := openDirect(ctx, cfg, Options{Version: version}, "gc", counts.wrap)
	if err != nil {
		return err
	}
	o := n.gcOptions()
	o.By, o.Progress, o.Requests = "celler gc "+version, progress, counts.read
	return errors.Join(use(gc.New(n.cat, n.chunks, o), n), n.Close())
}

// gcOptions turns settings, where 0 means none, into options, where it means the default.
func (n *Node) gcOptions() gc.Options {
	c := n.cfg.GC
	o := gc.Options{
		Now: n.o.Now, Logger: n.o.Logger, Metrics: n.o.Metrics, By: "celler " + n.o.Version,
		Retention: time.Duration(c.Retention), Quota: int64(c.Quota),
		NarGrace: time.Duration(c.NarGrace), ReaderGrace: time.Duration(c.ReaderGrace),
		Pickup:    n.pickup(),
		KeptSince: func(ctx context.Context) (time.Time, bool, error) { return wal.KeptSince(ctx, n.logBucket) },
		Clock:     n.bucketTime,
	}
	return o
}

// bucketTime returns when the newest slot was stored, or the time of this machine if that
// is later: a bucket in which nothing happens does not say how late it is. It is for what
// is shown to people, and for the order of reading back. Nothing is removed by it.
func (n *Node) bucketTime(ctx context.Context) (time.Time, error) {
	now := n.o.Now()
	seq := n.log.Seq()
	if seq == 0 {
		return now, nil
	}
	at, err := wal.SlotTime(ctx, n.logBucket, seq)
	if errors.Is(err, blob.ErrNotExist) { // it was folded and deleted
		return now, nil
	}
	if err == nil && now.After(at) {
		at = now
	}
	return at, err
}

// requestCounts counts what is asked of buckets.
type requestCounts struct {
	mu sync.Mutex
	n  map[string]int64 // guarded by mu
}

func (c *requestCounts) wrap(b blob.Bucket) blob.Bucket {
	return blob.Observe(b, func(_ context.Context, call blob.Call) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.n == nil {
			c.n = make(map[string]int64)
		}
		c.n[call.Op]++
	})
}

func (c *requestCounts) read() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

// collects reports whether this node collects garbage by itself.
func (n *Node) collects() bool {
	return n.past == nil && n.cfg.Maintenance == "on" && n.cfg.GC.Interval > 0
}

// collectOptions makes what the HTTP interface needs of collection.
func (n *Node) collectOptions(o *httpapi.Options) {
	n.collector = gc.New(n.cat, n.chunks, n.gcOptions())
	n.collectSoon = make(chan struct{}, 1)
	n.uses = newUses(n.cat, time.Duration(n.cfg.GC.Retention), n.cfg.GC.Quota > 0, n.o.Metrics)
	o.Uses = n.uses
	o.Deleter = deleter{n.collector, func() {
		select {
		case n.collectSoon <- struct{}{}:
		default: // a token is there already
		}
	}}
}

// pickup is how soon what is due is collected by this node, with room for a long round;
// of others it can only be hoped that they are set up alike.
func (n *Node) pickup() time.Duration {
	switch {
	case n.collects():
		return 15 * time.Minute
	case n.cfg.GC.Interval > 0:
		return time.Duration(n.cfg.GC.Interval)
	}
	return 24 * time.Hour
}

// minCollectGap keeps a server from collecting without end when graces end one after
// the other.
const minCollectGap = time.Minute

// collect performs a round every [garbage-collection] interval, and earlier when a grace
// ends or somebody asked for bytes to be gone. Servers of one bucket need not agree on who
// does it: one that finds that another was there goes home.
func (n *Node) collect(ctx context.Context) {
	interval := time.Duration(n.cfg.GC.Interval)
	poll := time.NewTicker(min(maintenancePoll, interval))
	defer poll.Stop()
	due := n.o.Now().Add(rand.N(interval)/8 + min(interval, minCollectGap)) // not all servers at once, and not while they start
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		case <-n.collectSoon:
			due = n.o.Now()
		}
		if n.log.Err() != nil || n.o.Now().Before(due) {
			continue // a log that is in doubt is not to be touched
		}
		next := n.collectOnce(ctx, interval)
		due = n.o.Now().Add(min(interval, max(next, minCollectGap)))
	}
}

// collectOnce performs one round and returns when there will be something to do. What
// this node alone knows to be used is made known before.
func (n *Node) collectOnce(ctx context.Context, interval time.Duration) (next time.Duration) {
	if err := n.uses.flush(ctx); err != nil {
		n.o.Logger.Warn("uses of paths could not be noted yet", "err", err)
	}
	rep, err := n.collector.Round(ctx, gc.Mode{Every: interval})
	n.reportCollection(ctx, &rep, err)
	return rep.Next
}

func (n *Node) reportCollection(ctx context.Context, rep *gc.Report, err error) {
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, catalog.ErrFenced):
		n.o.Logger.Info("another collector took over")
	case err != nil:
		n.o.Logger.Warn("garbage could not be collected", "err", err)
	case !rep.Idle():
		n.o.Logger.Info("collected garbage", "removed_paths", rep.Removed, "chunks", rep.Condemned, "bytes", rep.DeletedBytes)
	}
}

// parseAnyPath reads a store path, its base name or its hash part.
func parseAnyPath(text string) (nix.HashPart, error) {
	if hp, err := nix.ParseHashPart(text); err == nil {
		return hp, nil
	}
	if i := strings.LastIndexByte(text, '/'); i >= 0 {
		text = text[i+1:]
	}
	if len(text) > nix.HashPartLen && text[nix.HashPartLen] == '-' {
		text = text[:nix.HashPartLen]
	}
	hp, err := nix.ParseHashPart(text)
	if err != nil {
		return hp, &config.ValueError{Key: "path", Value: text, Want: "a store path or the 32 characters of its hash part"}
	}
	return hp, nil
}
