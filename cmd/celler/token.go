package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

type tokenCmd struct {
	Create  tokenCreateCmd  `cmd:"" help:"Make a token."`
	Inspect tokenInspectCmd `cmd:"" help:"Show what a token says, without checking that it is true."`
}

type tokenCreateCmd struct {
	jsonFlag
	serverFlags

	Sub      string      `required:"" placeholder:"NAME" help:"Whom the token is for; uploads are marked with it."`
	Validity config.Span `default:"1 year" placeholder:"SPAN" help:"How long it may be used, such as \"90 days\"; 0 for ever (${default})."`

	Pull      []string `placeholder:"PATTERN" help:"Caches it may pull from; * stands for any characters."`
	Push      []string `placeholder:"PATTERN" help:"Caches it may push to."`
	Delete    []string `placeholder:"PATTERN" help:"Caches it may delete store paths from."`
	Create    []string `name:"create-cache" placeholder:"PATTERN" help:"Caches it may create."`
	Configure []string `name:"configure-cache" placeholder:"PATTERN" help:"Caches it may configure."`
	Retention []string `name:"configure-cache-retention" placeholder:"PATTERN" help:"Caches whose retention it may change, beside --configure-cache."`
	Destroy   []string `name:"destroy-cache" placeholder:"PATTERN" help:"Caches it may destroy."`
	Pin       []string `placeholder:"PATTERN" help:"Caches in which it may set and remove pins."`

	DumpClaims bool   `name:"dump-claims" help:"Print what the token says instead of the token."`
	Server     string `placeholder:"NAME" help:"Let this server make it, which one is logged in to; the default server if there is one."`
	Local      bool   `help:"Make it here, with the key in the server's configuration or in the bucket."`

	config.Buckets `embed:""`
	JWT            config.JWT `embed:"" prefix:"jwt."`
}

// Help is printed below the flags.
func (c *tokenCreateCmd) Help() string {
	return `A server makes only tokens that allow no more than the caller's own does. On the
server's machine, or wherever its bucket and key can be reached, --local makes any;
naming a bucket or a configuration file implies it.

Of several patterns that match a cache the first counts, in the order pull, push,
delete, create, configure, retention, destroy, pin.`
}

// Run makes the token where it can be made.
func (c *tokenCreateCmd) Run(ctx context.Context, a *app) error {
	request := node.TokenRequest{Subject: c.Sub, Validity: time.Duration(c.Validity), Rules: c.rules()}
	if len(request.Rules) == 0 {
		return &usageError{Problem: "the token would allow nothing", Hint: `name what it may do, such as --pull "*" or --push ci`}
	}
	remote, err := c.remote(a)
	if err != nil {
		return err
	}
	var token string
	if remote != nil {
		token, err = mintRemote(ctx, a, *remote, request)
	} else {
		token, err = c.mintLocal(ctx, a, request)
	}
	if err != nil {
		return err
	}
	info, err := node.InspectToken(token)
	if err != nil {
		return err
	}
	switch {
	case c.DumpClaims && !a.ui.JSON():
		printToken(a, info)
	case c.DumpClaims:
		return a.ui.Value(info)
	case a.ui.JSON():
		return a.ui.Value(struct {
			Token  string         `json:"token"`
			Claims node.TokenInfo `json:"claims"`
		}{token, info})
	default:
		a.ui.Data("%s", token)
	}
	return nil
}

// rules gathers the flags by pattern, in the order in which patterns first appear.
func (c *tokenCreateCmd) rules() []node.TokenRule {
	var rules []node.TokenRule
	at := map[string]int{}
	for _, flag := range []struct {
		right    string
		patterns []string
	}{
		{"pull", c.Pull},
		{"push", c.Push},
		{"delete", c.Delete},
		{"create-cache", c.Create},
		{"configure-cache", c.Configure},
		{"configure-cache-retention", c.Retention},
		{"destroy-cache", c.Destroy},
		{"pin", c.Pin},
	} {
		for _, pattern := range flag.patterns {
			i, ok := at[pattern]
			if !ok {
				i = len(rules)
				at[pattern] = i
				rules = append(rules, node.TokenRule{Pattern: pattern})
			}
			rules[i].Rights = append(rules[i].Rights, flag.right)
		}
	}
	return rules
}

