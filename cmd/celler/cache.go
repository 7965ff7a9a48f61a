package main

import (
	"context"
	"errors"
)

type cacheCmd struct{}

func (c *cacheCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
