package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
	"github.com/celler/celler/internal/ui"
)

type cacheCmd struct {
	Create    cacheCreateCmd    `cmd:"" help:"Create a cache."`
	List      cacheListCmd      `cmd:"" help:"List the caches that you may see."`
	Info      cacheInfoCmd      `cmd:"" aliases:"show" help:"Show a cache and its public key."`
	Configure cacheConfigureCmd `cmd:"" aliases:"set" help:"Change a cache."`
	Destroy   cacheDestroyCmd   `cmd:"" aliases:"delete" help:"Remove a cache and every path in it."`
}

// dial resolves a cache reference and returns a client of its server. The caller
// closes the client. A server that is down is given up after seconds, for somebody is
// waiting; options may say otherwise.
func (a *app) dial(ref string, options ...client.Option) (*client.Client, config.Remote, error) {
	r, err := a.remote(ref)
	if err != nil {
		return nil, r, err
	}
	c, err := a.connect(r, options...)
	return c, r, err
}

// connect returns a client of a server. The caller closes it.
func (a *app) connect(r config.Remote, options ...client.Option) (*client.Client, error) {
	if info, err := node.InspectToken(r.Token); err == nil {
		a.warnExpired(info)
	}
	return client.New(r.Endpoint, append([]client.Option{
		client.WithToken(r.Token), client.WithUserAgent("celler/" + a.version), client.WithClock(a.now),
		client.WithRetry(client.Impatient()),
		client.WithRetryNotice(func(wait time.Duration, err error) {
			a.ui.Note("celler: %v; trying again in %s", err, ui.Duration(wait))
		}),
	}, options...)...)
}

type cacheCreateCmd struct {
	Cache                string   `arg:"" help:"Name, or server:name."`
	Public               bool     `help:"Let everybody pull from it."`
	Priority             int32    `default:"41" help:"Nix asks the caches with lower numbers first; cache.nixos.org has 40."`
	UpstreamCacheKeyName []string `placeholder:"NAME" default:"cache.nixos.org-1" help:"Paths signed by these keys are not pushed, because that cache has them. Give an empty name for none."`
	StoreDir             string   `default:"/nix/store" help:"Store directory of the paths in it."`
	KeyFile              string   `type:"existingfile" placeholder:"FILE" help:"Sign with this key, a file made by nix-store --generate-binary-cache-key, instead of a new one; - is standard input."`
	jsonFlag
}

func (c *cacheCreateCmd) Run(ctx context.Context, a *app) error {
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	secret, err := readKeyFile(a, c.KeyFile)
	if err != nil {
		return err
	}
	n := client.NewCache{
		Public: c.Public, Priority: c.Priority, StoreDir: c.StoreDir,
		UpstreamKeyNames: names(c.UpstreamCacheKeyName), SecretKey: secret,
	}
	if err := api.CreateCache(ctx, r.Cache, n); err != nil {
		return at(r, err)
	}
	a.ui.Note("created cache %q on %s", r.Cache, r.Endpoint)
	info, err := api.Cache(ctx, r.Cache)
	if err != nil { // a token may create what it may not read
		a.ui.Note("its public key cannot be shown: the token has no right to pull from it")
		return nil
	}
	return a.show(cacheJSON(&info), func() { a.ui.Data("%s", info.PublicKey) })
}

// names drops the empty name, which stands for "none".
func names(in []string) []string {
	return append([]string{}, slices.DeleteFunc(in, func(s string) bool { return s == "" })...)
}

// readKeyFile reads a secret key from a file, or from standard input if that is "-".
func readKeyFile(a *app, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	var body []byte
	var err error
	if path == "-" {
		path = "standard input"
		body, err = io.ReadAll(io.LimitReader(a.stdin, 64<<10))
	} else {
		body, err = os.ReadFile(path)
	}
	if err != nil {
		return "", fmt.Errorf("read signing key: %w", err)
	}
	key := strings.TrimSpace(string(body))
	name, secret, _ := strings.Cut(key, ":")
	raw, err := base64.StdEncoding.DecodeString(secret)
	switch {
	case err == nil && name != "" && len(raw) == ed25519.PrivateKeySize:
		return key, nil
	case err == nil && name != "" && len(raw) == ed25519.PublicKeySize:
		return "", &usageError{Problem: fmt.Sprintf("read signing key: %s holds the public key", path), Hint: "name the other file that nix-store --generate-binary-cache-key wrote"}
	}
	return "", &usageError{Problem: fmt.Sprintf("read signing key: %s is not NAME:BASE64 of 64 bytes", path), Hint: "make one with \"nix-store --generate-binary-cache-key NAME-1 secret public\""}
}

