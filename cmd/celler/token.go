package main

import (
	"context"
	"errors"
)

type tokenCmd struct{}

func (c *tokenCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
