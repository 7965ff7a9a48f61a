package main

import (
	"context"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

type initCmd struct {
	serverFlags
	jsonFlag
	config.Buckets `embed:""`

	ChunkProfile string `name:"chunk-profile" placeholder:"PROFILE" help:"How NARs are cut into chunks: fast2016-Nk, N the average in KiB, a power of two from 1 to 256 (fast2016-16k)."`
}

// Help is printed below the flags.
func (c *initCmd) Help() string {
	return `"celler serve" founds an empty bucket by itself, with the defaults. This founds it with
other parameters, which nothing can change afterwards, and makes the full probe of
"celler doctor bucket" first. On a bucket that has been founded it checks that the
parameters are those asked for.`
}

// Run founds the bucket.
func (c *initCmd) Run(ctx context.Context, a *app) error {
	if err := c.Complete(a.env, c.file); err != nil {
		return err
	}
	c.notices(a)
	result, err := node.Init(ctx, c.Buckets, c.ChunkProfile, a.version, node.ProbeOptions{Now: a.now})
	if err != nil {
		return err
	}
	if a.ui.JSON() {
		return a.ui.Value(result)
	}
	what := "is founded already"
	if result.Founded {
		what = "is founded"
	}
	a.ui.Data("bucket %s %s: store %s, format %d, chunk profile %s", c.LogBucket, what, result.Store, result.Version, result.Profile)
	return nil
}
