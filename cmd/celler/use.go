package main

import (
	"context"
	"errors"
)

type useCmd struct{}

func (c *useCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
