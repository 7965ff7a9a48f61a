package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Env is the environment of the process. OS returns the real one; a test makes its own.
type Env struct {
	lookup func(string) (string, bool)
}

// OS returns the environment this process was started with. Variables of celler's that
// are empty count as not set, and are taken away, so that the flag parser, which looks
// for itself, sees it so too: what makes environments (units, compose files) often
// cannot leave a variable out.
func OS() Env {
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if value == "" && (strings.HasPrefix(name, "CELLER_") || strings.HasPrefix(name, "ATTIC_")) {
			_ = os.Unsetenv(name) // fails for impossible names only
		}
	}
	return Env{lookup: os.LookupEnv}
}

// NewEnv returns an environment of the given variables.
func NewEnv(vars map[string]string) Env {
	return Env{lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }}
}

// Get returns a variable, "" if it is not set.
func (e Env) Get(name string) string {
	if e.lookup == nil {
		return ""
	}
	v, _ := e.lookup(name)
	return v
}

// first returns the first of the variables that is set and not empty, and its name.
func (e Env) first(names ...string) (value, name string) {
	for _, name := range names {
		if v := e.Get(name); v != "" {
			return v, name
		}
	}
	return "", ""
}

// Secret finds a secret: in the variable, in the file that the variable with _FILE
// at its end names, or in the systemd credential. None of them gives "".
func (e Env) Secret(what, variable, credential string) (string, error) {
	if v := strings.TrimSpace(e.Get(variable)); v != "" {
		return v, nil
	}
	path := e.Get(variable + "_FILE")
	if path == "" {
		dir := e.Get("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", nil
		}
		path = filepath.Join(dir, credential)
		if _, err := os.Stat(path); err != nil {
			return "", nil //nolint:nilerr // a credential that was not passed is no error
		}
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", what, err)
	}
	return string(bytes.TrimSpace(body)), nil
}

func (e Env) home() string { return e.Get("HOME") }

func (e Env) configHome() string { return e.xdg("XDG_CONFIG_HOME", ".config") }
func (e Env) dataHome() string   { return e.xdg("XDG_DATA_HOME", ".local", "share") }
func (e Env) cacheHome() string  { return e.xdg("XDG_CACHE_HOME", ".cache") }

func (e Env) xdg(variable string, fallback ...string) string {
	if dir := e.Get(variable); filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(append([]string{e.home()}, fallback...)...)
}

// Token is the client's token as far as the environment brings one.
func (e Env) Token() (string, error) { return e.Secret("token", "CELLER_TOKEN", "celler-token") }
