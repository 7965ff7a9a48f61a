package main

import (
	"context"
	"errors"
)

type initCmd struct{}

func (c *initCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
