package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/celler/celler/client"
	"github.com/celler/celler/nix"
)

// outcome is what became of a batch.
type outcome struct {
	lane     *lane
	batch    []*item
	verdicts map[*item]verdict // of those that were decided
	gone     map[nix.StorePath]bool
	uploaded int
	bytes    int64
	tried    []*item // without a verdict: others first, next time
	err      error   // why the lane stopped
	hopeless bool
}

// verdict is what became of an item: nothing is left of it, or err says why not.
type verdict struct {
	err   error
	blunt bool // the error may be the cache's, not the item's
}

// blow is how many failures in a row, of entries that may be innocent, stop a lane.
const blow = 3

// work pushes a batch. It runs in a goroutine of its own; of lane and items it touches
// what Run's goroutine does not, as long as the batch runs.
func (a *Agent) work(ctx context.Context, l *lane, batch []*item) outcome {
	o := outcome{lane: l, batch: batch, verdicts: map[*item]verdict{}, gone: map[nix.StorePath]bool{}}
	store, err := a.o.OpenStore(ctx)
	if err != nil {
		o.err = err
		return o
	}
	defer func() { _ = store.Close() }()
	valid, err := a.valid(ctx, store, batch)
	if err != nil {
		o.err = err
		return o
	}
	if batch = o.dropGone(batch, valid); len(batch) == 0 {
		return o
	}
	if l.pusher == nil {
		pusher, cache, err := a.o.Dial(l.target.Cache)
		if err != nil {
			o.err, o.hopeless = err, true
			return o
		}
		l.pusher, l.cache = pusher, cache
	}
	defer func() {
		if o.err != nil {
			l.hangUp()
		}
	}()
	// After some failures entries are tried one by one, should one of them be the cause.
	if len(batch) > 1 && l.failures < blow {
		err := a.push(ctx, store, &o, slices.Collect(valid.all(batch)))
		if err == nil {
			for _, it := range batch {
				o.verdicts[it] = verdict{}
			}
			o.lose(batch, valid)
			return o
		}
		if _, some := errors.AsType[*pathError](err); !some && !entrysFault(err) {
			o.err, o.hopeless = err, hopeless(err)
			return o
		}
	}
	a.each(ctx, store, &o, batch, valid)
	return o
}

// each pushes the entries of a batch one by one.
func (a *Agent) each(ctx context.Context, store Store, o *outcome, batch []*item, valid pathSet) {
	// An entry that is known to fail is not the cache's trouble.
	known := len(batch) == 1 && batch[0].attempts > 0
	isolating := known || o.lane.failures >= blow
	suspects := map[*item]error{}
	succeeded, row := false, 0
	var last error
	for _, it := range batch {
		err := a.push(ctx, store, o, slices.Collect(valid.all([]*item{it})))
		_, some := errors.AsType[*pathError](err)
		switch {
		case err == nil:
			o.verdicts[it] = verdict{}
			o.lose([]*item{it}, valid)
			succeeded, row = true, 0
			continue
		case ctx.Err() != nil || hopeless(err):
			o.err, o.hopeless = err, hopeless(err)
			return
		case entrysFault(err):
			o.verdicts[it] = verdict{err: err}
			if left, lost := a.valid(ctx, store, []*item{it}); lost == nil && len(left) == 0 {
				o.verdicts[it] = verdict{} // it went while it was read
				o.lose([]*item{it}, left)
			}
			continue
		case !some && !isolating:
			o.err = err
			return
		}
		suspects[it], last = err, err
		if row++; row == blow {
			break
		}
	}
	switch {
	case row >= blow || len(suspects) > 0 && !succeeded && !known:
		o.err = last // for all we know it is the cache
		for it := range suspects {
			o.tried = append(o.tried, it)
		}
	default:
		for it, err := range suspects {
			o.verdicts[it] = verdict{err, true}
		}
	}
}

// pathSet are paths that are valid.
type pathSet map[nix.StorePath]bool

