package agent

import (
	"context"
	"slices"
	"time"

	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/nix"
)

// lane is all that is queued for one target.
type lane struct {
	target   queue.Target
	items    []*item // in the order of the queue
	pusher   Pusher  // nil: to be dialled. The running batch owns it
	cache    string  // at the pusher
	running  bool
	again    bool // next is one that failed before
	failures int  // in a row
	next     time.Time
	err      error     // of the last failure; nil after a success
	errAt    time.Time // when that was
	hopeless bool      // err is one that waiting does not mend
	lastDone time.Time
}

func (a *Agent) lane(t queue.Target) *lane {
	l := a.lanes[t]
	if l == nil {
		l = &lane{target: t}
		a.lanes[t] = l
		a.order = append(a.order, l)
	}
	return l
}

func (l *lane) add(it *item, notBefore time.Time) {
	if len(l.items) == 0 && l.next.Before(notBefore) {
		l.next = notBefore
	}
	l.items = append(l.items, it)
}

func (l *lane) remove(it *item) {
	if i := slices.Index(l.items, it); i >= 0 {
		l.items = slices.Delete(l.items, i, i+1)
	}
}

// homeless reports a lane whose entries name no cache, of an agent that has none.
func (l *lane) homeless() bool { return l.target.Cache == "" }

// due is when the lane can go on; false if it has nothing to do or is at it.
func (l *lane) due() (time.Time, bool) {
	if l.running || l.homeless() || len(l.items) == 0 {
		return time.Time{}, false
	}
	first := l.items[0].next
	for _, it := range l.items {
		if it.attempts == 0 {
			return l.next, true
		}
		if it.next.Before(first) {
			first = it.next
		}
	}
	if first.Before(l.next) {
		first = l.next
	}
	return first, true
}

// batch picks what to push next: entries that never failed together, the others one by
// one, for they may spoil what they are pushed with. If there are both they take turns.
func (l *lane) batch(now time.Time) []*item {
	var fresh []*item
	var oldest *item
	paths := 0
	for _, it := range l.items {
		switch {
		case it.done:
		case it.attempts == 0:
			if paths < maxBatch {
				fresh = append(fresh, it)
				paths += len(it.entry.Paths)
			}
		case !it.next.After(now) && (oldest == nil || it.next.Before(oldest.next)):
			oldest = it
		}
	}
	if oldest == nil || len(fresh) > 0 && !l.again {
		l.again = true
		return fresh
	}
	l.again = false
	return []*item{oldest}
}

func (l *lane) hangUp() {
	if l.pusher != nil {
		l.pusher.Close()
		l.pusher = nil
	}
}

// start begins a batch in every lane that can go on.
func (a *Agent) start(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	now := a.o.Now()
	for _, l := range a.order {
		if at, ok := l.due(); !ok || at.After(now) {
			continue
		}
		batch := l.batch(now)
		if len(batch) == 0 {
			continue
		}
		for _, it := range batch {
			it.pushing = true
		}
		l.running = true
		a.running++
		a.workers.Go(func() { a.results <- a.work(ctx, l, batch) })
	}
}

// finish takes up what became of a batch.
func (a *Agent) finish(ctx context.Context, o outcome) {
	now := a.o.Now()
	l := o.lane
	l.running = false
	a.running--
	a.totals.Uploaded += o.uploaded
	a.totals.Bytes += o.bytes
	if o.arrived() {
		l.lastDone = now
		if l.failures > 0 {
			l.forgive(now) // but those of this batch, which failed beside what arrived
		}
	}
	for _, it := range o.batch {
		it.pushing = false
		v, decided := o.verdicts[it]
		switch {
		case !decided:
		case v.err != nil:
			a.fail(ctx, it, v, now)
		default:
			a.count(ctx, it, o.gone)
			a.drop(ctx, it)
			a.resolve(it, nil)
		}
	}
	for _, it := range o.tried {
		l.remove(it)
		l.items = append(l.items, it)
	}
	switch {
	case ctx.Err() != nil || l.pusher == nil && o.err == nil: // the cache was not asked
	case o.err == nil:
		l.failures, l.err, l.hopeless = 0, nil, false
	default:
		l.failures++
		l.err, l.errAt, l.hopeless = o.err, now, o.hopeless
		l.next = now.Add(pause(l.failures, firstLanePause, lastLanePause))
		a.unguarded = true
		a.o.Logger.WarnContext(ctx, "a cache takes nothing for now", "cache", l.target.Cache, "attempt", l.failures, "dur", l.next.Sub(now).Round(time.Millisecond), "err", o.err)
		if o.hopeless {
			for _, it := range l.items {
				a.resolve(it, o.err)
			}
		}
	}
}

// fail notes that an item failed.
func (a *Agent) fail(ctx context.Context, it *item, v verdict, now time.Time) {
	it.attempts++
	it.err, it.blunt = v.err, v.blunt
	it.next = now.Add(pause(it.attempts, firstEntryPause, lastEntryPause))
	a.totals.Failures++
	a.unguarded = true
	a.o.Logger.WarnContext(ctx, "a path could not be pushed", "cache", it.entry.Target.Cache, "store_path", it.entry.Paths[0].String(), "attempt", it.attempts, "err", v.err)
	a.resolve(it, v.err)
}

// forgive is for a cache that was ill and is well again: what it may have refused because
// of that is as good as never tried.
func (l *lane) forgive(now time.Time) {
	for _, it := range l.items {
		if it.blunt && !it.pushing {
			it.attempts, it.blunt, it.next = 0, false, now
		}
	}
}

// count counts the paths of an item that is done.
func (a *Agent) count(ctx context.Context, it *item, gone map[nix.StorePath]bool) {
	cache := it.entry.Target.Cache
	for _, p := range it.entry.Paths {
		if gone[p] {
			a.totals.Gone++
			a.o.Logger.WarnContext(ctx, "a queued path is not in the local store any more, and is dropped", "cache", cache, "store_path", p.String())
			continue
		}
		a.totals.Pushed++
		a.o.Logger.InfoContext(ctx, "pushed", "cache", cache, "store_path", p.String())
	}
}
