package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/internal/ui"
)

type gcCmd struct {
	Run     gcRunCmd     `cmd:"" help:"Remove what nobody uses, pins or needs any more."`
	Status  gcStatusCmd  `cmd:"" help:"Say what the last round did and what waits for which grace."`
	Explain gcExplainCmd `cmd:"" help:"Say why a path is in a cache, or why it is not."`
}

// gcFlags are those of every verb that works on a bucket without a server.
type gcFlags struct {
	jsonFlag
	serverFlags
	config.Buckets `embed:""`

	CacheDir string         `toml:"cache-dir" env:"CELLER_CACHE_DIR" placeholder:"DIR" help:"Directory for what can be made again from the bucket: an index ($$XDG_CACHE_HOME/celler)."`
	GC       config.GC      `embed:"" prefix:"garbage-collection."`
	Limits   config.Compact `embed:"" prefix:"compact."`
}

// config returns the settings of a node that has no server.
func (c *gcFlags) config(a *app) (config.Config, error) {
	cfg := config.Config{Buckets: c.Buckets, CacheDir: c.CacheDir, GC: c.GC, Compact: c.Limits}
	if err := cfg.CompleteDirect(a.env, c.file); err != nil {
		return cfg, err
	}
	if err := cfg.Compact.Check(); err != nil {
		return cfg, err
	}
	return cfg, cfg.GC.Check(cfg.Compact.LogRetention)
}

type gcRunCmd struct {
	gcFlags
	DryRun bool   `name:"dry-run" help:"Say what would go, why, and how many bytes that would free; change nothing."`
	Cache  string `placeholder:"CACHE" help:"Remove paths of this cache only (all)."`
}

// Help is printed below the flags.
func (c *gcRunCmd) Help() string {
	return `One round does all that is due: paths that were not used for their cache's retention, and
that nothing live refers to and no pin leads to, leave their caches; NARs of paths that left
long enough ago are removed, and chunks that only they had; objects in the bucket that
hold nothing alive are deleted, and those that are mostly dead written again. Servers do the
same by themselves unless they are told --maintenance=off; any number of servers and of these
commands may run at once. A round that is broken off does no harm; the next goes on.`
}

// Run performs one round and prints what it did.
func (c *gcRunCmd) Run(ctx context.Context, a *app) error {
	cfg, err := c.config(a)
	if err != nil {
		return err
	}
	r := node.GCRequest{DryRun: c.DryRun, Cache: c.Cache, Version: a.version, Each: func(g node.GCGone) error { return c.printGone(a, &g) }}
	if a.ui.Terminal() && !a.ui.JSON() {
		r.Progress = gcProgress(a)
	}
	rep, err := node.CollectGarbage(ctx, cfg, r)
	if node.IsFenced(err) {
		a.ui.Note("celler: another collector took over; it does what is left")
		err = nil
	}
	if err != nil {
		return err
	}
	return a.show(rep, func() { c.print(a, &rep) })
}

// gcProgress prints a line for each phase.
func gcProgress(a *app) func(node.GCProgress) {
	phase := ""
	return func(p node.GCProgress) {
		if p.Phase != phase {
			phase = p.Phase
			a.ui.Note("celler: %s …", phase)
		}
	}
}

func (c *gcRunCmd) printGone(a *app, g *node.GCGone) error {
	if a.ui.JSON() {
		return a.ui.Value(g)
	}
	why := "unused for " + g.Idle
	if g.Why == node.GCOverQuota {
		why = string(g.Why) + ", " + why
	}
	if g.Limit != "" {
		why += " (" + g.Limit + ")"
	}
	freed := ""
	if c.DryRun {
		freed = "  frees " + ui.Size(g.Freed)
	}
	a.ui.Data("%s  %s  %s%s", g.Cache, g.StorePath, why, freed)
	return nil
}

func (c *gcRunCmd) print(a *app, rep *node.GCReport) {
	did := func(what, would string) string {
		if rep.DryRun {
			return would
		}
		return what
	}
	if rep.Removed > 0 {
		line := fmt.Sprintf("%s %s with NARs of %s", did("removed", "would remove"), ui.Plural(rep.Removed, "path", "paths"), ui.Size(rep.NarBytes))
		if rep.DryRun {
			line += fmt.Sprintf(", which would free %s", ui.Size(rep.Freed))
		}
		a.ui.Data("%s", line)
	}
	if rep.Recipes > 0 {
		a.ui.Data("%s %s of paths that left", did("removed", "would remove"), ui.Plural(rep.Recipes, "NAR", "NARs"))
	}
	if rep.Uploads+rep.Sides > 0 {
		a.ui.Data("removed %s of plain Nix whose NAR is gone, and %s that outlived their paths", ui.Plural(rep.Uploads, "URL", "URLs"), ui.Plural(rep.Sides, "log or the like", "logs and the like"))
	}
	if rep.Condemned > 0 {
		a.ui.Data("%s %s of %s that nothing names any more", did("condemned", "would condemn"), ui.Plural(rep.Condemned, "chunk", "chunks"), ui.Size(rep.Dead))
	}
	if rep.Rewritten > 0 {
		a.ui.Data("%s %s without what is dead in them: read %s, wrote %s", did("wrote", "would write"), ui.Plural(rep.Rewritten, "pack", "packs"), ui.Size(rep.ReadBytes), ui.Size(rep.WrittenBytes))
	}
	if rep.Deleted > 0 {
		a.ui.Data("%s %s of %s from the bucket", did("deleted", "would delete"), ui.Plural(rep.Deleted, "object", "objects"), ui.Size(rep.DeletedBytes))
	}
	if rep.Idle() {
		a.ui.Data("nothing to do")
	}
	if rep.First {
		a.ui.Data("%s", firstRound(rep))
	}
	printWaiting(a, &rep.Waiting)
	if len(rep.Requests) > 0 {
		var parts []string
		for _, op := range slices.Sorted(maps.Keys(rep.Requests)) {
			parts = append(parts, fmt.Sprintf("%d %s", rep.Requests[op], op))
		}
		a.ui.Data("requests: %s", strings.Join(parts, ", "))
	}
	if o := rep.OverQuota; o != nil {
		a.ui.Warn("the quota of %s cannot be kept: pins hold %s", ui.Size(o.Quota), ui.Size(o.Pinned))
		for _, p := range o.Pins {
			a.ui.Warn("  pin %s of cache %s: %s", p.Pin, p.Cache, ui.Size(p.Bytes))
		}
	}
	if rep.Undeleted > 0 {
		a.ui.Warn("%s could not be deleted: %s", ui.Plural(rep.Undeleted, "object", "objects"), rep.Refusal)
	}
	if rep.Strays > 0 {
		a.ui.Warn("%s of NARs lie nowhere: \"celler fsck\" says which", ui.Plural(rep.Strays, "stretch", "stretches"))
	}
	if rep.Unreadable > 0 {
		a.ui.Warn("%s could not be read to be written again: \"celler fsck --read\" says more", ui.Plural(rep.Unreadable, "pack", "packs"))
	}
}

