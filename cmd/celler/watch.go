package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/agent"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/internal/storewatch"
)

type watchCmd struct {
	Cache []string `arg:"" help:"Where to push: name, server:name, or URL."`
	queueFlag
	targetFlags
	Jobs    int         `short:"j" placeholder:"N" help:"Uploads at once to each cache; default: as many as the server takes well."`
	Sources bool        `help:"Push sources as well: paths called source, or ...-source."`
	Rescan  config.Span `placeholder:"SPAN" help:"How often to look through the whole store for what no event told of (10m; 20s where the system has no events)."`
	logFlags
}

// Help is printed below the flags.
func (c *watchCmd) Help() string {
	return `Every path that becomes valid in the local store is queued and pushed, whether it was
built, fetched or added; derivations are not. What upstream caches have is left out, and
what the cache has costs one question for many paths.

The queue is the one that "celler hook" and "celler agent" use. If an agent runs, it does
the pushing; otherwise this does, as an agent would: a server that is down is waited for,
and what is queued is safe from a crash. A watcher that is started again begins where the
last one for the same caches ended, so that nothing is missed meanwhile.`
}

// Run follows the store.
func (c *watchCmd) Run(ctx context.Context, a *app) error {
	if c.Jobs < 0 {
		return &usageError{Problem: fmt.Sprintf("--jobs %d: expected a positive number", c.Jobs)}
	}
	for _, reference := range c.Cache { // a name that is misspelt is told now, not to the log
		if _, err := a.remote(reference); err != nil {
			return err
		}
	}
	q, err := queue.Open(c.dir(a))
	if err != nil {
		return &queueError{c.dir(a), err}
	}
	ao, err := agentOptions(a, q, c.logFlags)
	if err != nil {
		return err
	}
	ao.Jobs, ao.Standby, ao.Listen = c.Jobs, true, agent.NewListener(q, nil)
	pusher := agent.New(ao)
	w := &storeWatch{q: q, targets: c.targets(c.Cache), now: a.now, logger: ao.Logger, woken: func() {
		pusher.Wake()
		_ = agent.WakeAt(ctx, q.Socket()) // the other agent, if there is one
	}}
	o, err := w.options(ctx, a, c)
	if err != nil {
		return err
	}

	both, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var pushed error // written before wg.Wait returns
	wg.Go(func() {
		defer cancel() // an agent that cannot go on is no use to a watcher
		pushed = pusher.Run(both)
	})
	ao.Logger.Info("watch", "object", o.RealDir, "cache", c.Cache)
	err = storewatch.Run(both, o, w.found)
	cancel()
	wg.Wait()
	return errors.Join(err, pushed)
}

// storeWatch puts what a watcher tells into the queue.
type storeWatch struct {
	q       *queue.Queue
	targets []queue.Target
	now     func() time.Time
	logger  *slog.Logger
	woken   func()
}

// entryPaths is how many paths one entry of the queue may hold. One that cannot be pushed
// holds up those of its entry, so they are few.
const entryPaths = 16

// found queues paths for every target.
func (w *storeWatch) found(paths []client.StorePath) error {
	for len(paths) > 0 {
		n := min(len(paths), entryPaths)
		for _, t := range w.targets {
			if _, err := w.q.Add(queue.Entry{Target: t, Queued: w.now(), Paths: paths[:n]}); err != nil {
				return err
			}
		}
		paths = paths[n:]
	}
	w.woken()
	return nil
}

func (w *storeWatch) options(ctx context.Context, a *app, c *watchCmd) (storewatch.Options, error) {
	store, err := client.OpenStore(ctx, a.env.Get)
	if err != nil {
		return storewatch.Options{}, err
	}
	defer func() { _ = store.Close() }()
	o := storewatch.Options{
		OpenStore: func(ctx context.Context) (storewatch.Store, error) { return client.OpenStore(ctx, a.env.Get) },
		StoreDir:  store.StoreDir(), RealDir: store.RealStoreDir(),
		Sources: c.Sources, Rescan: time.Duration(c.Rescan), Now: a.now, Logger: w.logger, Seen: w.seen,
	}
	// Only as far back as the target that has seen least; one that is new has seen
	// nothing, and begins now.
	for _, t := range w.targets {
		seen, err := w.q.Seen(t)
		if err != nil {
			return o, err
		}
		if !seen.IsZero() && (o.Since.IsZero() || seen.Before(o.Since)) {
			o.Since = seen
		}
	}
	return o, nil
}

// seen records how far the watcher has come.
func (w *storeWatch) seen(at time.Time) {
	for _, t := range w.targets {
		if err := w.q.SetSeen(t, at); err != nil {
			w.logger.Warn("the next watcher will look further back", "err", err)
		}
	}
}
