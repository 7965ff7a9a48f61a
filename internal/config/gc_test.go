package config_test

import (
	"errors"
	"testing"
	"time"

	"github.com/celler/celler/internal/config"
)

func TestGCCheck(t *testing.T) {
	week := config.Span(7 * 24 * time.Hour)
	for _, c := range []struct {
		name   string
		change func(*config.GC)
		key    string // "" if it is right
	}{
		{"the defaults", func(*config.GC) {}, ""},
		{"never", func(g *config.GC) { g.Interval = 0 }, ""},
		{"a negative interval", func(g *config.GC) { g.Interval = -1 }, "garbage-collection.interval"},
		{"a negative retention", func(g *config.GC) { g.Retention = -1 }, "garbage-collection.default-retention-period"},
		{"no grace for readers", func(g *config.GC) { g.ReaderGrace = 0 }, "garbage-collection.reader-grace"},
		{"less for NARs than for readers", func(g *config.GC) { g.ReaderGrace = 2 * g.NarGrace }, "garbage-collection.nar-grace"},
		{"less for NARs than for restores", func(g *config.GC) { g.NarGrace = week - 1 }, "garbage-collection.nar-grace"},
	} {
		g := mkGC()
		c.change(&g)
		err := g.Check(week)
		if wrong, _ := errors.AsType[*config.ValueError](err); (wrong == nil) != (c.key == "") || wrong != nil && wrong.Key != c.key {
			t.Errorf("%s: %v; want %q", c.name, err, c.key)
		}
	}
}

// A node must not be told to serve from a state older than what is still there.
func TestReaderGraceCoversStaleness(t *testing.T) {
	_, _, err := load(t, nil, "[wal]\nmax-staleness = \"3 days\"\n")
	if wrong, _ := errors.AsType[*config.ValueError](err); wrong == nil || wrong.Key != "garbage-collection.reader-grace" {
		t.Errorf("got %v, want a complaint about reader-grace", err)
	}
}
