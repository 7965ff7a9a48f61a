package agent

import (
	"context"
	"errors"

	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/nix"
)

// look reads the queue if it has changed, or if it must be read, and reports whether
// there was something new.
func (a *Agent) look(ctx context.Context, must bool) bool {
	if !must && a.o.Now().Sub(a.read) < readEvery {
		changed, err := a.o.Queue.Changed()
		if err == nil && changed.Equal(a.changed) {
			return false
		}
	}
	if a.rootErr != "" {
		a.unguarded = true // once more
	}
	before := len(a.items)
	if err := a.intake(ctx); err != nil {
		a.o.Logger.ErrorContext(ctx, "the queue cannot be read", "err", err)
		return false
	}
	return len(a.items) > before
}

// intake reads the entries that are new.
func (a *Agent) intake(ctx context.Context) error {
	a.read = a.o.Now()
	changed, err := a.o.Queue.Changed() // before the names, so as not to miss one
	if err != nil {
		return err
	}
	ids, err := a.o.Queue.IDs()
	if err != nil {
		return err
	}
	a.changed = changed
	for _, id := range ids {
		if a.items[id] == nil {
			a.take(ctx, id)
		}
	}
	return nil
}

// take reads one entry.
func (a *Agent) take(ctx context.Context, id queue.ID) {
	e, err := a.o.Queue.Read(id)
	if errors.Is(err, queue.ErrGone) {
		return
	}
	if damaged, ok := errors.AsType[*queue.DamagedError](err); ok {
		a.totals.Damaged++
		where, err := a.o.Queue.SetAside(id)
		a.o.Logger.ErrorContext(ctx, "a queue entry cannot be read and is set aside", "object", where, "err", errors.Join(damaged, err))
		return
	}
	if err != nil {
		a.o.Logger.ErrorContext(ctx, "a queue entry cannot be read for now", "err", err)
		return
	}
	if e.Target.Cache == "" && len(a.o.Caches) > 0 && a.assign(ctx, id, e) {
		return
	}
	it := &item{id: id, entry: e, lane: a.lane(e.Target)}
	a.items[id] = it
	it.lane.add(it, a.o.Now().Add(a.o.Linger))
	for _, p := range e.Paths {
		a.paths[p]++
	}
	a.unguarded = true
}

// assign replaces an entry that names no cache by one for each of the agent's. If that
// is interrupted some paths are pushed twice.
func (a *Agent) assign(ctx context.Context, id queue.ID, e queue.Entry) bool {
	for _, cache := range a.o.Caches {
		e.Target.Cache = cache
		to, err := a.o.Queue.Add(e)
		if err != nil {
			a.o.Logger.ErrorContext(ctx, "a queue entry cannot be given its cache", "err", err)
			return false
		}
		a.take(ctx, to)
	}
	if err := a.o.Queue.Remove(id); err != nil {
		a.o.Logger.ErrorContext(ctx, "a queue entry cannot be removed", "err", err)
	}
	return true
}

// drop forgets an item that is done.
func (a *Agent) drop(ctx context.Context, it *item) {
	it.lane.remove(it)
	for _, p := range it.entry.Paths {
		if a.paths[p]--; a.paths[p] > 0 {
			continue
		}
		delete(a.paths, p)
		a.unlink(ctx, p) // another entry may have had it made
	}
	if err := a.o.Queue.Remove(it.id); err != nil {
		// It stays known, or it would be pushed again and again.
		a.o.Logger.ErrorContext(ctx, "an entry that was pushed cannot be removed", "err", err)
		it.done = true
		return
	}
	delete(a.items, it.id)
}

// unlink removes the link of a path, if there is one.
func (a *Agent) unlink(ctx context.Context, p nix.StorePath) {
	if err := a.o.Queue.Unlink(p.Base()); err != nil {
		a.o.Logger.WarnContext(ctx, "a root cannot be removed", "err", err)
	}
}
