package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

type logCmd struct {
	Show logShowCmd `cmd:"" help:"Print segments of the log, operation by operation."`
}

type logShowCmd struct {
	jsonFlag
	serverFlags
	config.Buckets `embed:""`

	From  uint64    `placeholder:"SEQ" help:"First slot to print (the first there is)."`
	To    uint64    `placeholder:"SEQ" help:"Last slot to print (the last there is)."`
	Since givenText `placeholder:"WHEN" help:"Print what was stored after a time or a bookmark."`
	Until givenText `placeholder:"WHEN" help:"Print what was stored up to a time or a bookmark."`
	Cache string    `placeholder:"CACHE" help:"Print only operations that concern this cache."`
	Path  string    `placeholder:"PATH" help:"Print only operations on this store path; its hash part will do."`
	Who   string    `placeholder:"WHO" help:"Print only operations on behalf of somebody in whose name this is found."`
}

// Help is printed below the flags.
func (c *logShowCmd) Help() string {
	return `A time is compared with when the bucket stored a segment, by the bucket's clock; the time
that is printed with a segment is that of the server that wrote it. WHEN may be 2026-03-01,
"2026-03-01 17:30", "2 hours ago", or the name of a bookmark.`
}

// Run prints the segments.
func (c *logShowCmd) Run(ctx context.Context, a *app) error {
	if c.To > 0 && c.From > c.To {
		return &usageError{Problem: "--from is behind --to"}
	}
	if err := c.Complete(a.env, c.file); err != nil {
		return err
	}
	q := node.LogQuery{From: c.From, To: c.To, Cache: c.Cache, Path: followed(c.Path), Who: c.Who}
	for _, limit := range []struct {
		text givenText
		to   **node.When
	}{{c.Since, &q.Since}, {c.Until, &q.Until}} {
		if limit.text == "" {
			continue
		}
		w, err := node.ParseWhen(string(limit.text), a.now())
		if err != nil {
			return err
		}
		*limit.to = &w
	}
	var within node.LogRange
	printed := false
	for seg, err := range node.ReadLog(ctx, c.Buckets, q, func(r node.LogRange) {
		if within = r; r.Begins > 0 {
			a.ui.Note("celler: the log begins at slot %d; what was before is not kept", r.Begins)
		}
	}) {
		if err != nil {
			return err
		}
		printed = true
		if a.ui.JSON() {
			if err := a.ui.Value(seg); err != nil {
				return err
			}
			continue
		}
		printSegment(a, &seg)
	}
	if !printed {
		c.printNothing(a, within)
	}
	return nil
}

// printNothing says where nothing was found.
func (c *logShowCmd) printNothing(a *app, within node.LogRange) {
	if within.First > within.Last {
		a.ui.Note("celler: there is nothing from slot %d to slot %d of the log", within.First, within.Last)
		return
	}
	a.ui.Note("celler: nothing in slots %d to %d of the log is as asked for", within.First, within.Last)
}

func printSegment(a *app, seg *node.LogSegment) {
	a.ui.Data("segment %d  %s  writer %s  batch %d", seg.Seq, seg.Time.Format(time.RFC3339), seg.Writer, seg.Batch)
	for _, e := range seg.Entries {
		words := []string{" ", e.Op, e.Row, e.Key}
		if e.Op == "op" {
			words = []string{" op", e.Key}
			if e.About != "" {
				words = append(words, fmt.Sprintf("in %s", e.About))
			}
			if e.By != "" {
				words = append(words, fmt.Sprintf("by %s", e.By))
			}
		}
		line := strings.Join(words, " ")
		if e.Text != "" {
			line += ": " + e.Text
		}
		a.ui.Data("%s", line)
	}
}
