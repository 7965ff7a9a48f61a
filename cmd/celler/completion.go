package main

import (
	"context"
	"errors"
)

type completionCmd struct{}

func (c *completionCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
