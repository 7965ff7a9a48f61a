package main

import (
	"io"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/ui"
)

// cli is the command line: each field is a verb, and its struct is the verb's manual.
type cli struct {
	Serve      serveCmd      `cmd:"" group:"server" help:"Run the cache server."`
	Init       initCmd       `cmd:"" group:"server" help:"Found an empty bucket and choose what can never be changed later."`
	Push       pushCmd       `cmd:"" group:"daily" help:"Push store paths and all they refer to into a cache."`
	Watch      watchCmd      `cmd:"" aliases:"watch-store" group:"daily" help:"Push every path that becomes valid in the local store."`
	Hook       hookCmd       `cmd:"" group:"daily" help:"Queue what Nix has built, as its post-build-hook."`
	Agent      agentCmd      `cmd:"" group:"daily" help:"Push what hooks and watchers have queued, and say how that goes."`
	Use        useCmd        `cmd:"" group:"daily" help:"Make Nix on this machine substitute from a cache."`
	Login      loginCmd      `cmd:"" group:"daily" help:"Remember a server and its token."`
	Cache      cacheCmd      `cmd:"" group:"admin" help:"Create, list, show, configure and destroy caches."`
	Path       pathCmd       `cmd:"" group:"admin" help:"List, show and delete the store paths of a cache."`
	Pin        pinCmd        `cmd:"" group:"admin" help:"Keep store paths, and all they refer to, under names."`
	Stats      statsCmd      `cmd:"" group:"admin" help:"Show how much there is in a cache, or in the whole store."`
	Token      tokenCmd      `cmd:"" group:"admin" help:"Make and read access tokens."`
	Doctor     doctorCmd     `cmd:"" group:"server" help:"Find out whether something keeps what celler relies on."`
	Log        logCmd        `cmd:"" group:"server" help:"Read the log of a bucket."`
	Restore    restoreCmd    `cmd:"" group:"server" help:"Make a bucket, a cache, a pin or a path again what it was."`
	Bookmark   bookmarkCmd   `cmd:"" group:"server" help:"Keep states of a bucket, to look at or come back to."`
	GC         gcCmd         `cmd:"" name:"gc" group:"server" help:"Remove from a bucket what nobody uses, pins or needs any more."`
	Fsck       fsckCmd       `cmd:"" group:"server" help:"Check that all that a bucket promises can be read, and repair it."`
	Recover    recoverCmd    `cmd:"" group:"server" help:"Put together a bucket of which the log, or what leads to it, is damaged."`
	Compact    compactCmd    `cmd:"" group:"server" help:"Fold the log of a bucket into a snapshot and remove what is not needed."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`

	Quiet       bool        `short:"q" help:"Print data, warnings and errors only."`
	ShowVersion showVersion `name:"version" short:"V" help:"Print the version and exit."`
}

// app is what every verb is given: its Run method has the form
//
//	func (c *pushCmd) Run(ctx context.Context, a *app) error
//
// ctx ends on the first SIGINT or SIGTERM; the second kills. A verb returns its
// error and does not print it: exit.go knows what to say.
type app struct {
	ui      *ui.Printer
	env     config.Env
	stdin   io.Reader
	stderr  io.Writer // for logs; everything else goes through ui
	now     func() time.Time
	version string
}

// remote resolves a cache reference: "cache", "server:cache" or a URL.
func (a *app) remote(ref string) (config.Remote, error) {
	c, err := config.LoadClient(a.env)
	if err != nil {
		return config.Remote{}, err
	}
	return c.Resolve(a.env, ref)
}

// server resolves a server's name; "" is the default server.
func (a *app) server(name string) (config.Remote, error) {
	c, err := config.LoadClient(a.env)
	if err != nil {
		return config.Remote{}, err
	}
	return c.ResolveServer(a.env, name)
}

// show prints what a verb found out, as JSON if that was asked for and for people otherwise.
func (a *app) show(v any, forPeople func()) error {
	if a.ui.JSON() {
		return a.ui.Value(v)
	}
	forPeople()
	return nil
}

// jsonFlag is embedded by every verb that prints data.
type jsonFlag struct {
	JSON bool `name:"json" help:"Print JSON, one value a line."`
}

// AfterApply tells the printer before the verb runs.
func (j jsonFlag) AfterApply(a *app) error {
	if j.JSON {
		a.ui.SetJSON(true)
	}
	return nil
}