// all yields the valid paths of items, each once.
func (s pathSet) all(items []*item) func(yield func(nix.StorePath) bool) {
	return func(yield func(nix.StorePath) bool) {
		seen := map[nix.StorePath]bool{}
		for _, it := range items {
			for _, p := range it.entry.Paths {
				if s[p] && !seen[p] {
					seen[p] = true
					if !yield(p) {
						return
					}
				}
			}
		}
	}
}

// valid keeps the paths of items from being collected, and finds those that were not before.
func (a *Agent) valid(ctx context.Context, store Store, items []*item) (pathSet, error) {
	var paths []nix.StorePath
	for _, it := range items {
		paths = append(paths, it.entry.Paths...)
	}
	if err := store.AddTempRoot(ctx, paths...); err != nil {
		return nil, err
	}
	valid, err := store.ValidPaths(ctx, paths)
	if err != nil {
		return nil, err
	}
	set := pathSet{}
	for _, p := range valid {
		set[p] = true
	}
	return set, nil
}

// dropGone decides the items of which nothing is left in the local store, which needs no
// cache, and returns the others.
func (o *outcome) dropGone(items []*item, valid pathSet) []*item {
	var left []*item
	for _, it := range items {
		if slices.ContainsFunc(it.entry.Paths, func(p nix.StorePath) bool { return valid[p] }) {
			left = append(left, it)
			continue
		}
		o.verdicts[it] = verdict{}
		o.lose([]*item{it}, valid)
	}
	return left
}

// lose notes which paths of items that are done were not there any more.
func (o *outcome) lose(items []*item, valid pathSet) {
	for _, it := range items {
		for _, p := range it.entry.Paths {
			if !valid[p] {
				o.gone[p] = true
			}
		}
	}
}

// pathError reports that a push was made, and that a path of it failed.
type pathError struct{ Err error }

func (e *pathError) Error() string { return e.Err.Error() }
func (e *pathError) Unwrap() error { return e.Err }

// push pushes paths, if there are any, and adds to o what was sent.
func (a *Agent) push(ctx context.Context, store Store, o *outcome, paths []nix.StorePath) error {
	if len(paths) == 0 {
		return nil
	}
	names := make([]string, 0, len(paths))
	for _, p := range paths {
		names = append(names, p.String())
	}
	var mu sync.Mutex // guards failed
	var failed error
	t := o.lane.target
	result, err := o.lane.pusher.Push(ctx, store, client.PushOptions{
		Cache: o.lane.cache, Paths: names, NoClosure: t.NoClosure, IgnoreUpstream: t.IgnoreUpstream, Jobs: a.o.Jobs,
	}, client.Events{Done: func(_ int, done client.Outcome) {
		mu.Lock()
		defer mu.Unlock()
		if done.Kind == client.Failed && failed == nil {
			failed = fmt.Errorf("%s: %w", done.Path.Base(), done.Err)
		}
	}})
	o.uploaded += result.Pushed
	o.bytes += result.Bytes
	if err != nil {
		return err
	}
	if !result.Incomplete() {
		return nil
	}
	mu.Lock()
	defer mu.Unlock()
	if failed == nil {
		failed = fmt.Errorf("%d paths could not be pushed", result.Failed+result.Skipped)
	}
	return &pathError{failed}
}

// entrysFault reports errors that are about the paths that were to be pushed, and would
// be the same from any server in any mood.
func entrysFault(err error) bool {
	if errors.Is(err, client.ErrNotValid) {
		return true
	}
	if _, ok := errors.AsType[*client.DamagedError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*client.StoreDirError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return true
	}
	status, ok := errors.AsType[*client.StatusError](err)
	return ok && status.Final() && !hopeless(err)
}

// hopeless reports errors that concern all paths alike and that somebody must mend:
// credentials, rights, a cache that does not exist.
func hopeless(err error) bool {
	status, ok := errors.AsType[*client.StatusError](err)
	if !ok {
		return false
	}
	switch status.Status {
	case 401, 403, 404, 405, 501:
		return true
	}
	return false
}

// arrived reports whether the cache has taken something.
func (o *outcome) arrived() bool {
	for it, v := range o.verdicts {
		if v.err == nil && slices.ContainsFunc(it.entry.Paths, func(p nix.StorePath) bool { return !o.gone[p] }) {
			return true
		}
	}
	return false
}
