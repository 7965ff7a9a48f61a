package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/internal/ui"
)

type restoreCmd struct {
	jsonFlag
	serverFlags
	config.Buckets `embed:""`

	At       givenText `required:"" placeholder:"WHEN" help:"Slot, bookmark or time whose state is wanted back."`
	Cache    givenText `placeholder:"CACHE" help:"Restore this cache only."`
	Pin      givenText `placeholder:"PIN" help:"Restore this pin of the cache only, with the paths it keeps."`
	Path     givenText `placeholder:"PATH" help:"Restore this path of the cache only, with what it refers to."`
	KeepNew  bool      `name:"keep-new" help:"Bring back what is gone, and leave alone what is there."`
	DryRun   bool      `name:"dry-run" help:"Say what would change and what is lost for good; change nothing."`
	CacheDir string    `toml:"cache-dir" env:"CELLER_CACHE_DIR" placeholder:"DIR" help:"Directory for what can be made again from the bucket: the index ($$XDG_CACHE_HOME/celler)."`
}

// Help is printed below the flags.
func (c *restoreCmd) Help() string {
	return `Makes a whole store, a cache, a pin or a path again what it was, as a new operation: nothing
is rewound, and what was in between can be restored in the same way. Servers may go on
meanwhile; what is pushed after the restore stays. Without --keep-new, caches, pins and paths
that were not there at that point are removed.

A path comes back if the bytes of its NAR are still there; bytes go when they have not been
used by any path for long ("celler gc"), and later if there is a bookmark. What cannot come back
is listed, and the exit code is 3, that of a dry run too.

WHEN may be the number of a slot, the name of a bookmark, 2026-03-01, "2026-03-01 17:30" or
"2 hours ago". Times are compared with when the bucket stored the slots, by its own clock;
the slot that is found is printed. "celler log show" helps to find the right one.`
}

// Run restores.
func (c *restoreCmd) Run(ctx context.Context, a *app) error {
	switch {
	case c.Cache == "" && (c.Pin != "" || c.Path != ""):
		return &usageError{Problem: "--pin and --path need --cache", Hint: "pins and paths are a cache's: say --cache CACHE as well"}
	case c.Pin != "" && c.Path != "":
		return &usageError{Problem: "--pin and --path make no sense together"}
	}
	path := followed(string(c.Path))
	if _, ok := client.ParseStorePath(path); path != "" && !ok {
		return &usageError{Problem: quote(string(c.Path)) + " is no store path", Hint: "give a whole store path, or a link to one such as ./result"}
	}
	when, err := node.ParseWhen(string(c.At), a.now())
	if err != nil {
		return err
	}
	cfg := config.Config{Buckets: c.Buckets, CacheDir: c.CacheDir}
	if err := cfg.CompleteDirect(a.env, c.file); err != nil {
		return err
	}
	rep, err := node.Restore(ctx, cfg, node.RestoreRequest{
		At: when, Cache: string(c.Cache), Pin: string(c.Pin), Path: path, KeepNew: c.KeepNew, DryRun: c.DryRun,
		By: a.operator(), Version: a.version, Each: func(ch node.RestoreChange) error { return c.print(a, ch) },
	})
	if err != nil {
		return err
	}
	if err := a.show(rep, func() { c.summarize(a, &rep) }); err != nil {
		return err
	}
	n := len(rep.Lost)
	switch {
	case n == 0:
		return nil
	case rep.DryRun:
		return &repairedError{}
	}
	done := 0
	for _, cache := range rep.Caches {
		done += cache.Back + cache.Changed
	}
	return &partlyError{Done: done, Failed: n, What: "path"}
}

// print prints one change of a dry run.
func (c *restoreCmd) print(a *app, ch node.RestoreChange) error {
	if a.ui.JSON() {
		return a.ui.Value(ch)
	}
	words := map[string]string{"back": "would come back", "changed": "would change", "removed": "would be removed", "lost": "is lost for good"}
	switch ch.Kind {
	case "cache":
		a.ui.Data("cache %s %s", ch.Cache, words[ch.What])
	case "pin":
		a.ui.Data("pin %s of cache %s %s", ch.Name, ch.Cache, words[ch.What])
	default:
		a.ui.Data("path %s of cache %s %s", ch.Name, ch.Cache, words[ch.What])
	}
	return nil
}

func (c *restoreCmd) summarize(a *app, rep *node.RestoreReport) {
	verb := "restored"
	if rep.DryRun {
		verb = "would restore"
	}
	if len(rep.Caches) == 0 {
		a.ui.Data("nothing differs from %v", rep.At)
		return
	}
	untouched := !slices.ContainsFunc(rep.Caches, func(c node.RestoredCache) bool { return !c.Untouched() })
	if untouched {
		a.ui.Data("nothing of what differs from %v can come back", rep.At)
	} else {
		a.ui.Data("%s %v", verb, rep.At)
	}
	for _, cache := range rep.Caches {
		if cache.Untouched() {
			continue
		}
		var words []string
		note := func(n int, one, many, what string) {
			if n > 0 {
				words = append(words, ui.Plural(n, one, many)+" "+what)
			}
		}
		note(cache.Back, "path", "paths", "back")
		note(cache.Changed, "path", "paths", "changed")
		note(cache.Removed, "path", "paths", "removed")
		note(cache.Pins, "pin", "pins", "changed")
		if cache.Config {
			words = append(words, "settings changed")
		}
		line := fmt.Sprintf("cache %s", cache.Name)
		if cache.What != "changed" {
			line += " " + cache.What
		}
		if len(words) > 0 {
			line += ": " + strings.Join(words, ", ")
		}
		a.ui.Data("%s", line)
	}
	if n := len(rep.Lost); n > 0 && !rep.DryRun {
		for _, l := range rep.Lost {
			a.ui.Warn("lost: %s of cache %s", l.StorePath, l.Cache)
		}
	} else if n > 0 {
		a.ui.Note("celler: %s lost for good: bytes of their NARs are gone", ui.Plural(n, "path is", "paths are"))
	}
	if rep.Seq > 0 && !untouched {
		a.ui.Note("celler: done in slot %d; \"celler restore --at %d\" with the same flags undoes it", rep.Seq, rep.Before)
	}
}