type cacheListCmd struct {
	Server string `arg:"" optional:"" help:"Name or address of the server; default: the default server."`
	jsonFlag
}

func (c *cacheListCmd) Run(ctx context.Context, a *app) error {
	r, err := a.server(c.Server)
	if err != nil {
		return err
	}
	api, err := a.connect(r)
	if err != nil {
		return err
	}
	defer api.Close()
	caches, err := api.Caches(ctx)
	if err != nil {
		return at(r, err)
	}
	if a.ui.JSON() {
		for i := range caches {
			if err := a.ui.Value(cacheJSON(&caches[i])); err != nil {
				return err
			}
		}
		return nil
	}
	if len(caches) == 0 {
		a.ui.Note("no caches that you may see on %s", r.Endpoint)
		return nil
	}
	rows := make([][]string, 0, len(caches))
	for _, info := range caches {
		rows = append(rows, []string{info.Name, visibility(info.Public), strconv.Itoa(int(info.Priority)), strings.Join(info.Permissions, ","), info.PublicKey})
	}
	a.ui.Table([]string{"CACHE", "VISIBLE", "PRIORITY", "YOUR RIGHTS", "PUBLIC KEY"}, rows)
	return nil
}

func visibility(public bool) string {
	if public {
		return "public"
	}
	return "private"
}

type cacheInfoCmd struct {
	Cache string `arg:"" help:"Name, server:name, or URL."`
	jsonFlag
}

func (c *cacheInfoCmd) Run(ctx context.Context, a *app) error {
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	info, err := api.Cache(ctx, r.Cache)
	if err != nil {
		return at(r, err)
	}
	if a.ui.JSON() {
		return a.ui.Value(cacheJSON(&info))
	}
	a.ui.Table(nil, [][]string{
		{"Cache:", info.Name},
		{"Visible:", visibility(info.Public)},
		{"Substituter:", info.Endpoint},
		{"Public key:", info.PublicKey},
		{"Store directory:", info.StoreDir},
		{"Priority:", strconv.Itoa(int(info.Priority))},
		{"Upstream keys:", strings.Join(info.UpstreamKeyNames, " ")},
		{"Retention:", retention(info.Retention)},
	})
	return nil
}

func retention(d *time.Duration) string {
	switch {
	case d == nil:
		return "the server's default"
	case *d == 0:
		return "for ever"
	case *d%(24*time.Hour) == 0:
		return ui.Plural(int(*d/(24*time.Hour)), "day", "days")
	}
	return d.String()
}

// cacheJSON is a cache as JSON output has it; what a list does not know is left out.
func cacheJSON(c *client.Cache) map[string]any {
	m := map[string]any{
		"cache": c.Name, "public": c.Public, "public_key": c.PublicKey, "store_dir": c.StoreDir, "priority": c.Priority,
	}
	if c.Endpoint != "" {
		m["substituter"], m["upstream_key_names"] = c.Endpoint, append([]string{}, c.UpstreamKeyNames...)
		if c.Retention != nil {
			m["retention_seconds"] = int64(c.Retention.Seconds())
		}
	}
	if c.Permissions != nil {
		m["permissions"] = c.Permissions
	}
	if !c.Created.IsZero() {
		m["created"] = c.Created
	}
	return m
}

type cacheConfigureCmd struct {
	Cache                string       `arg:"" help:"Name, server:name, or URL."`
	Public               bool         `xor:"visible" help:"Let everybody pull from it."`
	Private              bool         `xor:"visible" help:"Let only tokens with the right pull from it."`
	Priority             *int32       `placeholder:"N" help:"Nix asks the caches with lower numbers first."`
	UpstreamCacheKeyName []string     `placeholder:"NAME" help:"Paths signed by these keys are not pushed. Give an empty name for none."`
	StoreDir             *string      `placeholder:"DIR" help:"Store directory of the paths in it."`
	RetentionPeriod      *config.Span `xor:"retention" placeholder:"PERIOD" help:"Paths may go after this time, such as 90d; 0s keeps them for ever."`
	ResetRetentionPeriod bool         `xor:"retention" help:"Follow the server's default again."`
	RegenerateKeypair    bool         `xor:"key" help:"Make a new signing key. Clients must be told the new public key."`
	KeyFile              string       `xor:"key" type:"existingfile" placeholder:"FILE" help:"Sign with the key in this file; - is standard input."`
}

