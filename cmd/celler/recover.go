package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/internal/ui"
)

type recoverCmd struct {
	jsonFlag
	serverFlags
	config.Buckets `embed:""`

	DryRun       bool   `name:"dry-run" help:"Say what is wrong, what is lost and what would be written; write nothing."`
	Yes          bool   `short:"y" help:"Do not ask."`
	Salvage      bool   `help:"Use every slot and table that can be read, instead of those proven to belong together."`
	Seen         uint64 `placeholder:"SLOT" help:"A slot that a server had applied: if the log does not reach it, slots are lost."`
	ChunkProfile string `name:"chunk-profile" placeholder:"PROFILE" help:"Chunk profile of a FORMAT that has to be made anew (found out from the packs)."`
	CacheDir     string `toml:"cache-dir" env:"CELLER_CACHE_DIR" placeholder:"DIR" help:"Directory for what can be made again from the bucket ($$XDG_CACHE_HOME/celler)."`
}

// Help is printed below the flags.
func (c *recoverCmd) Help() string {
	return `For a bucket that servers refuse because ROOT, FORMAT, snapshots, tables or slots of the
log are missing or damaged. Stop the servers first.

The newest snapshot that is whole is used, and the longest run of slots behind it that is
proven to follow it. What is lost is said before anything is written. With --salvage, slots
behind a gap and snapshots with missing tables are used as well: more comes back, also of
what had been removed. After slots were lost, packs that the state does not know are adopted
from what they say of themselves, so that pushing again sends little.

What is replaced is copied below recover/ in the bucket first. Errors of the bucket, and
listings that contradict what can be read, end the command: they are no proof that
something is missing. With --dry-run the exit code is 1 if something is to be done.`
}

// Run examines the bucket and, if it is told to, repairs it.
func (c *recoverCmd) Run(ctx context.Context, a *app) error {
	cfg := config.Config{Buckets: c.Buckets, CacheDir: c.CacheDir}
	if err := cfg.CompleteDirect(a.env, c.file); err != nil {
		return err
	}
	c.Buckets = cfg.Buckets
	r := node.RecoverRequest{Salvage: c.Salvage, Seen: c.Seen, Profile: c.ChunkProfile, Version: a.version}
	if a.ui.Terminal() && !a.ui.JSON() {
		last := ""
		r.Progress = func(doing string) {
			if doing != last {
				a.ui.Note("celler: %s", doing)
			}
			last = doing
		}
	}
	rec, err := node.Recover(ctx, cfg, r)
	if err != nil {
		return err
	}
	defer func() { _ = rec.Close() }() // what was written was confirmed
	if err := a.show(rec.Plan, func() { c.printPlan(a, rec.Plan) }); err != nil {
		return err
	}
	if rec.Plan.Sound() {
		return nil
	}
	if c.DryRun {
		return &damageError{}
	}
	if !c.Yes {
		if err := confirmWord(a, "recover", "type \"recover\" to go on"); err != nil {
			return err
		}
	}
	res, err := rec.Execute(ctx)
	if err != nil {
		return err
	}
	return a.show(res, func() { c.printResult(a, &res) })
}

func (c *recoverCmd) printPlan(a *app, p *node.RecoveryPlan) {
	for _, f := range p.Findings {
		a.ui.Data("%s is %s", f.Object, f.Problem)
	}
	for _, l := range p.Losses {
		a.ui.Data("lost: %s: %s", l.What, l.Detail)
	}
	if p.Sound() {
		a.ui.Data("bucket %s: ROOT, FORMAT, the snapshot and the log are whole to slot %d; there is nothing to recover", c.LogBucket, p.Last)
		return
	}
	var from []string
	if p.Snapshot > 0 {
		from = append(from, fmt.Sprintf("the snapshot of slot %d", p.Snapshot))
	}
	if p.Last >= p.First {
		from = append(from, fmt.Sprintf("slots %d to %d", p.First, p.Last))
	}
	if p.Salvage {
		from = append(from, "whatever can be read of later ones")
	}
	if p.Adopt {
		from = append(from, "packs")
	}
	if len(from) == 0 {
		from = []string{"nothing: it is empty"}
	}
	a.ui.Data("the state would be that of %s; the log would go on at slot %d", strings.Join(from, ", "), p.Next)
	if len(p.Losses) == 0 {
		a.ui.Data("nothing is lost")
	}
	a.ui.Data("would write %s; what is replaced would be copied to %s", strings.Join(p.Write, ", "), p.Evidence)
}

func (c *recoverCmd) printResult(a *app, res *node.RecoveryResult) {
	a.ui.Data("recovered: snapshot of slot %d, the log goes on at slot %d", res.Snapshot, res.Next)
	if res.Packs+res.Moved > 0 {
		a.ui.Data("adopted %s", ui.Plural(res.Packs+res.Moved, "pack", "packs"))
	}
	if res.Unreadable > 0 {
		a.ui.Warn("%s could not be adopted, because what it says of itself is damaged", ui.Plural(res.Unreadable, "pack", "packs"))
	}
	for _, slot := range res.Overtaken {
		a.ui.Warn("%s was written by a server while this was done, and is lost: push again what was pushed just now", slot)
	}
	if res.Dropped > 0 {
		a.ui.Data("dropped %s of caches that are not known any more", ui.Plural(res.Dropped, "path", "paths"))
	}
	a.ui.Note("celler: what was replaced is in %s", res.Evidence)
	if res.Check {
		a.ui.Note("celler: now run \"%s fsck --objects --repair --bucket %s\", before the servers: what was saved may refer to what is gone", a.ui.Self(), c.LogBucket)
	}
}
