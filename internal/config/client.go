package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/pelletier/go-toml/v2"
)

// Client is the servers a person has logged in to. Its file has Attic's format.
type Client struct {
	DefaultServer string            `toml:"default-server,omitempty"`
	Servers       map[string]Server `toml:"servers,omitempty"`
}

// Server is one entry of the client's configuration.
type Server struct {
	Endpoint  string `toml:"endpoint"`
	Token     string `toml:"token,omitempty"`
	TokenFile string `toml:"token-file,omitempty"`
}

// Remote is where a command is to go: a server, and perhaps one of its caches.
type Remote struct {
	Name     string // what the person calls the server; "" when it was named by URL
	Endpoint string // with a slash at its end
	Token    string // "" for none
	Cache    string // "" when the reference named a server only
	Ref      string // how the person wrote server and cache; "" likewise
}

// LoginError reports a reference to a server nobody has logged in to.
type LoginError struct {
	Server string   // the name that was asked for; "" when there is no default
	Known  []string // the names there are, sorted
}

func (e *LoginError) Error() string {
	if e.Server == "" {
		return "no server is configured"
	}
	return fmt.Sprintf("server %q is not configured", e.Server)
}

// ClientFile returns the path of celler's client configuration.
func ClientFile(env Env) string { return filepath.Join(env.configHome(), "celler", "config.toml") }

// LoadClient reads the client's configuration: celler's own file, and beneath it
// Attic's, so that a machine logged in with Attic is logged in with celler.
func LoadClient(env Env) (*Client, error) {
	c := &Client{Servers: map[string]Server{}}
	for _, app := range []string{"attic", "celler"} {
		path := filepath.Join(env.configHome(), app, "config.toml")
		var one Client
		body, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read client configuration: %w", err)
		}
		if err := toml.Unmarshal(body, &one); err != nil {
			return nil, newFileError(path, err)
		}
		if one.DefaultServer != "" {
			c.DefaultServer = one.DefaultServer
		}
		maps.Copy(c.Servers, one.Servers)
	}
	return c, nil
}

// Resolve finds what ref names: "cache" on the default server, "server:cache", or a
// cache's URL. The token is the server's own, unless the environment brings one.
func (c *Client) Resolve(env Env, ref string) (Remote, error) {
	if strings.Contains(ref, "://") {
		return resolveURL(env, c, ref)
	}
	server, cache, named := strings.Cut(ref, ":")
	if !named {
		server, cache = "", ref
	}
	if !isCacheName(cache) {
		return Remote{}, badReference(ref)
	}
	r, err := c.ResolveServer(env, server)
	r.Cache, r.Ref = cache, ref
	return r, err
}

// ResolveServer finds a server by name; "" is the default one. A lone server is the
// default whether it is marked or not.
func (c *Client) ResolveServer(env Env, name string) (Remote, error) {
	known := c.names()
	if name == "" {
		name = c.DefaultServer
	}
	if name == "" && len(known) == 1 {
		name = known[0]
	}
	if strings.Contains(name, "://") {
		return newRemote(env, "", Server{Endpoint: name})
	}
	s, ok := c.Servers[name]
	if !ok {
		return Remote{}, &LoginError{Server: name, Known: known}
	}
	return newRemote(env, name, s)
}

func (c *Client) names() []string {
	var names []string
	for name := range c.Servers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// resolveURL takes the last segment of a URL for the cache and the rest for the
// endpoint, and uses the token of the server logged in to under that endpoint.
func resolveURL(env Env, c *Client, ref string) (Remote, error) {
	u, err := url.Parse(ref)
	if err != nil {
		return Remote{}, badReference(ref)
	}
	path := strings.TrimRight(u.Path, "/")
	i := strings.LastIndexByte(path, '/')
	if i < 0 || !isCacheName(path[i+1:]) {
		return Remote{}, badReference(ref)
	}
	u.Path, u.RawPath = path[:i+1], ""
	s := Server{Endpoint: u.String()}
	for _, name := range c.names() {
		if known := c.Servers[name]; strings.TrimRight(known.Endpoint, "/") == strings.TrimRight(s.Endpoint, "/") {
			s = known
			break
		}
	}
	r, err := newRemote(env, "", s)
	r.Cache, r.Ref = path[i+1:], ref
	return r, err
}

func badReference(ref string) error {
	return &ValueError{"cache reference", ref, "NAME, SERVER:NAME or https://HOST/NAME, NAME being at most 50 letters, digits, and after the first - _ +"}
}

// isCacheName keeps anything else out of the URLs of requests.
func isCacheName(s string) bool {
	for i, c := range []byte(s) {
		alphanumeric := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !alphanumeric && (i == 0 || c != '-' && c != '_' && c != '+') {
			return false
		}
	}
	return s != "" && len(s) <= 50
}

func newRemote(env Env, name string, s Server) (Remote, error) {
	r := Remote{Name: name, Endpoint: strings.TrimRight(s.Endpoint, "/") + "/"}
	u, err := url.Parse(r.Endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return Remote{}, &ValueError{"endpoint of server " + strconv.Quote(name), s.Endpoint, "http://HOST/ or https://HOST/"}
	}
	if r.Token, err = findToken(env, name, s); err != nil {
		return r, err
	}
	if strings.ContainsFunc(r.Token, unicode.IsControl) {
		return r, ErrTokenControl
	}
	return r, nil
}

// ErrTokenControl reports a token that no request can carry.
var ErrTokenControl = errors.New("the token that is configured holds a line break or another control character")

// findToken returns the token of the environment, or else the server's.
func findToken(env Env, name string, s Server) (string, error) {
	if token, err := env.Token(); err != nil || token != "" {
		return token, err
	}
	if s.TokenFile == "" {
		return strings.TrimSpace(s.Token), nil
	}
	body, err := os.ReadFile(s.TokenFile)
	if err != nil {
		return "", fmt.Errorf("read token of server %q: %w", name, err)
	}
	return string(bytes.TrimSpace(body)), nil
}

// SaveServer writes one server into celler's own file, and makes it the default if
// it is the first or asked to be. The file is replaced in one step, readable by its
// owner only.
func SaveServer(env Env, name string, s Server, makeDefault bool) error {
	path := ClientFile(env)
	var c Client
	body, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read client configuration: %w", err)
	default:
		if err := toml.Unmarshal(body, &c); err != nil {
			return newFileError(path, err)
		}
	}
	if c.Servers == nil {
		c.Servers = map[string]Server{}
	}
	c.Servers[name] = s
	if makeDefault || c.DefaultServer == "" {
		c.DefaultServer = name
	}
	body, err = toml.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode client configuration: %w", err)
	}
	return WriteFile(path, body, 0o600)
}
