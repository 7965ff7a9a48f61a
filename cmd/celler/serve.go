package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime/debug"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/internal/telemetry"
)

// adminValidity is how long the token of the first run may be used.
const adminValidity = 2 * 365 * 24 * time.Hour

type serveCmd struct {
	serverFlags
	CheckConfig bool      `name:"check-config" help:"Check the configuration and exit; needs no network and no secrets."`
	At          givenText `placeholder:"WHEN" help:"Show the state of a slot, a bookmark or a time, read-only; nothing is written to the bucket."`

	config.Config `embed:""`
}

// Help is printed below the flags.
func (c *serveCmd) Help() string {
	return `Without any configuration the bucket is a local directory, which is founded if it is
not there; the first run prints a token that may do everything. Every flag is a key of
the configuration file, and a variable, by the same words.`
}

// Run serves until it is told to stop.
func (c *serveCmd) Run(ctx context.Context, a *app) (err error) {
	began := a.now()
	cfg := c.Config
	if err := cfg.Complete(a.env, c.file); err != nil {
		return err
	}
	c.notices(a)
	if c.CheckConfig {
		if err := node.CheckConfig(cfg); err != nil {
			return err
		}
		a.ui.Note("celler: the configuration is valid")
		return nil
	}
	logger, err := telemetry.NewLogger(a.stderr, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return err
	}
	tracing, err := telemetry.NewTracing(ctx, cfg.TracesEndpoint, a.version)
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, tracing.Close(last))
	}()
	limitMemory(int64(cfg.Memory))
	var at *node.When
	if c.At != "" {
		w, err := node.ParseWhen(string(c.At), a.now())
		if err != nil {
			return err
		}
		at = &w
	}
	n, err := node.Open(ctx, cfg, node.Options{
		At: at, Logger: logger, Metrics: telemetry.NewMetrics(), Tracing: tracing, Version: a.version, Now: a.now,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()

	if cfg.AddressFile != "" {
		if err := config.WriteFile(cfg.AddressFile, []byte(n.Addr().String()+"\n"), 0o644); err != nil {
			return err
		}
	}
	if past, ok := n.Past(); ok {
		a.ui.Note("celler: showing %v, read-only", past)
	} else if n.CanMint() {
		if err := c.welcome(a, n, &cfg); err != nil {
			return err
		}
	}
	logger.Info("ready", "addr", n.Addr().String(), "bucket", cfg.LogBucket, "seq", n.Seq(), "dur", a.now().Sub(began))
	return n.Run(ctx)
}

// limitMemory makes the runtime collect garbage more often as memory nears n bytes.
// A server under load allocates much that dies at once, and would otherwise grow to
// twice what is alive. GOMEMLIMIT is the operator's own word.
func limitMemory(n int64) {
	if set := debug.SetMemoryLimit(-1); n > 0 && set == math.MaxInt64 {
		debug.SetMemoryLimit(n)
	}
}

// welcome greets who begins a bucket. Until there has been a cache it says how to get the
// token, for the greeting may have been lost: the first run may have been killed before it.
func (c *serveCmd) welcome(a *app, n *node.Node, cfg *config.Config) error {
	if n.Founded() {
		return c.greet(a, n, cfg)
	}
	if had, err := n.HadCache(); had || err != nil {
		return err
	}
	where := "--local"
	if c.ConfigFile != "" {
		where += fmt.Sprintf(" --config '%s'", c.ConfigFile)
	}
	if !cfg.Default {
		where += fmt.Sprintf(" --bucket '%s'", cfg.LogBucket)
	}
	a.ui.Note("celler: no cache has been created yet; who lacks a token that may do everything types: "+
		"%s token create %s --sub admin --pull '*' --push '*' --delete '*' --create-cache '*' --configure-cache '*' --configure-cache-retention '*' --destroy-cache '*' --pin '*'", a.ui.Self(), where)
	return nil
}

// greet prints what the person who begins a bucket needs next. It goes to
// standard output: the token is data, and will not be shown again.
func (c *serveCmd) greet(a *app, n *node.Node, cfg *config.Config) error {
	token, err := n.AdminToken(adminValidity)
	if err != nil {
		return err
	}
	url := publicURL(n.Addr(), cfg)
	a.ui.Data(`celler has a new bucket at %s
and listens on %s

This token may do everything for two years. It is shown only now:

  %s

Next:

  echo '%[3]s' | %[5]s login local %[4]s --token-stdin
  %[5]s cache create main
  %[5]s push main ./result
`, cfg.LogBucket, url, token, url, a.ui.Self())
	return nil
}

// publicURL is how a client on this machine reaches the server.
func publicURL(addr net.Addr, cfg *config.Config) string {
	if cfg.APIEndpoint != "" {
		return cfg.APIEndpoint
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return fmt.Sprintf("http://%s/", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port) + "/"
}
