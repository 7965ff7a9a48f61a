package main

import (
	"context"
	"errors"
)

type doctorCmd struct{}

func (c *doctorCmd) Run(ctx context.Context, a *app) error { return errors.ErrUnsupported }