func (c *cacheConfigureCmd) Run(ctx context.Context, a *app) error {
	change := client.CacheChange{Priority: c.Priority, StoreDir: c.StoreDir, RegenerateKey: c.RegenerateKeypair}
	var changed []string
	note := func(set bool, what string) {
		if set {
			changed = append(changed, what)
		}
	}
	if c.Public || c.Private {
		change.Public = &c.Public
	}
	note(change.Public != nil, visibility(c.Public))
	note(c.Priority != nil, "priority")
	if c.UpstreamCacheKeyName != nil {
		keys := names(c.UpstreamCacheKeyName)
		change.UpstreamKeyNames = &keys
	}
	note(change.UpstreamKeyNames != nil, "upstream keys")
	note(c.StoreDir != nil, "store directory")
	switch {
	case c.ResetRetentionPeriod:
		change.Retention = &client.Retention{Default: true}
	case c.RetentionPeriod != nil:
		change.Retention = &client.Retention{Period: time.Duration(*c.RetentionPeriod)}
	}
	note(change.Retention != nil, "retention")
	if c.KeyFile != "" {
		secret, err := readKeyFile(a, c.KeyFile)
		if err != nil {
			return err
		}
		change.SecretKey = &secret
	}
	note(c.RegenerateKeypair || c.KeyFile != "", "signing key")
	if len(changed) == 0 {
		return &usageError{Problem: "nothing to change", Hint: `"celler cache configure --help" lists what can be`}
	}
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	if err := api.ConfigureCache(ctx, r.Cache, change); err != nil {
		return at(r, err)
	}
	a.ui.Note("changed cache %q: %s", r.Cache, strings.Join(changed, ", "))
	return nil
}

type cacheDestroyCmd struct {
	Cache  string `arg:"" help:"Name, server:name, or URL."`
	Yes    bool   `short:"y" aliases:"no-confirm" help:"Do not ask."`
	DryRun bool   `help:"Say what would go, and leave it."`
}

func (c *cacheDestroyCmd) Run(ctx context.Context, a *app) error {
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	if c.DryRun {
		return c.count(ctx, a, api, r)
	}
	if !c.Yes {
		// Whether it can be looked at does not matter: a token may destroy what it may not read.
		if _, err := api.Cache(ctx, r.Cache); isNoSuchCache(err) {
			return c.explain(r, err)
		}
		if err := confirm(a, r.Cache); err != nil {
			return err
		}
	}
	if err := api.DestroyCache(ctx, r.Cache); err != nil {
		return c.explain(r, err)
	}
	a.ui.Note("destroyed cache %q on %s", r.Cache, r.Endpoint)
	return nil
}

func (c *cacheDestroyCmd) explain(r config.Remote, err error) error {
	return withHints(at(r, err), client.NoSuchCache, fmt.Sprintf("\"celler cache list\" says which there are on %s", r.Endpoint))
}

func isNoSuchCache(err error) bool {
	status, ok := errors.AsType[*client.StatusError](err)
	return ok && status.Name == client.NoSuchCache
}

func (c *cacheDestroyCmd) count(ctx context.Context, a *app, api *client.Client, r config.Remote) error {
	n, size := 0, int64(0)
	for p, err := range api.Paths(ctx, r.Cache) {
		if err != nil {
			return c.explain(r, err)
		}
		n, size = n+1, size+p.NarSize
	}
	a.ui.Note("would destroy cache %q on %s with %s, %s of NARs", r.Cache, r.Endpoint, ui.Plural(n, "path", "paths"), ui.Size(size))
	return nil
}

// confirm asks for the name of what is to be destroyed.
func confirm(a *app, name string) error {
	a.ui.Warn("this removes cache %q and every path in it, its pins and its signing key; who has the bucket can bring it back with \"%s restore --cache\" while the log is kept", name, a.ui.Self())
	return confirmWord(a, name, "type the cache's name to go on:")
}

// confirmWord asks for a word that nobody types by chance.
func confirmWord(a *app, word, ask string) error {
	a.ui.Note("%s", ask)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if strings.TrimSpace(line) == word {
		return nil
	}
	if err != nil {
		return &usageError{Problem: "not confirmed: nobody answered", Hint: "in a script, use --yes"}
	}
	return &usageError{Problem: fmt.Sprintf("not confirmed: expected %q, read %q", word, strings.TrimSpace(line))}
}
