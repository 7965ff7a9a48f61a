package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

// answerTimeout bounds how long login and use wait for a server that may not be there.
const answerTimeout = 10 * time.Second

type loginCmd struct {
	Name     string `arg:"" help:"What to call the server."`
	Endpoint string `arg:"" help:"Its URL, such as https://cache.example.org/."`
	Token    string `arg:"" optional:"" help:"Its token, if it need not be kept from others on this machine."`

	TokenFile  string `name:"token-file" placeholder:"FILE" help:"Remember this file and read the token from it each time."`
	TokenStdin bool   `name:"token-stdin" help:"Read the token from standard input."`
	SetDefault bool   `name:"set-default" help:"Use this server where none is named; the first one is anyway."`
}

// Help is printed below the flags.
func (c *loginCmd) Help() string {
	return `The token comes from standard input, a file, the variable CELLER_TOKEN (or the file that
CELLER_TOKEN_FILE names) or the systemd credential celler-token. Without one only public
caches can be reached. It is kept in $XDG_CONFIG_HOME/celler/config.toml, which others
cannot read.`
}

// Run remembers the server.
func (c *loginCmd) Run(ctx context.Context, a *app) error {
	if strings.ContainsAny(c.Name, ":/ \t") || c.Name == "" {
		return &usageError{Problem: "server name " + quote(c.Name) + " is empty or holds a colon, a slash or a space", Hint: "any word will do, such as main"}
	}
	if err := checkEndpoint(c.Endpoint); err != nil {
		return err
	}
	s := config.Server{Endpoint: strings.TrimRight(c.Endpoint, "/") + "/"}
	token, err := c.token(a, &s)
	if err != nil {
		return err
	}
	if err := c.checkToken(a, token); err != nil {
		return err
	}
	if err := config.SaveServer(a.env, c.Name, s, c.SetDefault); err != nil {
		return err
	}
	a.ui.Note("celler: logged in to %s as %s", s.Endpoint, quote(c.Name))
	switch status, err := reach(ctx, s.Endpoint); {
	case err != nil:
		a.ui.Warn("%s does not answer now: %v", s.Endpoint, err)
	case status == http.StatusNotFound:
		a.ui.Warn("%s has no front page, as servers have: is it the address of a cache? Log in to its server, and name the cache with each command", s.Endpoint)
	}
	return nil
}

// checkEndpoint refuses what is not the URL of a server.
func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.User == nil {
		return nil
	}
	hint := "it begins with https:// or http://, and has neither a question mark nor a user's name in it"
	if !strings.Contains(endpoint, "://") {
		hint = fmt.Sprintf("say http://%[1]s, or https://%[1]s if the server has a certificate", endpoint)
	}
	return &usageError{Problem: "endpoint " + quote(endpoint) + " is no URL such as https://cache.example.org/", Hint: hint}
}

// token finds the token and puts it, or where it is, into s.
func (c *loginCmd) token(a *app, s *config.Server) (token string, err error) {
	sources := 0
	for _, given := range []bool{c.Token != "", c.TokenFile != "", c.TokenStdin} {
		if given {
			sources++
		}
	}
	if sources > 1 {
		return "", &usageError{Problem: "the token is given in more than one way", Hint: "say only one of TOKEN, --token-file and --token-stdin"}
	}
	switch {
	case c.TokenFile != "":
		if s.TokenFile, err = filepath.Abs(c.TokenFile); err != nil {
			return "", err
		}
		return readTokenFile(s.TokenFile)
	case c.TokenStdin:
		s.Token, err = readToken(a.stdin)
	case c.Token != "":
		s.Token = strings.TrimSpace(c.Token)
		a.ui.Warn("a token on the command line can be seen by others on this machine; --token-stdin keeps it from them")
	default:
		s.Token, err = a.env.Token()
	}
	return s.Token, err
}

// checkToken refuses what is no token at all, and warns of one that will not work.
func (c *loginCmd) checkToken(a *app, token string) error {
	if token == "" {
		return nil
	}
	info, err := node.InspectToken(token)
	if err != nil {
		return err
	}
	a.warnExpired(info)
	return nil
}

// warnExpired warns of a token that is the same as none: the request goes on without it,
// and what is public is all that is answered.
func (a *app) warnExpired(info node.TokenInfo) {
	if info.Expires != nil && info.Expires.Before(a.now()) {
		a.ui.Warn("this token expired at %s", date(info.Expires))
	}
}

// reach asks for the server's front page, which every kind of server has.
func reach(ctx context.Context, endpoint string) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}
