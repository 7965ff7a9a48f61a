package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/celler/celler/client"
)

type pathLogCmd struct {
	Cache string `arg:"" help:"Name, server:name, or URL."`
	Path  string `arg:"" help:"Store path in the cache, or the derivation it was built from."`
}

func (c *pathLogCmd) Run(ctx context.Context, a *app) error {
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	drv := path.Base(strings.TrimRight(c.Path, "/"))
	if !strings.HasSuffix(drv, ".drv") {
		hashPart, err := hashPartOf(c.Path)
		if err != nil {
			return err
		}
		p, err := api.Path(ctx, r.Cache, hashPart)
		switch {
		case isNoObject(err):
			return at(r, err)
		case err != nil:
			return at(r, err)
		case p.Deriver == "":
			return &hintedError{fmt.Errorf("cache %q does not know what %s was built from", r.Cache, c.Path), []string{"name the derivation, whose name ends in .drv"}}
		}
		drv = p.Deriver
	}
	err = api.BuildLog(ctx, r.Cache, drv, rawOutput{a})
	if isNoObject(err) {
		return &hintedError{fmt.Errorf("cache %q has no log of %s", r.Cache, drv), []string{
			fmt.Sprintf("where it was built, \"nix store copy-log --to <URL of the cache> %s\" sends it", drv),
		}}
	}
	if err != nil {
		return at(r, err)
	}
	return nil
}

// isNoObject reports whether a server said that something is not there.
func isNoObject(err error) bool {
	status, ok := errors.AsType[*client.StatusError](err)
	return ok && status.Name == client.NoSuchObject
}

// rawOutput is standard output.
type rawOutput struct{ a *app }

func (o rawOutput) Write(p []byte) (int, error) {
	o.a.ui.Raw(p)
	return len(p), nil
}
