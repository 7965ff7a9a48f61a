package agent

import (
	"context"

	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/nix"
)

// keeper keeps paths from being collected. It belongs to one goroutine at a time.
type keeper struct {
	open  func(context.Context) (Store, error)
	store Store // nil: to be opened; temporary roots end with it
	held  map[nix.StorePath]struct{}
}

// heldForNothing is how many paths may be held that are not queued any more. A connection
// cannot let go of single ones.
const heldForNothing = 1024

// hold makes the wanted paths temporary roots, and lets go of the others before long.
func (k *keeper) hold(ctx context.Context, want map[nix.StorePath]struct{}) error {
	if len(want) == 0 {
		k.close()
		return nil
	}
	if k.store != nil && len(k.held) > len(want)+heldForNothing {
		old := k.store
		defer func() { _ = old.Close() }() // when the new one holds what is to be held
		k.store = nil
	}
	if err := k.connect(ctx); err != nil {
		return err
	}
	var missing []nix.StorePath
	for p := range want {
		if _, ok := k.held[p]; !ok {
			missing = append(missing, p)
		}
	}
	if err := k.store.AddTempRoot(ctx, missing...); err != nil {
		k.close()
		return err
	}
	for _, p := range missing {
		k.held[p] = struct{}{}
	}
	return nil
}

// lasting makes paths roots that last until their links are removed.
func (k *keeper) lasting(ctx context.Context, q *queue.Queue, paths []nix.StorePath) error {
	if err := k.connect(ctx); err != nil {
		return err
	}
	for _, p := range paths {
		link, err := q.Link(p)
		if err == nil {
			err = k.store.AddIndirectRoot(ctx, link)
		}
		if err != nil {
			k.close()
			return err
		}
	}
	return nil
}

func (k *keeper) connect(ctx context.Context) error {
	if k.store != nil {
		return nil
	}
	store, err := k.open(ctx)
	if err != nil {
		return err
	}
	k.store, k.held = store, map[nix.StorePath]struct{}{}
	return nil
}

func (k *keeper) close() {
	if k.store != nil {
		_ = k.store.Close()
		k.store = nil
	}
}

// protect brings the roots up to date, in a goroutine, for the daemon answers nobody
// while it collects.
func (a *Agent) protect(ctx context.Context) {
	if a.protecting || ctx.Err() != nil {
		return // the keeper is in use
	}
	if idle := len(a.paths) == 0 && a.keeper.store != nil; !idle && !a.unguarded {
		return
	}
	a.protecting, a.unguarded = true, false
	want := make(map[nix.StorePath]struct{}, len(a.paths))
	for p := range a.paths {
		want[p] = struct{}{}
	}
	var links []nix.StorePath
	for _, it := range a.items {
		if it.attempts > 0 || it.lane.failures > 0 || it.lane.homeless() {
			links = append(links, a.linksOf(it)...)
		}
	}
	a.linking = links
	a.workers.Go(func() {
		err := a.keeper.hold(ctx, want)
		if err == nil && len(links) > 0 {
			err = a.keeper.lasting(ctx, a.o.Queue, links)
		}
		a.held <- err
	})
}

// linksOf returns the paths of an item that have no lasting root, and takes it that they get one.
func (a *Agent) linksOf(it *item) []nix.StorePath {
	if it.rooted || it.done {
		return nil
	}
	it.rooted = true
	return it.entry.Paths
}

// protected takes up how protect went.
func (a *Agent) protected(ctx context.Context, err error) {
	a.protecting = false
	for _, p := range a.linking {
		if a.paths[p] == 0 {
			a.unlink(ctx, p) // it arrived meanwhile, perhaps before there was a link
		}
	}
	a.linking = nil
	if err == nil {
		a.rootErr = ""
		return
	}
	for _, it := range a.items {
		it.rooted = false // perhaps; to make a root twice does no harm
	}
	if ctx.Err() == nil && a.rootErr != err.Error() {
		a.o.Logger.WarnContext(ctx, "what is queued is not protected from collection", "err", err)
		a.rootErr = err.Error()
	}
}

// dropLinks removes the links of paths that are not queued any more, and marks the items
// whose links are there.
func (a *Agent) dropLinks(ctx context.Context) {
	links, err := a.o.Queue.Links()
	if err != nil {
		a.o.Logger.WarnContext(ctx, "old roots cannot be looked through", "err", err)
		return
	}
	queued := map[string]bool{}
	for p := range a.paths {
		queued[p.Base()] = true
	}
	linked := map[string]bool{}
	for _, base := range links {
		linked[base] = true
		if queued[base] {
			continue
		}
		if err := a.o.Queue.Unlink(base); err != nil {
			a.o.Logger.WarnContext(ctx, "an old root cannot be removed", "err", err)
		}
	}
	for _, it := range a.items {
		it.rooted = true
		for _, p := range it.entry.Paths {
			it.rooted = it.rooted && linked[p.Base()]
		}
	}
}
