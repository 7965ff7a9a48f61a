package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/internal/ui"
)

type fsckCmd struct {
	jsonFlag
	serverFlags
	config.Buckets `embed:""`

	Objects  bool        `help:"Look whether every object of packs, and every table of the index, is in the bucket with its size; this lists the bucket."`
	Read     readFlag    `placeholder:"SHARE" help:"Read objects as well and compare all checksums: everything, or a share such as 5% or 10GB, what was not read for longest first. Implies --objects."`
	Older    config.Span `placeholder:"SPAN" help:"With --read, pass over what was read within this time."`
	Repair   bool        `help:"Make what is damaged count as missing, withdraw the paths that need it and name them, and put counts right."`
	Status   bool        `help:"Only say when what there is was last read back, by this command or by servers."`
	CacheDir string      `toml:"cache-dir" env:"CELLER_CACHE_DIR" placeholder:"DIR" help:"Directory for what can be made again from the bucket: an index ($$XDG_CACHE_HOME/celler)."`

	bookmarks []string // of which what they keep is lost
}

// Help is printed below the flags.
func (c *fsckCmd) Help() string {
	return `Without flags, the index is checked against itself: every row can be read, every path has
its NAR, every NAR its chunks, and all counts are right. It may run beside servers and
collectors, as often as you like, and changes nothing but notes of what was read.

With --repair, what is damaged or missing counts as missing from then on: the paths that
need it are withdrawn and named, and the next push of the same chunks brings them back.
Only what two listings and two GETs do not find is missing; errors of the bucket are
not. What a repair that was broken off has left, the next one does.

Exit codes: 0 if nothing is wrong, or all was put right and no path lost; 1 if something is
wrong, or could not be looked at; 3 if it was put right and paths have to be pushed again.`
}

// readFlag is a flag that may have a value.
type readFlag struct{ node.FsckRead }

// IsBool lets the flag stand without a value.
func (*readFlag) IsBool() bool { return true }

// Decode reads the value, if there is one.
func (r *readFlag) Decode(ctx *kong.DecodeContext) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		r.FsckRead = node.FsckRead{All: true}
		return nil
	}
	return r.parse(fmt.Sprint(ctx.Scan.Pop().Value))
}

func (r *readFlag) parse(text string) error {
	r.FsckRead = node.FsckRead{}
	if text == "true" || text == "false" {
		r.All = text == "true"
		return nil
	}
	if share, ok := strings.CutSuffix(text, "%"); ok {
		percent, err := strconv.ParseFloat(share, 64)
		if err != nil || !(percent > 0 && percent <= 100) {
			return &config.ValueError{Key: "read", Value: text, Want: "more than 0% and at most 100%"}
		}
		r.Percent = percent
		return nil
	}
	n, err := config.ParseBytes(text)
	if err != nil || n <= 0 {
		return &config.ValueError{Key: "read", Value: text, Want: "nothing, a share such as 5%, or a size such as 10GB"}
	}
	r.Bytes = int64(n)
	return nil
}

// Run checks the bucket and prints what it found.
func (c *fsckCmd) Run(ctx context.Context, a *app) error {
	cfg := config.Config{Buckets: c.Buckets, CacheDir: c.CacheDir}
	if err := cfg.CompleteDirect(a.env, c.file); err != nil {
		return err
	}
	c.Buckets = cfg.Buckets
	read := c.Read.FsckRead
	reads := read.All || read.Percent > 0 || read.Bytes > 0
	switch {
	case c.Status && (c.Objects || reads || c.Repair):
		return &usageError{Problem: "--status looks at nothing but the index", Hint: "leave the other flags out"}
	case c.Older != 0 && !reads:
		return &usageError{Problem: "--older says what --read passes over", Hint: "say --read as well"}
	case c.Older < 0:
		return &config.ValueError{Key: "older", Value: c.Older.String(), Want: "a span that is not negative"}
	case c.Status:
		return c.status(ctx, a, cfg)
	}
	read.Older = time.Duration(c.Older)
	r := node.FsckRequest{Objects: c.Objects, Read: read, Repair: c.Repair, Version: a.version, Each: func(f node.FsckFinding) error { return c.found(a, &f) }}
	if a.ui.Terminal() && !a.ui.JSON() {
		r.Progress = fsckProgress(a)
	}
	rep, err := node.Fsck(ctx, cfg, r)
	if err != nil {
		return err
	}
	if err := a.show(rep, func() { c.print(a, &rep) }); err != nil {
		return err
	}
	return c.verdict(&rep)
}

// fsckProgress prints a line for each phase, and now and then how far it is.
func fsckProgress(a *app) func(node.FsckProgress) {
	phase, last := "", a.now()
	return func(p node.FsckProgress) {
		if p.Phase == phase && a.now().Sub(last) < 10*time.Second {
			return
		}
		far := ""
		if p.Phase == phase {
			far = fmt.Sprintf(" %d", p.Done)
			if p.Total > 0 {
				far += fmt.Sprintf(" of %d", p.Total)
			}
		}
		phase, last = p.Phase, a.now()
		a.ui.Note("celler: %s%s …", phase, far)
	}
}

