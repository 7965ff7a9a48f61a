package main

import (
	"context"
	"errors"
)

type pathCmd struct{}

func (c *pathCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
