package main

import (
	"context"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/internal/ui"
)

type compactCmd struct {
	jsonFlag
	serverFlags
	config.Buckets `embed:""`
	Limits         config.Compact `embed:"" prefix:"compact."`

	DryRun bool `name:"dry-run" help:"Say what would be done, and change nothing."`
	Steal  bool `default:"true" negatable:"" help:"Take over from another compactor that seems to be at work, which then changes nothing any more (the default); --no-steal leaves the work to it."`
}

// Help is printed below the flags.
func (c *compactCmd) Help() string {
	return `Folds what is new in the log into a snapshot, merges tables of snapshots, and deletes
slots, snapshots and tables that are not needed any more. Servers do the same by
themselves unless they are told --maintenance=off; any number of servers and of these
commands may run at once. A round that is broken off does no harm and leaves no
lock behind: to run this again takes over from it at once.`
}

// Run performs one round and prints what it did.
func (c *compactCmd) Run(ctx context.Context, a *app) error {
	if err := c.Complete(a.env, c.file); err != nil {
		return err
	}
	if err := c.Limits.Check(); err != nil {
		return err
	}
	rep, err := node.Compact(ctx, c.Buckets, c.Limits, node.CompactRequest{DryRun: c.DryRun, Steal: c.Steal, Version: a.version})
	if node.IsFenced(err) {
		a.ui.Note("celler: another compactor was faster; it does what is left")
		err = nil
	}
	if err != nil {
		return err
	}
	return a.show(rep, func() { c.print(a, &rep) })
}

func (c *compactCmd) print(a *app, rep *node.CompactResult) {
	if rep.Busy != nil {
		a.ui.Note("celler: %s has been compacting since %s and goes on", rep.Busy.By, rep.Busy.At.Format("2006-01-02 15:04:05 MST"))
	}
	folded, merged, deleted := "folded", "merged", "deleted"
	if rep.DryRun {
		folded, merged, deleted = "would fold", "would merge", "would delete"
	}
	if rep.Segments > 0 {
		a.ui.Data("%s %s", folded, ui.Plural(rep.Segments, "segment", "segments"))
	}
	if rep.Merges > 0 {
		a.ui.Data("%s runs of tables in %s", merged, ui.Plural(rep.Merges, "place", "places"))
	}
	if rep.SlotsDeleted+rep.SnapshotsDeleted+rep.TablesDeleted > 0 {
		a.ui.Data("%s %s, %s and %s", deleted, ui.Plural(rep.SlotsDeleted, "slot", "slots"), ui.Plural(rep.SnapshotsDeleted, "snapshot", "snapshots"), ui.Plural(rep.TablesDeleted, "table", "tables"))
	}
	if rep.Idle() {
		a.ui.Data("nothing to do")
	}
	if rep.BytesWritten+rep.BytesRead > 0 {
		a.ui.Data("read %s and wrote %s", ui.Size(rep.BytesRead), ui.Size(rep.BytesWritten))
	}
	a.ui.Data("snapshot of slot %d: %s of tables in %s; the log begins at slot %d", rep.Snapshot, ui.Size(rep.Bytes), ui.Plural(rep.Runs, "run", "runs"), max(rep.Floor, 1))
	if rep.Undeleted > 0 {
		a.ui.Warn("%s could not be deleted: %s", ui.Plural(rep.Undeleted, "object", "objects"), rep.Refusal)
	}
}
