package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/celler/celler/internal/agent"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/queue"
)

// queueFlag is embedded by every verb that has to do with the queue.
type queueFlag struct {
	Queue string `placeholder:"DIR" env:"CELLER_QUEUE" help:"Directory of the queue (/var/lib/celler-agent for root, $$XDG_STATE_HOME/celler/queue for others)."`
}

func (f queueFlag) dir(a *app) string { return config.QueueDir(a.env, f.Queue, os.Geteuid()) }

// targetFlags are embedded by every verb that puts paths into the queue.
type targetFlags struct {
	NoClosure                 bool `help:"Push these paths only, not what they refer to."`
	IgnoreUpstreamCacheFilter bool `help:"Push paths that an upstream cache has as well."`
}

// targets are those of the named caches; of none, wherever the agent pushes to.
func (f targetFlags) targets(caches []string) []queue.Target {
	if len(caches) == 0 {
		caches = []string{""}
	}
	var targets []queue.Target
	for _, cache := range caches {
		t := queue.Target{Cache: cache, NoClosure: f.NoClosure, IgnoreUpstream: f.IgnoreUpstreamCacheFilter}
		if !slices.Contains(targets, t) {
			targets = append(targets, t)
		}
	}
	return targets
}

type hookCmd struct {
	Cache []string `arg:"" optional:"" help:"Where to push: name, server:name, or URL; default: the agent's caches."`
	queueFlag
	targetFlags
	KeepGoing bool `help:"Exit with 0 although the paths could not be queued, so that Nix goes on building."`
}

// Help is printed below the flags.
func (c *hookCmd) Help() string {
	return `Nix runs its post-build-hook after every build, with the paths that were built in
OUT_PATHS. This one writes them to a queue on the local disk and returns at once: it uses
no network and waits for nobody. "celler agent" pushes what is queued. When it returns 0
the paths are safe from a crash and a power failure.

nix.conf takes the name of a program without arguments, so make one of two lines:

  #!/bin/sh
  exec /usr/local/bin/celler hook ci

and say post-build-hook = /etc/nix/celler-hook. When the paths cannot be queued, because
the disk is full, the hook says so and fails, and Nix builds nothing more; --keep-going
lets it build on, and the paths are not pushed.`
}

// Run queues what Nix has built.
func (c *hookCmd) Run(ctx context.Context, a *app) error {
	err := c.queue(ctx, a)
	if err != nil && c.KeepGoing {
		a.ui.Warn("what was built is not pushed: %s", explain(err).sentence)
		return nil
	}
	return err
}

// hookPaths is how many paths one entry of the queue may hold: more than a build has ever made,
// and fewer than an entry has room for.
const hookPaths = 1024

func (c *hookCmd) queue(ctx context.Context, a *app) error {
	e, bad := c.entry(a)
	if len(e.Paths) == 0 {
		return bad
	}
	q, err := queue.Open(c.dir(a))
	if err != nil {
		return &queueError{c.dir(a), err}
	}
	for part := range slices.Chunk(e.Paths, hookPaths) {
		e.Paths = part
		for _, t := range c.targets(c.Cache) {
			e.Target = t
			if _, err := q.Add(e); err != nil {
				return &queueError{q.Dir(), err}
			}
		}
	}
	// An agent that is not there, or busy, looks by itself.
	_ = agent.WakeAt(ctx, q.Socket())
	return bad
}

// entry is what Nix has told in variables. An error may be about a part of it only.
func (c *hookCmd) entry(a *app) (queue.Entry, error) {
	e := queue.Entry{Queued: a.now()}
	if drv, err := queue.ParsePaths(strings.Fields(a.env.Get("DRV_PATH"))); err == nil && len(drv) == 1 {
		e.Deriver = drv[0]
	}
	texts := strings.Fields(a.env.Get("OUT_PATHS"))
	if len(texts) == 0 && !e.Deriver.IsZero() {
		paths, err := queue.OutputsOf(e.Deriver)
		if err != nil {
			return e, &hookPathsError{0, fmt.Errorf("nix did not say what was built: %w", err)}
		}
		e.Paths = paths
		return e, nil
	}
	if len(texts) == 0 {
		return e, &usageError{
			Problem: "OUT_PATHS is not set: this is for Nix to run, as its post-build-hook",
			Hint:    `see "celler hook --help"; to push paths by hand use "celler push"`,
		}
	}
	paths, err := queue.ParsePaths(texts)
	e.Paths = paths
	if err != nil {
		return e, &hookPathsError{len(paths), fmt.Errorf("OUT_PATHS: %w", err)}
	}
	return e, nil
}

// hookPathsError reports what in OUT_PATHS is no store path.
type hookPathsError struct {
	queued int // of the others
	err    error
}

func (e *hookPathsError) Error() string {
	return strings.ReplaceAll(e.err.Error(), "\n", "; ")
}
func (e *hookPathsError) Unwrap() error { return e.err }

// queueError reports a queue that cannot be written.
type queueError struct {
	dir string
	err error
}

func (e *queueError) Error() string { return e.err.Error() }
func (e *queueError) Unwrap() error { return e.err }
