package node

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/celler/celler/internal/fsck"
	"github.com/celler/celler/wal"
)

const (
	// scrubEvery is how often a server sits down to read packs back.
	scrubEvery = time.Hour
	// scrubStart is when it does so first, at the earliest; at the latest it is twice that.
	scrubStart = time.Minute
)

// scrubs reports whether this node reads packs back by itself.
func (n *Node) scrubs() bool {
	return n.past == nil && n.cfg.Maintenance == "on" && n.cfg.Scrub.BytesPerDay > 0
}

// scrub reads a part of a day's bytes every hour. Servers of one bucket need not agree on who
// does it: what one has read is noted, and counts for all.
func (n *Node) scrub(ctx context.Context) {
	c := fsck.New(n.cat, n.chunks, n.fsckOptions())
	ctx = wal.As(ctx, "celler scrub "+n.o.Version)
	perDay := int64(n.cfg.Scrub.BytesPerDay)
	wait := time.NewTimer(scrubStart + rand.N(scrubStart))
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		// Not at the same time as the others.
		wait.Reset(scrubEvery/2 + rand.N(scrubEvery))
		if n.log.Err() != nil {
			continue // a log that is in doubt is not to be touched
		}
		rep, err := c.Scrub(ctx, fsck.ScrubMode{
			PerDay: perDay, AtOnce: max(1, perDay/int64(24*time.Hour/scrubEvery)), Older: time.Duration(n.cfg.Scrub.Interval), Now: n.o.Now(),
		})
		switch {
		case ctx.Err() != nil:
		case err != nil:
			n.o.Logger.Warn("packs could not be read back", "err", err)
		case rep.Objects > 0:
			within, all := rep.Status.Within()
			n.o.Logger.Debug("packs were read back", "objects", rep.Objects, "bytes", rep.Bytes, "within", within, "all", all)
		}
	}
}
