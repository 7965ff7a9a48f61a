package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/config"
)

type useCmd struct {
	Cache string `arg:"" help:"Cache, as NAME on the default server, SERVER:NAME, or a URL."`

	DryRun     bool `name:"dry-run" help:"Show what would change and change nothing."`
	Print      bool `name:"print" help:"Print the settings instead of writing them, for a nix.conf that is managed otherwise."`
	System     bool `name:"system" help:"Edit the system's nix.conf and netrc, in $$NIX_CONF_DIR or /etc/nix, rather than the user's."`
	ReplaceKey bool `name:"replace-key" help:"Replace another trusted key of the same name."`
}

// Help is printed below the flags.
func (c *useCmd) Help() string {
	return `Adds the cache to the substituters and its key to the trusted keys in nix.conf, and, if
the cache is private, the token to netrc. Other lines stay as they are, and doing it twice
is the same as doing it once.`
}

// keyClashError reports that nix.conf trusts another key of the same name. Nix goes by
// the name and would use only one of the two.
type keyClashError struct{ File, Name string }

func (e *keyClashError) Error() string {
	return fmt.Sprintf("%s trusts another key named %q", e.File, e.Name)
}

// notACacheError reports a substituter endpoint behind which there is no cache.
type notACacheError struct {
	URL string
	Err error
}

func (e *notACacheError) Error() string {
	return fmt.Sprintf("%s is no binary cache: %v", e.URL, e.Err)
}
func (e *notACacheError) Unwrap() error { return e.Err }

// Run edits nix.conf and netrc.
func (c *useCmd) Run(ctx context.Context, a *app) error {
	remote, err := a.remote(c.Cache)
	if err != nil {
		return err
	}
	cache, err := describeCache(ctx, a, remote)
	if err != nil {
		return err
	}
	token := ""
	if !cache.Public {
		token = remote.Token
	}
	if err := checkSubstituter(ctx, cache, token); err != nil {
		return err
	}
	if c.Print {
		return c.print(a, cache, token)
	}
	edit, err := c.edit(a.env, cache, token)
	if err != nil {
		return err
	}
	if err := edit.checkPlaces(a.env); err != nil {
		return err
	}
	if c.DryRun {
		edit.show(a)
		return nil
	}
	if err := edit.write(); err != nil {
		return err
	}
	c.tell(a, cache, edit)
	return nil
}

// describeCache asks the server for the cache and checks what it says.
func describeCache(ctx context.Context, a *app, r config.Remote) (client.Cache, error) {
	cl, err := a.connect(r)
	if err != nil {
		return client.Cache{}, err
	}
	defer cl.Close()
	cache, err := cl.Cache(ctx, r.Cache)
	if err != nil {
		return cache, at(r, err)
	}
	if cache.Endpoint == "" {
		cache.Endpoint = r.Endpoint + r.Cache
	}
	name, key, _ := strings.Cut(cache.PublicKey, ":")
	if raw, err := base64.StdEncoding.DecodeString(key); err != nil || len(raw) != 32 || name == "" {
		return cache, &notACacheError{cache.Endpoint, fmt.Errorf("its public key %q is not NAME:BASE64 of 32 bytes", cache.PublicKey)}
	}
	return cache, nil
}

// checkSubstituter asks for nix-cache-info as Nix will, credentials included.
func checkSubstituter(ctx context.Context, cache client.Cache, token string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(cache.Endpoint, "/")+"/nix-cache-info", nil)
	if err != nil {
		return &notACacheError{cache.Endpoint, err}
	}
	if token != "" {
		req.SetBasicAuth("celler", token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return &notACacheError{cache.Endpoint, err}
	}
	defer func() { _ = res.Body.Close() }() // only read from
	if res.StatusCode != http.StatusOK {
		return &notACacheError{cache.Endpoint, fmt.Errorf("nix-cache-info is answered with %s", res.Status)}
	}
	for lines := bufio.NewScanner(io.LimitReader(res.Body, 64<<10)); lines.Scan(); {
		if dir, ok := strings.CutPrefix(lines.Text(), "StoreDir:"); ok {
			if dir = strings.TrimSpace(dir); cache.StoreDir != "" && dir != cache.StoreDir {
				return &notACacheError{cache.Endpoint, fmt.Errorf("its store dir is %s, expected %s", dir, cache.StoreDir)}
			}
			return nil
		}
	}
	return &notACacheError{cache.Endpoint, errors.New("nix-cache-info names no StoreDir")}
}

func (c *useCmd) print(a *app, cache client.Cache, token string) error {
	a.ui.Data("extra-substituters = %s\nextra-trusted-public-keys = %s", cache.Endpoint, cache.PublicKey)
	if token != "" {
		_, netrc := config.NixFiles(a.env, c.System)
		a.ui.Data("netrc-file = %s", netrc)
		a.ui.Note("celler: the cache is private; the file needs a line \"machine %s login celler password TOKEN\"", hostOf(cache.Endpoint))
	}
	return nil
}

// nixEdit is what use changes, before and after.
type nixEdit struct {
	confPath, netrcPath string
	conf, newConf       string
	netrc, newNetrc     string
	negativeTTL         string // as set in nix.conf; "" if it is not
	replaced            bool   // netrc had another token for the host
	open                bool   // netrc can be read by others, though it holds the token
}

