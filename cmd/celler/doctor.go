package main

import (
	"context"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

type doctorCmd struct {
	Bucket doctorBucketCmd `cmd:"" help:"Check that a bucket keeps every promise the log stands on."`
}

type doctorBucketCmd struct {
	jsonFlag
	serverFlags

	URL    string `arg:"" optional:"" help:"Bucket: a directory or s3://NAME/PREFIX?region=…&endpoint=…; the configured log bucket if none is named."`
	Rounds int    `default:"16" placeholder:"N" help:"Races of each kind (${default})."`
	Racers int    `default:"32" placeholder:"N" help:"Writers in each race (${default})."`

	Storage config.Buckets `embed:""`
}

// Help is printed below the flags.
func (c *doctorBucketCmd) Help() string {
	return `Writes scratch objects under probe/ in the bucket and removes them. Creates and swaps
are raced against each other, because servers that check a condition first and write
later look healthy until two writers meet. Exit code 1 if a promise is broken.`
}

// Run probes the bucket and prints what was found.
func (c *doctorBucketCmd) Run(ctx context.Context, a *app) error {
	if c.Rounds < 1 || c.Racers < 2 {
		return &usageError{Problem: "a race needs at least 1 round and 2 racers"}
	}
	if err := c.Storage.Complete(a.env, c.file); err != nil {
		return err
	}
	url := c.URL
	if url == "" {
		url = c.Storage.LogBucket
	}
	findings, err := node.Probe(ctx, url, c.Storage, node.ProbeOptions{Rounds: c.Rounds, Racers: c.Racers, Now: a.now})
	if err != nil {
		return err
	}
	broken := node.Broken(url, findings)
	if a.ui.JSON() {
		for _, f := range findings {
			if err := a.ui.Value(finding{f.Check, f.OK, f.Promise, f.Detail, f.Hint}); err != nil {
				return err
			}
		}
		return broken
	}
	var rows [][]string
	for _, f := range findings {
		result := "ok"
		if !f.OK {
			result = "BROKEN"
		}
		rows = append(rows, []string{result, f.Check, f.Promise, f.Detail})
	}
	a.ui.Table([]string{"RESULT", "CHECK", "PROMISE", "SEEN"}, rows)
	if broken == nil {
		a.ui.Note("celler: bucket %s keeps every promise", url)
	}
	return broken
}

// finding is a line of the JSON output.
type finding struct {
	Check   string `json:"check"`
	OK      bool   `json:"ok"`
	Promise string `json:"promise"`
	Detail  string `json:"detail"`
	Hint    string `json:"hint,omitempty"`
}
