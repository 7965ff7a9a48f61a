package node

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

const (
	// usesEvery is how long a use may be known to this node alone: a node that is
	// killed loses what it noted since, and the paths look unused for as long.
	usesEvery = time.Minute
	// usesFlush is how many uses are written before that.
	usesFlush = 10_000
	// usesMax bounds those that wait while the log takes no writes.
	usesMax = 500_000
	// usesTimeout bounds the last writing, when the node stops.
	usesTimeout = 10 * time.Second
)

// uses gathers which paths were used, so that the log hears of it in batches and not
// with each request: at most once for each path and day.
type uses struct {
	cat    *catalog.Catalog
	keep   time.Duration // default retention
	quota  bool          // what is used least may go at any time
	full   chan struct{} // closed by nobody: told that there is enough for a batch
	noted  *metrics.Counter
	missed *metrics.Counter

	mu   sync.Mutex                   // guards seen
	seen map[catalog.PathKey]struct{} // since the last batch
}

func newUses(cat *catalog.Catalog, keep time.Duration, quota bool, set *metrics.Set) *uses {
	return &uses{
		cat: cat, keep: keep, quota: quota, full: make(chan struct{}, 1), seen: make(map[catalog.PathKey]struct{}),
		noted: set.GetOrCreateCounter("celler_node_uses_total"), missed: set.GetOrCreateCounter("celler_node_uses_dropped_total"),
	}
}

// Downloaded implements httpapi.Uses.
func (u *uses) Downloaded(cache catalog.CacheName, hashPart nix.HashPart) {
	u.note(catalog.PathKey{Cache: cache, HashPart: hashPart})
}

// Present implements httpapi.Uses. Where paths may go, their use is written down before
// the answer: who is told that a path is there does not push it.
func (u *uses) Present(ctx context.Context, cache catalog.CacheName, hashParts []nix.HashPart) (recorded bool, err error) {
	keep := u.keep
	c, err := u.cat.Cache(ctx, cache)
	if err != nil {
		return false, err
	}
	if c.Retention != nil {
		keep = *c.Retention
	}
	fresh, err := u.cat.UnrecordedUses(ctx, cache, hashParts)
	if err != nil || len(fresh) == 0 {
		return false, err
	}
	if keep == 0 && !u.quota {
		u.note(keysOf(cache, fresh)...)
		return false, nil
	}
	if err := u.cat.RecordUses(ctx, keysOf(cache, fresh)); err != nil {
		return false, err
	}
	u.noted.Add(len(fresh))
	return true, nil
}

func keysOf(cache catalog.CacheName, hashParts []nix.HashPart) []catalog.PathKey {
	keys := make([]catalog.PathKey, len(hashParts))
	for i, hp := range hashParts {
		keys[i] = catalog.PathKey{Cache: cache, HashPart: hp}
	}
	return keys
}

func (u *uses) note(keys ...catalog.PathKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, key := range keys {
		if len(u.seen) >= usesMax {
			u.missed.Inc()
			continue
		}
		u.seen[key] = struct{}{}
	}
	if len(u.seen) >= usesFlush {
		select {
		case u.full <- struct{}{}:
		default: // a token is there already
		}
	}
}

// flush writes down what was gathered. What cannot be written waits for the next time.
func (u *uses) flush(ctx context.Context) error {
	u.mu.Lock()
	batch := slices.Collect(maps.Keys(u.seen))
	clear(u.seen)
	u.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	if err := u.cat.RecordUses(ctx, batch); err != nil {
		u.note(batch...)
		return err
	}
	u.noted.Add(len(batch))
	return nil
}

// recordUses writes uses down every minute, until ctx ends, and once more then.
func (n *Node) recordUses(ctx context.Context) {
	tick := time.NewTicker(usesEvery)
	defer tick.Stop()
	for stopped := false; !stopped; {
		select {
		case <-ctx.Done():
			stopped = true
		case <-tick.C:
		case <-n.uses.full:
		}
		if n.log.Err() != nil {
			continue // it would only wait
		}
		write, cancel := context.WithTimeout(context.WithoutCancel(ctx), usesTimeout)
		if err := n.uses.flush(write); err != nil {
			n.o.Logger.Warn("uses of paths could not be noted yet", "err", err)
		}
		cancel()
	}
}
