package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/agent"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/internal/telemetry"
	"github.com/celler/celler/internal/ui"
)

type agentCmd struct {
	Run    agentRunCmd    `cmd:"" default:"withargs" help:"Push what hooks and watchers have queued, until told to stop; the same as celler agent."`
	Status agentStatusCmd `cmd:"" help:"Say how the queue and its agent are doing."`
	Wait   agentWaitCmd   `cmd:"" help:"Wait until everything that is queued now has been pushed."`
}

// logFlags are embedded by every verb that runs for long.
type logFlags struct {
	LogLevel  string `default:"info" enum:"debug,info,warn,error" env:"CELLER_LOG_LEVEL" help:"Least important line to log: ${enum} (${default})."`
	LogFormat string `default:"text" enum:"text,json" env:"CELLER_LOG_FORMAT" help:"Form of a line: ${enum} (${default})."`
}

type agentRunCmd struct {
	Cache []string `arg:"" optional:"" help:"Where to push what names no cache: name, server:name, or URL."`
	queueFlag
	Jobs         int         `short:"j" placeholder:"N" help:"Uploads at once to each cache; default: as many as the server takes well."`
	DrainAndExit bool        `help:"Stop when everything is pushed, or has failed in a way that waiting does not mend."`
	Wait         bool        `help:"Do not push, but wait for the agent that does: the same as celler agent wait."`
	Timeout      config.Span `placeholder:"SPAN" help:"With --drain-and-exit or --wait: stop after this long (never)."`
	logFlags
}

// Help is printed below the flags.
func (c *agentRunCmd) Help() string {
	return `A path is tried until it is in its cache, for days if a server is down for days, and
leaves the queue only then, or when the local store does not have it any more. Caches do
not wait for each other, nor do paths for one that fails. What is queued is protected from
the local garbage collection. The agent can be stopped and killed at any time.

It takes a socket from systemd, and tells systemd when it is ready, that it is alive, and
what it is doing. With --drain-and-exit and --wait the exit code is 0 if everything was
pushed, and 3 if something is left.`
}

// patience of a single push: long enough for a connection that broke, short enough that
// other paths get their turn. What goes beyond is the agent's own.
func patience() client.Retry {
	return client.Retry{Attempts: 4, First: 300 * time.Millisecond, Max: 5 * time.Second, After: 30 * time.Second, Failing: time.Minute}
}

// Run works off the queue.
func (c *agentRunCmd) Run(ctx context.Context, a *app) error {
	switch {
	case c.Jobs < 0:
		return &usageError{Problem: fmt.Sprintf("--jobs %d: expected a positive number", c.Jobs)}
	case c.Timeout != 0 && !c.Wait && !c.DrainAndExit:
		return &usageError{Problem: "--timeout is about --wait and --drain-and-exit"}
	case c.Wait && (c.DrainAndExit || len(c.Cache) > 0):
		return &usageError{Problem: "--wait waits for another agent: it takes neither caches nor --drain-and-exit"}
	case c.Wait:
		return (&agentWaitCmd{queueFlag: c.queueFlag, Timeout: c.Timeout}).Run(ctx, a)
	}
	q, err := queue.Open(c.dir(a))
	if err != nil {
		return &queueError{c.dir(a), err}
	}
	o, err := agentOptions(a, q, c.logFlags)
	if err != nil {
		return err
	}
	o.Caches, o.Jobs, o.Drain = c.Cache, c.Jobs, c.DrainAndExit
	for _, cache := range c.Cache { // nothing may be queued for long
		if _, err := a.remote(cache); err != nil {
			a.ui.Warn("nothing can be pushed to %s yet: %s", cache, strings.Join(append([]string{explain(err).sentence}, explain(err).hints...), "; "))
		}
	}
	if err := o.Systemd(); err != nil {
		return err
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.Timeout))
		defer cancel()
	}
	return agent.New(o).Run(ctx)
}

// agentOptions are what every agent needs.
func agentOptions(a *app, q *queue.Queue, log logFlags) (agent.Options, error) {
	logger, err := telemetry.NewLogger(a.stderr, log.LogLevel, log.LogFormat)
	if err != nil {
		return agent.Options{}, err
	}
	limitMemory(clientMemory)
	memory := client.NewMemory()
	return agent.Options{
		Queue: q,
		Dial: func(reference string) (agent.Pusher, string, error) {
			api, r, err := a.dial(reference, client.WithRetry(patience()), client.WithRetryNotice(nil), client.WithLogger(logger), client.WithMemory(memory))
			if err != nil {
				return nil, "", errors.New(explain(err).sentence)
			}
			return api, r.Cache, nil
		},
		OpenStore: func(ctx context.Context) (agent.Store, error) { return client.OpenStore(ctx, a.env.Get) },
		Logger:    logger,
		Now:       a.now,
	}, nil
}

type agentWaitCmd struct {
	queueFlag
	Timeout config.Span `placeholder:"SPAN" help:"Give up after this long (never)."`
	jsonFlag
}

// Help is printed below the flags.
func (c *agentWaitCmd) Help() string {
	return `For the end of a CI job: everything is tried at once, whatever failed before, and the
exit code is 0 if all of it was pushed, and 3 if something was not, which is then named
and stays queued. While a server does not answer the wait goes on, until --timeout.`
}