// firstRound says why a first round removes nothing for its age, and when another will.
func firstRound(rep *node.GCReport) string {
	switch {
	case rep.DryRun:
		return "no round has been in this bucket yet: all ages are counted from the first one on, so that nothing is old before"
	case rep.FirstDue.IsZero():
		return "this was the first round in this bucket: all ages are counted from now on; no cache has a retention, so that no path will be too old"
	}
	return fmt.Sprintf("this was the first round in this bucket: all ages are counted from now on, so that nothing is old yet; a round after %s can remove the first paths", until(rep.FirstDue))
}

func printWaiting(a *app, w *node.GCWaiting) {
	if w.Nars > 0 {
		a.ui.Data("%s of %s can still be fetched, the first until %s", ui.Plural(w.Nars, "removed NAR", "removed NARs"), ui.Size(w.NarBytes), until(w.NextNar))
	}
	if w.Objects > 0 {
		a.ui.Data("%s of %s kept for readers, the first until %s", ui.Plural(w.Objects, "dead object", "dead objects"), ui.Size(w.ObjectBytes), until(w.NextObject))
	}
	if w.DeadBytes > 0 {
		a.ui.Data("dead chunks of %s, plain, still in the bucket, alone or beside living ones", ui.Size(w.DeadBytes))
	}
}

// until prints a time of the bucket's clock.
func until(t time.Time) string {
	if t.IsZero() {
		return "the grace after the present store day"
	}
	return t.UTC().Format("2006-01-02 15:04 MST")
}

type gcStatusCmd struct{ gcFlags }

// Run prints where collection stands.
func (c *gcStatusCmd) Run(ctx context.Context, a *app) error {
	cfg, err := c.config(a)
	if err != nil {
		return err
	}
	st, err := node.GarbageStatus(ctx, cfg)
	if err != nil {
		return err
	}
	if a.ui.JSON() {
		return a.ui.Value(st)
	}
	switch st.Last {
	case nil:
		a.ui.Data("no round has ended yet")
	default:
		r := &st.Last.Report
		a.ui.Data("last round by %s, ended %s: removed %s and %s, condemned %s, deleted %s of %s", r.By, until(st.Last.Ended),
			ui.Plural(r.Removed, "path", "paths"), ui.Plural(r.Recipes, "NAR", "NARs"), ui.Plural(r.Condemned, "chunk", "chunks"), ui.Plural(r.Deleted, "object", "objects"), ui.Size(r.DeletedBytes))
		if r.Undeleted > 0 {
			a.ui.Warn("the bucket refused to delete %s: %s", ui.Plural(r.Undeleted, "object", "objects"), r.Refusal)
		}
		if o := r.OverQuota; o != nil {
			a.ui.Warn("the quota of %s cannot be kept: pins hold %s", ui.Size(o.Quota), ui.Size(o.Pinned))
			for _, p := range o.Pins {
				a.ui.Warn("  pin %s of cache %s: %s", p.Pin, p.Cache, ui.Size(p.Bytes))
			}
		}
	}
	printWaiting(a, &st.Waiting)
	for _, o := range st.Oldest {
		a.ui.Data("cache %s keeps what was used within %s; the oldest is idle for %s", o.Cache, span(o.Retention), span(o.Idle))
	}
	return nil
}

type gcExplainCmd struct {
	gcFlags
	Cache string `arg:"" help:"The cache, by its name in the bucket."`
	Path  string `arg:"" help:"A store path, its hash part, or a link to it such as ./result."`
}

// Run prints why.
func (c *gcExplainCmd) Run(ctx context.Context, a *app) error {
	cfg, err := c.config(a)
	if err != nil {
		return err
	}
	ex, err := node.ExplainPath(ctx, cfg, c.Cache, followed(c.Path))
	if err != nil {
		return err
	}
	if a.ui.JSON() {
		return a.ui.Value(ex)
	}
	name := ex.StorePath
	if name == "" {
		name = ex.HashPart
	}
	a.ui.Data("%s: %s", name, ex.Verdict)
	for i, k := range ex.Because {
		note := "  (idle for " + span(k.Idle) + ")"
		if k.Pin != "" {
			note = "  (pin " + k.Pin + ")"
		}
		a.ui.Data("%s%s%s", strings.Repeat("  ", i+1), k.StorePath, note)
	}
	return nil
}

// span writes a length of time as people say it.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return d.Round(time.Second).String()
}
