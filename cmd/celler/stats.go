package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/ui"
)

type statsCmd struct {
	Cache  string `arg:"" optional:"" help:"Name, server:name, or URL; default: the whole store."`
	Server string `placeholder:"NAME" help:"Server whose store is meant, if no cache is named; default: the default server."`
	jsonFlag
}

// Help is printed below the flags.
func (c *statsCmd) Help() string {
	return `The numbers are kept by the operations that change them: they are exact, and reading
them costs no scan. Those of the whole store are shown to tokens that may pull from every
cache. NEW is what pushes to a cache brought that the store did not have, since the cache
was created. What came and went is shown by store day, of the whole store and of a cache.`
}

// Run prints numbers.
func (c *statsCmd) Run(ctx context.Context, a *app) error {
	if c.Cache != "" {
		if c.Server != "" {
			return &usageError{Problem: "a cache and --server exclude each other", Hint: "say server:cache"}
		}
		return c.ofCache(ctx, a)
	}
	r, err := a.server(c.Server)
	if err != nil {
		return err
	}
	api, err := a.connect(r)
	if err != nil {
		return err
	}
	defer api.Close()
	stats, err := api.Stats(ctx)
	if err != nil {
		return at(r, err)
	}
	if a.ui.JSON() {
		return a.ui.Value(stats)
	}
	if s := stats.Store; s != nil {
		printStore(a, s)
		printGrowth(a, s.Growth)
	} else {
		a.ui.Note("numbers of the whole store are for tokens that may pull from every cache")
	}
	if len(stats.Caches) == 0 {
		a.ui.Note("no caches that you may see on %s", r.Endpoint)
		return nil
	}
	for i := range stats.Caches {
		uncounted(a, &stats.Caches[i])
	}
	rows := make([][]string, 0, len(stats.Caches))
	for i := range stats.Caches {
		s := &stats.Caches[i]
		rows = append(rows, []string{
			s.Cache, strconv.FormatInt(s.Paths, 10), ui.Size(s.NarBytes), ui.Size(s.FileBytes), ui.Size(s.NewStoredBytes), idle(a.now(), s),
		})
	}
	if stats.Store != nil {
		a.ui.Data("")
	}
	a.ui.Table([]string{"CACHE", "PATHS", "NARS", "SERVED", "NEW", "OLDEST USE"}, rows)
	return nil
}

func (c *statsCmd) ofCache(ctx context.Context, a *app) error {
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	s, err := api.CacheStats(ctx, r.Cache)
	if err != nil {
		return at(r, err)
	}
	if a.ui.JSON() {
		return a.ui.Value(s)
	}
	uncounted(a, &s)
	rows := [][]string{
		{"Paths:", strconv.FormatInt(s.Paths, 10)},
		{"NARs:", ui.Size(s.NarBytes)},
		{"Served:", saved(s.FileBytes, s.NarBytes)},
		{"New:", fmt.Sprintf("%s of NARs, in %s of packs", ui.Size(s.NewBytes), ui.Size(s.NewStoredBytes))},
	}
	if o := s.OldestUse; o != nil {
		rows = append(rows, []string{"Oldest use:", fmt.Sprintf("%s, %s", idle(a.now(), &s), o.StorePath)})
	}
	a.ui.Table(nil, rows)
	printGrowth(a, s.Growth)
	return nil
}

// printGrowth shows what came and went by store day, below what was shown before.
func printGrowth(a *app, days []client.Growth) {
	if len(days) == 0 {
		return
	}
	a.ui.Data("")
	var rows [][]string
	for _, g := range days {
		ended := "now"
		if g.Ended != nil {
			ended = g.Ended.Format(time.DateTime)
		}
		rows = append(rows, []string{ended, fmt.Sprintf("+%d", g.AddedPaths), ui.Size(g.AddedBytes), fmt.Sprintf("-%d", g.RemovedPaths), ui.Size(g.RemovedBytes)})
	}
	a.ui.Table([]string{"STORE DAY TO", "PATHS", "NARS", "PATHS", "NARS"}, rows)
}

// printStore shows how the bytes of paths come down to those in the bucket.
func printStore(a *app, s *client.StoreStats) {
	a.ui.Table(nil, [][]string{
		{"Paths:", strconv.FormatInt(s.Paths, 10)},
		{"NARs:", ui.Size(s.NarBytes)},
		{"Unique:", fmt.Sprintf("%s in %s; dedup saves %s", ui.Size(s.UniqueBytes), ui.Plural(int(s.Chunks), "chunk", "chunks"), ui.Size(s.SavedByDedup))},
		{"Stored:", fmt.Sprintf("%s in %s; compression saves %s", ui.Size(s.StoredBytes), ui.Plural(int(s.Objects), "object", "objects"), ui.Size(s.SavedByCompression))},
		{"Dead:", fmt.Sprintf("%s in %s of packs, and %s in %s to be deleted", ui.Size(s.DeadBytes), ui.Plural(int(s.DeadChunks), "chunk", "chunks"),
			ui.Size(s.BuriedBytes), ui.Plural(int(s.Buried), "object", "objects"))},
		{"Unreferenced:", ui.Plural(int(s.Unreferenced), "NAR", "NARs")},
	})
}

// uncounted warns of numbers that are too small.
func uncounted(a *app, s *client.CacheStats) {
	if s.Uncounted {
		a.ui.Warn("the numbers of cache %q do not tell all: it has paths from before they were kept; \"%s fsck --repair\" counts them", s.Cache, a.ui.Self())
	}
}

// saved shows a size and what part of another one it is.
func saved(n, of int64) string {
	if of <= 0 {
		return ui.Size(n)
	}
	return fmt.Sprintf("%s (%.0f%%)", ui.Size(n), 100*float64(n)/float64(of))
}

// idle says how long ago the path was used that was not for the longest time.
func idle(now time.Time, s *client.CacheStats) string {
	if s.OldestUse == nil {
		return "-"
	}
	if s.OldestUse.Until == nil {
		return "now"
	}
	return age(now, *s.OldestUse.Until)
}
