package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/ui"
)

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
	store, err := client.OpenStore(ctx, a.env.Get)
	if err != nil {
		return err
	}
	defer store.Close()
	return each(a, references, func(reference string) error { return c.push(ctx, a, store, reference, paths, policy) })
}

// push pushes to one cache.
func (c *pushCmd) push(ctx context.Context, a *app, store client.Store, reference string, paths []string, policy *client.PinPolicy) error {
	api, r, err := a.dial(reference, client.WithRetry(client.Retry{})) // a build may wait for a server that restarts
	if err != nil {
		return err
	}
	defer api.Close()
	w := &pushWatcher{ui: a.ui, cmd: c, cache: r.Cache, several: len(c.Also) > 0, now: a.now, skipped: map[string][]string{}}
	result, err := api.Push(ctx, store, client.PushOptions{
		Cache: r.Cache, Paths: paths, NoClosure: c.NoClosure, IgnoreUpstream: c.IgnoreUpstreamCacheFilter,
		Jobs: c.Jobs, DryRun: c.DryRun, Whole: c.Whole, NoLogs: c.NoLogs, Pins: c.Pin, PinPolicy: policy,
	}, w.events())
	w.close()
	w.summary(r, result)
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
	case result.Incomplete() && result.Pushed+result.Pinned == 0:
		return fmt.Errorf("nothing could be pushed, %d failed", result.Failed)
	case result.Incomplete():
		return &partlyError{Done: result.Pushed, Failed: result.Failed + result.Skipped, What: "path"}
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
	lines := bufio.NewScanner(stdin)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" {
			paths = append(paths, line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read paths from standard input: %w", err)
	}
	return paths, nil
}

// listAtMost is how many skipped paths of one reason are named without --verbose.
const listAtMost = 5

// pushWatcher tells what client.Push reports.
type pushWatcher struct {
	ui  *ui.Printer
	cmd *pushCmd
	now func() time.Time

	cache   string
	several bool // events say which cache they are about

	mu       sync.Mutex // guards what follows
	progress *ui.Progress
	skipped  map[string][]string // base names by reason
	reasons  []string            // in order of appearance
}

func (w *pushWatcher) events() client.Events {
	return client.Events{
		Plan: w.plan,
		Note: func(text string) { w.event("warning: "+text, map[string]any{"event": "note", "text": text}) },
		Start: func(worker int, path client.StorePath, size int64) {
			w.progress.Start(worker, path.Base(), size)
		},
		Sent: func(worker int, n int64) { w.progress.Add(worker, n) },
		Retry: func(_ int, path client.StorePath, attempt int, wait time.Duration, err error) {
			w.event(fmt.Sprintf("retry %s in %s, attempt %d failed: %v", path.Base(), ui.Duration(wait), attempt, err), map[string]any{
				"event": "retry", "store_path": path.String(), "attempt": attempt, "wait_seconds": wait.Seconds(), "err": err.Error(),
			})
		},
		Done:   w.done,
		Pinned: w.pinned,
	}
}

// plan begins the progress; everything before it is about paths that need no push.
func (w *pushWatcher) plan(p client.Plan) {
	w.flush()
	if w.ui.JSON() {
		w.event("", map[string]any{"event": "plan", "paths": p.Paths, "push": p.Push, "nar_bytes": p.Bytes})
	}
	if p.Push > 0 && !w.cmd.DryRun {
		w.mu.Lock()
		w.progress = w.ui.Progress(ui.ProgressOptions{Verb: "pushed", Items: p.Push, Bytes: p.Bytes, Workers: p.Workers, Now: w.now})
		w.mu.Unlock()
	}
}

// flush says what was skipped and why.
func (w *pushWatcher) flush() {
	if w.ui.JSON() {
		return
	}
	for _, reason := range w.reasons {
		bases := w.skipped[reason]
		if len(bases) > listAtMost && !w.cmd.Verbose {
			w.ui.Note("skipped %s: %s", ui.Plural(len(bases), "path", "paths"), reason)
			continue
		}
		for _, base := range bases {
			w.ui.Note("skipped %s: %s", base, reason)
		}
	}
	w.reasons, w.skipped = nil, map[string][]string{}
}

func (w *pushWatcher) done(worker int, o client.Outcome) {
	line, event := describe(o)
	w.about(event)
	switch {
	case o.Kind == client.Present || o.Kind == client.Upstream:
		if !w.ui.JSON() {
			w.skip(o)
			return
		}
	case o.Kind == client.Planned && !w.ui.JSON():
		if w.cmd.Verbose && o.New > 0 {
			w.ui.Note("%s: %s of %s are new to the server", o.Path.Base(), ui.Size(o.New), ui.Size(o.NarSize))
		}
		w.ui.Data("%s", o.Path)
		return
	case o.Kind == client.Skipped && worker < 0 && !w.ui.JSON():
		w.skip(o)
		return
	}
	if worker >= 0 || o.Kind == client.Pushed || o.Kind == client.Deduplicated || o.Kind == client.Failed {
		w.progress.Done(worker, line, event)
		return
	}
	w.event(line, event)
}

