package main

import (
	"context"
	"strings"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

type logCmd struct {
	Show logShowCmd `cmd:"" help:"Print segments of the log, entry by entry."`
}

type logShowCmd struct {
	jsonFlag
	serverFlags
	config.Buckets `embed:""`

	From uint64 `placeholder:"SEQ" help:"First slot to print (the first there is)."`
	To   uint64 `placeholder:"SEQ" help:"Last slot to print (the last there is)."`
}

// Run prints the segments.
func (c *logShowCmd) Run(ctx context.Context, a *app) error {
	if c.To > 0 && c.From > c.To {
		return &usageError{Problem: "--from is behind --to"}
	}
	if err := c.Complete(a.env, c.file); err != nil {
		return err
	}
	for seg, err := range node.ReadLog(ctx, c.Buckets, c.From, c.To) {
		if err != nil {
			return err
		}
		if a.ui.JSON() {
			if err := a.ui.Value(seg); err != nil {
				return err
			}
			continue
		}
		a.ui.Data("segment %d  %s  writer %s  batch %d", seg.Seq, seg.Time.Format(time.RFC3339), seg.Writer, seg.Batch)
		for _, e := range seg.Entries {
			words := []string{" ", e.Op, e.Row, e.Key}
			if e.Op == "op" {
				words = []string{" op", e.Key}
			}
			line := strings.Join(words, " ")
			if e.Text != "" {
				line += ": " + e.Text
			}
			a.ui.Data("%s", line)
		}
	}
	return nil
}