// Run waits.
func (c *agentWaitCmd) Run(ctx context.Context, a *app) error {
	q := c.dir(a)
	if !queue.Exists(q) {
		return c.nothing(a)
	}
	at, err := queue.Open(q)
	if err != nil {
		return &queueError{q, err}
	}
	wait := ctx
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, time.Duration(c.Timeout))
		defer cancel()
	}
	r, err := agent.WaitAt(wait, at.Socket())
	if absent, ok := errors.AsType[*agent.NotRunningError](err); ok {
		if ids, err := at.IDs(); err == nil && len(ids) == 0 {
			return c.nothing(a)
		}
		return absent
	}
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return c.late(ctx, a, at)
	}
	if err != nil {
		return err
	}
	if a.ui.JSON() {
		if err := a.ui.Value(r); err != nil {
			return err
		}
	} else {
		for _, f := range r.Failures {
			a.ui.Note("not pushed: %s", f)
		}
	}
	if r.Undone > 0 {
		return &partlyError{Done: r.Entries - r.Undone, Failed: r.Undone, What: "queued build"}
	}
	a.ui.Note("%s pushed, nothing failed", ui.Plural(r.Entries, "queued build", "queued builds"))
	return nil
}

func (c *agentWaitCmd) nothing(a *app) error {
	return a.show(agent.WaitResult{Failures: []agent.Failure{}}, func() { a.ui.Note("nothing is queued") })
}

// late says what is left when the time is up.
func (c *agentWaitCmd) late(ctx context.Context, a *app, q *queue.Queue) error {
	s, err := agent.StatusAt(ctx, q.Socket())
	if err != nil {
		return err
	}
	if a.ui.JSON() {
		if err := a.ui.Value(agent.WaitResult{Entries: s.Entries, Undone: s.Entries, Failures: s.Failing}); err != nil {
			return err
		}
	}
	return &lateError{time.Duration(c.Timeout), s.Entries, s.LastError}
}

// lateError reports a wait that was given up.
type lateError struct {
	after  time.Duration
	queued int
	last   string
}

func (e *lateError) Error() string {
	text := fmt.Sprintf("%s still queued after %s", ui.Plural(e.queued, "build is", "builds are"), ui.Duration(e.after))
	if e.last != "" {
		text += ": " + e.last
	}
	return text
}

// answersWithin is how long an agent that is asked how it is doing may take.
const answersWithin = 5 * time.Second

type agentStatusCmd struct {
	queueFlag
	jsonFlag
}

// Run prints how the agent is doing.
func (c *agentStatusCmd) Run(ctx context.Context, a *app) error {
	dir := c.dir(a)
	if !queue.Exists(dir) {
		return c.print(a, agent.Status{Queue: dir, Caches: []agent.CacheStatus{}, Failing: []agent.Failure{}})
	}
	q, err := queue.Open(dir)
	if err != nil {
		return &queueError{dir, err}
	}
	s, err := agent.StatusWithin(ctx, q, answersWithin)
	if err != nil {
		return err
	}
	return c.print(a, s)
}

func (c *agentStatusCmd) print(a *app, s agent.Status) error {
	if a.ui.JSON() {
		return a.ui.Value(s)
	}
	now := a.now()
	var rows [][]string
	row := func(key, format string, args ...any) {
		rows = append(rows, []string{key, fmt.Sprintf(format, args...)})
	}
	switch {
	case s.Silent:
		row("agent", "process %d does not answer", s.PID)
	case s.Running:
		row("agent", "process %d, for %s", s.PID, ui.Duration(now.Sub(*s.Since)))
	default:
		row("agent", "not running")
	}
	row("queue", "%s", s.Queue)
	if s.Entries == 0 {
		row("queued", "nothing")
	} else {
		row("queued", "%s of %s, the oldest for %s", ui.Plural(s.Queued, "path", "paths"), ui.Plural(s.Entries, "build", "builds"), ui.Duration(now.Sub(*s.Oldest)))
	}
	if s.Running && !s.Silent {
		row("pushed", "%s; with what they refer to %s, %s", ui.Plural(s.Pushed, "path", "paths"), ui.Plural(s.Uploaded, "upload", "uploads"), ui.Size(s.Bytes))
		if s.Gone > 0 {
			row("gone", "%s: removed from the local store before they could be pushed", ui.Plural(s.Gone, "path", "paths"))
		}
	}
	if s.Damaged > 0 {
		row("damaged", "%s, kept in %s/damaged", ui.Plural(s.Damaged, "entry", "entries"), s.Queue)
	}
	for i := range s.Caches {
		cache := &s.Caches[i]
		row(cacheName(cache), "%s", cacheLine(now, cache))
	}
	for _, f := range s.Failing {
		row("failing", "%s, %s, %s: %s", f.Path, f.Cache, ui.Plural(f.Attempts, "attempt", "attempts"), f.Err)
	}
	if s.Roots != "" {
		row("roots", "what is queued is not protected from collection: %s", s.Roots)
	}
	a.ui.Data("%s", strings.TrimRight(ui.FormatTable(nil, rows), "\n"))
	return nil
}

func cacheName(c *agent.CacheStatus) string {
	if c.Cache == "" {
		return "no cache"
	}
	return "cache " + c.Cache
}

func cacheLine(now time.Time, c *agent.CacheStatus) string {
	words := []string{ui.Plural(c.Entries, "build", "builds") + " queued"}
	if c.Pushing > 0 {
		words = append(words, fmt.Sprintf("%d being pushed", c.Pushing))
	}
	if c.LastPush != nil {
		words = append(words, "last push "+ui.Duration(now.Sub(*c.LastPush))+" ago")
	}
	if c.Retry != nil {
		words = append(words, "tried again in "+ui.Duration(max(c.Retry.Sub(now), 0)))
	}
	text := strings.Join(words, ", ")
	if c.LastError != "" {
		text += ": " + c.LastError
	}
	return text
}