// remote decides who makes the token: a server that is named, else this machine if
// anything says so, else the default server.
func (c *tokenCreateCmd) remote(a *app) (*config.Remote, error) {
	local := c.Local || c.ConfigFile != "" || c.Bucket != "" || c.LogBucket != ""
	if c.Server != "" && local {
		return nil, &usageError{Problem: "--server and --local (or a bucket, or a configuration file) exclude each other"}
	}
	if local {
		return nil, nil
	}
	known, err := config.LoadClient(a.env)
	if err != nil || (c.Server == "" && len(known.Servers) == 0) {
		return nil, err
	}
	r, err := known.ResolveServer(a.env, c.Server)
	return &r, err
}

func (c *tokenCreateCmd) mintLocal(ctx context.Context, a *app, r node.TokenRequest) (string, error) {
	cfg := config.Config{Buckets: c.Buckets, JWT: c.JWT}
	if err := cfg.CompleteTokens(a.env, c.file); err != nil {
		return "", err
	}
	return node.MintToken(ctx, cfg, r, a.now)
}

func mintRemote(ctx context.Context, a *app, remote config.Remote, r node.TokenRequest) (string, error) {
	c, err := a.connect(remote)
	if err != nil {
		return "", err
	}
	defer c.Close()
	var rules []client.TokenRule
	for _, rule := range r.Rules {
		rules = append(rules, client.TokenRule{Pattern: rule.Pattern, Permissions: rule.Rights})
	}
	if r.Validity == 0 {
		return "", &usageError{Problem: "a server makes no token that never expires", Hint: `give --validity, such as "10 years", or make it where the bucket can be reached, with --local`}
	}
	token, err := c.MintToken(ctx, r.Subject, r.Validity, rules)
	if status, ok := errors.AsType[*client.StatusError](err); ok && status.Status == http.StatusForbidden {
		return "", &hintedError{fmt.Errorf("the token for %s does not hold every right that is asked for, on every name: a server makes only tokens that allow less", remote.Endpoint), []string{
			"see what it allows with " + inspectOf(remote), "where the bucket can be reached, --local makes any token",
		}}
	}
	return token.Token, at(remote, err)
}

type tokenInspectCmd struct {
	jsonFlag

	File   string `name:"token-file" placeholder:"FILE" help:"Read the token from this file."`
	Server string `placeholder:"NAME" help:"Inspect the token that is used with this server."`
	Token  string `arg:"" optional:"" help:"The token itself, if it need not be kept from others on this machine; standard input if nothing is named."`
}

// Run prints what the token says.
func (c *tokenInspectCmd) Run(a *app) error {
	token, err := c.token(a)
	if err != nil {
		return err
	}
	info, err := node.InspectToken(token)
	if err != nil {
		return err
	}
	if a.ui.JSON() {
		return a.ui.Value(info)
	}
	printToken(a, info)
	if info.Expires != nil && info.Expires.Before(a.now()) {
		a.ui.Warn("this token has expired")
	}
	return nil
}

func (c *tokenInspectCmd) token(a *app) (string, error) {
	switch {
	case c.Token != "" && c.Token != "-":
		return c.Token, nil
	case c.File != "":
		return readTokenFile(c.File)
	case c.Server != "":
		r, err := a.server(c.Server)
		if err == nil && r.Token == "" {
			err = &usageError{Problem: "no token is kept for server " + c.Server}
		}
		return r.Token, err
	}
	return readToken(a.stdin)
}

// maxTokenBytes bounds what is read as a token: Attic refuses longer ones.
const maxTokenBytes = 1 << 20

func readToken(r io.Reader) (string, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxTokenBytes))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(body))
	if token == "" {
		return "", &usageError{Problem: "standard input holds no token", Hint: "pipe the token in, or name a file with --token-file"}
	}
	return token, nil
}

func readTokenFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", &usageError{Problem: "read token: " + err.Error(), Hint: "name a file that holds the token and nothing else"}
	}
	defer func() { _ = f.Close() }() // only read from
	token, err := readToken(f)
	if usage, ok := err.(*usageError); ok { //nolint:errorlint // readToken made it
		usage.Problem, usage.Hint = path+" holds no token", ""
	}
	return token, err
}

func printToken(a *app, t node.TokenInfo) {
	rows := [][]string{{"Subject", t.Subject}, {"Algorithm", t.Algorithm}}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	add("Issuer", t.Issuer)
	add("Audiences", strings.Join(t.Audiences, ", "))
	add("Id", t.ID)
	add("Not before", date(t.NotBefore))
	add("Issued", date(t.IssuedAt))
	expires := date(t.Expires)
	if expires == "" {
		expires = "never"
	}
	add("Expires", expires)
	for _, r := range t.Rules {
		add("On "+r.Pattern, strings.Join(r.Rights, ", "))
	}
	a.ui.Table(nil, rows)
}

func date(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339)
}
