package main

import (
	"context"
	"errors"
)

type pushCmd struct{}

func (c *pushCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