func (c *fsckCmd) found(a *app, f *node.FsckFinding) error {
	if f.Bookmark != "" {
		c.bookmarks = append(c.bookmarks, f.Bookmark)
	}
	if a.ui.JSON() {
		return a.ui.Value(f)
	}
	if f.Kind == node.FsckWithdrawn {
		a.ui.Data("withdrawn: %s  %s", f.Cache, f.StorePath)
		return nil
	}
	lost := ""
	if f.Chunks > 0 {
		lost = fmt.Sprintf(" (%s)", ui.Plural(int(f.Chunks), "chunk", "chunks"))
	}
	a.ui.Data("%s: %s: %s%s", f.Kind, f.What, f.Problem, lost)
	return nil
}

func (c *fsckCmd) print(a *app, rep *node.FsckReport) {
	a.ui.Data("index of slot %d: %s, %s, %s, %s, %s", rep.Seq, count(rep.Rows, "row", "rows"), count(rep.Paths, "path", "paths"),
		count(rep.Recipes, "NAR", "NARs"), count(rep.Chunks, "chunk", "chunks"), count(rep.Packs, "pack", "packs"))
	if c.Objects || rep.Objects > 0 {
		a.ui.Data("bucket: %s of %s for packs, %s of %s", count(rep.Objects, "object", "objects"), ui.Size(rep.ObjectBytes),
			ui.Plural(rep.Tables, "table", "tables"), ui.Size(rep.TableBytes))
	}
	if rep.ReadBytes > 0 {
		a.ui.Data("read %s in %s and %s: %s compared", ui.Size(rep.ReadBytes), count(rep.Read, "object", "objects"), ui.Plural(rep.ReadTables, "table", "tables"),
			count(rep.ReadChunks, "chunk", "chunks"))
	}
	if rep.NotNoted != "" {
		a.ui.Warn("what was read could not be noted: %s", rep.NotNoted)
	}
	for _, h := range []struct {
		n         int64
		one, many string
	}{
		{rep.References, "reference leads to a path that its cache does not have", "references lead to paths that their caches do not have"},
		{rep.Strays, "row of a chunk leads nowhere", "rows of chunks lead nowhere"},
		{rep.Parts, "part of a recipe was left by a push", "parts of recipes were left by pushes"},
		{rep.Orphans, "object is known to nobody", "objects are known to nobody"},
	} {
		if h.n > 0 {
			a.ui.Note("celler: %s, which is harmless", count(h.n, h.one, h.many))
		}
	}
	wrong := 0
	for kind, n := range rep.Found {
		if kind != node.FsckWithdrawn {
			wrong += int(n)
		}
	}
	switch r := rep.Repair; {
	case wrong == 0:
		a.ui.Data("nothing is wrong")
	case r == nil:
		a.ui.Data("%s wrong", ui.Plural(wrong, "thing is", "things are"))
		a.ui.Note("celler: \"%s fsck --repair\" with the same flags puts right what can be", a.ui.Self())
	default:
		a.ui.Data("repaired: %s marked missing, %s withdrawn, %s and %s removed, %s put right, %s written again", count(r.Chunks, "chunk", "chunks"), count(r.Paths, "path", "paths"),
			count(r.Recipes, "recipe", "recipes"), count(r.ChunkRows, "row of a chunk", "rows of chunks"), count(r.Counts, "count", "counts"), count(r.Rewritten, "pack", "packs"))
		if r.Left > 0 {
			a.ui.Data("%s still wrong", ui.Plural(int(r.Left), "thing is", "things are"))
		}
		if r.Paths > 0 {
			a.ui.Note("celler: push the withdrawn paths again")
		}
	}
	if len(c.bookmarks) > 0 {
		a.ui.Note("celler: no repair brings back what a bookmark kept: \"%s bookmark remove %s --bucket %s\" gives it up", a.ui.Self(), strings.Join(c.bookmarks, " "), c.LogBucket)
	}
}

func count(n int64, one, many string) string { return ui.Plural(int(n), one, many) }

// verdict is the exit code.
func (c *fsckCmd) verdict(rep *node.FsckReport) error {
	switch r := rep.Repair; {
	case rep.Sound():
		return nil
	case r == nil || r.Left > 0:
		return &damageError{}
	case r.Paths > 0:
		return &repairedError{}
	}
	return nil
}

func (c *fsckCmd) status(ctx context.Context, a *app, cfg config.Config) error {
	st, err := node.ScrubStatus(ctx, cfg, a.version)
	if err != nil {
		return err
	}
	if a.ui.JSON() {
		err = a.ui.Value(st)
	} else {
		printScrub(a, &st)
	}
	if err == nil && len(st.Damaged) > 0 {
		return &damageError{}
	}
	return err
}

func printScrub(a *app, st *node.FsckStatus) {
	within, all := st.Within()
	switch {
	case st.Objects == 0:
		a.ui.Data("there is nothing to be read back")
	case all:
		a.ui.Data("verified within %s: all %s of %s", span(within), count(st.Objects, "object", "objects"), ui.Size(st.Bytes))
	case st.Oldest.IsZero():
		a.ui.Data("never verified: all %s of %s", count(st.Objects, "object", "objects"), ui.Size(st.Bytes))
	default:
		a.ui.Data("verified within %s: %d of %s", span(within), st.Objects-st.Unread, count(st.Objects, "object", "objects"))
		a.ui.Data("never verified: %s of %s", count(st.Unread, "object", "objects"), ui.Size(st.UnreadBytes))
	}
	for _, id := range st.Damaged {
		a.ui.Data("damaged: object %s", id)
	}
	if len(st.Damaged) > 0 {
		a.ui.Note("celler: \"%s fsck --read --repair\" says what that costs", a.ui.Self())
	}
}
