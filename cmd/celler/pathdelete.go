package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/ui"
)

type pathDeleteCmd struct {
	Cache   string   `arg:"" help:"Name, server:name, or URL."`
	Paths   []string `arg:"" name:"path" help:"Store paths, their hash parts, or links to them such as ./result."`
	Closure bool     `help:"Delete as well what they refer to, unless something that stays refers to it."`
	Now     bool     `help:"Do not wait until the URLs that clients remember are stale: remove the bytes as soon as nobody can be reading them."`
	DryRun  bool     `help:"Say what would go, and leave it."`
	jsonFlag
}

// Help is printed below the flags.
func (c *pathDeleteCmd) Help() string {
	return `The paths leave the cache at once; all of them, or, if one is not there or is pinned,
none. Their bytes leave the bucket later, as far as nothing else in the store shares them, and
the command says when. Until then clients that remember the URL of a NAR can still fetch it, and
"celler restore" can bring the path back. With --now neither is possible, and what is left to
wait for are downloads in progress: that is for the secret that should not have been pushed. A secret
that was in a cache has to be replaced all the same.`
}

// Run deletes paths.
func (c *pathDeleteCmd) Run(ctx context.Context, a *app) error {
	hashParts := make([]client.HashPart, 0, len(c.Paths))
	for _, text := range c.Paths {
		hashPart, err := hashPartOf(text)
		if usage, ok := errors.AsType[*usageError](err); ok {
			usage.Hint = "nothing was deleted; " + usage.Hint
		}
		if err != nil {
			return err
		}
		hashParts = append(hashParts, hashPart)
	}
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	report, err := api.DeletePaths(ctx, r.Cache, hashParts, client.DeleteOptions{Closure: c.Closure, DryRun: c.DryRun, Now: c.Now})
	if status, ok := errors.AsType[*client.StatusError](err); ok && status.Name == client.NoSuchObject {
		return at(r, c.whichAreMissing(ctx, api, r.Cache, hashParts, err))
	}
	if err != nil {
		return at(r, err)
	}
	return a.show(report, func() { c.tell(a, &report, r.Cache) })
}

// missingPathsError names the paths that kept a deletion from happening.
type missingPathsError struct {
	paths []string
	cache string
}

func (e *missingPathsError) Error() string {
	if len(e.paths) == 1 {
		return fmt.Sprintf("%s is not in cache %q", e.paths[0], e.cache)
	}
	return fmt.Sprintf("%d of the paths are not in cache %q: %s", len(e.paths), e.cache, strings.Join(e.paths, ", "))
}

// whichAreMissing finds out what to tell of a deletion that was refused because
// something was not there.
func (c *pathDeleteCmd) whichAreMissing(ctx context.Context, api *client.Client, cache string, hashParts []client.HashPart, refusal error) error {
	missing := &missingPathsError{cache: cache}
	for i, hashPart := range hashParts {
		_, err := api.Path(ctx, cache, hashPart)
		if status, ok := errors.AsType[*client.StatusError](err); ok && status.Name == client.NoSuchObject {
			missing.paths = append(missing.paths, c.Paths[i])
		} else if err != nil {
			return refusal // a token may delete what it may not see
		}
	}
	if len(missing.paths) == 0 {
		return refusal
	}
	return missing
}

// tell says what went, and what that comes to.
func (c *pathDeleteCmd) tell(a *app, report *client.DeleteReport, cache string) {
	did, are, gone := "deleted", "are", "is gone"
	if c.DryRun {
		did, are, gone = "would delete", "would be", "would be gone"
	}
	var total int64
	for _, p := range report.Paths {
		total += p.NarBytes
		a.ui.Note("%s %s", did, p.StorePath)
	}
	freed := ""
	if n := report.FreedBytes; n != nil {
		freed = fmt.Sprintf("; %s in the bucket %s freed, what else they take is shared and stays", ui.Size(*n), are)
	}
	if len(report.Paths) > 0 {
		a.ui.Note("%s %s (%s) from cache %q%s", did, ui.Plural(len(report.Paths), "path", "paths"), ui.Size(total), cache, freed)
	}
	if n := report.Former; n > 0 {
		goes := "goes with them"
		if len(report.Paths) == 0 {
			goes = "goes"
		}
		a.ui.Note("%s of what was deleted or pushed again before %s", ui.Plural(n, "NAR", "NARs"), goes)
	}
	c.tellApart(a, report, cache)
	if report.GoneBy != nil && (report.FreedBytes == nil || *report.FreedBytes > 0) {
		a.ui.Note("what nothing else shares %s from the bucket by %s (%s), if garbage is collected as it is set up",
			gone, report.GoneBy.Format("2006-01-02 15:04:05 MST"), in(report.GoneBy.Sub(a.now())))
	}
	for _, path := range report.Referrers {
		a.ui.Warn("%s stays and refers to what is deleted; who wants it will miss that", path)
	}
	if others := strings.Join(report.Elsewhere, ", "); others != "" || report.Hidden > 0 {
		if report.Hidden > 0 {
			others = strings.TrimPrefix(others+fmt.Sprintf(", and %s you may not see", ui.Plural(report.Hidden, "cache that", "caches that")), ", and ")
		}
		a.ui.Warn("the same content is in other caches, where it stays: %s", others)
	}
}

// tellApart says what does not go with paths that were deleted before.
func (c *pathDeleteCmd) tellApart(a *app, report *client.DeleteReport, cache string) {
	if len(report.ClosureUnknown) == 0 {
		return
	}
	a.ui.Warn("of paths that cache %q does not have any more only their own NARs are hurried, not what they referred to, which is not known: %s",
		cache, some(report.ClosureUnknown))
	if len(report.Waiting) > 0 {
		a.ui.Warn("these were deleted from it at about the same time and wait still; name those that are to go now as well (\"%s path delete --now %s HASH…\"): %s",
			a.ui.Self(), c.Cache, some(report.Waiting))
	}
}

// some names some of many.
func some(all []string) string {
	const some = 100
	if len(all) <= some {
		return strings.Join(all, " ")
	}
	return fmt.Sprintf("%s and %d more, which --json names", strings.Join(all[:some], " "), len(all)-some)
}

// in says how long from now something is, for a person.
func in(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "now"
	case d < 2*time.Hour:
		return fmt.Sprintf("in %d minutes", int(d/time.Minute)+1)
	case d < 48*time.Hour:
		return fmt.Sprintf("in %d hours", int(d/time.Hour)+1)
	}
	return fmt.Sprintf("in %d days", int(d/(24*time.Hour))+1)
}
