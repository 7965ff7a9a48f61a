package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/ui"
)

// clientMemory is the limit of what pushes. They have less than that in hand.
const clientMemory = 160 << 20

type pushCmd struct {
	Cache                     string   `arg:"" help:"Name, server:name, or URL."`
	Paths                     []string `arg:"" optional:"" name:"path" help:"Store paths, or links to them such as ./result."`
	Stdin                     bool     `help:"Read the paths from standard input, one a line."`
	NoClosure                 bool     `help:"Push these paths only, not what they refer to."`
	IgnoreUpstreamCacheFilter bool     `help:"Push paths that an upstream cache has as well."`
	Jobs                      int      `short:"j" placeholder:"N" help:"Uploads at once; default: as many as the server takes well."`
	DryRun                    bool     `short:"n" help:"Say what would be pushed, and push nothing."`
	NoLogs                    bool     `help:"Leave the logs of builds where they are."`
	Whole                     bool     `help:"Upload whole NARs, as to a server that takes no chunks."`
	Verbose                   bool     `short:"v" help:"Name every path that needs no push, not only how many there are."`
	Pin                       []string `placeholder:"NAME" sep:"none" help:"Pin the path under this name in the very step that publishes it. With several paths give as many, in their order."`
	Also                      []string `placeholder:"CACHE" sep:"none" help:"Push to this cache as well; once for each."`
	keepFlags
	jsonFlag
}

// Help is printed below the flags.
func (c *pushCmd) Help() string {
	return `What a path refers to is pushed before it, so that a path which can be seen is complete.

With --pin the pin changes in the same step in which its path appears: nobody sees the one
without the other, and if anything of the closure cannot be pushed the pin stays where it
was. A path that is there already is pinned when everything else has been pushed, and one
that an upstream cache has is pushed all the same. Several paths with as many --pin are
pinned one by one, each with its own closure, not all in one step.

With --also the same is pushed to several caches, one after the other; one that cannot be
reached keeps none of the others from being pushed to, and the exit code is then 3.`
}

func (c *pushCmd) Run(ctx context.Context, a *app) error {
	paths, err := c.paths(a.stdin)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		a.ui.Note("nothing to push: standard input names no path")
		return nil
	}
	policy, err := c.pins(len(paths))
	if err != nil {
		return err
	}
	references, err := c.references(a)
	if err != nil {
		return err
	}
	limitMemory(clientMemory)
	store, err := client.OpenStore(ctx, a.env.Get)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // only read from
	return each(a, references, func(reference string) error { return c.push(ctx, a, store, reference, paths, policy) })
}

// push pushes to one cache.
func (c *pushCmd) push(ctx context.Context, a *app, store client.Store, reference string, paths []string, policy *client.PinPolicy) error {
	api, r, err := a.dial(reference, client.WithRetry(client.Retry{})) // a build may wait for a server that restarts
	if err != nil {
		return err
	}
	defer api.Close()
	w := &pushWatcher{ui: a.ui, cmd: c, cache: r.Cache, remote: r, several: len(c.Also) > 0, now: a.now, skipped: map[string][]string{}}
	result, err := api.Push(ctx, store, client.PushOptions{
		Cache: r.Cache, Paths: paths, NoClosure: c.NoClosure, IgnoreUpstream: c.IgnoreUpstreamCacheFilter,
		Jobs: c.Jobs, DryRun: c.DryRun, Whole: c.Whole, NoLogs: c.NoLogs, Each: c.Verbose, Pins: c.Pin, PinPolicy: policy,
	}, w.events())
	w.close()
	w.summary(r, result, err)
	if c.DryRun && err == nil && !a.ui.JSON() {
		for i, name := range c.Pin {
			a.ui.Note("would set pin %s of cache %q to %s", name, r.Cache, paths[i])
		}
	}
	if result.Unpinned > 0 && err == nil {
		a.ui.Warn("%s of cache %q not moved: what it names would not be complete", pinList(c.Pin, result), r.Cache)
	}
	switch {
	case err != nil && result.Pushed > 0:
		return &stoppedError{at(r, err)}
	case err != nil:
		return at(r, err)
	case result.Incomplete():
		return w.incomplete(result)
	}
	return nil
}

// pins checks the flags that are about pins.
func (c *pushCmd) pins(paths int) (*client.PinPolicy, error) {
	policy, err := c.policy()
	if err != nil {
		return nil, err
	}
	if len(c.Pin) == 0 {
		if policy != nil {
			return nil, &usageError{Problem: "--keep-revisions, --keep-days and --keep-forever are about a pin", Hint: "name it with --pin NAME"}
		}
		return nil, nil //nolint:nilnil // nothing is pinned
	}
	for _, name := range c.Pin {
		if err := client.CheckPinName(name); err != nil {
			return nil, &usageError{Problem: err.Error()}
		}
	}
	if len(c.Pin) != paths {
		return nil, &usageError{
			Problem: fmt.Sprintf("%s for %s: a pin holds one path", ui.Plural(len(c.Pin), "pin", "pins"), ui.Plural(paths, "path", "paths")),
			Hint:    "give one --pin for each path, in the same order, or push them one by one",
		}
	}
	return policy, nil
}

// pinList says which pins were not set.
func pinList(names []string, result client.Result) string {
	if result.Unpinned == len(names) {
		return "pin " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("%d of the pins %s", result.Unpinned, strings.Join(names, ", "))
}

func (c *pushCmd) paths(stdin io.Reader) ([]string, error) {
	switch {
	case c.Jobs < 0:
		return nil, &usageError{Problem: fmt.Sprintf("--jobs %d: expected a positive number", c.Jobs)}
	case c.Stdin && len(c.Paths) > 0:
		return nil, &usageError{Problem: "paths both as arguments and on standard input", Hint: "use one or the other"}
	case !c.Stdin && len(c.Paths) == 0:
		return nil, &usageError{Problem: "no paths to push", Hint: `name store paths or links to them, such as "celler push ` + c.Cache + ` ./result", or use --stdin`}
	case !c.Stdin:
		return c.Paths, nil
	}
	var paths []string
	lines, read := bufio.NewScanner(stdin), 0
	for ; lines.Scan(); read++ {
		if line := strings.TrimSpace(lines.Text()); line != "" {
			paths = append(paths, line)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, &usageError{Problem: fmt.Sprintf("line %d of standard input is longer than %d bytes", read+1, bufio.MaxScanTokenSize), Hint: "give one path a line"}
	case err != nil:
		return nil, fmt.Errorf("read paths from standard input: %w", err)
	}
	return paths, nil
}
