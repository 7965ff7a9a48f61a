package main

import (
	"context"
	"errors"
)

type loginCmd struct{}

func (c *loginCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