func (w *pushWatcher) pinned(p client.Pin) {
	w.event(pinned(&p, w.cache), map[string]any{
		"event": "pinned", "pin": p.Name, "revision": p.Revision, "store_path": p.StorePath, "waiting": p.Waiting,
	})
}

func (w *pushWatcher) skip(o client.Outcome) {
	reason := "already in the cache"
	switch o.Kind {
	case client.Upstream:
		reason = "signed by upstream key " + o.Key
	case client.Skipped:
		reason = o.Err.Error()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.reasons, reason) {
		w.reasons = append(w.reasons, reason)
	}
	w.skipped[reason] = append(w.skipped[reason], o.Path.Base())
}

// about says in an event which cache it is about, if that is not clear.
func (w *pushWatcher) about(event map[string]any) {
	if w.several {
		event["cache"] = w.cache
	}
}

// event prints above the progress, if there is one.
func (w *pushWatcher) event(line string, event map[string]any) {
	w.about(event)
	if w.ui.JSON() {
		_ = w.ui.Value(event) // strings and numbers always encode
		return
	}
	if line != "" {
		w.ui.Note("%s", line)
	}
}

// describe puts an outcome in words, and in JSON.
func describe(o client.Outcome) (string, map[string]any) {
	event := map[string]any{"event": string(o.Kind), "store_path": o.Path.String(), "nar_bytes": o.NarSize}
	base := o.Path.Base()
	switch o.Kind {
	case client.Failed, client.Skipped:
		event["err"] = o.Err.Error()
		if o.Kind == client.Skipped {
			return fmt.Sprintf("skipped %s: %v", base, o.Err), event
		}
		event["attempts"] = o.Attempts
		return fmt.Sprintf("failed %s: %s", base, explain(o.Err).sentence), event
	case client.Upstream:
		event["key"] = o.Key
	case client.Planned:
		if o.Deduplicated > 0 || o.New > 0 {
			event["new_bytes"] = o.New
		}
	case client.Pushed, client.Deduplicated:
		event["attempts"], event["dur_seconds"] = o.Attempts, o.Took.Seconds()
		detail := ui.Size(o.NarSize)
		if o.FileSize > 0 {
			event["file_bytes"] = o.FileSize
		}
		if o.Sent > 0 {
			event["new_bytes"], event["sent_bytes"] = o.New, o.Sent
			detail += ", sent " + ui.Size(o.Sent)
		}
		if rate := ui.Rate(o.NarSize, o.Took); rate != "" && o.NarSize >= 1<<20 {
			detail += ", " + rate
		}
		if o.Deduplicated >= 0 {
			event["deduplicated"] = o.Deduplicated
			if percent := int(o.Deduplicated * 100); percent > 0 {
				detail += fmt.Sprintf(", %d%% deduplicated", percent)
			}
		}
		return fmt.Sprintf("pushed %s (%s)", base, detail), event
	}
	return "", event
}

func (w *pushWatcher) close() {
	if w.progress != nil {
		w.progress.Close()
	}
	w.flush()
}

func (w *pushWatcher) summary(r config.Remote, result client.Result) {
	if w.ui.JSON() {
		w.event("", map[string]any{
			"event": "done", "pushed": result.Pushed, "present": result.Present, "upstream": result.Upstream,
			"failed": result.Failed, "skipped": result.Skipped, "pinned": result.Pinned, "unpinned": result.Unpinned, "nar_bytes": result.Bytes, "new_bytes": result.New, "sent_bytes": result.Sent, "logs": result.Logs, "dur_seconds": result.Took.Seconds(),
		})
		return
	}
	if w.cmd.DryRun {
		if result.New > 0 {
			w.ui.Note("would push %s (%s), of which %s are new to the server", ui.Plural(result.Planned, "path", "paths"), ui.Size(result.Bytes), ui.Size(result.New))
		}
		return
	}
	if result == (client.Result{Took: result.Took}) {
		return
	}
	head := fmt.Sprintf("nothing pushed to cache %q", r.Cache)
	if result.Pushed > 0 {
		size := ui.Size(result.Bytes)
		if result.Sent > 0 {
			size = fmt.Sprintf("%s, %s of it new, %s sent", size, ui.Size(result.New), ui.Size(result.Sent))
		}
		head = fmt.Sprintf("pushed %s (%s) to cache %q in %s", ui.Plural(result.Pushed, "path", "paths"), size, r.Cache, ui.Duration(result.Took))
	}
	var rest []string
	for _, part := range []struct {
		n    int
		text string
	}{
		{result.Present, "%d already there"},
		{result.Upstream, "%d in upstream caches"},
		{result.Logs, "with %d build logs"},
		{result.Failed, "%d failed"},
		{result.Skipped, "%d not tried"},
	} {
		if part.n > 0 {
			rest = append(rest, fmt.Sprintf(part.text, part.n))
		}
	}
	if len(rest) > 0 {
		head += ": " + strings.Join(rest, ", ")
	}
	w.ui.Note("%s", head)
}