func (c *useCmd) edit(env config.Env, cache client.Cache, token string) (*nixEdit, error) {
	e := &nixEdit{}
	e.confPath, e.netrcPath = config.NixFiles(env, c.System)
	var err error
	if e.conf, err = readIfThere(e.confPath); err != nil {
		return nil, err
	}
	conf := config.ParseNixConf(e.conf)
	conf.Follow(e.confPath)
	if !slices.ContainsFunc(conf.Words("substituters"), func(word string) bool { return sameStore(word, cache.Endpoint) }) {
		conf.AddWord("substituters", cache.Endpoint)
	}
	if err := c.trust(conf, e.confPath, cache.PublicKey); err != nil {
		return nil, err
	}
	e.negativeTTL, _ = conf.Value("narinfo-cache-negative-ttl")
	if token != "" {
		if path, ok := conf.Value("netrc-file"); ok {
			e.netrcPath = path
		} else {
			conf.Set("netrc-file", e.netrcPath)
		}
		if e.netrc, err = readIfThere(e.netrcPath); err != nil {
			return nil, err
		}
		_, had := config.NetrcPassword(e.netrc, hostOf(cache.Endpoint))
		if e.newNetrc, _, err = config.SetNetrc(e.netrc, hostOf(cache.Endpoint), token); err != nil {
			return nil, err
		}
		e.replaced = had && e.newNetrc != e.netrc
		info, err := os.Stat(e.netrcPath)
		e.open = err == nil && info.Mode().Perm()&0o077 != 0
	}
	e.newConf = conf.String()
	return e, nil
}

// sameStore compares substituters as to where they lead: parameters, such as a priority,
// and slashes at the end make no other cache.
func sameStore(a, b string) bool {
	a, _, _ = strings.Cut(a, "?")
	b, _, _ = strings.Cut(b, "?")
	return strings.TrimRight(a, "/") == strings.TrimRight(b, "/")
}

// trust adds the key, unless another of its name is there: Nix looks keys up by name.
func (c *useCmd) trust(conf *config.NixConf, path, key string) error {
	name, _, _ := strings.Cut(key, ":")
	for _, word := range conf.Words("trusted-public-keys") {
		if other, _, _ := strings.Cut(word, ":"); other != name || word == key {
			continue
		}
		if !c.ReplaceKey {
			return &keyClashError{path, name}
		}
		conf.RemoveWord("trusted-public-keys", word)
		if slices.Contains(conf.Words("trusted-public-keys"), word) {
			return &hintedError{fmt.Errorf("a file that %s includes trusts another key named %q", path, name), []string{"remove the key there"}}
		}
	}
	conf.AddWord("trusted-public-keys", key)
	return nil
}

// checkPlaces refuses to write into the Nix store, where links of Home Manager and NixOS
// lead: what is there belongs to Nix and never changes.
func (e *nixEdit) checkPlaces(env config.Env) error {
	for _, f := range []struct {
		path    string
		changes bool
	}{{e.confPath, e.newConf != e.conf}, {e.netrcPath, e.newNetrc != e.netrc || e.open}} {
		if target, inside := config.InNixStore(env, f.path); f.changes && inside {
			return &hintedError{fmt.Errorf("%s leads to %s in the Nix store, which is not edited", f.path, target), []string{
				"the file is made by something like NixOS or Home Manager: add there what \"celler use --print\" prints",
			}}
		}
	}
	return nil
}

func (e *nixEdit) write() error {
	// The token first: a nix.conf that points to a netrc without it would give errors.
	if e.newNetrc != e.netrc || e.open {
		if err := config.WriteFile(e.netrcPath, []byte(e.newNetrc), 0o600); err != nil {
			return err
		}
	}
	if e.newConf != e.conf {
		return config.WriteFile(e.confPath, []byte(e.newConf), 0o644)
	}
	return nil
}

// show prints the lines that would come and go. The token is not among them.
func (e *nixEdit) show(a *app) {
	for _, line := range config.DiffLines(e.conf, e.newConf) {
		a.ui.Data("%s: %s", e.confPath, line)
	}
	if e.newNetrc != e.netrc {
		a.ui.Data("%s: the token for the server's host would be set", e.netrcPath)
	}
	if e.open {
		a.ui.Data("%s: would no longer be readable by others", e.netrcPath)
	}
	if e.newConf == e.conf && e.newNetrc == e.netrc && !e.open {
		a.ui.Note("celler: nothing would change")
	}
}

func (c *useCmd) tell(a *app, cache client.Cache, e *nixEdit) {
	switch {
	case e.newConf == e.conf && e.newNetrc == e.netrc:
		a.ui.Note("celler: %s uses %s already", e.confPath, cache.Endpoint)
	case e.newNetrc != e.netrc:
		a.ui.Note("celler: %s now uses %s, with the token in %s", e.confPath, cache.Endpoint, e.netrcPath)
	default:
		a.ui.Note("celler: %s now uses %s", e.confPath, cache.Endpoint)
	}
	if e.replaced {
		a.ui.Warn("%s had another password for %s, which is replaced: netrc knows hosts, not ports, so two servers on one host share a token", e.netrcPath, hostOf(cache.Endpoint))
	}
	if e.open {
		a.ui.Note("celler: note: %s could be read by others, and no longer can: it holds a token", e.netrcPath)
	}
	if e.negativeTTL != "0" {
		a.ui.Note("celler: note: Nix remembers for an hour that a path was not there; after a push add \"--narinfo-cache-negative-ttl 0\" to look again at once")
	}
	if _, err := os.Stat("/nix/var/nix/daemon-socket/socket"); err == nil && !c.System && os.Getuid() != 0 {
		a.ui.Note("celler: note: a Nix daemon runs here; it heeds your nix.conf only if you are in its trusted-users, else use --system as root")
	}
}

func readIfThere(path string) (string, error) {
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(body), err
}

// hostOf is what netrc calls the server: its name without the port.
func hostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func quote(s string) string { return fmt.Sprintf("%q", s) }
