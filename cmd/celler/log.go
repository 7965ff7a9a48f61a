package main

import (
	"context"
	"errors"
)

type logCmd struct{}

func (c *logCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
