package main

import (
	"context"
	"errors"
)

type serveCmd struct{}

func (c *serveCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
